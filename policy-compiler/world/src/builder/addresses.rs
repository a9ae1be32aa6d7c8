//! Addresses for whoever came without, and the check that no two hold the same.
//!
//! Drawn in order of name, so that a world is the same for every order of its objects. A pod whose node has `podCIDRs` gets one out of
//! these; others out of [`PODS_V4`] and [`PODS_V6`], outside every node's `podCIDRs`. Whoever was given an address of one family gets no
//! second: the world says that it is single-stack.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::BuildError;
use crate::world::World;

/// Pods' IPv4 addresses, where their node has no `podCIDRs`.
const PODS_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16));
/// Pods' IPv6 addresses, where their node has no `podCIDRs`.
const PODS_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0),
    64,
));
/// Nodes' IPv4 addresses.
const NODES_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, 0), 16));
/// Nodes' IPv6 addresses.
const NODES_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, 0),
    64,
));

/// The lowest host part given out: 0 is the network, 1 is left to a router.
const FIRST_HOST: u128 = 2;

/// Gives addresses to nodes and pods that have none: those they had before, else new ones; host-network pods get their node's.
pub(super) fn assign(world: &mut World, previous: &World) -> Result<(), BuildError> {
    let mut pool = Pool::of(world)?;
    pool.give_back(world, previous)?;
    for node in world
        .nodes
        .values_mut()
        .filter(|node| node.addresses.is_empty())
    {
        let holder = format!("Node {}", node.name);
        for range in [NODES_V4, NODES_V6] {
            node.addresses.push(pool.draw(&[range], &holder)?);
        }
    }
    for pod in world.pods.values_mut() {
        let node = world.nodes.get(&pod.node);
        if pod.host_network {
            pod.addresses = node.map(|node| node.addresses.clone()).unwrap_or_default();
        } else if pod.addresses.is_empty() {
            let holder = format!("Pod {}", pod.id);
            let own = node.map_or(&[][..], |node| &node.pod_cidrs);
            pod.addresses = pool.draw_pod(own, &holder)?;
        }
    }
    Ok(())
}

/// Who holds which address, and where each range has got to.
struct Pool {
    holders: BTreeMap<IpAddr, String>,
    pod_cidrs: Vec<IpNet>,
    next: BTreeMap<IpNet, u128>,
}

impl Pool {
    /// Of everything that has its addresses already.
    fn of(world: &World) -> Result<Self, BuildError> {
        let pod_cidrs = world
            .nodes
            .values()
            .flat_map(|node| node.pod_cidrs.clone())
            .collect();
        let mut pool = Self {
            holders: BTreeMap::new(),
            pod_cidrs,
            next: BTreeMap::new(),
        };
        for node in world.nodes.values() {
            for address in &node.addresses {
                pool.hold(*address, &format!("Node {}", node.name))?;
            }
        }
        for pod in world.pods.values().filter(|pod| !pod.host_network) {
            for address in &pod.addresses {
                pool.hold(*address, &format!("Pod {}", pod.id))?;
            }
        }
        Ok(pool)
    }

    /// What was held before, as far as nobody else is given it now and the pod still is on that node.
    fn give_back(&mut self, world: &mut World, previous: &World) -> Result<(), BuildError> {
        for (name, node) in world
            .nodes
            .iter_mut()
            .filter(|(_, node)| node.addresses.is_empty())
        {
            if let Some(before) = previous.nodes.get(name) {
                node.addresses = self.take_free(&before.addresses, &format!("Node {name}"))?;
            }
        }
        for (id, pod) in &mut world.pods {
            let before = previous
                .pods
                .get(id)
                .filter(|before| before.node == pod.node && !before.host_network);
            if let Some(before) = before
                && pod.addresses.is_empty()
                && !pod.host_network
            {
                pod.addresses = self.take_free(&before.addresses, &format!("Pod {id}"))?;
            }
        }
        Ok(())
    }

    /// All of these addresses, or none.
    fn take_free(&mut self, addresses: &[IpAddr], holder: &str) -> Result<Vec<IpAddr>, BuildError> {
        if addresses
            .iter()
            .any(|address| self.holders.contains_key(address))
        {
            return Ok(Vec::new());
        }
        for address in addresses {
            self.hold(*address, holder)?;
        }
        Ok(addresses.to_vec())
    }

    fn hold(&mut self, address: IpAddr, holder: &str) -> Result<(), BuildError> {
        match self.holders.insert(address, holder.to_owned()) {
            Some(first) => Err(BuildError::SharedAddress {
                address,
                first,
                second: holder.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// One of each family: out of the node's own prefixes where it has some, which also say which families there are.
    fn draw_pod(&mut self, own: &[IpNet], holder: &str) -> Result<Vec<IpAddr>, BuildError> {
        if own.is_empty() {
            return Ok(vec![
                self.draw(&[PODS_V4], holder)?,
                self.draw(&[PODS_V6], holder)?,
            ]);
        }
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
            own.iter().partition(|range| range.addr().is_ipv4());
        let families = [v4, v6].into_iter().filter(|ranges| !ranges.is_empty());
        families.map(|ranges| self.draw(&ranges, holder)).collect()
    }

    /// The next free address of the first of these ranges that has one.
    fn draw(&mut self, ranges: &[IpNet], holder: &str) -> Result<IpAddr, BuildError> {
        for range in ranges {
            if let Some(address) = self.next_free(*range) {
                self.hold(address, holder)?;
                return Ok(address);
            }
        }
        let range = ranges
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        Err(BuildError::Exhausted {
            range,
            holder: holder.to_owned(),
        })
    }

    fn next_free(&mut self, range: IpNet) -> Option<IpAddr> {
        let mut host = self.next.get(&range).copied().unwrap_or(FIRST_HOST);
        loop {
            let address = nth(range, host)?;
            let inside = self.pod_cidrs.iter().find(|prefix| {
                // A range that is itself a pod CIDR, or lies in one, is drawn from by the pods of that very node.
                !prefix.contains(&range) && prefix.contains(&address)
            });
            if let Some(prefix) = inside {
                host = number(prefix.broadcast()) - number(range.network()) + 1;
                continue;
            }
            host += 1;
            if !self.holders.contains_key(&address) {
                self.next.insert(range, host);
                return Some(address);
            }
        }
    }
}

/// The address with this host part; `None` from the last one on, which in IPv4 is the broadcast address.
fn nth(range: IpNet, host: u128) -> Option<IpAddr> {
    let number = number(range.network()).checked_add(host)?;
    if number >= self::number(range.broadcast()) {
        return None;
    }
    Some(match range {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).ok()?)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}
