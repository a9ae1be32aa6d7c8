//! The maps, defined by the list in `sluice_abi::maps`. Access to them is `kernel`'s.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use sluice_abi::{
    Cookie,
    config::Config,
    conntrack::{ConntrackEntry, ConntrackKey, FragmentKey, FragmentValue},
    context::Context,
    endpoint::Endpoint,
    event::{Counter, DropBucket},
    ipcache::{Address, AddressInfo},
    maps as specs,
    overlay::NodeRecord,
    policy::{AttributionKey, PeerKey, PeerValue, TableDefaults},
    program::{Cell, Program},
    service::{Affinity, AffinityKey, Backend, Frontend, Service},
};

/// What follows the length in [`sluice_abi::program::RangeKey`].
pub(crate) type RangeBits = [u8; 8];

#[map(name = "slots_by_ifindex")]
pub(crate) static SLOTS_BY_IFINDEX: HashMap<u32, u32> = HashMap::with_max_entries(
    specs::SLOTS_BY_IFINDEX.entries,
    specs::SLOTS_BY_IFINDEX.flags,
);
#[map(name = "slots_by_address")]
pub(crate) static SLOTS_BY_ADDRESS: HashMap<Address, u32> = HashMap::with_max_entries(
    specs::SLOTS_BY_ADDRESS.entries,
    specs::SLOTS_BY_ADDRESS.flags,
);
#[map(name = "endpoints")]
pub(crate) static ENDPOINTS: Array<Endpoint> =
    Array::with_max_entries(specs::ENDPOINT.entries, specs::ENDPOINT.flags);
#[map(name = "ipcache")]
pub(crate) static IPCACHE: HashMap<Address, AddressInfo> =
    HashMap::with_max_entries(specs::IPCACHE.entries, specs::IPCACHE.flags);
#[map(name = "ipcache_prefixes")]
pub(crate) static IPCACHE_PREFIXES: LpmTrie<Address, AddressInfo> = LpmTrie::with_max_entries(
    specs::IPCACHE_PREFIXES.entries,
    specs::IPCACHE_PREFIXES.flags,
);
#[map(name = "nodes")]
pub(crate) static NODES: HashMap<u32, NodeRecord> =
    HashMap::with_max_entries(specs::NODES.entries, specs::NODES.flags);
#[map(name = "node_cidrs")]
pub(crate) static NODE_CIDRS: LpmTrie<Address, u32> =
    LpmTrie::with_max_entries(specs::NODE_CIDRS.entries, specs::NODE_CIDRS.flags);
#[map(name = "table_revisions")]
pub(crate) static TABLE_REVISIONS: Array<u64> =
    Array::with_max_entries(specs::TABLE_REVISIONS.entries, specs::TABLE_REVISIONS.flags);
#[map(name = "table_defaults")]
pub(crate) static TABLE_DEFAULTS: Array<TableDefaults> =
    Array::with_max_entries(specs::TABLE_DEFAULTS.entries, specs::TABLE_DEFAULTS.flags);
#[map(name = "peers")]
pub(crate) static PEERS: HashMap<PeerKey, PeerValue> =
    HashMap::with_max_entries(specs::PEERS.entries, specs::PEERS.flags);
#[map(name = "programs")]
pub(crate) static PROGRAMS: Array<Program> =
    Array::with_max_entries(specs::PROGRAMS.entries, specs::PROGRAMS.flags);
#[map(name = "program_ranges")]
pub(crate) static PROGRAM_RANGES: LpmTrie<RangeBits, Cell> =
    LpmTrie::with_max_entries(specs::PROGRAM_RANGES.entries, specs::PROGRAM_RANGES.flags);
#[map(name = "attributions")]
pub(crate) static ATTRIBUTIONS: HashMap<AttributionKey, Cookie> =
    HashMap::with_max_entries(specs::ATTRIBUTIONS.entries, specs::ATTRIBUTIONS.flags);
#[map(name = "conntrack")]
pub(crate) static CONNTRACK: HashMap<ConntrackKey, ConntrackEntry> =
    HashMap::with_max_entries(specs::CONNTRACK.entries, specs::CONNTRACK.flags);
#[map(name = "conntrack_slots")]
pub(crate) static CONNTRACK_SLOTS: Array<ConntrackKey> =
    Array::with_max_entries(specs::CONNTRACK_SLOTS.entries, specs::CONNTRACK_SLOTS.flags);
#[map(name = "conntrack_cursors")]
pub(crate) static CONNTRACK_CURSORS: Array<u64> = Array::with_max_entries(
    specs::CONNTRACK_CURSORS.entries,
    specs::CONNTRACK_CURSORS.flags,
);
#[map(name = "fragments")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> =
    LruHashMap::with_max_entries(specs::FRAGMENTS.entries, specs::FRAGMENTS.flags);
#[map(name = "services")]
pub(crate) static SERVICES: HashMap<Frontend, Service> =
    HashMap::with_max_entries(specs::SERVICES.entries, specs::SERVICES.flags);
#[map(name = "service_lists")]
pub(crate) static SERVICE_LISTS: Array<u32> =
    Array::with_max_entries(specs::SERVICE_LISTS.entries, specs::SERVICE_LISTS.flags);
#[map(name = "service_backends")]
pub(crate) static SERVICE_BACKENDS: Array<Backend> = Array::with_max_entries(
    specs::SERVICE_BACKENDS.entries,
    specs::SERVICE_BACKENDS.flags,
);
#[map(name = "service_affinity")]
pub(crate) static SERVICE_AFFINITY: LruHashMap<AffinityKey, Affinity> =
    LruHashMap::with_max_entries(
        specs::SERVICE_AFFINITY.entries,
        specs::SERVICE_AFFINITY.flags,
    );
#[map(name = "masquerade_excluded")]
pub(crate) static MASQUERADE_EXCLUDED: LpmTrie<Address, u32> = LpmTrie::with_max_entries(
    specs::MASQUERADE_EXCLUDED.entries,
    specs::MASQUERADE_EXCLUDED.flags,
);
#[map(name = "config")]
pub(crate) static CONFIG: Array<Config> =
    Array::with_max_entries(specs::CONFIG.entries, specs::CONFIG.flags);
#[map(name = "epochs")]
pub(crate) static EPOCHS: Array<u64> =
    Array::with_max_entries(specs::EPOCHS.entries, specs::EPOCHS.flags);
#[map(name = "watermarks")]
pub(crate) static WATERMARKS: Array<u64> =
    Array::with_max_entries(specs::WATERMARKS.entries, specs::WATERMARKS.flags);
#[map(name = "drop_counters")]
pub(crate) static DROP_COUNTERS: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(specs::DROP_COUNTERS.entries, specs::DROP_COUNTERS.flags);
#[map(name = "rule_counters")]
pub(crate) static RULE_COUNTERS: PerCpuHashMap<Cookie, Counter> =
    PerCpuHashMap::with_max_entries(specs::RULE_COUNTERS.entries, specs::RULE_COUNTERS.flags);
#[map(name = "drop_buckets")]
pub(crate) static DROP_BUCKETS: Array<DropBucket> =
    Array::with_max_entries(specs::DROP_BUCKETS.entries, specs::DROP_BUCKETS.flags);
#[map(name = "events")]
pub(crate) static EVENTS: RingBuf =
    RingBuf::with_byte_size(specs::EVENTS.entries, specs::EVENTS.flags);
#[map(name = "ring_losses")]
pub(crate) static RING_LOSSES: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(specs::RING_LOSSES.entries, specs::RING_LOSSES.flags);
#[map(name = "scratch")]
pub(crate) static SCRATCH: PerCpuArray<Context> = PerCpuArray::with_max_entries(1, 0);
