//! From Kubernetes objects to a world: pods of workloads made, nodes and addresses assigned, everything that is only referred to
//! written out. The same objects give the same world in whatever order they come.
//!
//! ```text
//! objects ── Inputs ── namespaces, nodes ── pods ── addresses ── services, groups, policies ── World
//! ```
//!
//! What may not enter: reading of text, and any meaning of policy.

mod addresses;
mod error;
mod inputs;
mod nodes;
mod pods;
mod services;
mod workloads;

use std::{collections::BTreeMap, sync::Arc};

pub use error::BuildError;
pub use inputs::{Inputs, Workload, WorkloadSize};
pub use nodes::{IMPLIED_NODE, node};
pub use pods::{LAB_EXTERNAL, pod};
pub use services::{service, slice_endpoints, slice_service};

use crate::{
    model::{CidrGroup, Labels, Namespace, NodeName, Pod},
    world::World,
};

/// The label every namespace carries with its own name as the value.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Builds the world these objects describe.
///
/// # Errors
///
/// Where two objects have the same name, two holders the same address, or a field can't be read as what it should be.
pub fn build(inputs: Inputs) -> Result<World, BuildError> {
    build_after(inputs, &World::default())
}

/// Builds the world these objects describe, now that the one before was `previous`: whoever was assigned an address there, and is still
/// given none, keeps it, so that an edit moves nobody it does not name.
///
/// # Errors
///
/// As [`build`].
pub fn build_after(inputs: Inputs, previous: &World) -> Result<World, BuildError> {
    let mut world = World::default();
    let made = workloads::pods(&inputs)?;
    let mut drafts = Vec::new();
    for pod in inputs.pods.iter().chain(&made) {
        drafts.extend(pods::read(pod)?);
    }
    nodes::add(&mut world, &inputs.nodes, &drafts)?;
    for pod in workloads::daemon_pods(&inputs, &world.nodes) {
        drafts.extend(pods::read(&pod)?);
    }
    let home = nodes::home(&world);
    for draft in drafts {
        let node = draft.node.clone().map_or_else(|| home.clone(), NodeName);
        let mut pod = draft.placed(node);
        if pod.addresses.is_empty() && !pod.host_network {
            pod.addresses = inputs
                .held_addresses
                .get(&pod.id)
                .cloned()
                .unwrap_or_default();
        }
        add_pod(&mut world, pod)?;
    }
    addresses::assign(&mut world, previous)?;
    services::add(&mut world, &inputs.services, &inputs.slices)?;
    for group in &inputs.cidr_groups {
        add_group(&mut world, group)?;
    }
    for policy in inputs.policies {
        let origin = policy.origin().clone();
        if world
            .policies
            .insert(origin.clone(), Arc::new(policy))
            .is_some()
        {
            return Err(BuildError::Duplicate(origin.to_string()));
        }
    }
    add_namespaces(&mut world, &inputs.namespaces)?;
    Ok(world)
}

fn add_pod(world: &mut World, pod: Pod) -> Result<(), BuildError> {
    let id = pod.id.clone();
    match world.pods.insert(id.clone(), pod) {
        Some(_) => Err(BuildError::Duplicate(format!("Pod {id}"))),
        None => Ok(()),
    }
}

fn add_group(world: &mut World, group: &sluice_crds::parsed::CidrGroup) -> Result<(), BuildError> {
    let item = cidr_group(group);
    let key = (item.kind.clone(), item.name.clone());
    match world.cidr_groups.insert(key, item) {
        Some(_) => Err(BuildError::Duplicate(format!(
            "{} {}",
            group.kind, group.name
        ))),
        None => Ok(()),
    }
}

/// A CIDR group as an item.
#[must_use]
pub fn cidr_group(group: &sluice_crds::parsed::CidrGroup) -> CidrGroup {
    CidrGroup {
        kind: group.kind.to_string(),
        name: group.name.clone(),
        labels: group.labels.clone(),
        cidrs: group.cidrs.iter().copied().collect(),
    }
}

/// A namespace of this name with these labels, its name among them.
#[must_use]
pub fn namespace(name: String, mut labels: Labels) -> Namespace {
    labels.insert(NAMESPACE_NAME_LABEL.into(), name.clone());
    Namespace { name, labels }
}

/// Namespaces as given, and those that pods, services and policies only refer to.
fn add_namespaces(
    world: &mut World,
    given: &[k8s_openapi::api::core::v1::Namespace],
) -> Result<(), BuildError> {
    let mut namespaces = BTreeMap::new();
    for object in given {
        let name = object
            .metadata
            .name
            .clone()
            .ok_or(BuildError::Unnamed("Namespace"))?;
        let labels = object.metadata.labels.clone().unwrap_or_default();
        if namespaces.insert(name.clone(), labels).is_some() {
            return Err(BuildError::Duplicate(format!("Namespace {name}")));
        }
    }
    let of_pods = world.pods.keys().map(|id| id.namespace.clone());
    let of_services = world.services.keys().map(|id| id.namespace.clone());
    let of_policies = world.policies.keys().filter_map(|id| id.namespace.clone());
    for name in of_pods.chain(of_services).chain(of_policies) {
        namespaces.entry(name).or_default();
    }
    for (name, labels) in namespaces {
        world
            .namespaces
            .insert(name.clone(), namespace(name, labels));
    }
    Ok(())
}
