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
    context.before.note(&context.headers);
    context.after.give(&mut context.headers);
    context.changed = Changed::Packet;
}

/// Gives the packet the addresses in [`Context::after`] and the packet quoted in it the ends in [`Context::inner_after`].
#[inline(always)]
pub(crate) fn error(context: &mut Context) {
    context.before.note(&context.headers);
    context.headers.source = context.after.source;
    context.headers.destination = context.after.destination;
    context.inner_before.note(&context.inner);
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
