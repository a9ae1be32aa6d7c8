//! Namespaces, nodes and CIDR groups; and what of a world the other rooms need to know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use crate::{
    choices::Choices,
    generate::Scene,
    vocabulary::{NAMESPACE_KEYS, NAMESPACE_VALUES, NODE_KEYS, NODE_VALUES},
};

/// A namespace's manifest.
pub(crate) fn namespace(choices: &mut Choices, number: u32) -> Value {
    let mut labels = Map::new();
    for key in NAMESPACE_KEYS {
        if choices.chance(60) {
            labels.insert(key.into(), json!(choices.pick(&NAMESPACE_VALUES)));
        }
    }
    let mut document = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("ns-{number}")}});
    if !labels.is_empty() {
        document["metadata"]["labels"] = Value::Object(labels);
    }
    document
}

/// A node's manifest.
pub(crate) fn node(choices: &mut Choices, number: u32) -> Value {
    let mut labels = Map::new();
    for key in NODE_KEYS {
        if choices.chance(60) {
            labels.insert(key.into(), json!(choices.pick(&NODE_VALUES)));
        }
    }
    let addresses: Vec<Value> = node_addresses(number)
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    let (v4, v6) = (
        format!("{}/24", pod_address_v4(number, 0)),
        format!("{}/64", pod_address_v6(number, 0)),
    );
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node_name(number), "labels": labels},
        "spec": {"podCIDR": v4, "podCIDRs": [v4, v6]},
        "status": {"addresses": addresses},
    })
}

/// A CIDR group of either kind.
pub(crate) fn cidr_group(choices: &mut Choices, scene: &Scene, number: u32) -> Value {
    let (version, kind) = if number.is_multiple_of(2) {
        ("sluice.io/v1", "SluiceCIDRGroup")
    } else {
        ("cilium.io/v2", "CiliumCIDRGroup")
    };
    let amount = choices.below(3) + 1;
    let cidrs: Vec<&str> = (0..amount).map(|_| scene.prefix(choices)).collect();
    let mut document = json!({
        "apiVersion": version, "kind": kind,
        // Numbers meet across the kinds: rules refer to groups of either by name.
        "metadata": {"name": group_name(number / 2)},
        "spec": {"externalCIDRs": cidrs},
    });
    if choices.chance(70) {
        document["metadata"]["labels"] = json!({"set": choices.pick(&["x", "y"])});
    }
    document
}

/// The name of a node.
pub(crate) fn node_name(number: u32) -> String {
    format!("node-{number}")
}

/// The name of a CIDR group.
pub(crate) fn group_name(number: u32) -> String {
    format!("group-{number}")
}

/// A node's own addresses.
pub(crate) fn node_addresses(number: u32) -> [IpAddr; 2] {
    let host = number + 10;
    [
        IpAddr::V4(Ipv4Addr::from_bits(0xc0a8_0000 + host)),
        IpAddr::V6(Ipv6Addr::from_bits(
            (0xfd00_0001_u128 << 96) + u128::from(host),
        )),
    ]
}

/// The `host`th IPv4 address of the node's pods.
pub(crate) fn pod_address_v4(node: u32, host: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + (node << 8) + host)
}

/// The `host`th IPv6 address of the node's pods.
pub(crate) fn pod_address_v6(node: u32, host: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xfd00_0010_u128 << 96) + (u128::from(node) << 64) + u128::from(host))
}
