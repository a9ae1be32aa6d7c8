//! A large cluster through the core: memory, and the time to the first table. For `cargo xtask soak`; run it in release mode.

use std::{fs, time::Instant};

use crate::scene::{self, Scene};
use serde_json::json;
use sluice_operator::core::Input;

const NAMESPACES: usize = 100;
const NODES: usize = 1000;
const PODS: usize = 100_000;
const POLICIES: usize = 10_000;
/// Workloads in each namespace.
const APPS: usize = 100;

/// Resident memory of this process, in MiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

fn fill(scene: &mut Scene) {
    for namespace in 0..NAMESPACES {
        let labels = [("team".to_owned(), format!("t{}", namespace % 10))].into();
        scene
            .cluster
            .apply(Input::Namespace(format!("ns{namespace}"), Some(labels)));
    }
    for node in 0..NODES {
        scene.apply_node(&json!({
            "metadata": { "name": format!("node{node}"), "uid": format!("uid-node{node}") },
            "status": { "addresses": [{ "type": "InternalIP", "address": format!("172.20.{}.{}", node / 250, node % 250 + 1) }] },
        }));
    }
    for pod in 0..PODS {
        let (namespace, app, node) = (pod % NAMESPACES, pod / NAMESPACES % APPS, pod % NODES);
        let host = pod / NODES + 2;
        scene.apply_pod(&json!({
            "metadata": {
                "name": format!("app{app}-7d9c5b8f6-{pod:05x}"),
                "namespace": format!("ns{namespace}"),
                "uid": format!("{pod:08x}-0000-4000-8000-000000000000"),
                "labels": { "app": format!("app{app}"), "pod-template-hash": "7d9c5b8f6", "tier": format!("t{}", app % 5) },
            },
            "spec": { "nodeName": format!("node{node}"), "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
            "status": { "phase": "Running", "podIPs": [
                { "ip": format!("10.{}.{}.{host}", 64 + node / 256, node % 256) },
                { "ip": format!("fd00:10:244:{node:x}::{host:x}") },
            ] },
        }));
    }
    for policy in 0..POLICIES {
        let (namespace, app) = (policy % NAMESPACES, policy / NAMESPACES % APPS);
        let peer = (app + 1) % APPS;
        scene.put(&json!({
            "apiVersion": "sluice.io/v1",
            "kind": "SluiceNetworkPolicy",
            "metadata": { "name": format!("p{policy}"), "namespace": format!("ns{namespace}"), "uid": format!("uid-p{policy}"), "generation": 1 },
            "spec": {
                "endpointSelector": { "matchLabels": { "app": format!("app{app}") } },
                "ingress": [{
                    "fromEndpoints": [{ "matchLabels": { "app": format!("app{peer}") } }],
                    "toPorts": [{ "ports": [{ "port": "http", "protocol": "TCP" }] }],
                }],
                "egress": [{
                    "toEndpoints": [{ "matchLabels": { "app": format!("app{}", (app + APPS - 1) % APPS) } }],
                }, {
                    "toCIDR": [format!("192.0.{}.0/24", policy % 256)],
                }],
            },
        }));
    }
}

#[test]
#[ignore = "a large cluster: some hundred MiB, and minutes without optimisation"]
fn a_large_cluster() {
    let before = resident();
    let mut scene = Scene::with(|config| {
        config.pools = sluice_operator::core::Pools::parse(&[
            "10.64.0.0/13+24".to_owned(),
            "fd00:10:244::/48+64".to_owned(),
        ])
        .unwrap();
    });
    let begun = Instant::now();
    fill(&mut scene);
    let filled = begun.elapsed();
    let follower = resident();
    scene.lead();
    let begun = Instant::now();
    let step = scene.commit();
    let compiled = begun.elapsed();
    let batch = step.batch.expect("everything");
    let peak = resident();
    assert_eq!(scene.cluster.counts().pods, PODS);
    assert_eq!(scene.cluster.counts().invalid_policies, 0);
    assert_eq!(batch.delta.endpoints.len(), PODS);
    println!(
        "{PODS} pods, {NODES} nodes, {POLICIES} policies: read in {filled:.1?} (making the objects included), \
         first table {compiled:.1?} after leading; {} identities, {} tables; \
         {} MiB as a follower, {peak} MiB with the first batch, {before} MiB before",
        batch.delta.identities.len(),
        batch.delta.tables.len(),
        follower,
    );
    drop(batch);
    let begun = Instant::now();
    let mut pod = scene::pod("late", "node1", &[("app", "app1")]);
    pod["metadata"]["namespace"] = json!("ns1");
    scene.apply_pod(&pod);
    scene.commit();
    println!("one pod more: {:.1?}; {} MiB", begun.elapsed(), resident());
}
