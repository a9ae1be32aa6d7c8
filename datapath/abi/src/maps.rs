//! Every map of the datapath: name, kind, sizes, default capacity. The programs define their maps and the loader checks pinned ones by
//! this list.
//!
//! Layouts are in the modules that own them; nothing else may enter.

use crate::{
    Cookie, Range,
    config::{self, Config},
    conntrack::{ConntrackEntry, ConntrackKey, FragmentKey, FragmentValue},
    endpoint::Endpoint,
    event::{Counter, DropBucket, Hook},
    ipcache::{Address, AddressInfo, PrefixKey},
    overlay::NodeRecord,
    policy::{AttributionKey, PeerKey, PeerValue, TableDefaults},
    program::{Cell, Program, RangeKey},
    reason::REASON_SLOTS,
    service::{Affinity, AffinityKey, Backend, Frontend, Service},
};

/// The kernel's map kinds that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash,
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    PerCpuHash,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray,
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    LpmTrie,
    /// `BPF_MAP_TYPE_RINGBUF`; its `entries` are bytes.
    RingBuffer,
}

/// One map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Its name in the object, on the pin path, and (cut to 15 bytes) in the kernel.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    /// Default capacity.
    pub entries: u32,
    /// `BPF_F_*` flags.
    pub flags: u32,
}

/// `BPF_F_NO_PREALLOC`: memory as entries come.
pub const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: userland stores into the array without a system call, one aligned word at a time.
pub const MMAPABLE: u32 = 1 << 10;

/// Default number of endpoint slots, slot 0 (never used) included.
pub const ENDPOINTS: u32 = 256;
/// Default number of peer tables, table 0 (never used) included.
pub const TABLES: u32 = 65_536;

const fn spec<K, V>(name: &'static str, kind: Kind, entries: u32, flags: u32) -> Spec {
    Spec {
        name,
        kind,
        key: size_of::<K>(),
        value: size_of::<V>(),
        entries,
        flags,
    }
}

/// Host-side interface index → slot. A hash: indexes only grow in a namespace, however few interfaces there are.
pub const SLOTS_BY_IFINDEX: Spec =
    spec::<u32, u32>("slots_by_ifindex", Kind::Hash, ENDPOINTS, NO_PREALLOC);
/// Local pod's address → slot.
pub const SLOTS_BY_ADDRESS: Spec =
    spec::<Address, u32>("slots_by_address", Kind::Hash, 2 * ENDPOINTS, NO_PREALLOC);
/// Slot → endpoint.
pub const ENDPOINT: Spec = spec::<u32, Endpoint>("endpoints", Kind::Array, ENDPOINTS, 0);
/// Exact address → what it is. Local pods are in it too.
pub const IPCACHE: Spec = spec::<Address, AddressInfo>("ipcache", Kind::Hash, 1 << 18, NO_PREALLOC);
/// Prefix → what its addresses are.
pub const IPCACHE_PREFIXES: Spec =
    spec::<PrefixKey, AddressInfo>("ipcache_prefixes", Kind::LpmTrie, 1 << 17, NO_PREALLOC);
/// Node's number → where the overlay reaches it. Only other nodes.
pub const NODES: Spec = spec::<u32, NodeRecord>("nodes", Kind::Hash, 1 << 13, NO_PREALLOC);
/// Prefix → number of the node whose pods have its addresses. Only other nodes' prefixes.
pub const NODE_CIDRS: Spec =
    spec::<PrefixKey, u32>("node_cidrs", Kind::LpmTrie, 1 << 15, NO_PREALLOC);
/// Table id → its revision; 0 for a table that is not loaded. The low 32 bits count.
pub const TABLE_REVISIONS: Spec =
    spec::<u32, u64>("table_revisions", Kind::Array, TABLES, MMAPABLE);
/// Table id → its defaults.
pub const TABLE_DEFAULTS: Spec =
    spec::<u32, TableDefaults>("table_defaults", Kind::Array, TABLES, 0);
/// (Table, identity) → program and attribution.
pub const PEERS: Spec = spec::<PeerKey, PeerValue>("peers", Kind::Hash, 1 << 20, NO_PREALLOC);
/// Program id → program.
pub const PROGRAMS: Spec = spec::<u32, Program>("programs", Kind::Array, 1 << 16, 0);
/// (Program, protocol, port) → cell, for long programs.
pub const PROGRAM_RANGES: Spec =
    spec::<RangeKey, Cell>("program_ranges", Kind::LpmTrie, 1 << 20, NO_PREALLOC);
/// (Attribution, slot) → cookie.
pub const ATTRIBUTIONS: Spec =
    spec::<AttributionKey, Cookie>("attributions", Kind::Hash, 1 << 20, NO_PREALLOC);
/// Connections. Holds every endpoint's quota, so that no endpoint can fill it.
///
/// Memory as entries come. With all of it taken beforehand a new flow costs 3 to 4 % less (0.95 µs against 0.99 at 10 rules, 1.91 against
/// 1.97 at 1,000: medians of both families over three rounds in turn, less than those rounds differ among themselves), and the default
/// capacity takes 250 MB from every node, however few connections it has.
pub const CONNTRACK: Spec = spec::<ConntrackKey, ConntrackEntry>(
    "conntrack",
    Kind::Hash,
    ENDPOINTS * Config::DEFAULT_QUOTA,
    NO_PREALLOC,
);
/// The quota rings: element slot × quota + position holds the key of the connection that took the position.
pub const CONNTRACK_SLOTS: Spec = spec::<u32, ConntrackKey>(
    "conntrack_slots",
    Kind::Array,
    ENDPOINTS * Config::DEFAULT_QUOTA,
    0,
);
/// Slot → how many positions of its ring were handed out.
pub const CONNTRACK_CURSORS: Spec =
    spec::<u32, u64>("conntrack_cursors", Kind::Array, ENDPOINTS, 0);
/// Fragments of packets whose first one passed.
pub const FRAGMENTS: Spec =
    spec::<FragmentKey, FragmentValue>("fragments", Kind::LruHash, 16_384, 0);
/// Frontend → the list of its backends.
pub const SERVICES: Spec = spec::<Frontend, Service>("services", Kind::Hash, 1 << 15, NO_PREALLOC);
/// The services' lists, one behind the other: element → backend's id.
pub const SERVICE_LISTS: Spec = spec::<u32, u32>("service_lists", Kind::Array, 1 << 17, 0);
/// Id → backend of one frontend. Id 0 is never used.
pub const SERVICE_BACKENDS: Spec =
    spec::<u32, Backend>("service_backends", Kind::Array, 1 << 16, 0);
/// (Service, client) → the backend that the client went to last.
pub const SERVICE_AFFINITY: Spec =
    spec::<AffinityKey, Affinity>("service_affinity", Kind::LruHash, 1 << 14, 0);
/// Blocks that pods' connections to are never masqueraded.
pub const MASQUERADE_EXCLUDED: Spec =
    spec::<PrefixKey, u32>("masquerade_excluded", Kind::LpmTrie, 1 << 12, NO_PREALLOC);
/// The node's settings; one element.
pub const CONFIG: Spec = spec::<u32, Config>("config", Kind::Array, 1, 0);
/// See [`config::epoch`]. The low 32 bits count.
pub const EPOCHS: Spec = spec::<u32, u64>("epochs", Kind::Array, config::epoch::COUNT, MMAPABLE);
/// [`Range`] → the highest local number that this node's tables know. The low 32 bits count.
#[allow(clippy::cast_possible_truncation)]
pub const WATERMARKS: Spec =
    spec::<u32, u64>("watermarks", Kind::Array, Range::COUNT as u32, MMAPABLE);
/// Drops: element hook × [`REASON_SLOTS`] + reason.
#[allow(clippy::cast_possible_truncation)]
pub const DROP_COUNTERS: Spec = spec::<u32, Counter>(
    "drop_counters",
    Kind::PerCpuArray,
    (Hook::COUNT * REASON_SLOTS) as u32,
    0,
);
/// Cookie → packets it decided. What live connections carried since their last fold is in their entries.
pub const RULE_COUNTERS: Spec =
    spec::<Cookie, Counter>("rule_counters", Kind::PerCpuHash, 1 << 17, NO_PREALLOC);
/// Drop-event buckets: element slot × [`REASON_SLOTS`] + reason.
#[allow(clippy::cast_possible_truncation)]
pub const DROP_BUCKETS: Spec = spec::<u32, DropBucket>(
    "drop_buckets",
    Kind::Array,
    ENDPOINTS * REASON_SLOTS as u32,
    0,
);
/// Events; entries are bytes.
pub const EVENTS: Spec = Spec {
    name: "events",
    kind: Kind::RingBuffer,
    key: 0,
    value: 0,
    entries: 1 << 22,
    flags: 0,
};
/// Element 0: events that found the ring full.
pub const RING_LOSSES: Spec = spec::<u32, u64>("ring_losses", Kind::PerCpuArray, 1, 0);
/// The programs' working memory; of no interest to userland and never pinned. `value` is the programs' own affair.
pub const SCRATCH: &str = "scratch";

/// Every map that is pinned.
pub const ALL: &[Spec] = &[
    SLOTS_BY_IFINDEX,
    SLOTS_BY_ADDRESS,
    ENDPOINT,
    IPCACHE,
    IPCACHE_PREFIXES,
    NODES,
    NODE_CIDRS,
    TABLE_REVISIONS,
    TABLE_DEFAULTS,
    PEERS,
    PROGRAMS,
    PROGRAM_RANGES,
    ATTRIBUTIONS,
    CONNTRACK,
    CONNTRACK_SLOTS,
    CONNTRACK_CURSORS,
    FRAGMENTS,
    SERVICES,
    SERVICE_LISTS,
    SERVICE_BACKENDS,
    SERVICE_AFFINITY,
    MASQUERADE_EXCLUDED,
    CONFIG,
    EPOCHS,
    WATERMARKS,
    DROP_COUNTERS,
    RULE_COUNTERS,
    DROP_BUCKETS,
    EVENTS,
    RING_LOSSES,
];
