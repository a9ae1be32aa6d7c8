//! Changing a packet's addresses and ports, and those of a packet quoted in an ICMP error. What was is kept beside what is to be, so that
//! whoever writes the frame can mend its checksums.
//!
//! Why a packet is translated may not enter.

use crate::{
    atomic::Words,
    context::Context,
    ipcache::Address,
    parse::{Headers, protocol},
};

/// What of the frame is to be written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Changed {
    /// Nothing.
    Nothing = 0,
    /// Addresses and ports, from [`Context::before`] to [`Context::headers`].
    Packet = 1,
    /// Addresses likewise, and addresses and ports of the quoted packet, from [`Context::inner_before`] to [`Context::inner`].
    Error = 2,
}

/// Both ends of a packet. Begins as [`Headers`] does, with both addresses in a row.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port as in [`Headers`].
    pub source_port: u16,
    /// Destination port likewise.
    pub destination_port: u16,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: integers and arrays of integers without padding, as the size shows.
unsafe impl Words for Tuple {}
const _: () = assert!(size_of::<Tuple>() == 40);
const _: () = assert!(core::mem::offset_of!(Headers, source) == 0);
const _: () = assert!(core::mem::offset_of!(Headers, destination) == 16);

impl Tuple {
    /// Notes both ends of a packet.
    #[inline(always)]
    pub(crate) fn note(&mut self, headers: &Headers) {
        self.source = headers.source;
        self.destination = headers.destination;
        self.source_port = headers.source_port;
        self.destination_port = headers.destination_port;
    }

    /// Gives them to a packet.
    #[inline(always)]
    pub(crate) fn give(&self, headers: &mut Headers) {
        headers.source = self.source;
        headers.destination = self.destination;
        headers.source_port = self.source_port;
        headers.destination_port = self.destination_port;
    }
}

/// Gives the packet the ends in [`Context::after`].
#[inline(always)]
pub(crate) fn packet(context: &mut Context) {
    // What is changed twice is written once.
    if context.changed == Changed::Nothing {
        context.before.note(&context.headers);
    }
    context.after.give(&mut context.headers);
    context.changed = Changed::Packet;
}

/// Gives the packet the addresses in [`Context::after`] and the packet quoted in it the ends in [`Context::inner_after`].
#[inline(always)]
pub(crate) fn error(context: &mut Context) {
    if context.changed == Changed::Nothing {
        context.before.note(&context.headers);
        context.inner_before.note(&context.inner);
    }
    context.headers.source = context.after.source;
    context.headers.destination = context.after.destination;
    context.inner_after.give(&mut context.inner);
    context.changed = Changed::Error;
}

/// Where a packet's ports are, from its transport header on: both in a row, or the identifier of an ICMP query alone.
#[must_use]
#[inline(always)]
pub const fn ports_at(headers: &Headers) -> Option<u32> {
    match headers.protocol {
        _ if headers.is(Headers::LATER) => None,
        protocol::TCP | protocol::UDP | protocol::SCTP => Some(0),
        protocol::ICMP | protocol::ICMPV6 if headers.icmp_query != 0 => Some(4),
        _ => None,
    }
}

/// Where a packet's transport checksum is, from its transport header on. SCTP's is of another kind, and says nothing of addresses.
#[must_use]
#[inline(always)]
pub const fn checksum_at(headers: &Headers) -> Option<u32> {
    match headers.protocol {
        _ if headers.is(Headers::LATER) => None,
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        protocol::ICMP | protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// Whether that checksum is also of the addresses.
#[must_use]
#[inline(always)]
pub const fn checksum_has_addresses(headers: &Headers) -> bool {
    headers.protocol != protocol::ICMP
}

/// The ICMP identifier that [`Headers`] keep as the port of the asking end.
#[must_use]
#[inline(always)]
pub const fn identifier(source_port: u16, destination_port: u16) -> u16 {
    source_port | destination_port
}

/// A number below `count`, as evenly drawn as the hash is.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // below `count`
pub(crate) const fn scale(hash: u64, count: u32) -> u32 {
    (((hash >> 32) * count as u64) >> 32) as u32
}

/// A hash of a packet's ends.
#[inline(always)]
pub(crate) fn hash(headers: &Headers) -> u64 {
    let (source, destination) = (headers.source.words(), headers.destination.words());
    let pair = |a: u32, b: u32| u64::from(a) << 32 | u64::from(b);
    let ports = pair(
        u32::from(headers.source_port) << 16 | u32::from(headers.destination_port),
        u32::from(headers.protocol),
    );
    let hash = mix(ports ^ pair(source[3], destination[3]));
    mix(hash ^ pair(source[2] ^ source[0], source[1] ^ destination[2]))
}

/// The finaliser of `MurmurHash3`, which is in the public domain.
#[inline(always)]
pub(crate) const fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
