//! What facts come to, and what waiting makes of answers that change.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use serde_json::{Value, json};
use sluice_crds::resources::{EndpointState, KernelFeature, SluiceNode};

use super::*;
use crate::{
    agent::{AgentStatus, Connection, Feature, MapUse},
    facts::{Facts, Leadership, Rollout},
    objects::node_row,
    policy::{Kind, PolicyState, Progress},
};

const NOW: &str = "2026-03-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn agent(revision: &str) -> AgentStatus {
    AgentStatus {
        release: "0.1.0".to_owned(),
        operator: Connection {
            connected: true,
            ..Connection::default()
        },
        revision: Some(revision.to_owned()),
        endpoints: 4,
        ready: 4,
        maps: vec![
            MapUse {
                name: "addresses".to_owned(),
                used: 10,
                size: 1000,
            },
            MapUse {
                name: "connections".to_owned(),
                used: 300,
                size: 1000,
            },
        ],
        ..AgentStatus::default()
    }
}

fn record(name: &str, ready: bool, revision: &str) -> Value {
    json!({
        "apiVersion": "sluice.io/v1", "kind": "SluiceNode", "metadata": {"name": name},
        "spec": {"number": 1, "podCIDRs": ["10.0.0.0/24", "fd00::/64"]},
        "status": {"revision": revision, "release": "0.1.0", "routingMode": "direct", "endpoints": 4, "ready": 4,
            "features": [{"name": "tcx", "state": "present"}],
            "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"}, "reason": "AgentNotConnected",
                "message": "the agent is not connected", "lastTransitionTime": NOW}]},
    })
}

/// Two nodes, all well.
fn well() -> Facts {
    let rollout = |desired| {
        Some(Rollout {
            desired,
            ready: desired,
            updated: desired,
            current: true,
        })
    };
    let rows = ["n1", "n2"].map(|name| {
        let node: SluiceNode = serde_json::from_value(record(name, true, "7.41")).unwrap();
        (name.to_owned(), node_row(node))
    });
    Facts {
        namespace: "kube-system".to_owned(),
        operator: rollout(2),
        lease: Some(Leadership {
            holder: Some("sluice-operator-5f-abc_18f@[fd00::1]:4245".to_owned()),
            renewed: Some(now() - SignedDuration::from_secs(2)),
            seconds: 15,
        }),
        agents: rollout(2),
        nodes: vec!["n2".to_owned(), "n1".to_owned()],
        records: BTreeMap::from(rows),
        answers: Some(BTreeMap::from(
            ["n1", "n2"].map(|name| (name.to_owned(), Ok(agent("7.42")))),
        )),
        endpoints: BTreeMap::from([("ready", 8)]),
        unready: Vec::new(),
        policies: vec![policy(Progress::Enforced(
            "enforced on 2 of 2 nodes".to_owned(),
        ))],
        invalid_groups: Vec::new(),
        at: now(),
    }
}

fn policy(progress: Progress) -> PolicyState {
    PolicyState {
        kind: Kind::SluiceNetworkPolicy,
        namespace: Some("shop".to_owned()),
        name: "web".to_owned(),
        progress,
    }
}

fn problems(facts: &Facts) -> Vec<String> {
    let report = judge(facts);
    let problems: Vec<String> = report
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Problem)
        .map(|finding| format!("{}: {}", finding.subject, finding.text))
        .collect();
    assert_eq!(report.green, problems.is_empty());
    problems
}

/// The one problem that a change of well facts makes.
fn problem(change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = well();
    change(&mut facts);
    let mut found = problems(&facts);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn answer(facts: &mut Facts, node: &str) -> AgentStatus {
    facts
        .answers
        .as_mut()
        .unwrap()
        .remove(node)
        .unwrap()
        .unwrap()
}

fn put(facts: &mut Facts, node: &str, agent: AgentStatus) {
    facts
        .answers
        .as_mut()
        .unwrap()
        .insert(node.to_owned(), Ok(agent));
}

#[test]
fn all_well_is_green() {
    let report = judge(&well());
    assert!(report.green, "{:#?}", report.findings);
    assert_eq!(
        report.operator.leader.as_deref(),
        Some("sluice-operator-5f-abc")
    );
    assert_eq!(report.operator.address.as_deref(), Some("[fd00::1]:4245"));
    assert_eq!(report.revision.as_deref(), Some("7.42"));
    assert_eq!(report.nodes[0].name, "n1");
    // The agent's own word is newer than the operator's.
    assert_eq!(report.nodes[0].behind, Some(0));
    assert_eq!(
        report.nodes[0].fullest_map,
        Some(("connections".to_owned(), 30))
    );
    assert_eq!(report.findings, []);
}

#[test]
fn whoever_does_not_ask_agents_gets_what_the_operator_knows() {
    let mut facts = well();
    facts.answers = None;
    let report = judge(&facts);
    assert!(report.green, "{:#?}", report.findings);
    assert_eq!(report.nodes[1].fullest_map, None);
    assert_eq!(report.nodes[1].endpoints, 4);
}

#[test]
fn pods_that_are_not_ready_are_counted() {
    let text = problem(|facts| facts.operator.as_mut().unwrap().ready = 1);
    assert_eq!(text, "operator: 1 of 2 pods are ready");
    let text = problem(|facts| facts.agents = None);
    assert_eq!(
        text,
        "agents: there is no DaemonSet sluice-agent in the namespace"
    );
    let text = problem(|facts| facts.agents.as_mut().unwrap().current = false);
    assert!(text.contains("has not been taken up"), "{text}");
    problem(|facts| {
        *facts.agents.as_mut().unwrap() = Rollout {
            current: true,
            ..Rollout::default()
        };
    });
}

#[test]
fn nobody_leads_where_the_lease_ran_out() {
    let text = problem(|facts| {
        facts.lease.as_mut().unwrap().renewed = Some(now() - SignedDuration::from_mins(1));
    });
    assert_eq!(
        text,
        "operator: sluice-operator-5f-abc leads by the Lease, and has not renewed it for 60 s"
    );
    // A clock that is some seconds off makes no dead leader.
    let mut facts = well();
    facts.lease.as_mut().unwrap().renewed = Some(now() - SignedDuration::from_secs(40));
    assert_eq!(problems(&facts), [""; 0]);
    problem(|facts| facts.lease.as_mut().unwrap().holder = None);
    problem(|facts| facts.lease = None);
}

#[test]
fn a_node_without_an_agent_is_found() {
    let mut facts = well();
    facts.nodes.push("n3".to_owned());
    assert_eq!(
        problems(&facts),
        [
            "node n3: no pod of an agent runs on it",
            "node n3: the operator knows nothing of it: there is no SluiceNode"
        ]
    );
}

#[test]
fn an_agent_without_operator_is_a_problem_and_its_reason_is_told() {
    let text = problem(|facts| {
        let mut lonely = answer(facts, "n2");
        lonely.operator = Connection {
            connected: false,
            address: None,
            why: Some("refused".to_owned()),
        };
        put(facts, "n2", lonely);
    });
    assert_eq!(text, "node n2: its agent has no operator: refused");
    let text = problem(|facts| {
        let node: SluiceNode = serde_json::from_value(record("n2", false, "7.42")).unwrap();
        facts.records.insert("n2".to_owned(), node_row(node));
    });
    assert_eq!(
        text,
        "node n2: AgentNotConnected: the agent is not connected"
    );
}

#[test]
fn revisions_behind_are_counted_and_many_are_a_problem() {
    let behind = |revision: &str| {
        let mut facts = well();
        put(&mut facts, "n2", agent(revision));
        facts
    };
    let few = judge(&behind("7.40"));
    assert!(few.green);
    assert_eq!(few.nodes[1].behind, Some(2));
    assert_eq!(few.findings[0].text, "it is 2 revisions behind");
    let mut far = behind("7.1");
    put(&mut far, "n1", agent("7.1000"));
    assert_eq!(problems(&far), ["node n2: it is 999 revisions behind"]);
    assert_eq!(
        problems(&behind("6.90")),
        ["node n2: it follows the leader of epoch 6, and 7 leads"]
    );
}

#[test]
fn endpoints_that_wait_for_long_are_stuck() {
    let waiting = |seconds| {
        let mut facts = well();
        facts.endpoints.insert("waiting", 1);
        let since = Some(now() - SignedDuration::from_secs(seconds));
        facts
            .unready
            .push(("shop/web".to_owned(), EndpointState::Waiting, since));
        facts
    };
    assert_eq!(problems(&waiting(10)), [""; 0]);
    assert_eq!(
        problems(&waiting(61)),
        ["endpoints: without an interface for more than 60 s: shop/web"]
    );
    assert_eq!(judge(&waiting(61)).endpoints.total, 9);
    let text = problem(|facts| {
        let mut slow = answer(facts, "n1");
        slow.ready = 3;
        put(facts, "n1", slow);
    });
    assert_eq!(text, "node n1: 3 of 4 endpoints are ready");
}

#[test]
fn full_maps_missing_features_and_troubles_are_told() {
    let text = problem(|facts| {
        let mut full = answer(facts, "n1");
        full.maps[1].used = 900;
        put(facts, "n1", full);
    });
    assert_eq!(text, "node n1: map connections holds 900 of 1000 entries");
    let mut nearly = well();
    let mut agent = answer(&mut nearly, "n1");
    agent.maps[1].used = 800;
    agent.troubles.clear();
    put(&mut nearly, "n1", agent);
    let report = judge(&nearly);
    assert!(report.green);
    assert_eq!(report.findings[0].level, Level::Notice);
    let text = problem(|facts| {
        let mut old = answer(facts, "n1");
        old.features.push(Feature {
            name: "tcx".to_owned(),
            required: true,
            text: "tcx: absent".to_owned(),
            ..Feature::default()
        });
        put(facts, "n1", old);
    });
    assert_eq!(text, "node n1: kernel: tcx: absent");
    let text = problem(|facts| {
        let mut ill = answer(facts, "n1");
        ill.troubles
            .insert("routes".to_owned(), vec!["no way".to_owned()]);
        put(facts, "n1", ill);
    });
    assert_eq!(text, "node n1: routes: no way");
    let mut lacking = well();
    let features = &mut lacking.records.get_mut("n1").unwrap().features;
    features.push(KernelFeature {
        name: "geneve".to_owned(),
        state: "absent: vxlan instead".to_owned(),
    });
    let report = judge(&lacking);
    assert!(report.green);
    assert_eq!(report.nodes[0].missing_features, ["geneve"]);
}

#[test]
fn who_may_not_ask_agents_is_told_once_and_not_alarmed() {
    let mut facts = well();
    for answer in facts.answers.as_mut().unwrap().values_mut() {
        *answer = Err("running /sluice-agent in pod x: forbidden: this needs the verbs `get` and `create` on `pods/exec`".to_owned());
    }
    let report = judge(&facts);
    assert!(report.green, "{:#?}", report.findings);
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].subject, "agents");
    let text = problem(|facts| {
        facts
            .answers
            .as_mut()
            .unwrap()
            .insert("n1".to_owned(), Err("no answer within 10 s".to_owned()));
    });
    assert_eq!(
        text,
        "node n1: its agent can't be asked: no answer within 10 s"
    );
}

#[test]
fn policies_that_are_invalid_or_on_their_way_are_named() {
    let text = problem(|facts| {
        facts.policies[0].progress = Progress::Invalid("spec.x: unknown".to_owned());
    });
    assert_eq!(
        text,
        "SluiceNetworkPolicy shop/web: is not valid: spec.x: unknown"
    );
    let text = problem(|facts| {
        facts.policies[0].progress = Progress::Pending("enforced on 1 of 2 nodes".to_owned());
    });
    assert_eq!(
        text,
        "SluiceNetworkPolicy shop/web: enforced on 1 of 2 nodes"
    );
    let mut many = well();
    many.policies = vec![policy(Progress::Unseen); 20];
    for (index, policy) in many.policies.iter_mut().enumerate() {
        policy.name = format!("p{index:02}");
    }
    let report = judge(&many);
    assert_eq!(report.policies.pending, 20);
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.text == "15 more are not enforced everywhere yet")
    );
}

#[test]
fn a_group_that_is_not_valid_is_a_problem() {
    let text = problem(|facts| {
        facts
            .invalid_groups
            .push(("office".to_owned(), "spec: no prefix".to_owned()));
    });
    assert_eq!(
        text,
        "SluiceCIDRGroup office: is not valid: spec: no prefix"
    );
}

#[test]
fn a_trouble_that_agent_and_operator_tell_of_is_told_once() {
    let trouble = |facts: &mut Facts| {
        let mut object = record("n1", true, "7.42");
        object["status"]["conditions"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "RoutesReady", "status": "False",
            "reason": "Failed", "message": "no way", "lastTransitionTime": NOW}));
        let node: SluiceNode = serde_json::from_value(object).unwrap();
        facts.records.insert("n1".to_owned(), node_row(node));
    };
    let text = problem(|facts| {
        trouble(facts);
        let mut ill = answer(facts, "n1");
        ill.troubles
            .insert("routes".to_owned(), vec!["no way".to_owned()]);
        put(facts, "n1", ill);
    });
    assert_eq!(text, "node n1: routes: no way");
    let text = problem(|facts| {
        trouble(facts);
        facts.answers = None;
    });
    assert_eq!(text, "node n1: Failed: no way");
}

/// An API server whose Deployment becomes ready with the third look.
fn becoming() -> (Client, Arc<AtomicUsize>) {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let service = tower::service_fn(move |request: Request<Body>| {
        let looks = Arc::clone(&counted);
        async move {
            let path = request.uri().path().to_owned();
            let list = |items: Value| json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
            let rollout = |ready: usize| {
                json!({"metadata": {"name": "x", "generation": 1}, "spec": {"replicas": 2, "selector": {}, "template": {}},
                    "status": {"observedGeneration": 1, "readyReplicas": ready, "updatedReplicas": 2}})
            };
            let (code, body) = match path.rsplit('/').next().unwrap_or_default() {
                "daemonsets" => (
                    200,
                    list(json!([{"metadata": {"name": "sluice-agent", "namespace": "net"}}])),
                ),
                "sluice-operator" if path.contains("deployments") => {
                    (200, rollout(looks.fetch_add(1, Ordering::SeqCst).min(2)))
                }
                "sluice-operator" => (
                    200,
                    json!({"metadata": {"name": "sluice-operator"}, "spec": {"holderIdentity": "op-1_1@[::1]:4245"}}),
                ),
                "sluice-agent" => (
                    200,
                    json!({"metadata": {"name": "sluice-agent", "generation": 1}, "spec": {"selector": {}, "template": {}},
                        "status": {"currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberMisscheduled": 0,
                            "numberReady": 1, "observedGeneration": 1, "updatedNumberScheduled": 1}}),
                ),
                "nodes" => (200, list(json!([{"metadata": {"name": "n1"}}]))),
                "sluicenodes" => (200, list(json!([record("n1", true, "3.1")]))),
                "sluiceendpoints"
                | "sluicenetworkpolicies"
                | "sluiceclusterwidenetworkpolicies" => (200, list(json!([]))),
                _ => (
                    404,
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": path}),
                ),
            };
            Ok::<_, std::convert::Infallible>(
                Response::builder()
                    .status(code)
                    .body(Body::from(body.to_string().into_bytes()))
                    .unwrap(),
            )
        }
    });
    (Client::new(service, "default"), looks)
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_all_is_green() {
    let (client, looks) = becoming();
    let mut told = Vec::new();
    let report = wait(&client, None, false, Duration::from_mins(1), &mut |seen| {
        told.push(seen.as_ref().unwrap().operator.replicas.ready);
    })
    .await
    .unwrap();
    assert!(report.green, "{:#?}", report.findings);
    assert_eq!(report.namespace, "net");
    assert_eq!(told, [0, 1, 2]);
    assert_eq!(looks.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn waiting_that_ends_in_time_gives_the_last_report() {
    let (client, _) = becoming();
    let report = wait(
        &client,
        Some("net"),
        false,
        Duration::from_secs(3),
        &mut |_| {},
    )
    .await
    .unwrap();
    assert!(!report.green);
    assert_eq!(report.findings[0].text, "1 of 2 pods are ready");
}
