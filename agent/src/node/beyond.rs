//! What is beyond the node: other nodes, the overlay that leads to their pods, and the world that pods' connections leave for. Endpoints and
//! policy may not enter.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use sluice_abi::{
    config::Config,
    ipcache::{Address, PrefixKey},
};
use sluice_datapath::{net::NetNs, state::OtherNode};

use super::Node;
use crate::AgentError;

/// The device that wraps packets for other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayDevice {
    /// Its index, in the node's network namespace.
    pub index: u32,
    /// The UDP port that nodes receive wrapped packets at.
    pub port: u16,
    /// The address of its own that this node wraps packets with over IPv4: others believe no other. `None`: whichever the kernel chooses.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address likewise.
    pub ipv6: Option<Ipv6Addr>,
}

/// How pods' connections leave the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The node's IPv4 address that they leave with; `None` lets IPv4 leave with the pods' own.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address likewise.
    pub ipv6: Option<Ipv6Addr>,
    /// The ports that they are given; none of them should be one that the node itself uses (`ip_local_port_range`).
    pub ports: RangeInclusive<u16>,
    /// Blocks that see the pods' own addresses: the cluster's and what else is excluded. Host bits are zero.
    pub excluded: BTreeSet<PrefixKey>,
}

impl Masquerade {
    /// Behind the ports that Linux gives out by default.
    pub const PORTS: RangeInclusive<u16> = 61_000..=65_535;
}

impl Node {
    /// Says how pods' connections leave the cluster. Those that have begun stay as they are, but for the node's address: its new one ends
    /// them. With pods' connections to leave with the node's address, the programs for outside must be at every device that faces outward.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses: nothing is masqueraded that was not before.
    pub fn masquerade(&mut self, wanted: &Masquerade) -> Result<(), AgentError> {
        self.excluded.sync(&wanted.excluded)?;
        self.config.masquerade_ipv4 = or_zeros(wanted.ipv4);
        self.config.masquerade_ipv6 = or_zeros(wanted.ipv6);
        (self.config.masquerade_first, self.config.masquerade_last) =
            (*wanted.ports.start(), *wanted.ports.end());
        self.put_settings()
    }

    /// Sends what is for pods of other nodes through this device, or, with none, by the node's routes.
    ///
    /// # Errors
    /// There is no such device, or the kernel refuses.
    pub fn set_overlay(
        &mut self,
        overlay: Option<OverlayDevice>,
        namespace: &NetNs,
    ) -> Result<(), AgentError> {
        let before = self.config.overlay_ifindex;
        if let Some(device) = overlay {
            self.datapath.attach_overlay(namespace, device.index)?;
        }
        self.know_overlay(overlay)?;
        if before != 0 && overlay.is_none_or(|device| device.index != before) {
            self.datapath.detach_overlay(before)?;
        }
        Ok(())
    }

    /// As [`Node::set_overlay`], without attaching: for a device that has an earlier process's programs, until the first delta is in force.
    /// With a device of index 0 what is for pods of other nodes drops, and what comes from them unwrapped is forged all the same.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn know_overlay(&mut self, overlay: Option<OverlayDevice>) -> Result<(), AgentError> {
        if let Some(device) = overlay {
            self.config.flags |= Config::OVERLAY;
            self.config.overlay_ifindex = device.index;
            self.config.overlay_port = u32::from(device.port);
            self.config.overlay_ipv4 = or_zeros(device.ipv4);
            self.config.overlay_ipv6 = or_zeros(device.ipv6);
        } else {
            self.config.flags &= !Config::OVERLAY;
            self.config.overlay_ifindex = 0;
        }
        self.put_settings()
    }

    /// Writes the settings, but not before the node is numbered: they are none till then.
    fn put_settings(&mut self) -> Result<(), AgentError> {
        if self.config.node != 0 {
            self.settings.put(&self.config)?;
        }
        Ok(())
    }

    /// Knows these other nodes, and no others.
    ///
    /// # Errors
    /// There is no room for them, or the kernel refuses.
    pub fn set_nodes(&mut self, nodes: &[OtherNode]) -> Result<(), AgentError> {
        Ok(self.others.sync(nodes)?)
    }
}

/// How the programs' settings say that there is none.
fn or_zeros<A: Into<IpAddr>>(address: Option<A>) -> Address {
    address.map_or(Address([0; 16]), |address| address.into().into())
}
