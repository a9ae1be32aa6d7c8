//! What is said over the stream, as plain data. How it travels is the wire's, what an agent needs of it the catalog's.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use sluice_policy::Delta;
use sluice_world::{NodeName, PodRef, ServiceRef};

/// Names one published step. Greater is later; a greater epoch is another leader, who numbers anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Of the leader: grows with every change of leader.
    pub epoch: u64,
    /// Grows by one with every step, from 1.
    pub number: u64,
}

/// `epoch.number`.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// A node as other nodes need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: NodeName,
    /// Its number; never 0.
    pub number: u32,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Prefixes its pods' addresses are taken from.
    pub pod_cidrs: Vec<IpNet>,
}

/// Where a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// A cluster address.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port, in host byte order.
    pub port: u16,
}

/// Who answers for a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port, in host byte order.
    pub port: u16,
    /// The node it runs on, where it runs on one.
    pub node: Option<NodeName>,
}

/// A service at one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The service.
    pub name: ServiceRef,
    /// Where it is reached.
    pub frontend: Frontend,
    /// Who answers; with none, connections are refused.
    pub backends: Vec<Backend>,
    /// For how long a client keeps its backend, in seconds.
    pub affinity_seconds: Option<u32>,
    /// Only backends on the client's own node answer.
    pub internal_local: bool,
}

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// By routes.
    #[default]
    Direct,
    /// In VXLAN.
    Vxlan {
        /// UDP port; never 0.
        port: u16,
    },
}

/// What every agent is told of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How packets travel between nodes.
    pub overlay: Overlay,
    /// Pods' traffic leaving the cluster takes the node's address.
    pub masquerade: bool,
    /// Prefixes of all pods.
    pub cluster_cidrs: Vec<IpNet>,
    /// Destinations that are not masqueraded.
    pub excluded_cidrs: Vec<IpNet>,
    /// Prefixes of cluster addresses of services.
    pub service_cidrs: Vec<IpNet>,
    /// Some policy tells pods apart by their addresses: a new pod's identity is only known once its addresses are.
    pub addresses_matter: bool,
}

/// One step, or a whole state. What a receiver gets is what its node needs of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Which step.
    pub revision: Revision,
    /// Replaces all that was before.
    pub snapshot: bool,
    /// What the compiler changed. `warnings` and `errors` stay with the compiler and never travel.
    pub delta: Delta,
    /// The settings, if they changed.
    pub settings: Option<Settings>,
    /// Nodes; `None` for one that is gone.
    pub nodes: Vec<(NodeName, Option<NodeInfo>)>,
    /// Services; `None` for a frontend that is gone.
    pub services: Vec<(Frontend, Option<ServiceEntry>)>,
}

/// What a leader publishes at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// One commit of the compiler.
    pub delta: Delta,
    /// The settings, if they changed.
    pub settings: Option<Settings>,
    /// Nodes; `None` for one that is gone.
    pub nodes: Vec<(NodeName, Option<NodeInfo>)>,
    /// Services; `None` for a frontend that is gone.
    pub services: Vec<(Frontend, Option<ServiceEntry>)>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its last step.
    pub revision: Revision,
    /// Steps it took: 1, or up to 3 where identities moved.
    pub steps: u32,
    /// Agents that acknowledged the last step that was waited for; 0 where none was.
    pub acknowledged: usize,
    /// Agents that were waited for.
    pub of: usize,
    /// How long was waited.
    pub waited: Duration,
}

/// An agent as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its node.
    pub node: NodeName,
    /// It holds everything it needs up to here.
    pub acked: Option<Revision>,
    /// When the session began.
    pub connected_since: SystemTime,
    /// When it was last heard.
    pub last_seen: SystemTime,
    /// Another replica serves it.
    pub remote: bool,
}

/// What an agent tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A pod has its interface and addresses.
    EndpointUp {
        /// The pod.
        pod: PodRef,
        /// Its UID.
        uid: String,
        /// Its addresses, at most one of each family.
        addresses: Vec<IpAddr>,
        /// The container's id.
        container: String,
    },
    /// A pod's interface is gone.
    EndpointDown {
        /// The pod.
        pod: PodRef,
        /// Its UID.
        uid: String,
    },
    /// How the agent is.
    Status(AgentStatus),
}

/// How an agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatus {
    /// Its release.
    pub release: String,
    /// What is in force in its kernel.
    pub revision: Option<Revision>,
    /// Endpoints with an interface.
    pub endpoints: u32,
    /// Endpoints among them whose tables are in force.
    pub ready: u32,
    /// How full the kernel's maps are.
    pub maps: Vec<MapUse>,
    /// What holds and what doesn't.
    pub conditions: Vec<Condition>,
    /// Kernel features: what is on, replaced or refused.
    pub features: Vec<(String, String)>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// Which.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries it can hold.
    pub size: u64,
}

/// One condition, as Kubernetes objects have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

impl Update {
    /// Whether nothing is in it but its revision.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.snapshot
            && self.settings.is_none()
            && self.nodes.is_empty()
            && self.services.is_empty()
            && self.delta == Delta::default()
    }
}
