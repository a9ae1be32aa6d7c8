//! The core without an API server: what happens goes in, what is published and written comes out.

use std::{collections::BTreeMap, time::Duration};

use crate::scene::{
    Scene, condition, node, outcome_of, pod, policy, policy_object, service, slice,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_operator::core::{Change, Input, Kind, Write, convert};
use sluice_stream::{Report, Revision};
use sluice_world::{NodeName, PodRef};

fn pod_ref(name: &str) -> PodRef {
    PodRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn up(name: &str, addresses: &[&str]) -> Report {
    Report::EndpointUp {
        pod: pod_ref(name),
        uid: format!("uid-{name}"),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        container: "c".to_owned(),
    }
}

fn down(name: &str) -> Report {
    Report::EndpointDown {
        pod: pod_ref(name),
        uid: format!("uid-{name}"),
    }
}

fn names(writes: &[Write], kind: &str) -> Vec<String> {
    let of_kind = writes.iter().filter(|write| write.object.kind == kind);
    of_kind.map(|write| write.object.name.clone()).collect()
}

#[test]
fn nothing_is_published_before_every_list_is_complete() {
    let mut scene = Scene::listing([Kind::Pod, Kind::Node]);
    scene.lead();
    scene.node("n1");
    scene.cluster.apply(Input::Listed(Kind::Pod));
    assert!(scene.cluster.commit(scene.now).batch.is_none());
    scene.cluster.apply(Input::Listed(Kind::Node));
    assert!(scene.cluster.commit(scene.now).batch.is_some());
}

#[test]
fn a_follower_publishes_and_writes_nothing() {
    let mut scene = Scene::new();
    scene.node("n1");
    scene.pod("a", "n1", &[("app", "a")]);
    let step = scene.cluster.commit(scene.now);
    assert!(step.batch.is_none() && step.first.is_empty());
    assert!(scene.writes().0.is_empty());
}

#[test]
fn a_node_gets_a_number_and_prefixes_before_anyone_is_told() {
    let mut scene = Scene::leader();
    scene.node("n1");
    let step = scene.commit();
    let [write] = &step.first[..] else {
        panic!("{:?}", step.first)
    };
    let Change::Apply(value) = &write.change else {
        panic!("{write:?}")
    };
    assert_eq!(value["spec"]["number"], 1);
    assert_eq!(
        value["spec"]["podCIDRs"],
        json!(["10.244.0.0/24", "fd00:10:244::/64"])
    );
    let batch = step.batch.unwrap();
    let [(name, Some(info))] = &batch.nodes[..] else {
        panic!("{:?}", batch.nodes)
    };
    assert_eq!((name.0.as_str(), info.number), ("n1", 1));
    assert_eq!(info.pod_cidrs.len(), 2);
    assert_eq!(info.addresses.len(), 2);
    assert!(batch.settings.is_some());
}

#[test]
fn a_new_leader_keeps_numbers_and_prefixes() {
    let mut scene = Scene::new();
    scene.record("n2", 7, &["10.244.9.0/24", "fd00:10:244:9::/64"]);
    scene.node("n1");
    scene.node("n2");
    scene.lead();
    let step = scene.commit();
    let nodes: BTreeMap<_, _> = step.batch.unwrap().nodes.into_iter().collect();
    let old = nodes[&NodeName("n2".into())].as_ref().unwrap();
    assert_eq!(old.number, 7);
    assert_eq!(old.pod_cidrs[0].to_string(), "10.244.9.0/24");
    let new = nodes[&NodeName("n1".into())].as_ref().unwrap();
    assert_eq!(new.number, 8, "a number beyond all that are stored");
    assert_eq!(
        names(&step.first, "SluiceNode"),
        ["n1"],
        "the stored one is not written again"
    );
}

#[test]
fn a_node_that_goes_takes_its_record_along_and_gives_its_prefixes_back() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.commit();
    scene.record("n1", 1, &["10.244.0.0/24", "fd00:10:244::/64"]);
    scene
        .cluster
        .apply(Input::Node(NodeName("n1".into()), None));
    let step = scene.commit();
    assert_eq!(step.batch.unwrap().nodes, [(NodeName("n1".into()), None)]);
    assert_eq!(step.first[0].change, Change::Delete);
}

#[test]
fn prefixes_can_come_from_the_nodes_themselves() {
    let mut scene = Scene::with(|config| {
        config.node_cidrs = true;
        config.pools = sluice_operator::core::Pools::default();
    });
    scene.lead();
    let mut object = node("n1");
    scene.apply_node(&object);
    assert!(
        scene.commit().batch.unwrap().nodes[0]
            .1
            .as_ref()
            .unwrap()
            .pod_cidrs
            .is_empty()
    );
    object["spec"] = json!({ "podCIDRs": ["10.1.0.0/24", "fd01::/64"] });
    scene.apply_node(&object);
    let batch = scene.commit().batch.unwrap();
    let cidrs = &batch.nodes[0].1.as_ref().unwrap().pod_cidrs;
    assert_eq!(
        cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.1.0.0/24", "fd01::/64"]
    );
    assert_eq!(batch.settings.unwrap().cluster_cidrs, *cidrs);
}

#[test]
fn an_identity_is_stored_before_it_is_used() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.pod("a", "n1", &[("app", "a")]);
    scene.put(&policy("p", "a"));
    let step = scene.commit();
    let batch = step.batch.unwrap();
    let (_, endpoint) = &batch.delta.endpoints[0];
    let number = endpoint.unwrap().identity.0;
    let created = step
        .first
        .iter()
        .find(|write| write.object.name == number.to_string());
    let Change::Create(value) = &created.unwrap().change else {
        panic!("{created:?}")
    };
    assert_eq!(value["spec"]["number"], number);
    assert_eq!(value["spec"]["namespace"], "default");
    assert_eq!(value["spec"]["labels"]["k8s:app"], "a");
}

#[test]
fn a_new_leader_gives_the_same_numbers() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.pod("a", "n1", &[("app", "a")]);
    scene.pod("b", "n1", &[("app", "b")]);
    scene.put(&policy("p", "a"));
    scene.put(&policy("q", "b"));
    let first = scene.commit();
    let before: BTreeMap<_, _> = first.batch.unwrap().delta.endpoints.into_iter().collect();

    let mut next = Scene::new();
    // Another order: b's number would be a's.
    next.node("n1");
    next.pod("b", "n1", &[("app", "b")]);
    next.put(&policy("q", "b"));
    for write in &first.first {
        next.store(write);
    }
    next.lead();
    let step = next.commit();
    assert!(
        names(&step.first, "Identity").is_empty(),
        "all are stored: {:?}",
        step.first
    );
    next.pod("a", "n1", &[("app", "a")]);
    next.put(&policy("p", "a"));
    let second = next.commit();
    assert!(names(&second.first, "Identity").is_empty());
    let mut after: BTreeMap<_, _> = step.batch.unwrap().delta.endpoints.into_iter().collect();
    after.extend(second.batch.unwrap().delta.endpoints);
    for (id, endpoint) in &before {
        assert_eq!(
            after[id].unwrap().identity,
            endpoint.unwrap().identity,
            "{id}"
        );
    }
}

#[test]
fn an_identity_that_nobody_has_is_deleted_after_the_grace_but_never_the_greatest() {
    let mut scene = Scene::leader();
    scene.node("n1");
    for name in ["a", "b"] {
        scene.pod(name, "n1", &[("app", name)]);
        scene.put(&policy(name, name));
    }
    let step = scene.commit();
    let mut numbers: Vec<u32> = names(&step.first, "Identity")
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    for write in &step.first {
        scene.store(write);
    }
    for name in ["a", "b"] {
        scene.cluster.apply(Input::Pod(pod_ref(name), None));
    }
    scene.commit();
    let deleted = |scene: &mut Scene| {
        let writes = scene.slow_writes();
        let gone = writes.iter().filter(|write| write.change == Change::Delete);
        gone.map(|write| write.object.name.clone())
            .collect::<Vec<_>>()
    };
    assert!(deleted(&mut scene).is_empty(), "grace");
    scene.now += SignedDuration::from_mins(11);
    let gone = deleted(&mut scene);
    let greatest = numbers.pop().unwrap().to_string();
    assert!(
        !gone.is_empty() && !gone.contains(&greatest),
        "{gone:?}, {greatest}"
    );
}

#[test]
fn an_identity_counts_its_endpoints() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.put(&policy("p", "a"));
    for name in ["x", "y"] {
        scene.pod(name, "n1", &[("app", "a")]);
    }
    let step = scene.commit();
    for write in &step.first {
        scene.store(write);
    }
    let told = |scene: &mut Scene| {
        let writes = scene.slow_writes();
        let status = writes
            .iter()
            .find(|write| write.object.kind == "Identity")?;
        let Change::ApplyStatus(value) = &status.change else {
            return None;
        };
        value["status"]["endpoints"].as_i64()
    };
    assert_eq!(told(&mut scene), Some(2));
    assert_eq!(told(&mut scene), None, "nothing new");
    scene.cluster.apply(Input::Pod(pod_ref("x"), None));
    scene.commit();
    assert_eq!(told(&mut scene), Some(1));
}

#[test]
fn addresses_are_those_the_agent_reports() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.node("n2");
    scene.pod("a", "n1", &[("app", "a")]);
    scene.commit();
    let cases: [(&str, Report, &[&str]); 6] = [
        ("n2", up("a", &["10.244.1.5"]), &[]),
        ("n1", up("a", &["10.244.1.5"]), &[]),
        (
            "n1",
            up("a", &["10.244.0.5", "fd00:10:244::5"]),
            &["10.244.0.5", "fd00:10:244::5"],
        ),
        ("n1", up("a", &["10.244.0.6"]), &["10.244.0.6"]),
        ("n2", down("a"), &["10.244.0.6"]),
        ("n1", down("a"), &[]),
    ];
    for (node, report, expected) in cases {
        let described = format!("{node} {report:?}");
        scene
            .cluster
            .apply(Input::Report(NodeName(node.to_owned()), report));
        scene.commit();
        assert_eq!(scene.addresses(), expected, "{described}");
    }
}

#[test]
fn a_report_that_comes_before_its_pod_is_kept() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.commit();
    scene.cluster.apply(Input::Report(
        NodeName("n1".into()),
        up("a", &["10.244.0.5"]),
    ));
    scene.commit();
    assert!(scene.addresses().is_empty());
    scene.pod("a", "n1", &[]);
    scene.commit();
    assert_eq!(scene.addresses(), ["10.244.0.5"]);
}

#[test]
fn without_a_report_the_status_counts_until_the_address_is_anothers() {
    let mut scene = Scene::leader();
    scene.node("n1");
    let mut a = pod("a", "n1", &[("app", "a")]);
    a["status"] = json!({ "phase": "Running", "podIPs": [{ "ip": "10.244.0.9" }] });
    scene.apply_pod(&a);
    scene.commit();
    assert_eq!(scene.addresses(), ["10.244.0.9"]);
    scene.pod("b", "n1", &[("app", "b")]);
    scene.cluster.apply(Input::Report(
        NodeName("n1".into()),
        up("b", &["10.244.0.9"]),
    ));
    scene.put(&policy("p", "a"));
    scene.put(&policy("q", "b"));
    scene.commit();
    assert_eq!(scene.identity_at("10.244.0.9"), scene.identity_of("b"));
    assert_ne!(scene.identity_of("a"), scene.identity_of("b"));
}

#[test]
fn a_new_leader_knows_addresses_from_stored_endpoints() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.pod("a", "n1", &[]);
    scene.commit();
    scene.cluster.apply(Input::Report(
        NodeName("n1".into()),
        up("a", &["10.244.0.5"]),
    ));
    scene.commit();
    let (writes, _) = scene.writes();
    let stored = writes
        .iter()
        .find(|write| write.object.kind == "SluiceEndpoint")
        .unwrap();
    let Change::Apply(value) = &stored.change else {
        panic!("{stored:?}")
    };
    assert_eq!(value["spec"]["state"], "ready");
    assert_eq!(value["spec"]["addresses"], json!(["10.244.0.5"]));
    assert_eq!(value["metadata"]["ownerReferences"][0]["uid"], "uid-a");

    let mut next = Scene::new();
    next.node("n1");
    next.pod("a", "n1", &[]);
    next.store(stored);
    next.lead();
    next.commit();
    assert_eq!(next.addresses(), ["10.244.0.5"]);
}

#[test]
fn pods_that_are_no_endpoints() {
    let mut ended = pod("ended", "n1", &[("app", "a")]);
    ended["status"] = json!({ "phase": "Succeeded", "podIPs": [{ "ip": "10.244.0.3" }] });
    let mut failed = pod("failed", "n1", &[("app", "a")]);
    failed["status"] = json!({ "phase": "Failed", "podIPs": [{ "ip": "10.244.0.3" }] });
    let mut host = pod("host", "n1", &[("app", "a")]);
    host["spec"]["hostNetwork"] = json!(true);
    host["status"] = json!({ "podIPs": [{ "ip": "192.168.0.1" }] });
    let mut unscheduled = pod("unscheduled", "n1", &[("app", "a")]);
    unscheduled["spec"]
        .as_object_mut()
        .unwrap()
        .remove("nodeName");
    for object in [ended, failed, host, unscheduled] {
        let mut scene = Scene::leader();
        scene.node("n1");
        scene.put(&policy("p", "a"));
        scene.apply_pod(&object);
        let step = scene.commit();
        let name = &object["metadata"]["name"];
        let endpoints = step.batch.unwrap().delta.endpoints;
        assert!(
            endpoints.iter().all(|(_, endpoint)| endpoint.is_none()),
            "{name}: {endpoints:?}"
        );
        assert!(
            scene
                .writes()
                .0
                .iter()
                .all(|write| write.object.kind != "SluiceEndpoint"),
            "{name}"
        );
    }
}

#[test]
fn no_annotation_takes_a_pod_out_of_policy() {
    let mut scene = Scene::leader();
    scene.node("n1");
    let mut object = pod("a", "n1", &[("app", "a")]);
    object["metadata"]["annotations"] = json!({ "sluice.io/lab-external": "10.9.9.9,fd00:9::9" });
    scene.apply_pod(&object);
    scene.put(&policy("p", "a"));
    let batch = scene.commit().batch.unwrap();
    assert!(batch.delta.endpoints[0].1.is_some());
    assert!(scene.addresses().is_empty());
}

#[test]
fn a_policy_that_was_never_valid_is_not_in_force_and_says_so() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.pod("a", "n1", &[("app", "a")]);
    scene.put(&policy("good", "a"));
    let mut bad = policy("bad", "a");
    bad["spec"]["ingress"][0]["toPorts"][0]["ports"][0]["port"] = json!("70000");
    scene.put(&bad);
    scene.commit();
    assert_eq!(scene.policies_in_force(), ["good"]);
    let (writes, notices) = scene.writes();
    let valid = condition(&writes, "bad", "Valid").unwrap();
    assert_eq!(valid["status"], "False");
    let message = valid["message"].as_str().unwrap();
    assert!(
        message.contains("spec.ingress[0].toPorts[0].ports[0].port"),
        "{message}"
    );
    assert!(message.contains("nothing of it is in force"), "{message}");
    assert_eq!(notices.len(), 1);
    assert!(notices[0].warning && notices[0].name == "bad");
    assert_eq!(
        condition(&writes, "good", "Valid").unwrap()["status"],
        "True"
    );
}

#[test]
fn an_unknown_field_makes_a_policy_invalid() {
    let mut object = policy("p", "a");
    object["spec"]["ingresss"] = json!([]);
    let mut scene = Scene::leader();
    scene.put(&object);
    scene.commit();
    let (writes, _) = scene.writes();
    let message = condition(&writes, "p", "Valid").unwrap()["message"].to_string();
    assert!(message.contains("spec.ingresss"), "{message}");
}

/// The same policy for every way of storing what was valid last.
fn invalid_twin(object: &Value) -> Value {
    let mut invalid = object.clone();
    invalid["metadata"]["generation"] = json!(2);
    invalid["spec"]["endpointSelektor"] = json!({});
    invalid
}

#[test]
fn an_update_that_is_not_valid_leaves_the_last_valid_one_in_force() {
    for kind in ["SluiceNetworkPolicy", "CiliumNetworkPolicy"] {
        let mut scene = Scene::leader();
        scene.node("n1");
        scene.pod("a", "n1", &[("app", "a")]);
        let valid = policy_object(kind, "p", "a");
        scene.put(&valid);
        scene.commit();
        assert_eq!(scene.policies_in_force(), ["p"]);
        let (writes, _) = scene.writes();

        let mut invalid = invalid_twin(&valid);
        scene.put(&invalid);
        scene.commit();
        assert_eq!(scene.policies_in_force(), ["p"], "{kind}");
        let (later, notices) = scene.writes();
        assert!(
            notices[0]
                .note
                .contains("the last valid version stays in force"),
            "{kind}"
        );
        if kind == "SluiceNetworkPolicy" {
            let valid = condition(&later, "p", "Valid").unwrap();
            assert_eq!(valid["status"], "False");
            assert_eq!(valid["observedGeneration"], 2);
        }

        // All operators were down when the update came, and one starts.
        let mut next = Scene::new();
        next.node("n1");
        next.pod("a", "n1", &[("app", "a")]);
        for write in &writes {
            match &write.change {
                Change::ApplyStatus(value) if write.object.name == "p" => {
                    invalid["status"] = value["status"].clone();
                }
                Change::Apply(_) if write.object.kind == "ConfigMap" => next.store(write),
                _ => {}
            }
        }
        next.put(&invalid);
        next.lead();
        next.commit();
        assert_eq!(next.policies_in_force(), ["p"], "{kind} after a restart");

        // And is not revived once it is deleted and made anew.
        let mut again = invalid.clone();
        again["metadata"]["uid"] = json!("another");
        again.as_object_mut().unwrap().remove("status");
        next.remove(&again);
        next.put(&again);
        next.commit();
        assert!(next.policies_in_force().is_empty(), "{kind} made anew");
    }
}

#[test]
fn what_was_valid_last_may_come_after_the_policy() {
    let valid = policy_object("CiliumNetworkPolicy", "p", "a");
    let mut first = Scene::leader();
    first.put(&valid);
    first.commit();
    let (writes, _) = first.writes();
    let mut scene = Scene::leader();
    scene.put(&invalid_twin(&valid));
    scene.commit();
    assert!(scene.policies_in_force().is_empty());
    let stored = writes
        .iter()
        .find(|write| write.object.kind == "ConfigMap")
        .unwrap();
    scene.store(stored);
    scene.commit();
    assert_eq!(scene.policies_in_force(), ["p"]);
    scene.remove(&valid);
    scene.commit();
    let (writes, _) = scene.writes();
    let gone = writes
        .iter()
        .find(|write| write.object.kind == "ConfigMap")
        .unwrap();
    assert_eq!(
        (&gone.object, &gone.change),
        (&stored.object, &Change::Delete)
    );
}

#[test]
fn a_policy_is_enforced_once_every_agent_has_it() {
    let mut scene = Scene::leader();
    scene.node("n1");
    scene.node("n2");
    scene.node("fresh");
    scene.pod("a", "n1", &[("app", "a")]);
    scene.put(&policy("p", "a"));
    scene.commit();
    let revision = scene.revision;
    let before = Revision {
        number: revision.number - 1,
        ..revision
    };
    let cases = [
        ([Some(before), None], "False", "enforced on 0 of 2 nodes"),
        ([Some(revision), None], "False", "enforced on 1 of 2 nodes"),
        (
            [Some(revision), Some(revision)],
            "True",
            "enforced on 2 of 2 nodes",
        ),
    ];
    for (acked, status, message) in cases {
        let sessions = ["n1", "n2"].into_iter().zip(acked);
        scene.agents.sessions = sessions
            .map(|(name, acked)| (NodeName(name.to_owned()), acked))
            .collect();
        let (writes, _) = scene.writes();
        let enforced = condition(&writes, "p", "Enforced").unwrap();
        assert_eq!(enforced["status"], status);
        assert_eq!(enforced["message"], message);
    }
    assert!(
        condition(&scene.writes().0, "p", "Enforced").is_none(),
        "nothing new to tell"
    );

    // An agent that is gone still has its pods: it counts, with what it had.
    scene.agents.sessions.remove(&NodeName("n2".into()));
    let mut changed = policy("p", "b");
    changed["metadata"]["generation"] = json!(2);
    scene.put(&changed);
    scene.commit();
    let (writes, _) = scene.writes();
    let enforced = condition(&writes, "p", "Enforced").unwrap();
    assert_eq!(enforced["message"], "enforced on 0 of 2 nodes");
    assert_eq!(enforced["observedGeneration"], 2);
}

#[test]
fn a_new_leader_lets_statuses_stand_while_agents_follow() {
    let mut scene = Scene::leader();
    scene.node("n1");
    let mut object = policy("p", "a");
    scene.put(&object);
    scene.commit();
    scene.agents.sessions = [(NodeName("n1".into()), Some(scene.revision))].into();
    let (writes, _) = scene.writes();
    object["status"] = outcome_of(&writes, "p").unwrap()["status"].clone();

    let mut next = Scene::new();
    next.node("n1");
    next.put(&object);
    next.lead();
    next.commit();
    next.agents.sessions = [(NodeName("n1".into()), None)].into();
    assert!(
        outcome_of(&next.writes().0, "p").is_none(),
        "it is not un-enforced for a moment"
    );
    next.agents.sessions = [(NodeName("n1".into()), Some(next.revision))].into();
    assert!(
        outcome_of(&next.writes().0, "p").is_none(),
        "and nothing is written that stands there"
    );
}

#[test]
fn warnings_of_the_compiler_are_in_the_condition() {
    let mut scene = Scene::leader();
    let mut object = policy("p", "a");
    object["spec"]["ingress"] = json!([{ "authentication": { "mode": "required" } }]);
    scene.put(&object);
    scene.commit();
    let (writes, _) = scene.writes();
    let valid = condition(&writes, "p", "Valid").unwrap();
    assert_eq!(
        (&valid["status"], &valid["reason"]),
        (&json!("True"), &json!("ValidWithWarnings"))
    );
    assert!(
        valid["message"]
            .as_str()
            .unwrap()
            .contains("authentication")
    );
}

#[test]
fn agents_learn_whether_addresses_matter() {
    let mut scene = Scene::leader();
    assert!(
        !scene
            .commit()
            .batch
            .unwrap()
            .settings
            .unwrap()
            .addresses_matter
    );
    let blocks = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": "b", "namespace": "default", "uid": "u", "generation": 1 },
        "spec": { "podSelector": {}, "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }] }] },
    });
    scene.put(&blocks);
    assert!(
        scene
            .commit()
            .batch
            .unwrap()
            .settings
            .unwrap()
            .addresses_matter
    );
    scene.remove(&blocks);
    assert!(
        !scene
            .commit()
            .batch
            .unwrap()
            .settings
            .unwrap()
            .addresses_matter
    );
}

#[test]
fn a_service_is_told_by_address_and_port() {
    let mut scene = Scene::leader();
    scene.apply_service(&service("web", &["10.96.0.10", "fd00:96::10"], "80"));
    scene.apply_slice(&slice(
        "web",
        "web-4",
        "IPv4",
        8080,
        &[("10.244.0.5", "n1", "ready")],
    ));
    scene.apply_slice(&slice(
        "web",
        "web-6",
        "IPv6",
        8080,
        &[("fd00:10:244::5", "n1", "ready")],
    ));
    let services = scene.commit().batch.unwrap().services;
    let shown: Vec<String> = services
        .iter()
        .map(|(frontend, entry)| {
            let entry = entry.as_ref().unwrap();
            let backends: Vec<String> = entry
                .backends
                .iter()
                .map(|backend| format!("{} {}", backend.address, backend.port))
                .collect();
            format!(
                "{} {}: {}",
                frontend.address,
                frontend.port,
                backends.join(", ")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "10.96.0.10 80: 10.244.0.5 8080",
            "fd00:96::10 80: fd00:10:244::5 8080"
        ]
    );
}

#[test]
fn who_answers_for_a_service() {
    // What backends are, and who answers of "1" and "2".
    let cases: [(&str, &str, &[&str]); 6] = [
        ("ready", "ready", &["1", "2"]),
        ("ready", "unready", &["1"]),
        ("ready", "serving", &["1"]),
        ("serving", "unready", &["1"]),
        ("unready", "unready", &[]),
        ("serving", "serving", &["1", "2"]),
    ];
    for (first, second, expected) in cases {
        let mut scene = Scene::leader();
        scene.apply_service(&service("web", &["10.96.0.10"], "80"));
        let backends = [("10.244.0.1", "n1", first), ("10.244.0.2", "n1", second)];
        scene.apply_slice(&slice("web", "web-1", "IPv4", 80, &backends));
        let services = scene.commit().batch.unwrap().services;
        let entry = services[0].1.as_ref().unwrap();
        let answering: Vec<String> = entry
            .backends
            .iter()
            .map(|backend| {
                backend
                    .address
                    .to_string()
                    .trim_start_matches("10.244.0.")
                    .to_owned()
            })
            .collect();
        assert_eq!(answering, expected, "{first}, {second}");
    }
}

#[test]
fn what_a_service_says_of_itself() {
    let mut scene = Scene::leader();
    let mut object = service("web", &["10.96.0.10"], "80");
    object["spec"]["sessionAffinity"] = json!("ClientIP");
    object["spec"]["internalTrafficPolicy"] = json!("Local");
    object["spec"]["publishNotReadyAddresses"] = json!(true);
    scene.apply_service(&object);
    scene.apply_slice(&slice(
        "web",
        "web-1",
        "IPv4",
        80,
        &[("10.244.0.1", "n1", "unready")],
    ));
    let services = scene.commit().batch.unwrap().services;
    let entry = services[0].1.clone().unwrap();
    assert_eq!(entry.affinity_seconds, Some(10_800));
    assert!(entry.internal_local);
    assert_eq!(entry.backends.len(), 1, "not ready, and published");

    object["spec"]["clusterIPs"] = json!(["None"]);
    object["spec"]["clusterIP"] = json!("None");
    scene.apply_service(&object);
    let services = scene.commit().batch.unwrap().services;
    assert_eq!(
        services[0].1, None,
        "headless: nothing is translated any more"
    );
}

#[test]
fn an_address_that_passes_to_another_service_is_told_once() {
    let mut scene = Scene::leader();
    scene.apply_service(&service("old", &["10.96.0.10"], "80"));
    scene.commit();
    scene.remove_service("old");
    scene.apply_service(&service("new", &["10.96.0.10"], "80"));
    let services = scene.commit().batch.unwrap().services;
    let [(_, Some(entry))] = &services[..] else {
        panic!("{services:?}")
    };
    assert_eq!(entry.name.name, "new");
}

#[test]
fn stored_endpoints_without_a_pod_are_deleted() {
    let mut scene = Scene::new();
    scene.node("n1");
    let object = json!({
        "apiVersion": "sluice.io/v1",
        "kind": "SluiceEndpoint",
        "metadata": { "name": "old", "namespace": "default" },
        "spec": { "podUID": "x", "node": "n1", "state": "ready" },
    });
    scene
        .cluster
        .apply(convert::endpoint(serde_json::from_value(object).unwrap()));
    scene.lead();
    scene.commit();
    let (writes, _) = scene.writes();
    let gone = writes
        .iter()
        .find(|write| write.object.name == "old")
        .unwrap();
    assert_eq!(gone.change, Change::Delete);
}

#[test]
fn a_kind_that_is_no_longer_installed_has_no_policies() {
    let mut scene = Scene::leader();
    let object = policy_object("CiliumNetworkPolicy", "p", "a");
    scene.put(&object);
    scene.commit();
    scene.remove(&object);
    scene.commit();
    assert!(scene.policies_in_force().is_empty());
}

#[test]
fn a_node_status_tells_of_its_agent() {
    let mut scene = Scene::leader();
    scene.node("n1");
    let step = scene.commit();
    for write in &step.first {
        scene.store(write);
    }
    scene.agents.sessions = [(NodeName("n1".into()), Some(scene.revision))].into();
    scene.writes();
    let status = |scene: &mut Scene| {
        let writes = scene.slow_writes();
        let write = writes
            .into_iter()
            .find(|write| write.object.kind == "SluiceNode")?;
        match write.change {
            Change::ApplyStatus(value) => Some(value["status"].clone()),
            _ => None,
        }
    };
    let ready = status(&mut scene).unwrap();
    assert_eq!(ready["conditions"][0]["status"], "True");
    assert_eq!(ready["revision"], scene.revision.to_string());
    assert!(status(&mut scene).is_none(), "nothing new");
    scene.agents.sessions.clear();
    scene.now = scene.now.checked_add(Duration::from_mins(1)).unwrap();
    let gone = status(&mut scene).unwrap();
    assert_eq!(gone["conditions"][0]["status"], "False");
    let since: Timestamp = gone["conditions"][0]["lastTransitionTime"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(since > Timestamp::UNIX_EPOCH);
}
