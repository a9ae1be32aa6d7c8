//! This node's end of the overlay: its device, and where wrapped packets for each other node go. What is wrapped, and who is believed, is the
//! datapath's to decide.
//!
//! The device bears the node's own address of each family. Whatever the node sends to other nodes' pods has it then, and so has what its
//! netfilter masquerades on the way there (a node port whose backend is elsewhere): the receiver believes a node only its own addresses. For
//! the same reason the outside of each packet has it, whichever address the kernel would choose.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_agent::{Node, OverlayDevice};
use sluice_datapath::{
    net::{
        Link, NetError, Netlink,
        overlay::{OVERHEAD_IPV4, OVERHEAD_IPV6, mac},
    },
    state::OtherNode,
};
use sluice_stream::NodeInfo;

use super::text;
use crate::engine::Cluster;

/// The device's name.
pub const DEVICE: &str = "sluice_vxlan";

/// What the datapath has been told of the overlay.
#[derive(Debug, Default)]
pub(super) struct Tunnel {
    device: Option<OverlayDevice>,
    others: Option<Vec<OtherNode>>,
}

/// What the device should be like.
struct Plan<'a> {
    own: &'a NodeInfo,
    port: u16,
    mtu: u32,
}

impl Tunnel {
    /// Goes on with the device that an earlier process left, whose programs run still. Where it is gone, nothing leaves until
    /// [`Tunnel::open`].
    pub(super) fn resume(
        &mut self,
        node: &mut Node,
        cluster: &Cluster<'_>,
        port: u16,
    ) -> Result<(), String> {
        let own = cluster.nodes.get(cluster.own);
        let own = own.ok_or("the operator has not said which addresses this node has")?;
        // Maps of another layout are empty, and new programs read them before the device is looked after.
        self.know(node, others(own, cluster).0)?;
        let mut netlink = Netlink::open_in(cluster.namespace).map_err(text)?;
        let link = netlink.link(DEVICE).map_err(text)?;
        let index = link.map_or(0, |link| link.index);
        let addresses = addresses(own, &netlink.assigned().map_err(text)?, index);
        node.know_overlay(Some(device(index, port, &addresses)))
            .map_err(text)
    }

    /// Makes the device as it should be, and has the datapath use it. Returns its index; none where there is no device, so that nothing
    /// leaves for other nodes' pods.
    pub(super) fn open(
        &mut self,
        node: &mut Node,
        cluster: &Cluster<'_>,
        port: u16,
        mtu: u32,
        troubles: &mut Vec<String>,
    ) -> Option<u32> {
        let Some(own) = cluster.nodes.get(cluster.own) else {
            troubles.push("the operator has not said which addresses this node has".to_owned());
            return None;
        };
        let (others, unreachable) = others(own, cluster);
        troubles.extend(unreachable);
        let plan = Plan { own, port, mtu };
        let opened = self
            .know(node, others)
            .and_then(|()| self.open_device(node, cluster, &plan));
        if let Err(error) = opened {
            troubles.push(error);
            if !self.device.is_some_and(|device| is_there(cluster, device)) {
                self.device = None;
                let nowhere = device(0, port, &[]);
                troubles.extend(node.know_overlay(Some(nowhere)).map_err(text).err());
            }
        }
        self.device.map(|device| device.index)
    }

    /// Has the datapath use routes, and removes the device.
    pub(super) fn close(&mut self, node: &mut Node, cluster: &Cluster<'_>) -> Result<(), String> {
        let mut netlink = Netlink::open_in(cluster.namespace).map_err(text)?;
        let link = netlink.link(DEVICE).map_err(text)?;
        if link.is_none() && self.device.is_none() && self.others.is_none() {
            return Ok(());
        }
        node.set_overlay(None, cluster.namespace).map_err(text)?;
        self.device = None;
        if let Some(link) = link {
            netlink.delete_link(link.index).map_err(text)?;
        }
        node.set_nodes(&[]).map_err(text)?;
        self.others = None;
        Ok(())
    }

    fn know(&mut self, node: &mut Node, others: Vec<OtherNode>) -> Result<(), String> {
        if self.others.as_ref() != Some(&others) {
            self.others = None;
            node.set_nodes(&others).map_err(text)?;
            self.others = Some(others);
        }
        Ok(())
    }

    fn open_device(
        &mut self,
        node: &mut Node,
        cluster: &Cluster<'_>,
        plan: &Plan<'_>,
    ) -> Result<(), String> {
        let mut netlink = Netlink::open_in(cluster.namespace).map_err(text)?;
        let (index, addresses) = ensure(&mut netlink, plan).map_err(text)?;
        let device = device(index, plan.port, &addresses);
        if self.device != Some(device) {
            node.set_overlay(Some(device), cluster.namespace)
                .map_err(text)?;
            self.device = Some(device);
        }
        Ok(())
    }
}

/// Bytes that the overlay adds to a packet of this node's pods.
pub(super) fn overhead(cluster: &Cluster<'_>) -> u32 {
    let over_ipv4 = cluster.nodes.get(cluster.own).is_some_and(|own| {
        own.addresses.iter().any(IpAddr::is_ipv4)
            && others(own, cluster)
                .0
                .iter()
                .all(|other| other.underlay.is_ipv4())
    });
    if over_ipv4 {
        OVERHEAD_IPV4
    } else {
        OVERHEAD_IPV6
    }
}

/// The other nodes, and what stands in the way of reaching some.
fn others(own: &NodeInfo, cluster: &Cluster<'_>) -> (Vec<OtherNode>, Vec<String>) {
    let (mut found, mut troubles) = (Vec::new(), Vec::new());
    for node in cluster.nodes.values().filter(|node| node.name != own.name) {
        match underlay(own, node) {
            Some(underlay) => found.push(OtherNode {
                number: node.number,
                underlay,
                pod_cidrs: node.pod_cidrs.clone(),
            }),
            None => troubles.push(format!(
                "node {}: it has no address of a family that this node has one of, so that the overlay can't reach its pods",
                node.name.0
            )),
        }
    }
    (found, troubles)
}

/// Where a node is sent wrapped packets, and its own come from: both must choose alike, or neither believes the other.
fn underlay(own: &NodeInfo, other: &NodeInfo) -> Option<IpAddr> {
    let first = |node: &NodeInfo, ipv4: bool| {
        let mut addresses = node.addresses.iter().copied();
        addresses.find(|address| address.is_ipv4() == ipv4)
    };
    [true, false]
        .into_iter()
        .find_map(|ipv4| first(own, ipv4).and(first(other, ipv4)))
}

fn is_there(cluster: &Cluster<'_>, device: OverlayDevice) -> bool {
    let link = Netlink::open_in(cluster.namespace).and_then(|mut netlink| netlink.link(DEVICE));
    matches!(link, Ok(Some(link)) if link.index == device.index)
}

/// The device as the datapath wants to know it.
fn device(index: u32, port: u16, addresses: &[IpNet]) -> OverlayDevice {
    OverlayDevice {
        index,
        port,
        ipv4: addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        }),
        ipv6: addresses.iter().find_map(|net| match net {
            IpNet::V6(net) => Some(net.addr()),
            IpNet::V4(_) => None,
        }),
    }
}

/// The device as planned: the one that is there, mended, or a new one where it can't be. Returns its index and addresses.
fn ensure(netlink: &mut Netlink, plan: &Plan<'_>) -> Result<(u32, Vec<IpNet>), NetError> {
    let assigned = netlink.assigned()?;
    if let Some(link) = netlink.link(DEVICE)? {
        let wanted = addresses(plan.own, &assigned, link.index);
        if is_usable(netlink, &link, plan, &wanted, &assigned)? {
            if link.mtu != plan.mtu {
                netlink.set_mtu(link.index, plan.mtu)?;
            }
            finish(netlink, link.index, &wanted)?;
            return Ok((link.index, wanted));
        }
        netlink.delete_link(link.index)?;
    }
    netlink.create_vxlan(DEVICE, mac(plan.own.number), plan.mtu, plan.port)?;
    let index = netlink.index(DEVICE)?;
    let wanted = addresses(plan.own, &assigned, index);
    finish(netlink, index, &wanted)?;
    Ok((index, wanted))
}

/// Whether a device can be made what is planned while packets go through it.
fn is_usable(
    netlink: &mut Netlink,
    link: &Link,
    plan: &Plan<'_>,
    wanted: &[IpNet],
    assigned: &[(u32, IpNet)],
) -> Result<bool, NetError> {
    let strange = assigned
        .iter()
        .any(|(index, net)| *index == link.index && !is_of_link(net) && !wanted.contains(net));
    Ok(!strange
        && link.mac == Some(mac(plan.own.number))
        && netlink.vxlan_port(DEVICE)? == Some(plan.port))
}

fn finish(netlink: &mut Netlink, index: u32, wanted: &[IpNet]) -> Result<(), NetError> {
    for address in wanted {
        netlink.add_address(index, *address)?;
    }
    netlink.set_up(index)
}

/// The addresses that the device should have: the node's first of each family, as far as some other device has it.
fn addresses(own: &NodeInfo, assigned: &[(u32, IpNet)], device: u32) -> Vec<IpNet> {
    let held = |address: &IpAddr| {
        assigned
            .iter()
            .any(|(index, net)| *index != device && net.addr() == *address)
    };
    [true, false]
        .into_iter()
        .filter_map(|ipv4| {
            let mut all = own.addresses.iter().copied();
            all.find(|address| address.is_ipv4() == ipv4)
        })
        .filter(held)
        .map(IpNet::from)
        .collect()
}

/// The kernel gives every device one such.
fn is_of_link(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use sluice_world::NodeName;

    use super::*;

    fn node(number: u32, addresses: &[&str]) -> NodeInfo {
        NodeInfo {
            name: NodeName(format!("n{number}")),
            number,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            pod_cidrs: Vec::new(),
        }
    }

    #[test]
    fn two_nodes_choose_the_same_family() {
        let both = node(1, &["2001:db8::1", "192.0.2.1", "198.51.100.1"]);
        let four = node(2, &["192.0.2.2"]);
        let six = node(3, &["2001:db8::3"]);
        let to = |own, other| underlay(own, other).map(|address| address.to_string());
        for (a, b, at_a, at_b) in [
            (&both, &four, "192.0.2.1", "192.0.2.2"),
            (&both, &six, "2001:db8::1", "2001:db8::3"),
        ] {
            assert_eq!(to(a, b).as_deref(), Some(at_b));
            assert_eq!(to(b, a).as_deref(), Some(at_a));
        }
        assert_eq!(to(&four, &six), None);
        assert_eq!(to(&six, &four), None);
    }

    #[test]
    fn the_device_bears_the_first_address_of_each_family_that_another_device_has() {
        let own = node(1, &["198.51.100.9", "192.0.2.1", "2001:db8::1"]);
        let assigned: Vec<(u32, IpNet)> = [
            (2, "192.0.2.1/24"),
            (2, "2001:db8::1/64"),
            (2, "fe80::1/64"),
            (7, "198.51.100.9/32"),
        ]
        .map(|(index, net)| (index, net.parse().unwrap()))
        .to_vec();
        let texts = |device| {
            let nets = addresses(&own, &assigned, device);
            nets.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(9), ["198.51.100.9/32", "2001:db8::1/128"]);
        // Left on the device alone by an earlier process, it is no address of the node any more.
        assert_eq!(texts(7), ["2001:db8::1/128"]);
        assert!(is_of_link(&assigned[2].1) && !is_of_link(&assigned[1].1));
    }
}
