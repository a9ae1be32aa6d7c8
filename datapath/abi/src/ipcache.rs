//! From an address to an identity: exact addresses in a hash, prefixes in a trie.
//!
//! What an address *means* is the compiler's; this is only the form of the answer.

use crate::Identity;

/// An address of either family: IPv6 as it is, IPv4 mapped (`::ffff:a.b.c.d`).
///
/// Aligned to words, because the kernel's machine has no unaligned access and compares and copies bytes one by one without.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// Bits before the IPv4 address in its mapped form.
    pub const V4_BITS: u32 = 96;

    /// The mapped form of an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.words();
        a == 0 && b == 0 && c == 0xffff_u32.to_be()
    }

    /// The address in words of memory order, for comparing quickly.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::many_single_char_names)] // bytes have no better names
    pub const fn words(&self) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ]
    }

    /// The address of these words, in memory order.
    #[must_use]
    #[inline(always)]
    pub const fn of_words([a, b, c, d]: [u32; 4]) -> Self {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.to_ne_bytes(), b.to_ne_bytes());
        let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.to_ne_bytes(), d.to_ne_bytes());
        Self([
            a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3,
        ])
    }

    /// Whether both are the same address; what `==` does, without a call to `memcmp`.
    #[must_use]
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        let (a, b) = (self.words(), other.words());
        a[3] == b[3] && a[0] == b[0] && a[1] == b[1] && a[2] == b[2]
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

/// Key of the prefix trie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey {
    /// Bits of `address` that count; an IPv4 prefix of n bits has 96 + n.
    pub prefix_bits: u32,
    /// The network address.
    pub address: Address,
}

impl PrefixKey {
    /// The key of a block of addresses: the first of them, of which `length` bits count in its own family.
    #[must_use]
    pub fn block(network: core::net::IpAddr, length: u8) -> Self {
        let before = match network {
            core::net::IpAddr::V4(_) => Address::V4_BITS,
            core::net::IpAddr::V6(_) => 0,
        };
        Self {
            prefix_bits: before + u32::from(length),
            address: network.into(),
        }
    }
}

/// What is known of an address or prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressInfo {
    /// The identity; [`Identity::UNKNOWN`] for a prefix inside the cluster whose addresses must be known one by one.
    pub identity: Identity,
    /// For a node's address: the identity its own pods see (the local host). Else equal to `identity`.
    pub host_identity: Identity,
    /// The node that holds the address, or 0 for none.
    pub node: u32,
    /// [`AddressInfo::NODE`], [`AddressInfo::POD`].
    pub flags: u32,
}

impl AddressInfo {
    /// Flag: a node's own address.
    pub const NODE: u32 = 1;
    /// Flag: a pod's address.
    pub const POD: u32 = 2;
}

crate::map_data!(Address, PrefixKey, AddressInfo);

const _: () = assert!(size_of::<PrefixKey>() == 20 && size_of::<AddressInfo>() == 16);
