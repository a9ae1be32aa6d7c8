//! ARP and neighbour discovery at a pod's interface: a pod may speak for itself and nobody else, and what it asks of its gateway is
//! answered here.
//!
//! No policy: resolving the gateway is not traffic between subjects.

use crate::{
    Reason,
    context::{Context, Outcome},
    datapath::Datapath,
    endpoint::Endpoint,
    ipcache::Address,
    judge,
    packet::{Packet, be16, chunk},
    parse::{Headers, ether_type, protocol},
    track::same_mac,
};

/// Bytes of an ARP frame for IPv4 over Ethernet.
const ARP_FRAME: u16 = 42;
/// Bytes of a neighbour advertisement with the target's hardware address: Ethernet, IPv6, `ICMPv6`, option.
const ADVERTISEMENT_FRAME: usize = 14 + 40 + 24 + 8;
/// How many options of a neighbour-discovery message are read; those that Linux sends have one or two.
const MAX_OPTIONS: u32 = 4;

/// A frame to be sent back in place of the one that came.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// The frame.
    pub bytes: [u8; Self::ROOM],
    /// How many of its bytes count: [`Reply::ARP`] and the constants after it.
    pub length: u16,
}

impl Reply {
    /// Length of an ARP reply.
    pub const ARP: u16 = ARP_FRAME;
    /// Length of a neighbour advertisement.
    #[allow(clippy::cast_possible_truncation)] // 86
    pub const ADVERTISEMENT: u16 = ADVERTISEMENT_FRAME as u16;
    /// Length of an ICMP error: Ethernet, IP, ICMP, and as much again of IP and transport.
    pub const UNREACHABLE_IPV4: u16 = 14 + 2 * (20 + 8);
    /// Length of an `ICMPv6` error likewise.
    pub const UNREACHABLE_IPV6: u16 = 14 + 2 * (40 + 8);
    /// Length of a TCP reset over IPv4.
    pub const RESET_IPV4: u16 = 14 + 20 + 20;
    /// Length of a TCP reset over IPv6.
    pub const RESET_IPV6: u16 = 14 + 40 + 20;
    /// Room for the longest.
    pub const ROOM: usize = Self::UNREACHABLE_IPV6 as usize;
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            bytes: [0; Self::ROOM],
            length: 0,
        }
    }
}

/// `ICMPv6` types of RFC 4861, 2710, 3810.
mod icmpv6 {
    pub(super) const LISTENER_QUERY: u8 = 130;
    pub(super) const LISTENER_DONE: u8 = 132;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const SOLICITATION: u8 = 135;
    pub(super) const ADVERTISEMENT: u8 = 136;
    pub(super) const REDIRECT: u8 = 137;
    pub(super) const LISTENER_REPORT_2: u8 = 143;
}

/// What an ARP frame from a pod may do.
///
/// # Errors
/// [`Reason::SpoofedArp`], [`Reason::SpoofedMac`], [`Reason::Truncated`], [`Reason::Malformed`].
#[inline(never)]
pub fn arp<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    let Some(endpoint) = judge::present(datapath, context.slot) else {
        return Err(Reason::UnknownEndpoint);
    };
    if context.available < Reply::ARP.into() {
        return Err(Reason::Truncated);
    }
    let bytes = &context.head.bytes;
    // Ethernet and IPv4, and nothing else, with addresses of 6 and 4 bytes.
    if be16(bytes, 14) != 1 || be16(bytes, 16) != ether_type::IPV4 || be16(bytes, 18) != 0x0604 {
        return Err(Reason::Malformed);
    }
    let operation = be16(bytes, 20);
    let sender_mac: [u8; 6] = chunk(bytes, 22);
    let sender = Address::v4(chunk(bytes, 28));
    let target = Address::v4(chunk(bytes, 38));
    if !same_mac(&sender_mac, &endpoint.mac) {
        return Err(Reason::SpoofedArp);
    }
    // A probe for a free address speaks for none (RFC 5227).
    let probe = operation == 1 && sender.same(&Address::v4([0; 4]));
    let own = endpoint.flags & Endpoint::IPV4 != 0 && endpoint.ipv4.same(&sender);
    if !(probe || own) {
        return Err(Reason::SpoofedArp);
    }
    let Some(config) = datapath.config() else {
        return Err(Reason::Internal);
    };
    match operation {
        1 if target.same(&config.gateway_ipv4) => {
            let reply = &mut context.reply;
            reply.length = Reply::ARP;
            put(&mut reply.bytes, 0, &endpoint.mac);
            put(&mut reply.bytes, 6, &endpoint.host_mac);
            put(&mut reply.bytes, 12, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
            put(&mut reply.bytes, 22, &endpoint.host_mac);
            put(&mut reply.bytes, 28, &chunk::<4, 74>(bytes, 38));
            put(&mut reply.bytes, 32, &endpoint.mac);
            put(&mut reply.bytes, 38, &chunk::<4, 74>(bytes, 28));
            Ok(())
        }
        1 | 2 => {
            context.reply.length = 0;
            Ok(())
        }
        _ => Err(Reason::Malformed),
    }
}

/// What [`arp`] and [`discovery`] leave to be done.
#[must_use]
#[inline(always)]
pub fn outcome(context: &Context) -> Outcome {
    if context.reply.length == 0 {
        Outcome::Stack
    } else {
        Outcome::Reply
    }
}

/// Whether the packet is about the link and not about the network: neighbour discovery, or group membership under an address of the link.
#[must_use]
#[inline(always)]
pub fn is_of_link(headers: &Headers) -> bool {
    headers.protocol == protocol::ICMPV6
        && match headers.icmp_type {
            icmpv6::ROUTER_SOLICITATION..=icmpv6::REDIRECT => true,
            icmpv6::LISTENER_QUERY..=icmpv6::LISTENER_DONE | icmpv6::LISTENER_REPORT_2 => {
                judge::is_link_local(&headers.source) || unspecified(&headers.source)
            }
            _ => false,
        }
        && !headers.is(Headers::FRAGMENT)
}

/// Whether such a packet, on its way to a pod, was made by this node: no router forwards it with these hop limits (RFC 4861, 2710).
#[must_use]
#[inline(always)]
pub fn is_of_this_node(headers: &Headers) -> bool {
    matches!(headers.hop_limit, 1 | 255)
}

#[inline(always)]
const fn unspecified(address: &Address) -> bool {
    address.same(&Address([0; 16]))
}

/// What a neighbour-discovery or group-membership message from a pod may do.
///
/// # Errors
/// [`Reason::SpoofedNeighbour`], [`Reason::Truncated`], [`Reason::Malformed`].
#[inline(never)]
pub fn discovery<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
) -> Result<(), Reason> {
    context.reply.length = 0;
    let Some(endpoint) = judge::present(datapath, context.slot) else {
        return Err(Reason::UnknownEndpoint);
    };
    let headers = &context.headers;
    let anonymous = unspecified(&headers.source);
    if !anonymous && !speaks_for(endpoint, &headers.source) {
        return Err(Reason::SpoofedNeighbour);
    }
    match headers.icmp_type {
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => return Err(Reason::SpoofedNeighbour),
        icmpv6::ROUTER_SOLICITATION => {
            if headers.hop_limit != 255 {
                return Err(Reason::Malformed);
            }
            return options(packet, headers, endpoint, 8);
        }
        icmpv6::SOLICITATION | icmpv6::ADVERTISEMENT => {}
        // Group membership: of no consequence to others, and the pod's own address was checked.
        _ => return Ok(()),
    }
    if headers.hop_limit != 255 || headers.icmp_code != 0 {
        return Err(Reason::Malformed);
    }
    let mut target = Address::default();
    if headers.end < headers.transport + 24 || !packet.load(headers.transport + 8, &mut target.0) {
        return Err(Reason::Truncated);
    }
    options(packet, headers, endpoint, 24)?;
    if headers.icmp_type == icmpv6::ADVERTISEMENT {
        if anonymous || !speaks_for(endpoint, &target) {
            return Err(Reason::SpoofedNeighbour);
        }
        return Ok(());
    }
    let Some(config) = datapath.config() else {
        return Err(Reason::Internal);
    };
    if target.same(&config.gateway_ipv6) {
        advertise(context, endpoint, &target, anonymous);
    }
    Ok(())
}

/// Whether an address is one that the endpoint may use on its link.
#[inline(always)]
fn speaks_for(endpoint: &Endpoint, address: &Address) -> bool {
    endpoint.flags & Endpoint::IPV6 != 0
        && (endpoint.ipv6.same(address) || endpoint.link_local().same(address))
}

/// Checks the options from `skip` bytes into the message on: a hardware address must be the endpoint's.
#[inline(always)]
fn options<P: Packet + ?Sized>(
    packet: &P,
    headers: &Headers,
    endpoint: &Endpoint,
    skip: u32,
) -> Result<(), Reason> {
    let mut offset = headers.transport + skip;
    let mut count = 0;
    while offset < headers.end {
        if count == MAX_OPTIONS {
            return Err(Reason::TooManyHeaders);
        }
        count += 1;
        let mut option = [0_u8; 8];
        if offset + 8 > headers.end || !packet.load(offset, &mut option) {
            return Err(Reason::Truncated);
        }
        let length = u32::from(option[1]) * 8;
        if length == 0 {
            return Err(Reason::Malformed);
        }
        // Source and target link-layer address.
        if matches!(option[0], 1 | 2)
            && (length != 8 || !same_mac(&chunk(&option, 2), &endpoint.mac))
        {
            return Err(Reason::SpoofedNeighbour);
        }
        offset += length;
    }
    Ok(())
}

/// Writes the gateway's advertisement (RFC 4861, section 4.4), to all nodes if the asker has no address yet.
#[inline(never)]
fn advertise(context: &mut Context, endpoint: &Endpoint, target: &Address, to_all: bool) {
    const ALL_NODES: Address = Address([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let destination = if to_all {
        ALL_NODES
    } else {
        context.headers.source
    };
    let reply = &mut context.reply;
    reply.length = Reply::ADVERTISEMENT;
    let bytes = &mut reply.bytes;
    put(bytes, 0, &endpoint.mac);
    if to_all {
        put(bytes, 0, &[0x33, 0x33, 0, 0, 0, 1]);
    }
    put(bytes, 6, &endpoint.host_mac);
    // EtherType; version; payload of 32 bytes, ICMPv6, hop limit 255.
    put(bytes, 12, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    put(bytes, 22, &target.0);
    put(bytes, 38, &destination.0);
    // Type, code, checksum; flags router, override, and solicited unless to all.
    let flags = if to_all { 0xa0 } else { 0xe0 };
    put(bytes, 54, &[icmpv6::ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    put(bytes, 62, &target.0);
    // Target link-layer address.
    put(bytes, 78, &[2, 1]);
    put(bytes, 80, &endpoint.host_mac);
    let sum = checksum(bytes);
    put(bytes, 56, &sum.to_be_bytes());
}

/// The `ICMPv6` checksum of an advertisement whose checksum field is zero (RFC 8200, section 8.1).
#[inline(always)]
fn checksum(bytes: &[u8; Reply::ROOM]) -> u16 {
    // The pseudo-header: both addresses (they are summed below with the message), the length and the protocol.
    let mut sum = 32 + 58_u32;
    let mut at = 22;
    while at + 1 < ADVERTISEMENT_FRAME {
        // SAFETY: both are in bounds. Volatile, or else all bytes are kept on the stack at once.
        let (high, low) = unsafe {
            let pair = bytes.as_ptr().add(at);
            (pair.read_volatile(), pair.add(1).read_volatile())
        };
        sum += u32::from(high) << 8 | u32::from(low);
        at += 2;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    #[allow(clippy::cast_possible_truncation)] // folded to 16 bits above
    let folded = sum as u16;
    !folded
}

/// Copies `N` bytes to a constant place.
#[inline(always)]
pub(crate) fn put<const N: usize>(into: &mut [u8; Reply::ROOM], at: usize, bytes: &[u8; N]) {
    let mut index = 0;
    while index < N {
        if at + index < Reply::ROOM {
            // SAFETY: both indexes are in bounds. Volatile, or else all bytes are kept on the stack at once.
            unsafe {
                let byte = bytes.as_ptr().add(index).read_volatile();
                into.as_mut_ptr().add(at + index).write_volatile(byte);
            }
        }
        index += 1;
    }
}
