//! Pods of workloads, made where the cluster that would make them is absent.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{BuildError, Inputs, Workload, WorkloadSize};
use crate::model::{Node, NodeName};

/// The most pods one workload may have here: a slip in a manifest must not use up the machine's memory.
const MAX_REPLICAS: u32 = 100_000;

/// The pods of every workload with a number of replicas.
pub(super) fn pods(inputs: &Inputs) -> Result<Vec<Pod>, BuildError> {
    let mut made = Vec::new();
    for workload in to_expand(inputs) {
        if let WorkloadSize::Replicas(count) = workload.size {
            if count > MAX_REPLICAS {
                let name = workload.metadata.name.as_deref().unwrap_or_default();
                let object = format!("{} {}/{name}", workload.kind, namespace(&workload.metadata));
                let expected = "is more than the 100000 pods a workload may have here";
                return Err(BuildError::field(
                    &object,
                    "spec.replicas",
                    count.to_string(),
                    expected,
                ));
            }
            made.extend((0..count).map(|index| pod(workload, &index.to_string(), None)));
        }
    }
    Ok(made)
}

/// The pods of every workload that has one on each node.
pub(super) fn daemon_pods(inputs: &Inputs, nodes: &BTreeMap<NodeName, Node>) -> Vec<Pod> {
    let mut made = Vec::new();
    for workload in to_expand(inputs) {
        if workload.size == WorkloadSize::PerNode {
            let fitting = nodes.values().filter(|node| fits(workload, node));
            made.extend(fitting.map(|node| pod(workload, &node.name.0, Some(&node.name.0))));
        }
    }
    made
}

/// Workloads whose pods are not there: those that no given object is owned by, and that own none of the given workloads.
///
/// A dump of a cluster holds a Deployment, its `ReplicaSet` and their pods; making pods for them once more would double them.
fn to_expand(inputs: &Inputs) -> impl Iterator<Item = &Workload> {
    let pods = inputs.pods.iter().map(|pod| &pod.metadata);
    let workloads = inputs.workloads.iter().map(|workload| &workload.metadata);
    let owning: BTreeSet<(String, String, String)> = pods
        .chain(workloads)
        .flat_map(|metadata| {
            let namespace = namespace(metadata);
            owners(metadata)
                .map(move |owner| (namespace.clone(), owner.kind.clone(), owner.name.clone()))
        })
        .collect();
    inputs.workloads.iter().filter(move |workload| {
        let name = workload.metadata.name.clone().unwrap_or_default();
        !owning.contains(&(
            namespace(&workload.metadata),
            workload.kind.to_owned(),
            name,
        ))
    })
}

fn owners(metadata: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    metadata.owner_references.iter().flatten()
}

fn namespace(metadata: &ObjectMeta) -> String {
    metadata
        .namespace
        .clone()
        .unwrap_or_else(|| "default".into())
}

/// Whether the template's `nodeSelector` lets the pod run there. Taints and affinities are not looked at.
fn fits(workload: &Workload, node: &Node) -> bool {
    let selector = workload
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.node_selector.as_ref());
    selector.is_none_or(|selector| {
        selector
            .iter()
            .all(|(key, value)| node.labels.get(key) == Some(value))
    })
}

fn pod(workload: &Workload, suffix: &str, node: Option<&str>) -> Pod {
    let template = workload.template.metadata.clone().unwrap_or_default();
    let name = workload
        .metadata
        .name
        .as_ref()
        .map(|name| format!("{name}-{suffix}"));
    let mut spec = workload.template.spec.clone().unwrap_or_default();
    if let Some(node) = node {
        spec.node_name = Some(node.to_owned());
    }
    Pod {
        metadata: ObjectMeta {
            name,
            namespace: workload.metadata.namespace.clone(),
            labels: template.labels,
            annotations: template.annotations,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}
