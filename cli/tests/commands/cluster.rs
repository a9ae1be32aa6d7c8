//! Commands that speak to a cluster: exit codes and shapes of output, against an API server of the test's own on loopback.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use crate::support::{Folder, Run, sluice};
use serde_json::{Value, json};

/// Answers of the API server, by path; what is not among them is not there.
type Answers = BTreeMap<String, Value>;

/// Runs `sluice` with these arguments against an API server that answers so.
fn against(name: &str, answers: Answers, arguments: &[&str]) -> Run {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &answers);
        }
    });
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
    });
    let folder = Folder::with(name, &[("config", &config.to_string())]);
    sluice(&[arguments, &["--kubeconfig", &folder.file("config")]].concat())
}

fn answer(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let path = first.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let missing = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
        "reason": "NotFound", "message": format!("{path} is not there")});
    let (code, body) = answers
        .get(path)
        .map_or((404, &missing), |body| (200, body));
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {code} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn list(items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})
}

/// A cluster of one node where all is well, but for how many pods of the operator are ready.
fn cluster(operators: i32) -> Answers {
    let node = json!({"apiVersion": "sluice.io/v1", "kind": "SluiceNode", "metadata": {"name": "n1"},
        "spec": {"number": 1, "podCIDRs": ["10.0.0.0/24", "fd00::/64"]},
        "status": {"revision": "7.42", "release": "0.1.0", "routingMode": "direct", "endpoints": 4, "ready": 4,
            "conditions": [{"type": "Ready", "status": "True", "reason": "AgentConnected", "message": "it follows",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let endpoint = json!({"apiVersion": "sluice.io/v1", "kind": "SluiceEndpoint", "metadata": {"name": "web-0", "namespace": "shop"},
        "spec": {"podUID": "u", "node": "n1", "identity": 300, "addresses": ["10.0.0.1", "fd00::1"], "state": "ready"}});
    let identity = json!({"apiVersion": "sluice.io/v1", "kind": "Identity", "metadata": {"name": "300"},
        "spec": {"number": 300, "namespace": "shop", "labels": {"app": "web"}}, "status": {"endpoints": 1}});
    let operator = json!({"metadata": {"name": "sluice-operator", "generation": 1}, "spec": {"replicas": 2, "selector": {}, "template": {}},
        "status": {"observedGeneration": 1, "readyReplicas": operators, "updatedReplicas": 2}});
    let agents = json!({"metadata": {"name": "sluice-agent", "generation": 1}, "spec": {"selector": {}, "template": {}},
        "status": {"currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberMisscheduled": 0, "numberReady": 1,
            "observedGeneration": 1, "updatedNumberScheduled": 1}});
    let lease = json!({"metadata": {"name": "sluice-operator"}, "spec": {"holderIdentity": "op-1_1@[::1]:4245"}});
    let policy = json!({"apiVersion": "sluice.io/v1", "kind": "SluiceNetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop", "generation": 1},
        "status": {"conditions": [{"type": "Enforced", "status": "True", "reason": "R", "message": "enforced on 1 of 1 nodes",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    [
        ("/apis/apps/v1/daemonsets", list(&[])),
        (
            "/apis/apps/v1/namespaces/kube-system/deployments/sluice-operator",
            operator,
        ),
        (
            "/apis/apps/v1/namespaces/kube-system/daemonsets/sluice-agent",
            agents,
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/sluice-operator",
            lease,
        ),
        (
            "/api/v1/nodes",
            list(&[json!({"metadata": {"name": "n1"}})]),
        ),
        ("/apis/sluice.io/v1/sluicenodes", list(&[node])),
        (
            "/apis/sluice.io/v1/sluiceendpoints",
            list(std::slice::from_ref(&endpoint)),
        ),
        (
            "/apis/sluice.io/v1/namespaces/shop/sluiceendpoints",
            list(&[endpoint]),
        ),
        ("/apis/sluice.io/v1/identities", list(&[identity])),
        (
            "/apis/sluice.io/v1/sluicenetworkpolicies",
            list(std::slice::from_ref(&policy)),
        ),
        (
            "/apis/sluice.io/v1/namespaces/shop/sluicenetworkpolicies/web",
            policy,
        ),
    ]
    .map(|(path, body)| (path.to_owned(), body))
    .into()
}

#[test]
fn status_ends_with_0_where_all_is_well_and_with_1_elsewhere() {
    let well = against("status-well", cluster(2), &["status", "--without-agents"]);
    assert_eq!(well.code, 0, "{}{}", well.stdout, well.stderr);
    assert!(
        well.stdout
            .starts_with("Sluice in namespace kube-system: all is well\n"),
        "{}",
        well.stdout
    );
    let ill = against(
        "status-ill",
        cluster(1),
        &["status", "--without-agents", "-o", "json"],
    );
    assert_eq!(ill.code, 1);
    assert_eq!(ill.json()["green"], false);
    assert_eq!(ill.json()["findings"][0]["text"], "1 of 2 pods are ready");
    let none = against(
        "status-none",
        Answers::from([("/api/v1/nodes".to_owned(), list(&[]))]),
        &["status"],
    );
    assert_eq!(none.code, 1);
    assert!(
        none.stderr
            .contains("Sluice is not installed in namespace kube-system"),
        "{}",
        none.stderr
    );
}

#[test]
fn waiting_in_vain_ends_and_says_why() {
    let run = against(
        "status-wait",
        cluster(1),
        &[
            "status",
            "--without-agents",
            "--wait",
            "--wait-duration",
            "100ms",
        ],
    );
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("operator: 1 of 2 pods are ready"),
        "{}",
        run.stderr
    );
    // No terminal, no control characters.
    assert!(!run.stderr.contains('\x1b') && !run.stdout.contains('\x1b'));
}

#[test]
fn lists_are_of_the_namespace_of_the_context_unless_told_otherwise() {
    let run = against("endpoints", cluster(2), &["endpoints", "-o", "json"]);
    assert_eq!(run.json()[0]["name"], "web-0", "{}", run.stderr);
    let run = against(
        "endpoints-node",
        cluster(2),
        &["endpoints", "--node", "n2", "-A", "-o", "json"],
    );
    assert_eq!(run.json(), json!([]));
    let run = against("nodes", cluster(2), &["nodes", "-o", "yaml"]);
    assert!(run.stdout.contains("podCIDRs:"), "{}", run.stdout);
    let run = against("identities", cluster(2), &["identities"]);
    assert!(run.stdout.contains("app=web"), "{}", run.stdout);
    assert_eq!(run.code, 0);
}

#[test]
fn a_policy_that_is_enforced_is_not_waited_for_and_a_missing_one_is_an_error() {
    let run = against("wait", cluster(2), &["policy", "wait", "web"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(
        run.stdout,
        "SluiceNetworkPolicy shop/web: enforced on 1 of 1 nodes\n"
    );
    let run = against(
        "wait-none",
        cluster(2),
        &["policy", "wait", "other", "--kind", "snp"],
    );
    assert_eq!(run.code, 1);
    assert!(
        run.stderr
            .contains("there is no SluiceNetworkPolicy shop/other"),
        "{}",
        run.stderr
    );
}

#[test]
fn without_a_cluster_the_error_says_what_was_looked_for() {
    let run = sluice(&["status", "--kubeconfig", "/nowhere/config"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("/nowhere/config"), "{}", run.stderr);
    let run = sluice(&["identities", "-f", "x.yaml", "-n", "shop"]);
    assert_eq!(run.code, 1, "manifests have no cluster's namespaces");
}

#[test]
fn what_pods_of_the_connectivity_test_try_comes_back_as_json() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let order = json!({"attempts": [{"transport": "TCP", "address": "127.0.0.1", "port": port}], "names": [], "patience_ms": 500});
    let run = sluice(&["connectivity", "probe", &order.to_string()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.json()["outcomes"][0]["outcome"], "refused");
}
