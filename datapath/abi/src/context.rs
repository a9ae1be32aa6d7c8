//! Everything that the classification of one packet works on. One per CPU in the kernel, where the stack has no room for it.
//!
//! Only data; each stage says what it reads and writes.

use crate::{
    Cookie, Identity, Reason,
    atomic::{self, Words},
    conntrack::{ConntrackEntry, ConntrackKey, FragmentKey, FragmentValue, Nat},
    event::{Event, Hook},
    ipcache::{Address, PrefixKey},
    neighbour::Reply,
    overlay::Tunnel,
    packet::Head,
    parse::Headers,
    program::Verdict,
    service::{Affinity, Frontend},
    track::Known,
    translate::{Changed, Tuple},
};

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Outcome {
    /// Drop it; the context has the reason.
    Drop = 0,
    /// Leave it to the node's stack.
    Stack = 1,
    /// Forward it by the node's routes; leave it to the stack where these do not say how.
    Route = 2,
    /// Give it to the endpoint in [`Context::deliver`], as a router would.
    Deliver = 3,
    /// Send [`Context::reply`] back where it came from, in its place.
    Reply = 4,
    /// Wrap it as [`Context::tunnel`] says and send it to another node.
    Tunnel = 5,
    /// Leave it to the node's stack, wrapped as [`Context::tunnel`] says.
    Wrap = 6,
    /// It is this node's own, out of the overlay: the stack takes it whatever hardware address it bears.
    Accept = 7,
}

/// What a service has to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Through {
    /// Nothing.
    None = 0,
    /// It goes to one, and has the backend's address already.
    Forth = 1,
    /// It comes from a backend, and has the service's address once it is judged.
    Back = 2,
}

/// What is known of the place of the address that was looked up last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Located {
    /// Nothing.
    Anywhere = 0,
    /// It is held by another node of the cluster.
    OnOtherNode = 1,
    /// It is this node's, or held by it.
    OnThisNode = 2,
}

/// Where one end of a packet is and who it is.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The identity; local nodes in the flavour their own pods see.
    pub identity: Identity,
    /// The endpoint's slot, or 0.
    pub slot: u32,
    /// The endpoint's generation, or a [`crate::conntrack::place`].
    pub generation: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: integers without padding, as the size shows.
unsafe impl Words for End {}
const _: () = assert!(size_of::<End>() == 16);

/// What one end decided, in plain numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What decided.
    pub cookie: Cookie,
    /// The table asked, or 0.
    pub table: u32,
    /// Its revision.
    pub revision: u32,
    /// Rule set and listener of a redirect.
    pub redirect: u32,
    /// A [`Verdict`] as a number, or [`crate::event::EventEnd::NOT_JUDGED`].
    pub verdict: u8,
    /// Why this end drops, or [`Reason::None`].
    pub reason: Reason,
    /// The decision is to be logged.
    pub log: bool,
}

impl Decision {
    /// The end was not asked.
    pub const NOT_JUDGED: Self = Self {
        cookie: Cookie::NONE,
        table: 0,
        revision: 0,
        redirect: 0,
        verdict: crate::event::EventEnd::NOT_JUDGED,
        reason: Reason::None,
        log: false,
    };

    /// An answer that no table gives.
    #[must_use]
    #[inline(always)]
    pub const fn built_in(verdict: Verdict, reason: Reason, cookie: Cookie) -> Self {
        Self {
            cookie,
            table: 0,
            revision: 0,
            redirect: 0,
            verdict: verdict as u8,
            reason,
            log: false,
        }
    }
}

/// See the module.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Where the packet was seen.
    pub hook: Hook,
    /// Why it is dropped.
    pub reason: Reason,
    /// The source end decided for the destination end to be the opener: the flow's original direction is the packet's reverse.
    pub reversed: bool,
    /// Judge both ends, whatever the first one says.
    pub both: bool,
    /// An entry, though not one that this packet may be taken for, was found under the key.
    pub occupied: bool,
    /// Whether `low` of the key is the packet's destination.
    pub source_high: bool,
    /// Where the address looked up last is.
    pub located: Located,
    /// [`ConntrackEntry::VIA_STACK`], [`ConntrackEntry::TRANSLATED`] and [`ConntrackEntry::MASQUERADED`] of the packet's connection.
    pub flow: u8,
    /// What a service has to do with the packet.
    pub service: Through,
    /// What the connection table says of the packet.
    pub known: Known,
    /// What of the frame is to be written anew.
    pub changed: Changed,
    /// A packet that nobody serves is dropped without a word.
    pub silent: bool,
    /// An address of this node's own stands for whoever the stack forwards a packet for, and not for the node itself.
    pub forwarded: bool,
    /// How many bytes of `head` are the packet's.
    pub available: u32,
    /// Index of the interface it was seen at.
    pub ifindex: u32,
    /// Index of the interface it came in at, 0 if this node made it.
    pub ingress_ifindex: u32,
    /// This node's number.
    pub node: u32,
    /// Flags of the node's settings.
    pub flags: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// The endpoint that pays for drop events, or 0.
    pub slot: u32,
    /// For [`Outcome::Deliver`]: to whom.
    pub deliver: u32,
    /// The address epoch that the ends were read in.
    pub epoch: u32,
    /// The time.
    pub now: u64,
    /// The packet's source end.
    pub source: End,
    /// The packet's destination end.
    pub destination: End,
    /// What the end that opens the flow decided.
    pub egress: Decision,
    /// What the other end decided.
    pub ingress: Decision,
    /// The frame's first bytes.
    pub head: Head,
    /// What they say.
    pub headers: Headers,
    /// What the packet quoted in an ICMP error says.
    pub inner: Headers,
    /// Key of the connection.
    pub key: ConntrackKey,
    /// What the connection's entry has for a translated one.
    pub nat: Nat,
    /// What the entry that leads to it has.
    pub alias: Nat,
    /// The packet's ends before they were changed.
    pub before: Tuple,
    /// Its ends as they are to be.
    pub after: Tuple,
    /// The ends of the packet quoted in an ICMP error before they were changed.
    pub inner_before: Tuple,
    /// Its ends as they are to be.
    pub inner_after: Tuple,
    /// The frontend that is looked up.
    pub frontend: Frontend,
    /// The affinity that is looked up or written.
    pub affinity: Affinity,
    /// Key that is set aside.
    pub pending: ConntrackKey,
    /// Key of the connection that an entry leads to.
    pub led: ConntrackKey,
    /// Key of the connection that gives way to this one.
    pub evicted: ConntrackKey,
    /// The entry that is written.
    pub entry: ConntrackEntry,
    /// Key of the packet's fragments.
    pub fragment_key: FragmentKey,
    /// What they share.
    pub fragment: FragmentValue,
    /// The prefix that is looked up.
    pub prefix: PrefixKey,
    /// The event that is sent.
    pub event: Event,
    /// The frame for [`Outcome::Reply`].
    pub reply: Reply,
    /// The outside of a wrapped packet: as it came, or as it is to go.
    pub tunnel: Tunnel,
}

impl Context {
    /// An empty one, to be used for packet after packet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hook: Hook::FromEndpoint,
            reason: Reason::None,
            reversed: false,
            both: false,
            occupied: false,
            source_high: false,
            located: Located::Anywhere,
            flow: 0,
            service: Through::None,
            known: Known::No,
            changed: Changed::Nothing,
            silent: false,
            forwarded: false,
            available: 0,
            ifindex: 0,
            ingress_ifindex: 0,
            node: 0,
            flags: 0,
            length: 0,
            slot: 0,
            deliver: 0,
            epoch: 0,
            now: 0,
            source: End::default(),
            destination: End::default(),
            egress: Decision::NOT_JUDGED,
            ingress: Decision::NOT_JUDGED,
            head: Head::default(),
            headers: Headers::default(),
            inner: Headers::default(),
            key: ConntrackKey::default(),
            pending: ConntrackKey::default(),
            led: ConntrackKey::default(),
            nat: Nat::default(),
            alias: Nat::default(),
            before: Tuple::default(),
            after: Tuple::default(),
            inner_before: Tuple::default(),
            inner_after: Tuple::default(),
            frontend: Frontend::default(),
            affinity: Affinity::default(),
            evicted: ConntrackKey::default(),
            entry: ConntrackEntry::default(),
            fragment_key: FragmentKey::default(),
            fragment: FragmentValue::default(),
            prefix: PrefixKey::default(),
            event: Event::default(),
            reply: Reply::default(),
            tunnel: Tunnel::default(),
        }
    }

    /// Makes ready for a packet.
    #[inline(always)]
    pub fn begin(&mut self, hook: Hook, ifindex: u32, ingress_ifindex: u32, length: u32) {
        self.hook = hook;
        self.ifindex = ifindex;
        self.ingress_ifindex = ingress_ifindex;
        self.length = length;
        self.reason = Reason::None;
        self.reversed = false;
        self.both = false;
        self.occupied = false;
        self.flow = 0;
        self.service = Through::None;
        self.changed = Changed::Nothing;
        self.forwarded = matches!(hook, Hook::ToEndpoint) && ingress_ifindex != 0;
        self.slot = 0;
        self.deliver = 0;
        atomic::clear(&mut self.source);
        atomic::clear(&mut self.destination);
        self.egress = Decision::NOT_JUDGED;
        self.ingress = Decision::NOT_JUDGED;
    }

    /// Writes the key of the flow that `from` → `to` belongs to; whether the source is the key's `high`.
    #[inline(always)]
    pub(crate) fn flow_key(key: &mut ConntrackKey, headers: &Headers) -> bool {
        key.protocol = headers.protocol;
        key.leg = 0;
        key.icmp = headers.icmp_query;
        key.reserved = 0;
        Self::ends(
            key,
            (&headers.source, headers.source_port),
            (&headers.destination, headers.destination_port),
        )
    }

    /// Writes the ends of a key; whether `from` is its `high`. What else a key says stays.
    #[inline(always)]
    pub(crate) fn ends(
        key: &mut ConntrackKey,
        (source, source_port): (&Address, u16),
        (destination, destination_port): (&Address, u16),
    ) -> bool {
        let high = comes_after(source, source_port, destination, destination_port);
        if high {
            key.low = *destination;
            key.high = *source;
            key.low_port = destination_port;
            key.high_port = source_port;
        } else {
            key.low = *source;
            key.high = *destination;
            key.low_port = source_port;
            key.high_port = destination_port;
        }
        high
    }

    /// The source address that the packet came with.
    #[inline(always)]
    pub(crate) fn sender(&self) -> &Address {
        if matches!(self.service, Through::Forth) {
            &self.before.source
        } else {
            &self.headers.source
        }
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether (`a`, `a_port`) comes after (`b`, `b_port`) in the order of connection keys: any total order will do.
#[inline(always)]
fn comes_after(a: &Address, a_port: u16, b: &Address, b_port: u16) -> bool {
    let (x, y) = (a.words(), b.words());
    // The last words differ nearly always.
    let mut index = 4;
    while index > 0 {
        index -= 1;
        if x[index] != y[index] {
            return x[index] > y[index];
        }
    }
    a_port > b_port
}
