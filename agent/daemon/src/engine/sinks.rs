//! The seams to what is no policy: services in the datapath, and how packets reach other nodes. What they do is theirs.

use std::collections::BTreeMap;

use sluice_agent::Node;
use sluice_datapath::net::NetNs;
use sluice_stream::{Frontend, NodeInfo, ServiceEntry, Settings};
use sluice_world::NodeName;

/// Puts services in force.
pub trait ServiceSink: Send {
    /// Takes changes in; `whole` if these are all services there are.
    ///
    /// # Errors
    /// Something could not be written; it is told to the operator, and the next whole set tries again.
    fn apply(
        &mut self,
        node: &mut Node,
        changes: &[(Frontend, Option<ServiceEntry>)],
        whole: bool,
    ) -> Result<(), String>;

    /// Who translates service addresses, for the status.
    fn path(&self) -> &'static str;
}

/// What routing needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// This node.
    pub own: &'a NodeName,
    /// All nodes, this one included.
    pub nodes: &'a BTreeMap<NodeName, NodeInfo>,
    /// The cluster's settings.
    pub settings: &'a Settings,
    /// The node's network namespace.
    pub namespace: &'a NetNs,
}

/// Makes other nodes' pods reachable, and this node's from outside.
pub trait Routing: Send {
    /// Tells the datapath what an earlier process had told it, before the first delta is put in force and the settings with it: packets
    /// go on as they did. Returns what could not be done, for people.
    fn resume(&mut self, node: &mut Node, cluster: &Cluster<'_>) -> Vec<String>;

    /// Makes it so. Called when nodes or settings change, and every few seconds. Returns what could not be done, for people.
    fn apply(&mut self, node: &mut Node, cluster: &Cluster<'_>) -> Vec<String>;

    /// Largest packet of a pod in bytes.
    fn mtu(&mut self, cluster: &Cluster<'_>) -> u32;

    /// Names of the devices whose packets from outside the datapath sees.
    fn devices(&self) -> Vec<String>;
}
