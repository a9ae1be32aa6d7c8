//! Direct routes to other nodes' pods through their own addresses, and the devices behind which the world is. All routes carry our mark, so
//! that whatever an earlier process left is recognised, and nobody else's is touched.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use sluice_abi::ipcache::PrefixKey;
use sluice_agent::{Masquerade, Node};
use sluice_datapath::net::{Hop, Link, MarkedRoute, NetError, Netlink};
use sluice_stream::{NodeInfo, Overlay};

use crate::engine::{Cluster, Routing};

/// What VXLAN puts around a packet: Ethernet, IP, UDP and its own header (RFC 7348, section 5).
const VXLAN_IPV4: u32 = 50;
const VXLAN_IPV6: u32 = 70;
/// Where no device tells: Ethernet's.
const MTU: u32 = 1500;

/// What is given and not found.
#[derive(Clone, Debug, Default)]
pub struct RoutingOptions {
    /// Devices that face outward; found by address and default route where empty.
    pub devices: Vec<String>,
    /// Largest packet of a pod; found from the devices where none.
    pub mtu: Option<u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct DirectRoutes {
    options: RoutingOptions,
    /// Attached, by index.
    attached: BTreeSet<u32>,
    devices: Vec<String>,
    masquerade: Option<Masquerade>,
}

impl DirectRoutes {
    /// Routes by these options.
    #[must_use]
    pub fn new(options: RoutingOptions) -> Self {
        Self {
            options,
            attached: BTreeSet::new(),
            devices: Vec::new(),
            masquerade: None,
        }
    }

    fn outward(&self, netlink: &mut Netlink, own: &[IpAddr]) -> Result<Vec<Link>, NetError> {
        let mut wanted = BTreeSet::new();
        if self.options.devices.is_empty() {
            let assigned = netlink.assigned()?;
            let holds = |net: &IpNet| own.contains(&net.addr());
            wanted.extend(
                assigned
                    .iter()
                    .filter(|(_, net)| holds(net))
                    .map(|(index, _)| *index),
            );
            wanted.extend(netlink.default_interfaces()?);
        }
        let named = |link: &Link| self.options.devices.contains(&link.name);
        let links = netlink.links()?.into_iter();
        Ok(links
            .filter(|link| link.name != "lo" && (named(link) || wanted.contains(&link.index)))
            .collect())
    }

    fn attach(&mut self, node: &mut Node, cluster: &Cluster<'_>) -> Result<(), String> {
        let own = own_addresses(cluster);
        let mut netlink = Netlink::open_in(cluster.namespace).map_err(text)?;
        let links = self.outward(&mut netlink, own).map_err(text)?;
        let missing: Vec<&String> = self
            .options
            .devices
            .iter()
            .filter(|name| links.iter().all(|link| link.name != **name))
            .collect();
        for link in &links {
            if !self.attached.contains(&link.index) {
                node.add_outside(link.index, cluster.namespace)
                    .map_err(text)?;
            }
        }
        self.attached = links.iter().map(|link| link.index).collect();
        self.devices = links.into_iter().map(|link| link.name).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("no such device: {missing:?}"))
        }
    }

    /// Says with which addresses pods' connections leave the cluster, if that changed.
    fn masquerade(&mut self, node: &mut Node, cluster: &Cluster<'_>) -> Result<(), String> {
        let wanted = outward_addresses(cluster);
        if self.masquerade.as_ref() != Some(&wanted) {
            node.masquerade(&wanted).map_err(text)?;
            self.masquerade = Some(wanted);
        }
        Ok(())
    }

    fn route(cluster: &Cluster<'_>) -> Result<Vec<String>, NetError> {
        let mut netlink = Netlink::open_in(cluster.namespace)?;
        let mut troubles = Vec::new();
        let wanted = wanted(cluster, &mut netlink, &mut troubles)?;
        let there: BTreeSet<MarkedRoute> = netlink.marked_routes()?.into_iter().collect();
        for route in wanted.difference(&there) {
            if let Err(error) = netlink.add_marked_route(route) {
                troubles.push(error.to_string());
            }
        }
        // One destination has one route: what was replaced just now is gone by itself.
        let kept: BTreeSet<IpNet> = wanted.iter().map(|route| route.destination).collect();
        for route in there.difference(&wanted) {
            if !kept.contains(&route.destination) {
                netlink.delete_marked_route(route)?;
            }
        }
        Ok(troubles)
    }
}

impl Routing for DirectRoutes {
    fn apply(&mut self, node: &mut Node, cluster: &Cluster<'_>) -> Vec<String> {
        let attached = self.attach(node, cluster).err().into_iter();
        let attached = attached.chain(self.masquerade(node, cluster).err());
        match Self::route(cluster) {
            Ok(troubles) => attached.chain(troubles).collect(),
            Err(error) => attached.chain([error.to_string()]).collect(),
        }
    }

    fn mtu(&mut self, cluster: &Cluster<'_>) -> u32 {
        if let Some(mtu) = self.options.mtu {
            return mtu;
        }
        let own = own_addresses(cluster);
        let found = Netlink::open_in(cluster.namespace)
            .and_then(|mut netlink| self.outward(&mut netlink, own));
        // A node whose devices can't be read has no way to other nodes either; what pods say to each other works with any.
        let links = found.unwrap_or_default();
        let device = links.iter().map(|link| link.mtu).min().unwrap_or(MTU);
        match cluster.settings.overlay {
            Overlay::Direct => device,
            Overlay::Vxlan { .. } if own.iter().any(IpAddr::is_ipv4) => {
                device.saturating_sub(VXLAN_IPV4)
            }
            Overlay::Vxlan { .. } => device.saturating_sub(VXLAN_IPV6),
        }
    }

    fn devices(&self) -> Vec<String> {
        self.devices.clone()
    }
}

/// The routes there should be. This node's own prefixes lead nowhere, since each pod has a route of its own: else what is for a pod that is
/// gone would go round between node and router.
fn wanted(
    cluster: &Cluster<'_>,
    netlink: &mut Netlink,
    troubles: &mut Vec<String>,
) -> Result<BTreeSet<MarkedRoute>, NetError> {
    let mut wanted = BTreeSet::new();
    for (name, node) in cluster.nodes {
        if name == cluster.own {
            let nowhere = |destination: &IpNet| MarkedRoute {
                destination: destination.trunc(),
                hop: Hop::Unreachable,
            };
            wanted.extend(node.pod_cidrs.iter().map(nowhere));
        } else if cluster.settings.overlay == Overlay::Direct {
            match hops(node, netlink)? {
                Ok(routes) => wanted.extend(routes),
                Err(trouble) => troubles.push(format!("node {}: {trouble}", name.0)),
            }
        }
    }
    Ok(wanted)
}

fn hops(
    node: &NodeInfo,
    netlink: &mut Netlink,
) -> Result<Result<Vec<MarkedRoute>, String>, NetError> {
    let mut routes = Vec::new();
    for cidr in &node.pod_cidrs {
        let same = |address: &&IpAddr| address.is_ipv4() == cidr.addr().is_ipv4();
        let Some(theirs) = node
            .addresses
            .iter()
            .copied()
            .find(|address| same(&address))
        else {
            return Ok(Err(format!(
                "it has no address of the family of its pod CIDR {cidr}: its pods can't be reached by it"
            )));
        };
        match netlink.next_hop(theirs)? {
            Some(hop) if hop.router.is_none() && !hop.local => routes.push(MarkedRoute {
                destination: cidr.trunc(),
                hop: Hop::Via {
                    interface: hop.interface,
                    router: theirs,
                },
            }),
            Some(hop) if hop.local => {
                return Ok(Err(format!("{theirs} is this node's own address")));
            }
            Some(_) => {
                return Ok(Err(format!(
                    "{theirs} is not on this node's segment: direct routing can't reach it, the overlay can"
                )));
            }
            None => return Ok(Err(format!("there is no route to {theirs}"))),
        }
    }
    Ok(Ok(routes))
}

/// Pods leave with the node's first address of a family. What is the cluster's own, or excluded, sees theirs.
fn outward_addresses(cluster: &Cluster<'_>) -> Masquerade {
    let settings = cluster.settings;
    let own = own_addresses(cluster)
        .iter()
        .filter(|_| settings.masquerade);
    let nodes = cluster.nodes.values();
    let inside = nodes.flat_map(|node| {
        let addresses = node.addresses.iter().copied().map(IpNet::from);
        addresses.chain(node.pod_cidrs.iter().copied())
    });
    let configured = [
        &settings.cluster_cidrs,
        &settings.excluded_cidrs,
        &settings.service_cidrs,
    ];
    Masquerade {
        ipv4: own.clone().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        }),
        ipv6: own.clone().find_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        }),
        ports: Masquerade::PORTS,
        excluded: inside
            .chain(configured.into_iter().flatten().copied())
            .map(|net| PrefixKey::block(net.network(), net.prefix_len()))
            .collect(),
    }
}

fn own_addresses<'a>(cluster: &Cluster<'a>) -> &'a [IpAddr] {
    cluster
        .nodes
        .get(cluster.own)
        .map_or(&[], |node| node.addresses.as_slice())
}

#[allow(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Removes every route that carries our mark from the namespace this process runs in. Returns how many there were.
///
/// # Errors
/// The kernel refuses.
pub fn remove_routes() -> Result<usize, NetError> {
    let mut netlink = Netlink::open()?;
    let routes = netlink.marked_routes()?;
    for route in &routes {
        netlink.delete_marked_route(route)?;
    }
    Ok(routes.len())
}
