//! Connections: the key that both directions share, the entry, the fragments' memory, and the quota ring.
//!
//! Only layouts and what follows from them alone (states, timeouts); judging belongs to `classify`.

use crate::{
    atomic::{Shared, Words},
    context::Context,
    ipcache::Address,
};

/// Key of the conntrack map. Both directions of a flow have the same key: the smaller (address, port) comes first.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConntrackKey {
    /// The address that comes first.
    pub low: Address,
    /// The other address.
    pub high: Address,
    /// Port of `low`, host byte order.
    pub low_port: u16,
    /// Port of `high`, host byte order.
    pub high_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Which leg of a translated or proxied flow; 0 for the pod's own view, the only one so far.
    pub leg: u8,
    /// For ICMP queries: the type of the request. Else 0.
    pub icmp: u8,
    /// Zero.
    pub reserved: u8,
}

// SAFETY: integers and arrays of integers without padding, as its size shows.
unsafe impl Words for ConntrackKey {}

impl ConntrackKey {
    /// Whether both are the same key; what `==` does, without a call to `memcmp`.
    #[must_use]
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        self.low_port == other.low_port
            && self.high_port == other.high_port
            && self.protocol == other.protocol
            && self.leg == other.leg
            && self.icmp == other.icmp
            && self.low.same(&other.low)
            && self.high.same(&other.high)
    }

    /// Whether this is no connection's key: the content of a ring element never used.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        let [low, high] = [self.low.words(), self.high.words()];
        low[3] == 0 && high[3] == 0
    }
}

/// One end of a connection as the entry keeps it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConntrackEnd {
    /// The identity that the other end's table was asked about.
    pub identity: u32,
    /// The table that judged this end, or 0 where the end is not judged here.
    pub table: u32,
    /// The revision of that table.
    pub revision: u32,
    /// What decided.
    pub cookie: u32,
    /// The endpoint's slot, or 0.
    pub slot: u32,
    /// The endpoint's generation, or a [`place`] for ends that are no endpoint of this node.
    pub generation: u32,
}

impl ConntrackEnd {
    /// Makes it the end of no connection.
    #[inline(always)]
    pub(crate) fn blank(&mut self, slot: u32, generation: u32) {
        self.identity = 0;
        self.table = 0;
        self.revision = 0;
        self.cookie = 0;
        self.slot = slot;
        self.generation = generation;
    }
}

/// Where an end without a slot is.
pub mod place {
    /// Anywhere beyond this node's own devices.
    pub const OUTSIDE: u32 = 0;
    /// This node itself.
    pub const HOST: u32 = 1;
    /// The first number that stands for another node.
    const NODES: u32 = 2;

    /// On another node, of this number (never 0).
    #[must_use]
    #[inline(always)]
    pub const fn on_node(number: u32) -> u32 {
        number.wrapping_add(NODES - 1)
    }

    /// The other node that an end without a slot is on.
    #[must_use]
    #[inline(always)]
    pub const fn node(place: u32) -> Option<u32> {
        if place < NODES {
            None
        } else {
            Some(place - (NODES - 1))
        }
    }
}

/// What translation puts in place of an entry's key. Which is which, the entry's flags say.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nat {
    /// The address that takes another's place.
    pub address: Address,
    /// Its port, host byte order.
    pub port: u16,
    /// The client's port, host byte order.
    pub client_port: u16,
    /// For [`ConntrackEntry::SERVICE`]: id of the backend. For [`ConntrackEntry::MASQUERADED`]: the node's port.
    pub other: u32,
}

// SAFETY: integers and arrays of integers without padding, as its size shows.
unsafe impl Words for Nat {}

/// Value of the conntrack map, as userland reads it; the programs see the same bytes as [`Connection`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConntrackEntry {
    /// The entry's own key: an element reused under a reader shows by it.
    pub key: ConntrackKey,
    /// When the connection was admitted, nanoseconds of the monotonic clock.
    pub created: u64,
    /// When its last packet passed.
    pub last_seen: u64,
    /// Packets not yet folded into the rules' counters: original direction, reply direction.
    pub packets: [u64; 2],
    /// Bytes likewise.
    pub bytes: [u64; 2],
    /// The end that opened the connection; its table judged egress.
    pub source: ConntrackEnd,
    /// The other end; its table judged ingress.
    pub destination: ConntrackEnd,
    /// The address epoch that both identities were read in.
    pub epoch: u32,
    /// Position in the quota ring.
    pub position: u32,
    /// The endpoint whose quota the entry takes.
    pub owner: u32,
    /// A [`State`] as a number.
    pub state: u8,
    /// [`ConntrackEntry::SOURCE_HIGH`] and the flags after it.
    pub flags: u8,
    /// Which directions have sent FIN: bit 0 original, bit 1 reply.
    pub closing: u8,
    /// Zero.
    pub reserved: u8,
    /// What translation puts in place of what the key says; zeros without.
    pub nat: Nat,
}

impl ConntrackEntry {
    /// Flag: the opening end is the key's `high`.
    pub const SOURCE_HIGH: u8 = 1;
    /// Flag: a deciding rule asks for a log line.
    pub const LOG: u8 = 2;
    /// Flag: opened by a packet out of the node's stack, whose netfilter may have translated it: answers go the same way.
    pub const VIA_STACK: u8 = 4;
    /// Flag: no connection but the name by which a client calls one, of its own address and a service's: `nat` is the backend's address
    /// and port, and the client's port there. The connection's entry is under what that makes.
    pub const SERVICE: u8 = 8;
    /// Flag: a connection that a [`ConntrackEntry::SERVICE`] leads to: `nat` is the service's address and port, and the client's own port.
    pub const TRANSLATED: u8 = 16;

    /// Flag: no connection but the name by which the world beyond the cluster calls one, of its own address and this node's: `nat` is the
    /// pod's address and port, which take the node's place.
    pub const OUTER: u8 = 32;
    /// Flag: a connection that leaves with this node's address: `nat.other` is the node's port.
    pub const MASQUERADED: u8 = 64;

    /// What of the flags belongs to the connection, and not to a single entry for it.
    pub(crate) const KEPT: u8 = Self::VIA_STACK | Self::TRANSLATED | Self::MASQUERADED;
    /// Entries that are more than they seem.
    pub(crate) const UNUSUAL: u8 = Self::SERVICE | Self::TRANSLATED | Self::OUTER;

    /// For an entry that is only a name of a connection: the key of that connection's own.
    #[must_use]
    pub fn leads_to(&self) -> Option<ConntrackKey> {
        let key = &self.key;
        let (low, high) = ((key.low, key.low_port), (key.high, key.high_port));
        let (opener, other) = if self.flags & Self::SOURCE_HIGH == 0 {
            (low, high)
        } else {
            (high, low)
        };
        let there = (self.nat.address, self.nat.port);
        let client = if self.flags & Self::SERVICE != 0 {
            // A pod that is its own backend bears the service's address.
            let hairpin = self.nat.address.same(&opener.0);
            let address = if hairpin { other.0 } else { opener.0 };
            (address, self.nat.client_port)
        } else if self.flags & Self::OUTER != 0 {
            opener
        } else {
            return None;
        };
        let mut to = *key;
        Context::ends(&mut to, (&client.0, client.1), (&there.0, there.1));
        Some(to)
    }

    /// Whether the entry has outlived its state's timeout.
    #[must_use]
    pub const fn expired(&self, now: u64) -> bool {
        State::from_raw(self.state).expired(self.key.protocol, self.last_seen, now)
    }
}

/// [`ConntrackEntry`] as the programs see it: words that several CPUs change are atomic. The layout is the same.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Connection {
    /// See [`ConntrackEntry::key`]; never changes while the element is this connection's.
    pub key: ConntrackKey,
    /// See [`ConntrackEntry::created`].
    pub created: u64,
    /// See [`ConntrackEntry::last_seen`].
    pub last_seen: Shared<u64>,
    /// See [`ConntrackEntry::packets`].
    pub packets: [Shared<u64>; 2],
    /// See [`ConntrackEntry::bytes`].
    pub bytes: [Shared<u64>; 2],
    /// See [`ConntrackEntry::source`].
    pub source: ConnectionEnd,
    /// See [`ConntrackEntry::destination`].
    pub destination: ConnectionEnd,
    /// See [`ConntrackEntry::epoch`].
    pub epoch: Shared<u32>,
    /// See [`ConntrackEntry::position`].
    pub position: u32,
    /// See [`ConntrackEntry::owner`].
    pub owner: u32,
    /// See [`ConntrackEntry::state`].
    pub state: Shared<u8>,
    /// See [`ConntrackEntry::flags`].
    pub flags: u8,
    /// See [`ConntrackEntry::closing`].
    pub closing: Shared<u8>,
    /// Zero.
    pub reserved: u8,
    /// See [`ConntrackEntry::nat`].
    pub nat: Nat,
}

/// [`ConntrackEnd`] as the programs see it.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ConnectionEnd {
    /// See [`ConntrackEnd::identity`].
    pub identity: Shared<u32>,
    /// See [`ConntrackEnd::table`].
    pub table: Shared<u32>,
    /// See [`ConntrackEnd::revision`].
    pub revision: Shared<u32>,
    /// See [`ConntrackEnd::cookie`].
    pub cookie: Shared<u32>,
    /// See [`ConntrackEnd::slot`].
    pub slot: u32,
    /// See [`ConntrackEnd::generation`].
    pub generation: u32,
}

impl ConnectionEnd {
    /// The end as plain numbers.
    #[must_use]
    #[inline(always)]
    pub fn snapshot(&self) -> ConntrackEnd {
        ConntrackEnd {
            identity: self.identity.load(),
            table: self.table.load(),
            revision: self.revision.load(),
            cookie: self.cookie.load(),
            slot: self.slot,
            generation: self.generation,
        }
    }
}

/// How far a connection has come. One list for every protocol: those without a handshake are `Opening` until a reply was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Only the original direction has spoken (TCP: SYN sent).
    #[default]
    Opening = 0,
    /// TCP: the SYN was answered.
    Answered = 1,
    /// Both directions have spoken (TCP: the handshake is done, or the connection was met midway).
    Established = 2,
    /// TCP: one direction has sent FIN.
    Closing = 3,
    /// TCP: both directions have sent FIN, or either a reset.
    Closed = 4,
}

/// Nanoseconds per second, the unit of the timeouts below.
const SECOND: u64 = 1_000_000_000;

impl State {
    /// The state with this number; an unknown number is `Closed`, the shortest-lived.
    #[must_use]
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Opening,
            1 => Self::Answered,
            2 => Self::Established,
            3 => Self::Closing,
            _ => Self::Closed,
        }
    }

    /// How long a connection of `protocol` (IP protocol number) may be silent in this state, in nanoseconds.
    #[must_use]
    #[inline(always)]
    pub const fn timeout(self, protocol: u8) -> u64 {
        let seconds = match (protocol, self) {
            // TCP and SCTP: a handshake or a farewell that does not come forward, a connection, what still flies about after one.
            (6 | 132, Self::Opening | Self::Answered | Self::Closing) | (17, Self::Opening) => 60,
            (6 | 132, Self::Established) => 8000,
            (6 | 132, Self::Closed) => 10,
            // UDP: a stream; a question is above.
            (17, _) => 180,
            (1 | 58, _) => 30,
            _ => 600,
        };
        seconds * SECOND
    }

    /// Whether a connection last seen at `last_seen` is over at `now`.
    #[must_use]
    #[inline(always)]
    pub const fn expired(self, protocol: u8, last_seen: u64, now: u64) -> bool {
        // Another CPU may have written a time slightly ahead of this one's.
        now.saturating_sub(last_seen) > self.timeout(protocol)
    }
}

/// Key of the fragments map: what all fragments of one packet share.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Identification field.
    pub id: u32,
    /// IP protocol number of the whole packet.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of the fragments map: what only the first fragment says. Written when the first fragment passed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentValue {
    /// The entry's own key: an element reused under a reader shows by it.
    pub key: FragmentKey,
    /// When the first fragment passed, nanoseconds of the monotonic clock.
    pub time: u64,
    /// Source port as in [`crate::parse::Headers`].
    pub source_port: u16,
    /// Destination port likewise.
    pub destination_port: u16,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// IP protocol number behind all extension headers.
    pub protocol: u8,
    /// See [`crate::parse::Headers::icmp_query`].
    pub icmp_query: u8,
}

impl FragmentValue {
    /// How long the fragments of one packet may take, in nanoseconds (RFC 8200: 60 s; Linux drops IPv4 ones after 30).
    pub const TIMEOUT: u64 = 60 * SECOND;
}

crate::map_data!(
    ConntrackKey,
    ConntrackEnd,
    Nat,
    ConntrackEntry,
    FragmentKey,
    FragmentValue
);

const _: () = assert!(size_of::<ConntrackKey>() == 40 && size_of::<ConntrackEnd>() == 24);
const _: () = assert!(size_of::<ConntrackEntry>() == 176 && size_of::<Nat>() == 24);
const _: () = assert!(size_of::<Connection>() == size_of::<ConntrackEntry>());
const _: () = assert!(align_of::<Connection>() == align_of::<ConntrackEntry>());
const _: () = assert!(
    core::mem::offset_of!(Connection, state) == core::mem::offset_of!(ConntrackEntry, state)
);
const _: () =
    assert!(core::mem::offset_of!(Connection, nat) == core::mem::offset_of!(ConntrackEntry, nat));
const _: () = assert!(
    core::mem::offset_of!(Connection, destination)
        == core::mem::offset_of!(ConntrackEntry, destination)
);
const _: () = assert!(size_of::<FragmentKey>() == 40 && size_of::<FragmentValue>() == 56);
