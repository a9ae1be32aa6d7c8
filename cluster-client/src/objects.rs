//! Sluice's objects as lists for people: identities, endpoints, nodes. What is right or wrong about them is `status`'s.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};
use sluice_crds::resources::{EndpointState, Identity, KernelFeature, SluiceEndpoint, SluiceNode};

use crate::Error;

/// Objects in one answer: large enough to be quick, small enough for an API server to give at once.
const PAGE: u32 = 500;

/// Which namespaces are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// This one.
    Namespace(String),
}

impl Scope {
    /// Everything of a namespaced kind in this scope.
    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// An identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdentityRow {
    /// Its number.
    pub number: u32,
    /// The namespace of its pods.
    pub namespace: Option<String>,
    /// All it stands for.
    pub labels: Vec<String>,
    /// Pods that have it.
    pub endpoints: i64,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRow {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its identity's number.
    pub identity: Option<u32>,
    /// How far it is.
    pub state: EndpointState,
    /// The revision that gave it its identity.
    pub revision: Option<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// The prefixes of its pods.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// Whether its agent follows the operator.
    pub ready: bool,
    /// What its agent acknowledged last.
    pub revision: Option<String>,
    /// The agent's release.
    pub release: Option<String>,
    /// `direct` or `vxlan`.
    pub routing: Option<String>,
    /// Pods with an interface.
    pub endpoints: i64,
    /// Those of them whose tables are in force.
    pub endpoints_ready: i64,
    /// What the agent tells.
    pub conditions: Vec<Condition>,
    /// What the kernel has.
    pub features: Vec<KernelFeature>,
}

/// All identities, or those of a namespace's pods; by number.
///
/// # Errors
/// The API server refuses.
pub async fn identities(client: &Client, scope: &Scope) -> Result<Vec<IdentityRow>, Error> {
    let api: Api<Identity> = Api::all(client.clone());
    let found = list_all(&api, &ListParams::default(), "listing identities").await?;
    let mut rows: Vec<IdentityRow> = found
        .into_iter()
        .filter(|identity| match scope {
            Scope::All => true,
            Scope::Namespace(namespace) => identity.spec.namespace.as_ref() == Some(namespace),
        })
        .map(identity_row)
        .collect();
    rows.sort_by_key(|row| row.number);
    Ok(rows)
}

fn identity_row(identity: Identity) -> IdentityRow {
    let labels = || {
        identity
            .spec
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    };
    IdentityRow {
        number: identity.spec.number,
        namespace: identity.spec.namespace.clone(),
        endpoints: identity
            .status
            .as_ref()
            .map_or(0, |status| status.endpoints),
        labels: if identity.spec.properties.is_empty() {
            labels()
        } else {
            identity.spec.properties
        },
    }
}

/// Endpoints, by namespace and name.
///
/// # Errors
/// The API server refuses.
pub async fn endpoints(client: &Client, scope: &Scope) -> Result<Vec<EndpointRow>, Error> {
    let api: Api<SluiceEndpoint> = scope.api(client);
    let found = list_all(&api, &ListParams::default(), "listing endpoints").await?;
    let row = |endpoint: SluiceEndpoint| EndpointRow {
        namespace: endpoint.namespace().unwrap_or_default(),
        name: endpoint.name_any(),
        node: endpoint.spec.node,
        identity: endpoint.spec.identity,
        state: endpoint.spec.state,
        revision: endpoint.spec.policy_revision,
        addresses: endpoint.spec.addresses,
    };
    Ok(found.into_iter().map(row).collect())
}

/// Nodes, by name.
///
/// # Errors
/// The API server refuses.
pub async fn nodes(client: &Client) -> Result<Vec<NodeRow>, Error> {
    let api: Api<SluiceNode> = Api::all(client.clone());
    let found = list_all(&api, &ListParams::default(), "listing nodes of Sluice").await?;
    Ok(found.into_iter().map(node_row).collect())
}

pub(crate) fn node_row(node: SluiceNode) -> NodeRow {
    let name = node.name_any();
    let status = node.status.unwrap_or_default();
    NodeRow {
        name,
        number: node.spec.number,
        pod_cidrs: node.spec.pod_cidrs,
        ready: status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        revision: status.revision,
        release: status.release,
        routing: status.routing_mode,
        endpoints: status.endpoints,
        endpoints_ready: status.ready,
        conditions: status.conditions,
        features: status.features,
    }
}

/// Everything that an API has, page by page.
pub(crate) async fn list_all<K>(
    api: &Api<K>,
    parameters: &ListParams,
    doing: &str,
) -> Result<Vec<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut all = Vec::new();
    let mut parameters = parameters.clone().limit(PAGE);
    loop {
        let page = api.list(&parameters).await.map_err(Error::api(doing))?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}
