//! The datapath over ordinary memory: tests, fuzzing and the native evaluation engine run the very code that the kernel runs.
//!
//! One thread, no limits but those the tests set; what it does must never differ from what the kernel's maps do.

use std::{
    boxed::Box,
    cell::{Cell as Counting, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    vec::Vec,
};

use crate::{
    Cookie, Range, Reason,
    config::Config,
    conntrack::{
        Connection, ConnectionEnd, ConntrackEnd, ConntrackEntry, ConntrackKey, FragmentKey,
        FragmentValue,
    },
    datapath::{Bucket, Datapath},
    endpoint::Endpoint,
    event::{Counter, Event, Hook},
    ipcache::{Address, AddressInfo, PrefixKey},
    overlay::NodeRecord,
    policy::{AttributionKey, PeerKey, PeerValue, PolicyTables, TableDefaults},
    program::{Cell, Program, RangeKey},
    service::{Affinity, AffinityKey, Backend, Frontend, Service},
};

/// Maps, clock and ring as ordinary collections. What userland writes is public; what programs write is read by methods.
#[derive(Debug, Default)]
pub struct Memory {
    /// The node's settings.
    pub config: Config,
    /// Interface index → slot.
    pub slots_by_ifindex: HashMap<u32, u32>,
    /// Address → slot.
    pub slots_by_address: HashMap<Address, u32>,
    /// Slot → endpoint.
    pub endpoints: HashMap<u32, Endpoint>,
    /// Exact addresses.
    pub addresses: HashMap<Address, AddressInfo>,
    /// Prefixes, their host bits zero.
    pub prefixes: BTreeMap<PrefixKey, AddressInfo>,
    /// Number → node.
    pub nodes: HashMap<u32, NodeRecord>,
    /// Prefix → number of the node whose pods have its addresses; host bits zero.
    pub node_cidrs: BTreeMap<PrefixKey, u32>,
    /// Table id → revision.
    pub revisions: HashMap<u32, u32>,
    /// Table id → defaults.
    pub defaults: HashMap<u32, TableDefaults>,
    /// Peers.
    pub peers: HashMap<PeerKey, PeerValue>,
    /// Programs.
    pub programs: HashMap<u32, Program>,
    /// Ranges of long programs.
    pub ranges: BTreeMap<RangeKey, Cell>,
    /// Attributions.
    pub attributions: HashMap<AttributionKey, Cookie>,
    /// Blocks that are never masqueraded, their host bits zero.
    pub excluded: BTreeSet<PrefixKey>,
    /// Services by frontend.
    pub services: HashMap<Frontend, Service>,
    /// The services' lists: element → backend's id.
    pub lists: HashMap<u32, u32>,
    /// Backends by id.
    pub backends: HashMap<u32, Backend>,
    /// Address epoch.
    pub epoch: u32,
    /// Watermarks by [`Range`].
    pub watermarks: [u32; Range::COUNT],
    /// The time, in nanoseconds.
    pub now: u64,
    /// How many connections there is room for; `None` for any number.
    pub capacity: Option<usize>,
    /// Entries are never freed while the datapath lives, so that a reference stays good when its entry is removed, as in the kernel.
    connections: RefCell<HashMap<ConntrackKey, &'static Connection>>,
    cursors: RefCell<HashMap<u32, u64>>,
    ring: RefCell<HashMap<u32, ConntrackKey>>,
    fragments: RefCell<HashMap<FragmentKey, FragmentValue>>,
    affinities: RefCell<HashMap<AffinityKey, Affinity>>,
    drops: RefCell<BTreeMap<(Hook, Reason), Counter>>,
    rules: RefCell<BTreeMap<Cookie, Counter>>,
    buckets: RefCell<HashMap<(u32, Reason), &'static Bucket>>,
    events: RefCell<Vec<Event>>,
    connection_lookups: Counting<u32>,
    address_lookups: Counting<u32>,
    peer_lookups: Counting<u32>,
    service_lookups: Counting<u32>,
}

impl Memory {
    /// The entry of a connection, if there is one.
    #[must_use]
    pub fn entry(&self, key: &ConntrackKey) -> Option<ConntrackEntry> {
        self.connections.borrow().get(key).map(|c| plain(c))
    }

    /// All connections.
    #[must_use]
    pub fn entries(&self) -> Vec<ConntrackEntry> {
        self.connections
            .borrow()
            .values()
            .map(|c| plain(c))
            .collect()
    }

    /// Drops counted for a hook and reason.
    #[must_use]
    pub fn drops(&self, hook: Hook, reason: Reason) -> Counter {
        self.drops
            .borrow()
            .get(&(hook, reason))
            .copied()
            .unwrap_or_default()
    }

    /// What a rule decided, without what live connections carry.
    #[must_use]
    pub fn rule(&self, cookie: Cookie) -> Counter {
        self.rules
            .borrow()
            .get(&cookie)
            .copied()
            .unwrap_or_default()
    }

    /// How many drop events of an endpoint and reason were held back.
    #[must_use]
    pub fn suppressed(&self, slot: u32, reason: Reason) -> u64 {
        self.buckets
            .borrow()
            .get(&(slot, reason))
            .map_or(0, |bucket| bucket.suppressed.load())
    }

    /// Every count of drops, in the order of hooks and reasons.
    #[must_use]
    pub fn all_drops(&self) -> Vec<((Hook, Reason), Counter)> {
        self.drops.borrow().iter().map(|(k, c)| (*k, *c)).collect()
    }

    /// Everything rules decided, in the order of cookies, without what live connections carry.
    #[must_use]
    pub fn all_rules(&self) -> Vec<(Cookie, Counter)> {
        self.rules.borrow().iter().map(|(k, c)| (*k, *c)).collect()
    }

    /// All events sent and not yet taken.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// Takes all events sent so far.
    pub fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }

    /// Takes the number of look-ups of services so far.
    pub fn take_service_lookups(&self) -> u32 {
        self.service_lookups.take()
    }

    /// Takes the numbers of look-ups so far: of connections, of addresses (prefixes, slots), of peers.
    pub fn take_lookups(&self) -> (u32, u32, u32) {
        (
            self.connection_lookups.take(),
            self.address_lookups.take(),
            self.peer_lookups.take(),
        )
    }
}

fn tick(counter: &Counting<u32>) {
    counter.set(counter.get() + 1);
}

fn add(counter: &mut Counter, packets: u64, bytes: u64) {
    counter.packets += packets;
    counter.bytes += bytes;
}

/// The bits of `bytes` beyond the first `bits` cleared.
fn masked<const N: usize>(mut bytes: [u8; N], bits: u32) -> [u8; N] {
    for (byte, at) in bytes.iter_mut().zip((0_u32..).step_by(8)) {
        *byte &= match bits.saturating_sub(at) {
            0 => 0,
            kept @ 1..=7 => 0xff << (8 - kept),
            _ => 0xff,
        };
    }
    bytes
}

/// What the longest prefix around an address is mapped to.
fn longest<V: Copy>(prefixes: &BTreeMap<PrefixKey, V>, key: &PrefixKey) -> Option<V> {
    (0..=key.prefix_bits).rev().find_map(|prefix_bits| {
        let address = Address(masked(key.address.0, prefix_bits));
        prefixes
            .get(&PrefixKey {
                prefix_bits,
                address,
            })
            .copied()
    })
}

impl PolicyTables for Memory {
    fn revision(&self, table: u32) -> u32 {
        self.revisions.get(&table).copied().unwrap_or(0)
    }

    fn defaults(&self, table: u32) -> Option<&TableDefaults> {
        self.defaults.get(&table)
    }

    fn peer(&self, key: &PeerKey) -> Option<PeerValue> {
        tick(&self.peer_lookups);
        self.peers.get(key).copied()
    }

    fn program(&self, id: u32) -> Option<&Program> {
        self.programs.get(&id)
    }

    fn range(&self, key: &RangeKey) -> Option<Cell> {
        (0..=16).rev().find_map(|bits: u32| {
            let key = RangeKey {
                prefix_bits: RangeKey::EXACT_BITS + bits,
                port: masked(key.port, bits),
                ..*key
            };
            self.ranges.get(&key).copied()
        })
    }

    fn attribution(&self, key: &AttributionKey) -> Option<Cookie> {
        self.attributions.get(key).copied()
    }
}

impl Datapath for Memory {
    fn now(&self) -> u64 {
        self.now
    }

    fn precise_now(&self) -> u64 {
        self.now
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn slot_by_ifindex(&self, ifindex: u32) -> u32 {
        tick(&self.address_lookups);
        self.slots_by_ifindex.get(&ifindex).copied().unwrap_or(0)
    }

    fn slot_by_address(&self, address: &Address) -> u32 {
        tick(&self.address_lookups);
        self.slots_by_address.get(address).copied().unwrap_or(0)
    }

    fn endpoint(&self, slot: u32) -> Option<&Endpoint> {
        self.endpoints.get(&slot)
    }

    fn address(&self, address: &Address) -> Option<AddressInfo> {
        tick(&self.address_lookups);
        self.addresses.get(address).copied()
    }

    fn prefix(&self, key: &PrefixKey) -> Option<AddressInfo> {
        tick(&self.address_lookups);
        longest(&self.prefixes, key)
    }

    fn node(&self, number: u32) -> Option<NodeRecord> {
        self.nodes.get(&number).copied()
    }

    fn node_of(&self, key: &PrefixKey) -> u32 {
        longest(&self.node_cidrs, key).unwrap_or(0)
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn watermark(&self, range: Range) -> u32 {
        self.watermarks[range as usize]
    }

    fn connection(&self, key: &ConntrackKey) -> Option<&Connection> {
        tick(&self.connection_lookups);
        self.connections.borrow().get(key).copied()
    }

    fn insert_connection(&self, entry: &ConntrackEntry) -> bool {
        let mut connections = self.connections.borrow_mut();
        let room = self
            .capacity
            .is_none_or(|capacity| connections.len() < capacity);
        if !room && !connections.contains_key(&entry.key) {
            return false;
        }
        connections.insert(entry.key, Box::leak(Box::new(live(entry))));
        true
    }

    fn claim_connection(&self, entry: &ConntrackEntry) -> bool {
        let taken = self.connections.borrow().contains_key(&entry.key);
        !taken && self.insert_connection(entry)
    }

    fn excluded(&self, key: &PrefixKey) -> bool {
        (0..=key.prefix_bits).rev().any(|prefix_bits| {
            let address = Address(masked(key.address.0, prefix_bits));
            self.excluded.contains(&PrefixKey {
                prefix_bits,
                address,
            })
        })
    }

    fn remove_connection(&self, key: &ConntrackKey) {
        self.connections.borrow_mut().remove(key);
    }

    fn next_position(&self, slot: u32) -> u64 {
        let mut cursors = self.cursors.borrow_mut();
        let cursor = cursors.entry(slot).or_default();
        *cursor += 1;
        *cursor - 1
    }

    fn ring_key(&self, element: u32, into: &mut ConntrackKey) -> bool {
        *into = self
            .ring
            .borrow()
            .get(&element)
            .copied()
            .unwrap_or_default();
        true
    }

    fn set_ring_key(&self, element: u32, key: &ConntrackKey) {
        self.ring.borrow_mut().insert(element, *key);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        self.fragments.borrow().get(key).copied()
    }

    fn insert_fragment(&self, value: &FragmentValue) {
        self.fragments.borrow_mut().insert(value.key, *value);
    }

    fn service(&self, key: &Frontend) -> Option<Service> {
        tick(&self.service_lookups);
        self.services.get(key).copied()
    }

    fn listed_backend(&self, element: u32) -> Option<u32> {
        self.lists.get(&element).copied()
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(&id).copied()
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.borrow().get(key).copied()
    }

    fn set_affinity(&self, value: &Affinity) {
        self.affinities.borrow_mut().insert(value.key, *value);
    }

    fn count_drop(&self, hook: Hook, reason: Reason, bytes: u64) {
        add(
            self.drops.borrow_mut().entry((hook, reason)).or_default(),
            1,
            bytes,
        );
    }

    fn count_rule(&self, cookie: Cookie, packets: u64, bytes: u64) {
        add(
            self.rules.borrow_mut().entry(cookie).or_default(),
            packets,
            bytes,
        );
    }

    fn bucket(&self, slot: u32, reason: Reason) -> Option<&Bucket> {
        let mut buckets = self.buckets.borrow_mut();
        Some(
            buckets
                .entry((slot, reason))
                .or_insert_with(|| Box::leak(Box::default())),
        )
    }

    fn emit(&self, event: &Event) {
        self.events.borrow_mut().push(*event);
    }
}

/// An entry as the programs see it.
fn live(entry: &ConntrackEntry) -> Connection {
    let end = |end: &ConntrackEnd| ConnectionEnd {
        identity: end.identity.into(),
        table: end.table.into(),
        revision: end.revision.into(),
        cookie: end.cookie.into(),
        slot: end.slot,
        generation: end.generation,
    };
    Connection {
        key: entry.key,
        created: entry.created,
        last_seen: entry.last_seen.into(),
        packets: entry.packets.map(Into::into),
        bytes: entry.bytes.map(Into::into),
        source: end(&entry.source),
        destination: end(&entry.destination),
        epoch: entry.epoch.into(),
        position: entry.position,
        owner: entry.owner,
        state: entry.state.into(),
        flags: entry.flags,
        closing: entry.closing.into(),
        reserved: 0,
        nat: entry.nat,
    }
}

/// An entry as userland sees it.
fn plain(connection: &Connection) -> ConntrackEntry {
    ConntrackEntry {
        key: connection.key,
        created: connection.created,
        last_seen: connection.last_seen.load(),
        packets: connection
            .packets
            .each_ref()
            .map(crate::atomic::Shared::load),
        bytes: connection.bytes.each_ref().map(crate::atomic::Shared::load),
        source: connection.source.snapshot(),
        destination: connection.destination.snapshot(),
        epoch: connection.epoch.load(),
        position: connection.position,
        owner: connection.owner,
        state: connection.state.load(),
        flags: connection.flags,
        closing: connection.closing.load(),
        reserved: 0,
        nat: connection.nat,
    }
}
