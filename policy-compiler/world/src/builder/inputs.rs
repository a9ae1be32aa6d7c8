//! The objects a world is built from, sorted by kind. Workload kinds are brought to one form here.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        core::v1::{Namespace, Node, Pod, PodTemplateSpec, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use sluice_crds::{manifest::Object, parsed::CidrGroup};

use crate::model::{PodRef, Policy};

/// Objects by kind, in any order.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// What pods are made for.
    pub workloads: Vec<Workload>,
    /// Services.
    pub services: Vec<Service>,
    /// Endpoint slices.
    pub slices: Vec<EndpointSlice>,
    /// CIDR groups.
    pub cidr_groups: Vec<CidrGroup>,
    /// Policies of every API.
    pub policies: Vec<Policy>,
    /// Addresses that pods hold from an earlier build; a pod that was given none keeps these, whoever else comes or goes.
    pub held_addresses: BTreeMap<PodRef, Vec<IpAddr>>,
}

impl FromIterator<Object> for Inputs {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut inputs = Self::default();
        for object in objects {
            inputs.add(object);
        }
        inputs
    }
}

impl Inputs {
    /// Adds an object of a manifest. Service accounts count only by the names that pods give, and unsupported kinds not at all.
    pub fn add(&mut self, object: Object) {
        match object {
            Object::Namespace(object) => self.namespaces.push(*object),
            Object::Pod(object) => self.pods.push(*object),
            Object::Deployment(object) => self.workloads.push((*object).into()),
            Object::StatefulSet(object) => self.workloads.push((*object).into()),
            Object::DaemonSet(object) => self.workloads.push((*object).into()),
            Object::ReplicaSet(object) => self.workloads.push((*object).into()),
            Object::Service(object) => self.services.push(*object),
            Object::EndpointSlice(object) => self.slices.push(*object),
            Object::Node(object) => self.nodes.push(*object),
            Object::NetworkPolicy(policy) => self.policies.push(Policy::Network(policy)),
            Object::Policy(policy) => self.policies.push(Policy::Rules(policy)),
            Object::TierPolicy(policy) => self.policies.push(Policy::Tier(policy)),
            Object::CidrGroup(group) => self.cidr_groups.push(group),
            Object::ServiceAccount(_) | Object::Unsupported(_) => {}
        }
    }
}

/// A workload of any kind.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its kind.
    pub kind: &'static str,
    /// Its name and owners.
    pub metadata: ObjectMeta,
    /// How many pods it has.
    pub size: WorkloadSize,
    /// What they look like.
    pub template: PodTemplateSpec,
}

/// How many pods a workload has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadSize {
    /// So many, named `<workload>-0` and on.
    Replicas(u32),
    /// One on each node, named `<workload>-<node>`.
    PerNode,
}

impl From<Deployment> for Workload {
    fn from(object: Deployment) -> Self {
        let spec = object.spec;
        Self {
            kind: "Deployment",
            metadata: object.metadata,
            size: replicas(spec.replicas),
            template: spec.template,
        }
    }
}

impl From<StatefulSet> for Workload {
    fn from(object: StatefulSet) -> Self {
        let spec = object.spec;
        Self {
            kind: "StatefulSet",
            metadata: object.metadata,
            size: replicas(spec.replicas),
            template: spec.template,
        }
    }
}

impl From<ReplicaSet> for Workload {
    fn from(object: ReplicaSet) -> Self {
        let spec = object.spec;
        Self {
            kind: "ReplicaSet",
            metadata: object.metadata,
            size: replicas(spec.replicas),
            template: spec.template.unwrap_or_default(),
        }
    }
}

impl From<DaemonSet> for Workload {
    fn from(object: DaemonSet) -> Self {
        let spec = object.spec;
        Self {
            kind: "DaemonSet",
            metadata: object.metadata,
            size: WorkloadSize::PerNode,
            template: spec.template,
        }
    }
}

/// One unless written; a negative number, which the API server refuses, is none.
fn replicas(written: Option<i32>) -> WorkloadSize {
    WorkloadSize::Replicas(u32::try_from(written.unwrap_or(1)).unwrap_or(0))
}
