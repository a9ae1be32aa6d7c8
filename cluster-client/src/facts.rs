//! What the API server and the agents say, gathered and reduced to what is judged. No judgement here.

use std::collections::BTreeMap;

use futures::try_join;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        coordination::v1::Lease,
        core::v1::Node,
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use sluice_crds::resources::{EndpointState, SluiceCIDRGroup, SluiceEndpoint, SluiceNode};

use crate::{
    AGENT, Error, NAMESPACE, OPERATOR,
    agent::{self, AgentStatus},
    objects::{NodeRow, list_all, node_row},
    policy::{self, PolicyState},
};

/// All that a status is made of.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Where Sluice is installed.
    pub namespace: String,
    /// The operator's Deployment.
    pub operator: Option<Rollout>,
    /// Who leads.
    pub lease: Option<Leadership>,
    /// The agents' `DaemonSet`.
    pub agents: Option<Rollout>,
    /// Names of all nodes.
    pub nodes: Vec<String>,
    /// What the operator keeps of nodes, by name.
    pub records: BTreeMap<String, NodeRow>,
    /// What agents say themselves, or why they don't; by node. `None`: they were not asked.
    pub answers: Option<BTreeMap<String, Result<AgentStatus, String>>>,
    /// Endpoints by how far they are.
    pub endpoints: BTreeMap<&'static str, u64>,
    /// Endpoints that are not ready, with the moment from which they are there.
    pub unready: Vec<(String, EndpointState, Option<Timestamp>)>,
    /// All policies that have statuses.
    pub policies: Vec<PolicyState>,
    /// CIDR groups that are not valid, with why.
    pub invalid_groups: Vec<(String, String)>,
    /// When all this was.
    pub at: Timestamp,
}

/// How far a Deployment or `DaemonSet` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// Pods there should be.
    pub desired: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Whether the figures are of the object as it is now.
    pub current: bool,
}

/// What the operator's Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The holder, as it calls itself; none where it was given back.
    pub holder: Option<String>,
    /// When it was renewed last.
    pub renewed: Option<Timestamp>,
    /// How long it holds without being renewed, in seconds.
    pub seconds: i32,
}

/// Gathers everything; agents are asked with `ask_agents`.
///
/// # Errors
/// The API server refuses, or Sluice is not installed.
pub async fn gather(
    client: &Client,
    namespace: Option<&str>,
    ask_agents: bool,
) -> Result<Facts, Error> {
    let namespace = match namespace {
        Some(namespace) => namespace.to_owned(),
        None => find_namespace(client).await,
    };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), &namespace);
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    let nodes: Api<Node> = Api::all(client.clone());
    let records: Api<SluiceNode> = Api::all(client.clone());
    let endpoints: Api<SluiceEndpoint> = Api::all(client.clone());
    let groups: Api<SluiceCIDRGroup> = Api::all(client.clone());
    let everything = ListParams::default();
    let (operator, agents, lease, nodes, records, endpoints, groups, policies) = try_join!(
        async {
            deployments
                .get_opt(OPERATOR)
                .await
                .map_err(Error::api("reading the operator's Deployment"))
        },
        async {
            sets.get_opt(AGENT)
                .await
                .map_err(Error::api("reading the agents' DaemonSet"))
        },
        async {
            leases
                .get_opt(OPERATOR)
                .await
                .map_err(Error::api("reading the operator's Lease"))
        },
        list_all(&nodes, &everything, "listing nodes"),
        none_if_unknown(list_all(&records, &everything, "listing nodes of Sluice")),
        none_if_unknown(list_all(&endpoints, &everything, "listing endpoints")),
        none_if_unknown(list_all(&groups, &everything, "listing CIDR groups")),
        policy::all(client),
    )?;
    if operator.is_none() && agents.is_none() {
        return Err(Error::Missing(format!(
            "Sluice is not installed in namespace {namespace} (--sluice-namespace looks elsewhere)"
        )));
    }
    let answers = if ask_agents {
        let pods = agent::pods(client, &namespace).await?;
        Some(agent::statuses(client, &pods).await)
    } else {
        None
    };
    let mut facts = Facts {
        namespace,
        operator: operator.as_ref().map(deployment),
        lease: lease.as_ref().map(leadership),
        agents: agents.as_ref().map(daemon_set),
        nodes: nodes.iter().map(kube::ResourceExt::name_any).collect(),
        records: records
            .into_iter()
            .map(|node| (node.name_any(), node_row(node)))
            .collect(),
        answers,
        policies,
        invalid_groups: groups.iter().filter_map(invalid_group).collect(),
        at: Timestamp::now(),
        ..Facts::default()
    };
    for endpoint in endpoints {
        facts.count(&endpoint);
    }
    Ok(facts)
}

impl Facts {
    fn count(&mut self, endpoint: &SluiceEndpoint) {
        let state = endpoint.spec.state;
        *self.endpoints.entry(state_name(state)).or_default() += 1;
        if state != EndpointState::Ready {
            let name = format!(
                "{}/{}",
                endpoint.namespace().unwrap_or_default(),
                endpoint.name_any()
            );
            let since = endpoint
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0);
            self.unready.push((name, state, since));
        }
    }
}

/// As objects spell it.
#[must_use]
pub const fn state_name(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Waiting => "waiting",
        EndpointState::Ready => "ready",
        EndpointState::Disconnected => "disconnected",
    }
}

/// The one namespace with a `DaemonSet` of the agents' name; where that can't be told, the usual one.
pub async fn find_namespace(client: &Client) -> String {
    let all: Api<DaemonSet> = Api::all(client.clone());
    let named = ListParams::default().fields(&format!("metadata.name={AGENT}"));
    let found = all
        .list(&named)
        .await
        .map(|list| list.items)
        .unwrap_or_default();
    match &found[..] {
        [only] => only.namespace().unwrap_or_else(|| NAMESPACE.to_owned()),
        _ => NAMESPACE.to_owned(),
    }
}

/// A kind that is not installed has no objects.
async fn none_if_unknown<K>(
    list: impl Future<Output = Result<Vec<K>, Error>>,
) -> Result<Vec<K>, Error> {
    match list.await {
        Err(error) if error.code() == Some(404) => Ok(Vec::new()),
        other => other,
    }
}

/// A group that the operator says is not valid, and why.
fn invalid_group(group: &SluiceCIDRGroup) -> Option<(String, String)> {
    let conditions = &group.status.as_ref()?.conditions;
    let invalid = conditions
        .iter()
        .find(|condition| condition.type_ == "Valid" && condition.status != "True")?;
    Some((group.name_any(), invalid.message.clone()))
}

fn deployment(object: &Deployment) -> Rollout {
    let status = object.status.clone().unwrap_or_default();
    Rollout {
        desired: object.spec.replicas.unwrap_or(1),
        ready: status.ready_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        current: status.observed_generation >= object.metadata.generation,
    }
}

fn daemon_set(object: &DaemonSet) -> Rollout {
    let status = object.status.clone().unwrap_or_default();
    Rollout {
        desired: status.desired_number_scheduled,
        ready: status.number_ready,
        updated: status.updated_number_scheduled.unwrap_or(0),
        current: status.observed_generation >= object.metadata.generation,
    }
}

fn leadership(object: &Lease) -> Leadership {
    let spec = object.spec.clone().unwrap_or_default();
    Leadership {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        renewed: spec.renew_time.map(|time| time.0),
        seconds: spec.lease_duration_seconds.unwrap_or(0),
    }
}
