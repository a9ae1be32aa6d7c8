//! Nodes: those given, those that pods name, and the one that pods without a node share.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node as NodeObject;

use super::{BuildError, pods::Draft};
use crate::{
    model::{Labels, Node, NodeName},
    world::World,
};

/// The node that pods without `nodeName` share where no node is given or named. Where there are nodes, they share the first by name.
pub const IMPLIED_NODE: &str = "lab-node";

/// Puts in every node. A node that only pods name has the label `kubernetes.io/hostname`, as a kubelet gives it.
pub(super) fn add(
    world: &mut World,
    given: &[NodeObject],
    drafts: &[Draft],
) -> Result<(), BuildError> {
    for object in given {
        let node = node(object)?;
        let name = node.name.clone();
        if world.nodes.insert(name.clone(), node).is_some() {
            return Err(BuildError::Duplicate(format!("Node {name}")));
        }
    }
    for name in drafts.iter().filter_map(|draft| draft.node.as_deref()) {
        world
            .nodes
            .entry(NodeName(name.to_owned()))
            .or_insert_with(|| implied(name));
    }
    if world.nodes.is_empty() {
        world
            .nodes
            .insert(NodeName(IMPLIED_NODE.into()), implied(IMPLIED_NODE));
    }
    let home = home(world);
    for (name, addresses) in drafts.iter().filter_map(Draft::host_network) {
        let name = name.map_or_else(|| home.clone(), |name| NodeName(name.to_owned()));
        if let Some(node) = world.nodes.get_mut(&name) {
            let new = addresses
                .iter()
                .filter(|address| !node.addresses.contains(address));
            let new: Vec<IpAddr> = new.copied().collect();
            node.addresses.extend(new);
        }
    }
    Ok(())
}

/// Where pods without `nodeName` run.
pub(super) fn home(world: &World) -> NodeName {
    world
        .nodes
        .keys()
        .next()
        .cloned()
        .unwrap_or_else(|| NodeName(IMPLIED_NODE.into()))
}

fn implied(name: &str) -> Node {
    Node {
        name: NodeName(name.to_owned()),
        labels: Labels::from([("kubernetes.io/hostname".into(), name.to_owned())]),
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
    }
}

/// A node as its object has it: its own addresses, and prefixes where somebody gave it some.
///
/// # Errors
/// A field can't be read as what it should be.
pub fn node(object: &NodeObject) -> Result<Node, BuildError> {
    let name = object
        .metadata
        .name
        .clone()
        .ok_or(BuildError::Unnamed("Node"))?;
    let described = format!("Node {name}");
    let mut addresses: Vec<IpAddr> = Vec::new();
    let written = object
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    for address in
        written.filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"))
    {
        let parsed = address.address.parse().map_err(|_| {
            BuildError::field(
                &described,
                "status.addresses",
                &address.address,
                "is not an IP address",
            )
        })?;
        if !addresses.contains(&parsed) {
            addresses.push(parsed);
        }
    }
    Ok(Node {
        addresses,
        pod_cidrs: pod_cidrs(&described, object)?,
        labels: object.metadata.labels.clone().unwrap_or_default(),
        name: NodeName(name),
    })
}

fn pod_cidrs(described: &String, object: &NodeObject) -> Result<Vec<IpNet>, BuildError> {
    let Some(spec) = &object.spec else {
        return Ok(Vec::new());
    };
    let mut prefixes: Vec<IpNet> = Vec::new();
    for text in spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr) {
        let prefix: IpNet = text
            .parse()
            .map_err(|_| BuildError::field(described, "spec.podCIDRs", text, "is not a CIDR"))?;
        if !prefixes.contains(&prefix.trunc()) {
            prefixes.push(prefix.trunc());
        }
    }
    Ok(prefixes)
}
