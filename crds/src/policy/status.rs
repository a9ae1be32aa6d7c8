//! What the operator reports back on a policy object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a policy: condition `Valid` says whether it was understood, `Enforced` whether the nodes follow it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Valid` and `Enforced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How far enforcement of the observed generation has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// The last valid `spec` and `specs`, as JSON: they stay in force while those above are not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_valid: Option<String>,
}

/// Nodes that enforce the observed generation, of those that should.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that have acknowledged it.
    #[schemars(range(min = 0))]
    pub enforced: i32,
    /// Nodes with endpoints it concerns.
    #[schemars(range(min = 0))]
    pub desired: i32,
}
