//! Numbers and prefixes of nodes, numbers of identities: given once, kept, and given back.

use std::collections::BTreeMap;

use super::{names, pod_ref};
use crate::scene::{Scene, node, policy};
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;
use sluice_operator::core::{Change, Input};
use sluice_world::NodeName;

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
