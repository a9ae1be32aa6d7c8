//! Events that the programs send to userland: one fixed layout for every kind, and the counters beside them.
//!
//! Names, labels and rules are looked up by the reader; only numbers may enter.

use crate::{Cookie, Identity, ipcache::Address};

/// What an [`Event`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A connection was admitted.
    NewConnection = 1,
    /// A packet was dropped.
    Drop = 2,
    /// A policy change took effect. Made by userland, with table and revision in `source` or `destination`.
    PolicyChange = 3,
    /// The `trace` program judged a packet.
    Trace = 4,
}

impl EventKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::NewConnection),
            2 => Some(Self::Drop),
            3 => Some(Self::PolicyChange),
            4 => Some(Self::Trace),
            _ => None,
        }
    }
}

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Hook {
    /// Coming from a pod.
    #[default]
    FromEndpoint = 0,
    /// Going to a pod, out of the node's stack.
    ToEndpoint = 1,
    /// Coming in on a device that faces outward.
    FromOutside = 2,
    /// Handed to the `trace` program.
    Trace = 3,
    /// Going out on a device that faces outward.
    ToOutside = 4,
    /// Coming in from another node, wrapped.
    FromOverlay = 5,
    /// Going to another node, out of the node's stack, to be wrapped.
    ToOverlay = 6,
}

impl Hook {
    /// How many hooks there are.
    pub const COUNT: usize = 7;

    /// The hook with this number.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::FromEndpoint),
            1 => Some(Self::ToEndpoint),
            2 => Some(Self::FromOutside),
            3 => Some(Self::Trace),
            4 => Some(Self::ToOutside),
            5 => Some(Self::FromOverlay),
            6 => Some(Self::ToOverlay),
            _ => None,
        }
    }
}

/// One end of the flow an event tells of, and what that end decided.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventEnd {
    /// The address.
    pub address: Address,
    /// The identity, as the other end sees it.
    pub identity: Identity,
    /// The deciding rule or circumstance; [`Cookie::NONE`] where the end was not judged.
    pub cookie: Cookie,
    /// The table that judged, or 0.
    pub table: u32,
    /// The revision of that table.
    pub revision: u32,
    /// For a redirect: rule set and listener.
    pub redirect: u32,
    /// The endpoint's slot, or 0 where the end is no endpoint of this node.
    pub slot: u32,
    /// Port in host byte order; for ICMP queries the identifier at the asking end.
    pub port: u16,
    /// A [`crate::program::Verdict`] as a number, or [`EventEnd::NOT_JUDGED`].
    pub verdict: u8,
    /// A [`crate::Reason`] as a number: why this end alone would drop; 0 where it would not.
    pub reason: u8,
    /// Zero.
    pub reserved: u32,
}

impl EventEnd {
    /// The end is no policy subject here, or the other end had already dropped the packet.
    pub const NOT_JUDGED: u8 = 255;
}

/// What happened to a packet or connection. `source` is the end that the *original* direction starts at; it judges egress, `destination`
/// ingress.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Event {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// For a drop: how many events of this endpoint and reason were held back since the slot's bucket began, exactly.
    pub suppressed: u64,
    /// The end that opens the flow.
    pub source: EventEnd,
    /// The end it is opened to.
    pub destination: EventEnd,
    /// Interface the packet was seen at.
    pub ifindex: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Endpoint whose drop bucket paid for this event, or 0.
    pub slot: u32,
    /// An [`EventKind`] as a number.
    pub kind: u8,
    /// A [`crate::Reason`] as a number; 0 unless dropped.
    pub reason: u8,
    /// A [`Hook`] as a number.
    pub hook: u8,
    /// [`Event::REPLY`], [`Event::LOG`], [`Event::IPV6`].
    pub flags: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags, as in the header.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// `EtherType` of a frame that is not IP; else 0.
    pub ether_type: u16,
    /// Zero.
    pub reserved: u16,
}

impl Event {
    /// Flag: the packet travels against the original direction.
    pub const REPLY: u8 = 1;
    /// Flag: a deciding rule asks for a log line.
    pub const LOG: u8 = 2;
    /// Flag: the packet is IPv6.
    pub const IPV6: u8 = 4;
}

/// Packets and bytes: value of the drop and rule counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// Token bucket of one endpoint and reason. Both words are changed by atomic operations only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DropBucket {
    /// When the bucket will be full again, in nanoseconds of the monotonic clock (the generic cell rate algorithm's one word).
    pub full_at: u64,
    /// Events held back since the bucket began; only grows.
    pub suppressed: u64,
}

crate::map_data!(EventEnd, Event, Counter, DropBucket);

const _: () = assert!(size_of::<EventEnd>() == 48 && size_of::<Event>() == 136);
const _: () = assert!(size_of::<Counter>() == 16 && size_of::<DropBucket>() == 16);
