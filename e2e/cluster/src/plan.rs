//! The names and addresses of a cluster: pure arithmetic from its name and a node's number. Making any of it may not enter.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A cluster's name: it is in the names of all namespaces and cgroups, so that they can be found and removed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if text.is_empty() || text.len() > 8 || !text.chars().all(plain) {
            return Err(Error::Argument {
                what: format!("the cluster name `{text}`"),
                why: "it must be 1 to 8 lower-case letters or digits".to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl Default for Name {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One set of namespaces: the control plane, the host outside the cluster, or a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Machine {
    /// etcd, API server, controllers and scheduler; also the switch between the nodes and their router.
    ControlPlane,
    /// A host behind the router that is no part of the cluster: only a network namespace.
    Outside,
    /// A node, counted from 1.
    Node(u8),
}

/// Nodes have one byte of the address, from 11 on.
pub const MAX_NODES: u8 = 99;

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlPlane => f.write_str("cp"),
            Self::Outside => f.write_str("out"),
            Self::Node(number) => write!(f, "node{number}"),
        }
    }
}

impl FromStr for Machine {
    type Err = Error;

    /// `cp`, `out`, `node1` or just `1`.
    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_prefix("node").unwrap_or(text);
        match (text, number.parse()) {
            ("cp", _) => Ok(Self::ControlPlane),
            ("out", _) => Ok(Self::Outside),
            (_, Ok(number @ 1..=MAX_NODES)) => Ok(Self::Node(number)),
            _ => Err(Error::Argument {
                what: format!("the machine `{text}`"),
                why: format!("a machine is `cp`, `out` or a node's number from 1 to {MAX_NODES}"),
            }),
        }
    }
}

/// What every namespace and cgroup of the cluster is called, up to the machine's name.
pub(crate) fn prefix(name: &Name) -> String {
    format!("slc-{name}-")
}

/// The machine's network namespace, as `ip netns` calls it.
pub(crate) fn namespace(name: &Name, machine: Machine) -> String {
    format!("{}{machine}", prefix(name))
}

/// Prefix of the segment that control plane and nodes share, IPv4.
pub const SEGMENT_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 30, 0, 0), 24);
/// Prefix of the segment that control plane and nodes share, IPv6.
pub const SEGMENT_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0), 64);
/// Addresses of pods, IPv4.
pub const PODS_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// Addresses of pods, IPv6.
pub const PODS_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), 56);
/// Addresses of services, IPv4, the cluster's first family.
pub const SERVICES_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// Addresses of services, IPv6.
pub const SERVICES_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);
/// The network behind the router that is no part of the cluster, IPv4 (documentation's, RFC 5737).
pub const OUTSIDE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24);
/// The network behind the router that is no part of the cluster, IPv6 (documentation's, RFC 3849).
pub const OUTSIDE_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0), 64);
/// Cluster DNS.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The API server's port.
pub const API_PORT: u16 = 6443;

/// A machine's own address of either family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Both, IPv4 first, as Kubernetes orders them.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// The address by which others reach a machine.
#[must_use]
pub fn addresses(machine: Machine) -> Addresses {
    match machine {
        Machine::ControlPlane => in_networks(SEGMENT_V4, SEGMENT_V6, 1, 1),
        Machine::Outside => in_networks(OUTSIDE_V4, OUTSIDE_V6, 10, 0x10),
        // Node 3 is .13 and ::13, read alike in both families while nodes have one digit.
        Machine::Node(number) => in_networks(
            SEGMENT_V4,
            SEGMENT_V6,
            10 + number,
            0x10 + u16::from(number),
        ),
    }
}

/// The addresses of the service `kubernetes`: always the first of the range.
#[must_use]
pub fn api_service() -> Addresses {
    in_networks(SERVICES_V4, SERVICES_V6, 1, 1)
}

/// The router's address on the outside network.
#[must_use]
pub fn outside_gateway() -> Addresses {
    in_networks(OUTSIDE_V4, OUTSIDE_V6, 1, 1)
}

fn in_networks(v4: Ipv4Net, v6: Ipv6Net, host_v4: u8, host_v6: u16) -> Addresses {
    let [a, b, c, _] = v4.addr().octets();
    let [s0, s1, s2, s3, s4, s5, s6, _] = v6.addr().segments();
    Addresses {
        v4: Ipv4Addr::new(a, b, c, host_v4),
        v6: Ipv6Addr::new(s0, s1, s2, s3, s4, s5, s6, host_v6),
    }
}

/// `10.0.0.0/8,fd00::/8`: how Kubernetes' switches take both families.
pub(crate) fn both(v4: Ipv4Net, v6: Ipv6Net) -> String {
    format!("{v4},{v6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!("ci2".parse::<Name>().unwrap().to_string(), "ci2");
        for wrong in ["", "Main", "a b", "a/b", "ninechars"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn machines_are_told_by_number_or_name() {
        assert_eq!("2".parse::<Machine>().unwrap(), Machine::Node(2));
        assert_eq!("node2".parse::<Machine>().unwrap(), Machine::Node(2));
        assert_eq!("cp".parse::<Machine>().unwrap(), Machine::ControlPlane);
        for wrong in ["0", "node0", "100", "nodex", ""] {
            assert!(wrong.parse::<Machine>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_machine_has_its_own_address_in_its_network() {
        let nodes: Vec<_> = (1..=MAX_NODES)
            .map(|n| addresses(Machine::Node(n)))
            .collect();
        for (index, node) in nodes.iter().enumerate() {
            assert!(
                SEGMENT_V4.contains(&node.v4) && SEGMENT_V6.contains(&node.v6),
                "{node:?}"
            );
            assert!(!nodes[..index].contains(node), "{node:?} twice");
        }
        assert_eq!(
            nodes[0].both().map(|a| a.to_string()),
            ["172.30.0.11", "fd00:172:30::11"]
        );
        assert!(OUTSIDE_V4.contains(&addresses(Machine::Outside).v4));
    }

    #[test]
    fn a_namespace_name_fits_where_names_are_short() {
        let longest = namespace(&"eightlet".parse().unwrap(), Machine::Node(MAX_NODES));
        assert_eq!(longest, "slc-eightlet-node99");
    }
}
