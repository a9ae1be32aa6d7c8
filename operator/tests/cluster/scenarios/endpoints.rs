//! Which addresses a pod has, and what is stored of it.

use super::{down, up};
use crate::scene::{Scene, pod, policy};
use serde_json::json;
use sluice_operator::core::{Change, Input, convert};
use sluice_stream::Report;
use sluice_world::NodeName;

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
