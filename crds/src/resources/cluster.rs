//! What the operator keeps of nodes and pods. Both kinds are made by Sluice, never by hand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A node's share of the cluster network: its number and the prefixes its pods' addresses come from.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource,
)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[kube(
    group = "sluice.io",
    version = "v1",
    kind = "SluiceNode",
    plural = "sluicenodes",
    shortname = "sn",
    category = "sluice",
    derive = "PartialEq",
    status = "SluiceNodeStatus",
    printcolumn = r#"{"name":"Number","type":"integer","jsonPath":".spec.number"}"#,
    printcolumn = r#"{"name":"Pod CIDRs","type":"string","jsonPath":".spec.podCIDRs"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".status.revision"}"#,
    printcolumn = r#"{"name":"Endpoints","type":"integer","jsonPath":".status.endpoints"}"#,
    printcolumn = r#"{"name":"Release","type":"string","jsonPath":".status.release","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct SluiceNodeSpec {
    /// The number that stands for the node in kernel tables. It never changes.
    #[schemars(range(min = 1), extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "a node keeps its number"}]))]
    pub number: u32,
    /// Prefixes its pods' addresses are taken from, at most one of each family.
    #[serde(rename = "podCIDRs", default)]
    #[schemars(inner(length(min = 4, max = 49)))]
    pub pod_cidrs: Vec<String>,
}

/// How a node's agent is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SluiceNodeStatus {
    /// The last revision the agent acknowledged, `<epoch>.<number>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The agent's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// How packets travel between nodes: `direct`, or `vxlan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_mode: Option<String>,
    /// Pods with an interface.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub endpoints: i64,
    /// Pods among them whose tables are in force.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready: i64,
    /// What the kernel has: on, replaced or refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub features: Vec<KernelFeature>,
    /// `Ready`, and what else the agent tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A kernel feature as the agent found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KernelFeature {
    /// Its name.
    pub name: String,
    /// On, replaced by what, or refused.
    pub state: String,
}

/// A pod's place in the cluster network. It has the name of its pod and goes with it.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource,
)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[kube(
    group = "sluice.io",
    version = "v1",
    kind = "SluiceEndpoint",
    plural = "sluiceendpoints",
    shortname = "sep",
    category = "sluice",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#,
    printcolumn = r#"{"name":"Identity","type":"integer","jsonPath":".spec.identity"}"#,
    printcolumn = r#"{"name":"Addresses","type":"string","jsonPath":".spec.addresses"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".spec.state"}"#,
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".spec.policyRevision","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct SluiceEndpointSpec {
    /// UID of the pod.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// The node it runs on.
    pub node: String,
    /// The number of its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub identity: Option<u32>,
    /// Its addresses.
    #[serde(default)]
    #[schemars(inner(length(min = 2, max = 45)))]
    pub addresses: Vec<String>,
    /// The revision that gave it its identity and tables, `<epoch>.<number>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<String>,
    /// How far it is.
    pub state: EndpointState,
}

/// How far an endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Its agent has not said yet that it has an interface.
    #[default]
    Waiting,
    /// It has an interface, and its tables are in the kernel.
    Ready,
    /// Its interface is gone, or nothing has been heard of its node's agent for a while.
    Disconnected,
}
