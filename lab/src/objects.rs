//! Manifest objects: their names, and a world made of them. Where they come from may not enter.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use sluice_crds::{
    manifest::{Object, ObjectRef},
    parsed::PolicyRef,
};
use sluice_world::{Inputs, PodRef, Policy, World};

use crate::LabError;

/// The name of an object.
#[must_use]
pub fn name(object: &Object) -> ObjectRef {
    match object {
        Object::Namespace(object) => cluster_wide(&**object),
        Object::Node(object) => cluster_wide(&**object),
        Object::Pod(object) => namespaced(&**object),
        Object::Deployment(object) => namespaced(&**object),
        Object::StatefulSet(object) => namespaced(&**object),
        Object::DaemonSet(object) => namespaced(&**object),
        Object::ReplicaSet(object) => namespaced(&**object),
        Object::Service(object) => namespaced(&**object),
        Object::EndpointSlice(object) => namespaced(&**object),
        Object::ServiceAccount(object) => namespaced(&**object),
        Object::NetworkPolicy(policy) => policy_name(&policy.origin),
        Object::Policy(policy) => policy_name(&policy.origin),
        Object::TierPolicy(policy) => policy_name(&policy.origin),
        Object::CidrGroup(group) => ObjectRef {
            kind: group.kind.to_string(),
            namespace: None,
            name: group.name.clone(),
        },
        Object::Unsupported(name) => name.clone(),
    }
}

/// The policy that an object is, if it is one.
#[must_use]
pub fn policy(object: &Object) -> Option<Policy> {
    match object {
        Object::NetworkPolicy(policy) => Some(Policy::Network(policy.clone())),
        Object::Policy(policy) => Some(Policy::Rules(policy.clone())),
        Object::TierPolicy(policy) => Some(Policy::Tier(policy.clone())),
        _ => None,
    }
}

/// The world these objects make. Pods named in `addresses` keep those, whoever comes or goes.
///
/// # Errors
/// Two objects contradict each other; the text names both.
pub fn world<'a>(
    objects: impl Iterator<Item = &'a Object>,
    addresses: BTreeMap<PodRef, Vec<IpAddr>>,
) -> Result<World, LabError> {
    let inputs = Inputs {
        held_addresses: addresses,
        ..objects.cloned().collect()
    };
    sluice_world::build(inputs).map_err(|error| LabError::Manifests(error.to_string()))
}

fn namespaced<T: Metadata<Ty = ObjectMeta>>(object: &T) -> ObjectRef {
    let metadata = object.metadata();
    let namespace = metadata
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    ObjectRef {
        namespace: Some(namespace),
        ..cluster_wide(object)
    }
}

fn cluster_wide<T: Metadata<Ty = ObjectMeta>>(object: &T) -> ObjectRef {
    ObjectRef {
        kind: T::KIND.to_owned(),
        namespace: None,
        name: object.metadata().name.clone().unwrap_or_default(),
    }
}

fn policy_name(origin: &PolicyRef) -> ObjectRef {
    ObjectRef {
        kind: origin.kind.to_string(),
        namespace: origin.namespace.clone(),
        name: origin.name.clone(),
    }
}
