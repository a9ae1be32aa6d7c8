//! How packets leave this node, put together: the devices behind which the world is, the address that pods leave the cluster with, the way to
//! other nodes' pods, and how large a packet may be. How each is done is the neighbours'.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use sluice_abi::ipcache::PrefixKey;
use sluice_agent::{Masquerade, Node};
use sluice_datapath::net::{Link, NetError, Netlink};
use sluice_stream::Overlay;

use super::{
    overlay::{self, DEVICE, Tunnel},
    routes, text,
};
use crate::engine::{Cluster, Routing};

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
pub struct NodeRouting {
    options: RoutingOptions,
    /// Attached, by index.
    attached: BTreeSet<u32>,
    devices: Vec<String>,
    masquerade: Option<Masquerade>,
    tunnel: Tunnel,
}

impl NodeRouting {
    /// Routes by these options.
    #[must_use]
    pub fn new(options: RoutingOptions) -> Self {
        Self {
            options,
            attached: BTreeSet::new(),
            devices: Vec::new(),
            masquerade: None,
            tunnel: Tunnel::default(),
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
            .filter(|link| !matches!(link.name.as_str(), "lo" | DEVICE))
            .filter(|link| named(link) || wanted.contains(&link.index))
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
}

impl Routing for NodeRouting {
    fn resume(&mut self, node: &mut Node, cluster: &Cluster<'_>) -> Vec<String> {
        let masqueraded = self.masquerade(node, cluster);
        let tunnelled = match cluster.settings.overlay {
            Overlay::Direct => Ok(()),
            Overlay::Vxlan { port } => self.tunnel.resume(node, cluster, port),
        };
        [masqueraded, tunnelled]
            .into_iter()
            .filter_map(Result::err)
            .collect()
    }

    fn apply(&mut self, node: &mut Node, cluster: &Cluster<'_>) -> Vec<String> {
        let mut troubles = Vec::new();
        troubles.extend(self.attach(node, cluster).err());
        troubles.extend(self.masquerade(node, cluster).err());
        // The way is there before packets are sent on it, and as long as any are.
        let device = match cluster.settings.overlay {
            Overlay::Direct => None,
            Overlay::Vxlan { port } => {
                let mtu = self.mtu(cluster);
                self.tunnel.open(node, cluster, port, mtu, &mut troubles)
            }
        };
        match routes::put(cluster, device) {
            Ok(more) => troubles.extend(more),
            Err(error) => troubles.push(error.to_string()),
        }
        if cluster.settings.overlay == Overlay::Direct {
            troubles.extend(self.tunnel.close(node, cluster).err());
        }
        troubles
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
            Overlay::Vxlan { .. } => device.saturating_sub(overlay::overhead(cluster)),
        }
    }

    fn devices(&self) -> Vec<String> {
        self.devices.clone()
    }
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

/// This node's addresses, as far as the operator has said them.
fn own_addresses<'a>(cluster: &Cluster<'a>) -> &'a [IpAddr] {
    cluster
        .nodes
        .get(cluster.own)
        .map_or(&[], |node| node.addresses.as_slice())
}
