//! The connectivity test's care for what is not its own. That pods reach each other is tried in real clusters.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_client::connectivity::{self, Options};

use crate::support::Server;

const OWN: &str = "sluice-connectivity-test";

fn options() -> Options {
    Options {
        image: "x/sluice-cli:1".to_owned(),
        namespace: "t".to_owned(),
        host_port: 34_080,
        start: Duration::from_secs(1),
        settle: Duration::from_secs(1),
    }
}

fn node(name: &str, ready: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn namespace(made_by: &str) -> Value {
    json!({"metadata": {"name": "t", "labels": {"app.kubernetes.io/managed-by": made_by}}})
}

fn deletions(server: &Server) -> Vec<String> {
    let mut asked = server.asked();
    asked.retain(|request| request.starts_with("DELETE"));
    asked
}

#[tokio::test]
async fn a_namespace_of_somebody_else_is_not_touched() {
    let server = Server::default()
        .list("/api/v1/nodes", &[node("n1", "True", &json!({}))])
        .answer("/api/v1/namespaces/t", 200, &namespace("somebody"));
    let error = connectivity::run(&server.client(), &options(), &|_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is not of a test"), "{error}");
    connectivity::clean_up(&server.client(), "t", true)
        .await
        .unwrap();
    assert!(deletions(&server).is_empty(), "{:?}", server.asked());
}

#[tokio::test(start_paused = true)]
async fn what_a_test_made_is_removed_and_waited_for() {
    let server = Server::default()
        .answer("/api/v1/namespaces/t", 200, &namespace(OWN))
        .answer("/api/v1/namespaces/t", 200, &namespace(OWN))
        .answer("/api/v1/namespaces/t", 200, &namespace(OWN))
        .answer(
            "/api/v1/namespaces/t",
            404,
            &crate::support::refusal(404, "NotFound"),
        );
    connectivity::clean_up(&server.client(), "t", true)
        .await
        .unwrap();
    assert_eq!(deletions(&server), ["DELETE /api/v1/namespaces/t?"]);
    assert!(
        server
            .asked()
            .last()
            .unwrap()
            .starts_with("GET /api/v1/namespaces/t"),
        "{:?}",
        server.asked()
    );
}

#[tokio::test]
async fn nodes_that_take_no_pods_are_none() {
    let server = Server::default().list(
        "/api/v1/nodes",
        &[
            node("down", "False", &json!({})),
            node("cordoned", "True", &json!({"unschedulable": true})),
            node(
                "tainted",
                "True",
                &json!({"taints": [{"key": "x", "effect": "NoSchedule"}]}),
            ),
        ],
    );
    let error = connectivity::run(&server.client(), &options(), &|_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("no node is Ready"), "{error}");
}
