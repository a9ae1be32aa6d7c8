//! Addresses out of the node's pod CIDRs: given in turn, and left to rest when they come back, so that nobody meets a pod's successor
//! under its old identity. Where they are written down may not enter.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use thiserror::Error;

/// How long an address rests before another pod may get it.
pub const REST_SECONDS: u64 = 30;
/// A node has no use for more addresses of one prefix.
const POOL_LIMIT: u128 = 1 << 16;

/// No address can be given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Exhausted {
    /// The node has no pod CIDR.
    #[error("this node has no pod CIDRs yet: the operator has not given any")]
    NoCidr,
    /// All are in use, or rest.
    #[error(
        "of the addresses in {cidrs}, {used} are in use and {resting} rest for up to {REST_SECONDS} s after their last pod"
    )]
    Full {
        /// The prefixes of the family that ran out.
        cidrs: String,
        /// In use.
        used: usize,
        /// Resting.
        resting: usize,
    },
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    cidrs: Vec<IpNet>,
    /// Per prefix, the number that was given out last.
    last: BTreeMap<IpNet, u128>,
    used: BTreeSet<IpAddr>,
    /// When each came back, in seconds.
    resting: BTreeMap<IpAddr, u64>,
}

impl Ipam {
    /// Gives out of these prefixes from now on. Addresses of others that are in use stay in use.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet]) {
        self.cidrs = cidrs.iter().map(IpNet::trunc).collect();
    }

    /// Knows an address to be in use.
    pub fn occupy(&mut self, address: IpAddr) {
        self.resting.remove(&address);
        self.used.insert(address);
        let cidr = self.cidrs.iter().find(|cidr| cidr.contains(&address));
        if let Some(cidr) = cidr {
            self.last.insert(*cidr, number_of(*cidr, address));
        }
    }

    /// An address of each family that there are prefixes of, IPv4 first.
    ///
    /// # Errors
    /// None is free in one family: nothing is given then.
    pub fn allocate(&mut self, now: u64) -> Result<Vec<IpAddr>, Exhausted> {
        self.resting
            .retain(|_, since| now.saturating_sub(*since) < REST_SECONDS);
        let mut given = Vec::new();
        for ipv4 in [true, false] {
            let cidrs: Vec<IpNet> = self
                .cidrs
                .iter()
                .filter(|cidr| cidr.addr().is_ipv4() == ipv4)
                .copied()
                .collect();
            if !cidrs.is_empty() {
                given.push(self.free(&cidrs).ok_or_else(|| self.full(&cidrs))?);
            }
        }
        if given.is_empty() {
            return Err(Exhausted::NoCidr);
        }
        for address in &given {
            self.occupy(*address);
        }
        Ok(given)
    }

    /// Takes an address back: it rests from `now` on.
    pub fn release(&mut self, address: IpAddr, now: u64) {
        self.used.remove(&address);
        self.resting.insert(address, now);
    }

    /// Whether an allocation would succeed.
    ///
    /// # Errors
    /// It would not.
    pub fn check(&self, now: u64) -> Result<(), Exhausted> {
        self.clone().allocate(now).map(drop)
    }

    /// How many addresses are in use, and how many rest.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.used.len(), self.resting.len())
    }

    fn free(&self, cidrs: &[IpNet]) -> Option<IpAddr> {
        cidrs.iter().find_map(|cidr| {
            let (first, count) = numbers(*cidr);
            let last = self.last.get(cidr).copied().unwrap_or(first + count - 1);
            (1..=count)
                .map(|step| first + (last - first + step) % count)
                .map(|number| address_of(*cidr, number))
                .find(|address| !self.used.contains(address) && !self.resting.contains_key(address))
        })
    }

    fn full(&self, cidrs: &[IpNet]) -> Exhausted {
        let within = |address: &&IpAddr| cidrs.iter().any(|cidr| cidr.contains(*address));
        let names: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        Exhausted::Full {
            cidrs: names.join(", "),
            used: self.used.iter().filter(within).count(),
            resting: self.resting.keys().filter(within).count(),
        }
    }
}

/// The first number that is given out of a prefix, and how many are: not the network's own address, nor IPv4's broadcast.
fn numbers(cidr: IpNet) -> (u128, u128) {
    let size = 1_u128
        .checked_shl(u32::from(cidr.max_prefix_len() - cidr.prefix_len()))
        .unwrap_or(u128::MAX)
        .min(POOL_LIMIT);
    match (cidr, size) {
        (_, 1) => (0, 1),
        // RFC 3021: the two addresses of a /31 are both hosts; likewise of a /127.
        (_, 2) => (0, 2),
        (IpNet::V4(_), size) => (1, size - 2),
        (IpNet::V6(_), size) => (1, size - 1),
    }
}

fn address_of(cidr: IpNet, number: u128) -> IpAddr {
    match cidr.addr() {
        IpAddr::V4(base) => {
            // A number is below 2^16 and below the prefix's size.
            let number = u32::try_from(number).unwrap_or(0);
            Ipv4Addr::from_bits(base.to_bits() + number).into()
        }
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() + number).into(),
    }
}

fn number_of(cidr: IpNet, address: IpAddr) -> u128 {
    let (first, count) = numbers(cidr);
    let number = match (cidr.addr(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            u128::from(address.to_bits().saturating_sub(base.to_bits()))
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => address.to_bits().saturating_sub(base.to_bits()),
        _ => first,
    };
    number.clamp(first, first + count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(cidrs: &[&str]) -> Ipam {
        let mut ipam = Ipam::default();
        let parsed: Vec<IpNet> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        ipam.set_cidrs(&parsed);
        ipam
    }

    fn text(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_family_is_given_from_in_turn() {
        let mut ipam = ipam(&["10.1.2.0/24", "fd00:1:2::/64"]);
        assert_eq!(
            text(&ipam.allocate(0).unwrap()),
            ["10.1.2.1", "fd00:1:2::1"]
        );
        assert_eq!(
            text(&ipam.allocate(0).unwrap()),
            ["10.1.2.2", "fd00:1:2::2"]
        );
    }

    #[test]
    fn an_address_rests_before_it_is_given_again() {
        let mut ipam = ipam(&["10.0.0.0/30"]);
        let first = ipam.allocate(100).unwrap()[0];
        let second = ipam.allocate(100).unwrap()[0];
        assert_eq!(text(&[first, second]), ["10.0.0.1", "10.0.0.2"]);
        ipam.release(first, 110);
        let full = ipam.allocate(110 + REST_SECONDS - 1).unwrap_err();
        assert_eq!(
            full,
            Exhausted::Full {
                cidrs: "10.0.0.0/30".to_owned(),
                used: 1,
                resting: 1
            }
        );
        assert!(ipam.check(110 + REST_SECONDS - 1).is_err());
        assert_eq!(ipam.allocate(110 + REST_SECONDS).unwrap(), [first]);
        // A clock that went back makes it rest longer, never shorter.
        ipam.release(first, 500);
        assert!(ipam.allocate(400).is_err());
    }

    #[test]
    fn nothing_is_given_where_one_family_has_run_out() {
        let mut ipam = ipam(&["10.0.0.0/24", "fd00::/128"]);
        ipam.allocate(0).unwrap();
        assert!(ipam.allocate(0).is_err());
        assert_eq!(ipam.counts(), (2, 0));
    }

    #[test]
    fn addresses_in_use_are_never_given_and_others_are_all_given() {
        let mut ipam = ipam(&["10.0.0.0/29", "10.0.1.0/31"]);
        ipam.occupy("10.0.0.3".parse().unwrap());
        let mut all: Vec<IpAddr> = (0..7).map(|_| ipam.allocate(0).unwrap()[0]).collect();
        all.sort();
        assert_eq!(
            text(&all),
            [
                "10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.1.0", "10.0.1.1"
            ]
        );
        assert!(ipam.allocate(0).is_err());
    }

    #[test]
    fn a_node_without_prefixes_says_so() {
        assert_eq!(Ipam::default().allocate(0), Err(Exhausted::NoCidr));
    }

    #[test]
    fn a_whole_ipv6_prefix_of_any_length_works() {
        for cidr in ["fd00::/8", "::/0", "fd00::/127", "fd00::/112"] {
            let mut ipam = ipam(&[cidr]);
            let cidr: IpNet = cidr.parse().unwrap();
            let given = ipam.allocate(0).unwrap();
            assert!(cidr.contains(&given[0]), "{cidr}");
        }
    }
}
