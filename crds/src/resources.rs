//! Custom resources as whole objects, as written: those of group `sluice.io` with their CRDs, and the `cilium.io` kinds
//! that are read as they are.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod cluster;
mod policies;

pub use cluster::{
    EndpointState, KernelFeature, SluiceEndpoint, SluiceEndpointSpec, SluiceNode, SluiceNodeSpec,
    SluiceNodeStatus,
};
pub use policies::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, PolicyObject,
    SluiceClusterwideNetworkPolicy, SluiceNetworkPolicy,
};

/// The API group of Sluice's own kinds.
pub const GROUP: &str = "sluice.io";
/// Their version.
pub const VERSION: &str = "v1";

/// A named, cluster-wide set of prefixes that rules refer to with `cidrGroupRef` or `cidrGroupSelector`.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource,
)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[kube(
    group = "sluice.io",
    version = "v1",
    kind = "SluiceCIDRGroup",
    plural = "sluicecidrgroups",
    shortname = "scg",
    category = "sluice",
    derive = "PartialEq",
    status = "CidrGroupStatus",
    printcolumn = r#"{"name":"CIDRs","type":"string","jsonPath":".spec.externalCIDRs","priority":1}"#,
    printcolumn = r#"{"name":"Valid","type":"string","jsonPath":".status.conditions[?(@.type=='Valid')].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct CidrGroupSpec {
    /// Prefixes, IPv4 and IPv6 alike; a bare address stands for itself.
    #[serde(rename = "externalCIDRs")]
    #[schemars(inner(length(min = 2, max = 49)))]
    pub external_cidrs: Vec<String>,
}

/// The state of a CIDR group: condition `Valid` says whether every prefix was understood.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CidrGroupStatus {
    /// The generation this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Valid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The last valid `spec`, as JSON: it stays in force while the one above is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_valid: Option<String>,
}

/// A number that stands for one set of labels; made by the operator, never by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[kube(
    group = "sluice.io",
    version = "v1",
    kind = "Identity",
    plural = "identities",
    shortname = "sid",
    category = "sluice",
    derive = "PartialEq",
    status = "IdentityStatus",
    printcolumn = r#"{"name":"Number","type":"integer","jsonPath":".spec.number"}"#,
    printcolumn = r#"{"name":"Namespace","type":"string","jsonPath":".spec.namespace"}"#,
    printcolumn = r#"{"name":"Endpoints","type":"integer","jsonPath":".status.endpoints"}"#,
    printcolumn = r#"{"name":"Labels","type":"string","jsonPath":".spec.labels","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct IdentitySpec {
    /// The number that packets' verdicts are looked up with. It never changes.
    #[schemars(range(min = 1), extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "an identity keeps its number"}]))]
    pub number: u32,
    /// The namespace of its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The labels some policy can see, with their sources.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "an identity keeps its labels"}]))]
    pub labels: BTreeMap<String, String>,
    /// Everything it stands for, line by line, labels among it: what its number is found by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "an identity keeps its properties"}]))]
    pub properties: Vec<String>,
}

/// Who has an identity now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityStatus {
    /// The number of endpoints that have it.
    #[schemars(range(min = 0))]
    pub endpoints: i64,
}
