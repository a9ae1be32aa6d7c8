//! Whose address is whose in a world.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::Target;
use crate::{
    model::{NodeName, PodRef, ServiceRef},
    world::World,
};

/// What an address turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// An end of a query.
    Target(Target),
    /// The cluster IP of a service: no end of any packet that policy sees.
    Service(ServiceRef),
}

/// Every address of a world with its holder. Made once per world.
#[derive(Clone, Debug)]
pub struct AddressBook {
    holders: BTreeMap<IpAddr, Holder>,
    pod_cidrs: Vec<IpNet>,
}

impl AddressBook {
    /// The addresses of this world.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let mut holders = BTreeMap::new();
        for service in world.services.values() {
            for address in &service.cluster_ips {
                holders.insert(*address, Holder::Service(service.id.clone()));
            }
        }
        for node in world.nodes.values() {
            for address in &node.addresses {
                holders.insert(*address, node_target(&node.name));
            }
        }
        for pod in world.pods.values() {
            for address in &pod.addresses {
                holders.insert(
                    *address,
                    Holder::Target(pod_target(world, &pod.id, *address)),
                );
            }
        }
        let pod_cidrs = world
            .nodes
            .values()
            .flat_map(|node| node.pod_cidrs.clone())
            .collect();
        Self { holders, pod_cidrs }
    }

    /// What this address is. One that nobody holds is the outside, unless some node takes its pods' addresses from around it.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Holder {
        if let Some(holder) = self.holders.get(&address) {
            return holder.clone();
        }
        if self
            .pod_cidrs
            .iter()
            .any(|prefix| prefix.contains(&address))
        {
            return Holder::Target(Target::Unknown(address));
        }
        Holder::Target(Target::Outside(address))
    }
}

fn node_target(name: &NodeName) -> Holder {
    Holder::Target(Target::Node(name.clone()))
}

/// What a pod is to policy when its packets carry this address: itself, its node, or a host outside.
pub(super) fn pod_target(world: &World, id: &PodRef, address: IpAddr) -> Target {
    match world.pods.get(id) {
        Some(pod) if pod.external => Target::Outside(address),
        Some(pod) if pod.host_network => Target::Node(pod.node.clone()),
        _ => Target::Pod(id.clone()),
    }
}
