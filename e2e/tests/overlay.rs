//! Two nodes, each a namespace with programs of its own, and the overlay between them, on the real kernel: who reaches whom, in both
//! families, and who is not believed. Needs root: `cargo xtask test` runs it, by setting `SLUICE_KERNEL_TESTS`.

mod overlay_support;

use std::net::{IpAddr, SocketAddr};

use overlay_support::{CLIENT, Cluster, OVERLAY_PORT, SERVER, STRANGER, kernel_tests, wrapped};
use sluice_abi::{Reason, parse::protocol};

/// Addresses of services, IPv4 first.
const SERVICES: [&str; 2] = ["10.96.0.10", "fd96::10"];

#[test]
fn pods_of_two_nodes_talk_as_policy_says() {
    if !kernel_tests() {
        return;
    }
    for (test, ipv6) in [("talk", false), ("talk6", true)] {
        let cluster = Cluster::between(test, ipv6);
        talk(&cluster);
    }
}

fn talk(cluster: &Cluster) {
    for target in cluster.addresses(SERVER) {
        assert!(
            cluster.tcp(CLIENT, target, 80),
            "client to {target}: {}",
            cluster.told()
        );
        assert!(cluster.ping(CLIENT, target), "client pings {target}");
        assert!(
            !cluster.tcp(CLIENT, target, 81),
            "client to {target}, port 81"
        );
        assert!(!cluster.tcp(STRANGER, target, 80), "stranger to {target}");
    }
    // Nobody selects the client: everyone reaches it, and packets of full size too.
    for target in cluster.addresses(CLIENT) {
        assert!(cluster.tcp(SERVER, target, 80), "server to {target}");
        assert!(cluster.much(SERVER, target, 80), "server to {target}, much");
    }
}

#[test]
fn services_lead_to_pods_and_nodes_behind_the_overlay() {
    if !kernel_tests() {
        return;
    }
    let mut cluster = Cluster::new("service");
    // What stays in the cluster keeps its address: else policy would take the client for its node.
    cluster.masquerade(0);
    let [pods, nodes] = [cluster.addresses(SERVER), cluster.node_addresses(1)];
    for ((service, pod), node) in SERVICES.into_iter().zip(pods).zip(nodes) {
        let service: IpAddr = service.parse().unwrap();
        for (port, backend) in [(8080, (pod, 80)), (8081, (pod, 81)), (8082, (node, 80))] {
            cluster.serve(0, protocol::TCP, (service, port).into(), backend.into());
        }
        assert!(
            cluster.much(CLIENT, service, 8080),
            "client to {service}: {}",
            cluster.told()
        );
        assert!(!cluster.tcp(STRANGER, service, 8080), "stranger");
        assert!(!cluster.tcp(CLIENT, service, 8081), "the other port");
        assert!(cluster.much(CLIENT, service, 8082), "a node's");
        assert!(cluster.tcp(CLIENT, pod, 80), "without the service");
        // The overlay's port, by way of a service.
        let forged = SocketAddr::from((node, OVERLAY_PORT));
        let before = cluster.drops(0, Reason::OverlayPort);
        cluster.serve(0, protocol::UDP, (service, 53).into(), forged);
        cluster.send_from_pod(CLIENT, service, 53, &[0; 64]);
        assert_eq!(
            cluster.drops_soon(0, Reason::OverlayPort, before + 1),
            before + 1
        );
    }
}

#[test]
fn nodes_and_pods_of_other_nodes_reach_each_other() {
    if !kernel_tests() {
        return;
    }
    let cluster = Cluster::new("nodes");
    for target in cluster.addresses(CLIENT) {
        assert!(
            cluster.tcp_from_node(1, target, 80),
            "node 2 to {target}: {}",
            cluster.told()
        );
    }
    for target in cluster.node_addresses(0) {
        assert!(cluster.tcp(SERVER, target, 80), "server to node {target}");
        assert!(
            cluster.tcp(CLIENT, target, 80),
            "client to its node {target}"
        );
    }
    // The server's policy names pods only; its own node is let in, others are not.
    for target in cluster.addresses(SERVER) {
        assert!(cluster.tcp_from_node(1, target, 80), "its node to {target}");
        assert!(!cluster.tcp_from_node(0, target, 80), "node 1 to {target}");
    }
}

#[test]
fn what_is_forged_is_dropped() {
    if !kernel_tests() {
        return;
    }
    for (test, ipv6) in [("forged", false), ("forged6", true)] {
        forge(&Cluster::between(test, ipv6), usize::from(ipv6));
    }
}

/// Sends what nobody should believe, from addresses of one family between nodes.
fn forge(cluster: &Cluster, family: usize) {
    let target = cluster.node_addresses(1)[family];
    let identity = cluster.identity(CLIENT);
    for (from, to) in cluster
        .addresses(CLIENT)
        .into_iter()
        .zip(cluster.addresses(SERVER))
    {
        let inner = wrapped(identity, from, to, 80);
        // A sender that is no node, with the client's own number and address.
        let before = cluster.drops(1, Reason::ForgedOverlay);
        cluster.send_as_stranger(0, target, OVERLAY_PORT, &inner);
        assert_eq!(
            cluster.drops_soon(1, Reason::ForgedOverlay, before + 1),
            before + 1,
            "{from}"
        );
        // A node that speaks for the outside.
        let world: IpAddr = if from.is_ipv4() {
            "203.0.113.5".parse().unwrap()
        } else {
            "2001:db8::5".parse().unwrap()
        };
        cluster.send_from_node(0, target, OVERLAY_PORT, &wrapped(identity, world, to, 80));
        assert_eq!(
            cluster.drops_soon(1, Reason::ForgedOverlay, before + 2),
            before + 2,
            "{from}"
        );
    }
    // A pod can't reach the port at all.
    let before = cluster.drops(0, Reason::OverlayPort);
    for node in [0, 1] {
        for target in cluster.node_addresses(node) {
            cluster.send_from_pod(CLIENT, target, OVERLAY_PORT, &[0; 64]);
        }
    }
    assert_eq!(
        cluster.drops_soon(0, Reason::OverlayPort, before + 4),
        before + 4
    );
}
