//! Endpoints as the kernel programs see them: one record per pod interface, found by slot.
//!
//! Who the pod is and which policies select it is the compiler's; only what a packet is checked against may enter.

use crate::{Identity, ipcache::Address};

/// One pod's interface. Slot 0 of the endpoints array is never used: it stands for "no endpoint".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The pod's IPv4 address, mapped; meaningless without [`Endpoint::IPV4`].
    pub ipv4: Address,
    /// The pod's IPv6 address; meaningless without [`Endpoint::IPV6`].
    pub ipv6: Address,
    /// The identity its traffic carries; see [`Endpoint::identity_ipv6`].
    pub identity: Identity,
    /// Peer table that judges what it sends.
    pub egress_table: u32,
    /// Peer table that judges what it receives.
    pub ingress_table: u32,
    /// Index of its interface's host side.
    pub ifindex: u32,
    /// [`Endpoint::PRESENT`], [`Endpoint::IPV4`], [`Endpoint::IPV6`].
    pub flags: u32,
    /// Grows each time the slot is given to another pod: tells old events and connections of the slot from new ones.
    pub generation: u32,
    /// The pod's own hardware address.
    pub mac: [u8; 6],
    /// The hardware address of the interface's host side: the gateway's, as the pod sees it.
    pub host_mac: [u8; 6],
    /// The identity its IPv6 traffic carries, where policies by address block tell its two addresses apart; else
    /// [`Identity::UNKNOWN`], and `identity` holds for both families.
    pub identity_ipv6: Identity,
}

impl Endpoint {
    /// Flag: the slot is in use. Without it the record says nothing.
    pub const PRESENT: u32 = 1;
    /// Flag: the endpoint has an IPv4 address.
    pub const IPV4: u32 = 2;
    /// Flag: the endpoint has an IPv6 address.
    pub const IPV6: u32 = 4;

    /// Whether `address` is the endpoint's own.
    #[must_use]
    #[inline(always)]
    pub fn owns(&self, address: &Address) -> bool {
        (self.flags & Self::IPV4 != 0 && self.ipv4.same(address))
            || (self.flags & Self::IPV6 != 0 && self.ipv6.same(address))
    }

    /// The identity of its traffic of one family.
    #[must_use]
    #[inline(always)]
    pub const fn identity_of(&self, ipv4: bool) -> Identity {
        if ipv4 || self.identity_ipv6.0 == Identity::UNKNOWN.0 {
            self.identity
        } else {
            self.identity_ipv6
        }
    }

    /// The link-local IPv6 address that follows from the hardware address (RFC 4291, appendix A): the only one a pod may use.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::many_single_char_names)] // bytes have no better names
    pub const fn link_local(&self) -> Address {
        let [a, b, c, d, e, f] = self.mac;
        Address([
            0xfe,
            0x80,
            0,
            0,
            0,
            0,
            0,
            0,
            a ^ 2,
            b,
            c,
            0xff,
            0xfe,
            d,
            e,
            f,
        ])
    }
}

crate::map_data!(Endpoint);

const _: () = assert!(size_of::<Endpoint>() == 72);
