//! The ladder's two pods, live: a node and two pods as namespaces, the real programs between them, the real compiler and agent behind.
//!
//! The namespaces go when the pair is dropped.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use sluice_agent::{Interface, Node as Agent, config};
use sluice_datapath::{
    load::Sizes,
    net::{Mac, NetNs},
};
use sluice_lab::{
    network::Node as Network,
    plan::{GATEWAY_V4, GATEWAY_V6, Listens, PodPlan},
};
use sluice_policy::{Index, Settings};
use sluice_world::{NodeName, PodRef, World};

use super::ladder::{self, CLIENT, NODE, SERVER};
use crate::wire::Endpoint;

/// See the module.
pub struct Pair {
    /// What compiled the world.
    pub index: Index,
    /// What enforces it. Before the namespaces, so that its links end first.
    pub agent: Agent,
    /// Of the node, the client and the server.
    namespaces: Namespaces,
}

/// Names of namespaces that are removed at the end.
#[derive(Debug, Default)]
struct Namespaces(Vec<String>);

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = NetNs::delete(name) {
                eprintln!("{name}: {error}");
            }
        }
    }
}

/// The maps of a benchmark: a node's, for few endpoints and the many policies that the other benchmarks load.
#[must_use]
pub fn sizes() -> Sizes {
    Sizes {
        peers: 1 << 22,
        ..node_sizes()
    }
}

/// As a node has them by default, but for few endpoints with long connection rings, and for twice the address blocks.
#[must_use]
pub fn node_sizes() -> Sizes {
    Sizes {
        endpoints: 8,
        connections: 1 << 14,
        prefixes: 1 << 18,
        ..Sizes::default()
    }
}

/// A compiler and a node that have a world in force, with the server's and the client's interface still to come.
///
/// # Errors
/// The kernel refuses.
pub fn enforced(world: &World, sizes: &Sizes) -> Result<(Index, Agent)> {
    let mut index = Index::new(Settings::default());
    for item in world.items() {
        index.apply(item);
    }
    let delta = index.commit();
    let settings = config(GATEWAY_V4.into(), GATEWAY_V6.into(), sizes);
    let mut agent = Agent::open(NodeName(NODE.to_owned()), None, sizes, settings)?;
    agent.apply(&delta).context("writing the tables")?;
    agent.settle()?;
    Ok((index, agent))
}

impl Pair {
    /// Makes the pods and brings the world in force, which must have [`ladder::Ladder`]'s pods.
    ///
    /// # Errors
    /// The kernel refuses something.
    pub fn new(world: &World) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("sluice-bench-{}-pair-{number}-{role}", std::process::id());
        let (index, mut agent) = enforced(world, &sizes())?;
        let mut namespaces = Namespaces(vec![name("node")]);
        let mut network = Network::ensure(&name("node"), Vec::new())?;
        for (number, (role, addresses)) in [("client", CLIENT), ("server", SERVER)]
            .into_iter()
            .enumerate()
        {
            namespaces.0.push(name(role));
            let plan = plan(
                u32::try_from(number)? + 1,
                ladder::pod(role),
                name(role),
                addresses.to_vec(),
            );
            let interface = network.ensure_pod(&plan)?;
            agent.add_interface(&plan.pod, endpoint(&plan, interface), network.namespace())?;
            network.connect(&plan, interface)?;
        }
        Ok(Self {
            index,
            agent,
            namespaces,
        })
    }

    /// The client and the server, by their addresses of a family: 0 for IPv4, 1 for IPv6.
    #[must_use]
    pub fn ends(&self, family: usize) -> (Endpoint, Endpoint) {
        let end = |number: usize, addresses: [IpAddr; 2]| Endpoint {
            namespace: self.namespaces.0[number].clone(),
            address: addresses[family],
        };
        (end(1, CLIENT), end(2, SERVER))
    }
}

fn plan(number: u32, pod: PodRef, namespace: String, addresses: Vec<IpAddr>) -> PodPlan {
    PodPlan {
        interface: format!("v{number}-{}", pod.name),
        pod,
        namespace,
        mac: Mac::local(number << 1),
        host_mac: Mac::local(number << 1 | 1),
        addresses,
        listens: Listens::new(),
        external: false,
    }
}

fn endpoint(plan: &PodPlan, interface: u32) -> Interface {
    Interface {
        index: interface,
        mac: plan.mac,
        host_mac: plan.host_mac,
        addresses: plan.addresses.clone(),
        uid: None,
    }
}
