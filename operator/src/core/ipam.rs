//! Prefixes for nodes, cut out of the cluster's pools. Who has which is the nodes'.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

/// Why pools can't be what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Not `<prefix>` or `<prefix>+<length>`.
    #[error("pool {0:?}: write a prefix and the length of a node's share, `10.244.0.0/16+24`")]
    Unreadable(String),
    /// A share is no smaller part of the pool, or there would be more than 2^24 of them.
    #[error(
        "pool {pool}: a node's share of length {length} must be longer than the pool's prefix, by no more than 24 bits"
    )]
    Length {
        /// The pool.
        pool: IpNet,
        /// Length of a share.
        length: u8,
    },
}

/// One pool: a prefix, cut into shares of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pool {
    net: IpNet,
    length: u8,
    used: BTreeSet<u32>,
    /// Where the search for a free share goes on, so that one given back rests as long as others are free.
    next: u32,
}

/// All pools, in the order they are drawn from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools(Vec<Pool>);

/// A node's share out of a pool written as `<prefix>+<length of a share>`; a length not written is 24 for IPv4 and 64 for IPv6.
impl FromStr for Pool {
    type Err = IpamError;

    fn from_str(text: &str) -> Result<Self, IpamError> {
        let unreadable = || IpamError::Unreadable(text.to_owned());
        let (net, length) = match text.split_once('+') {
            Some((net, length)) => (net, Some(length.parse().map_err(|_| unreadable())?)),
            None => (text, None),
        };
        let net: IpNet = net.parse().map_err(|_| unreadable())?;
        let net = net.trunc();
        let length = length.unwrap_or(if net.addr().is_ipv4() { 24 } else { 64 });
        let fits = length > net.prefix_len()
            && length - net.prefix_len() <= 24
            && length <= net.max_prefix_len();
        if !fits {
            return Err(IpamError::Length { pool: net, length });
        }
        Ok(Self {
            net,
            length,
            used: BTreeSet::new(),
            next: 0,
        })
    }
}

impl Pools {
    /// Pools as written on the command line.
    ///
    /// # Errors
    /// One of them makes no sense.
    pub fn parse(written: &[String]) -> Result<Self, IpamError> {
        let pools: Result<Vec<Pool>, IpamError> =
            written.iter().map(|text| text.trim().parse()).collect();
        Ok(Self(pools?))
    }

    /// The prefixes of all pools.
    #[must_use]
    pub fn prefixes(&self) -> Vec<IpNet> {
        self.0.iter().map(|pool| pool.net).collect()
    }

    /// A free share of each family that has pools; a family whose pools are used up is left out.
    #[must_use]
    pub fn draw(&mut self) -> Vec<IpNet> {
        let mut shares: Vec<IpNet> = Vec::new();
        for pool in &mut self.0 {
            let is_v4 = pool.net.addr().is_ipv4();
            if shares.iter().any(|share| share.addr().is_ipv4() == is_v4) {
                continue;
            }
            shares.extend(pool.draw());
        }
        shares
    }

    /// Whether each family that has pools is among these.
    #[must_use]
    pub fn served_by(&self, shares: &[IpNet]) -> bool {
        self.0.iter().all(|pool| {
            let is_v4 = pool.net.addr().is_ipv4();
            shares.iter().any(|share| share.addr().is_ipv4() == is_v4)
        })
    }

    /// Notes that somebody has a share; one outside all pools concerns nobody.
    pub fn hold(&mut self, share: IpNet) {
        for pool in &mut self.0 {
            if let Some(indices) = pool.indices(share) {
                pool.used.extend(indices);
            }
        }
    }

    /// Takes a share back.
    pub fn give_back(&mut self, share: IpNet) {
        for pool in &mut self.0 {
            for index in pool.indices(share).into_iter().flatten() {
                pool.used.remove(&index);
            }
        }
    }
}

impl Pool {
    /// How many shares there are.
    fn size(&self) -> u32 {
        1 << (self.length - self.net.prefix_len())
    }

    fn draw(&mut self) -> Option<IpNet> {
        let size = self.size();
        let free = (0..size)
            .map(|step| (self.next + step) % size)
            .find(|index| !self.used.contains(index))?;
        self.used.insert(free);
        self.next = (free + 1) % size;
        Some(self.share(free))
    }

    fn share(&self, index: u32) -> IpNet {
        let shift = u32::from(self.net.max_prefix_len() - self.length);
        let address = match self.net.addr() {
            IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) | index << shift).into(),
            IpAddr::V6(address) => {
                Ipv6Addr::from(u128::from(address) | u128::from(index) << shift).into()
            }
        };
        // The length was checked against the family when the pool was made.
        IpNet::new(address, self.length).unwrap_or(self.net)
    }

    /// The shares that a prefix covers or lies in.
    fn indices(&self, share: IpNet) -> Option<std::ops::RangeInclusive<u32>> {
        let same_family = share.addr().is_ipv4() == self.net.addr().is_ipv4();
        if !same_family || !(self.net.contains(&share) || share.contains(&self.net)) {
            return None;
        }
        if share.contains(&self.net) {
            return Some(0..=self.size() - 1);
        }
        Some(self.index(share.network())..=self.index(share.broadcast()))
    }

    /// The share an address of the pool lies in.
    fn index(&self, address: IpAddr) -> u32 {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        let offset = bits(address) ^ bits(self.net.addr());
        let shift = u32::from(self.net.max_prefix_len() - self.length);
        // A pool has at most 2^24 shares.
        u32::try_from(offset >> shift).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(written: &[&str]) -> Pools {
        let written: Vec<String> = written.iter().map(ToString::to_string).collect();
        Pools::parse(&written).unwrap()
    }

    fn nets(written: &[&str]) -> Vec<IpNet> {
        written.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn both_families_are_drawn() {
        let mut pools = pools(&["10.244.0.0/16", "fd00:10:244::/48"]);
        assert_eq!(pools.draw(), nets(&["10.244.0.0/24", "fd00:10:244::/64"]));
        assert_eq!(pools.draw(), nets(&["10.244.1.0/24", "fd00:10:244:1::/64"]));
    }

    #[test]
    fn what_is_held_is_not_given_out() {
        let mut pools = pools(&["10.0.0.0/22+24"]);
        for held in nets(&["10.0.0.0/24", "10.0.2.0/25", "192.168.0.0/24"]) {
            pools.hold(held);
        }
        assert_eq!(pools.draw(), nets(&["10.0.1.0/24"]));
        assert_eq!(pools.draw(), nets(&["10.0.3.0/24"]));
        assert_eq!(pools.draw(), [], "used up");
        pools.give_back("10.0.1.0/24".parse().unwrap());
        assert_eq!(pools.draw(), nets(&["10.0.1.0/24"]));
    }

    #[test]
    fn what_was_given_back_rests() {
        let mut pools = pools(&["fd00::/62+64"]);
        let first = pools.draw();
        pools.give_back(first[0]);
        assert_ne!(pools.draw(), first);
    }

    #[test]
    fn a_second_pool_serves_when_the_first_is_used_up() {
        let mut pools = pools(&["10.0.0.0/24+25", "10.9.0.0/24+25"]);
        let drawn: Vec<IpNet> = (0..4).flat_map(|_| pools.draw()).collect();
        assert_eq!(
            drawn,
            nets(&[
                "10.0.0.0/25",
                "10.0.0.128/25",
                "10.9.0.0/25",
                "10.9.0.128/25"
            ])
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/16+x",
            "10.0.0.0/16+16",
            "fd00::/16+64",
            "10.0.0.0/16+33",
        ] {
            assert!(Pools::parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
