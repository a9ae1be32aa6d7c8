//! The kernel's maps as a copy of a memory's: what userland writes is copied before each frame, what programs write is read back.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use sluice_abi::config::Config;
use sluice_abi::conntrack::{ConntrackEntry, ConntrackKey, FragmentKey, FragmentValue};
use sluice_abi::endpoint::Endpoint;
use sluice_abi::event::{Counter, DropBucket};
use sluice_abi::ipcache::{Address, AddressInfo, PrefixKey};
use sluice_abi::maps::{self, Spec};
use sluice_abi::memory::Memory;
use sluice_abi::overlay::NodeRecord;
use sluice_abi::policy::{AttributionKey, PeerKey, PeerValue, TableDefaults};
use sluice_abi::program::{Cell, Program, RangeKey};
use sluice_abi::service::{Affinity, AffinityKey, Backend, Frontend, Service};
use sluice_abi::{Cookie, MapData};
use sluice_datapath::load::Datapath;
use sluice_datapath::sys::{Map, PerCpuMap};

/// How much slower drop buckets fill in the kernel, whose clock goes on while a test runs, than in the memory, whose clock does not.
const SLOWER: u64 = 100_000;

/// One map, and what was written to it.
struct Written<K, V> {
    map: Map<K, V>,
    known: HashMap<K, V>,
    /// An array's elements can't be removed; this is what they have instead.
    instead: Option<V>,
}

impl<K: MapData + Eq + Hash, V: MapData + PartialEq + Debug> Written<K, V> {
    fn hash(datapath: &Datapath, spec: &Spec) -> Self {
        Self {
            map: open(datapath, spec),
            known: HashMap::new(),
            instead: None,
        }
    }

    fn array(datapath: &Datapath, spec: &Spec, instead: V) -> Self {
        Self {
            instead: Some(instead),
            ..Self::hash(datapath, spec)
        }
    }

    /// Makes the map hold exactly these.
    fn write(&mut self, wanted: impl IntoIterator<Item = (K, V)>) {
        let wanted: HashMap<K, V> = wanted.into_iter().collect();
        for key in self.known.keys().filter(|key| !wanted.contains_key(key)) {
            match &self.instead {
                Some(value) => self.map.put(key, value).unwrap(),
                None => assert!(self.map.remove(key).unwrap()),
            }
        }
        for (key, value) in &wanted {
            if self.known.get(key) != Some(value) {
                self.map.put(key, value).unwrap();
            }
        }
        self.known = wanted;
    }
}

fn open<K: MapData, V: MapData>(datapath: &Datapath, spec: &Spec) -> Map<K, V> {
    Map::new(spec.name, datapath.map(spec.name).unwrap()).unwrap()
}

/// All maps.
pub(crate) struct Mirror {
    config: Written<u32, Config>,
    slots_by_ifindex: Written<u32, u32>,
    slots_by_address: Written<Address, u32>,
    endpoints: Written<u32, Endpoint>,
    addresses: Written<Address, AddressInfo>,
    prefixes: Written<PrefixKey, AddressInfo>,
    nodes: Written<u32, NodeRecord>,
    node_cidrs: Written<PrefixKey, u32>,
    revisions: Written<u32, u64>,
    defaults: Written<u32, TableDefaults>,
    peers: Written<PeerKey, PeerValue>,
    programs: Written<u32, Program>,
    ranges: Written<RangeKey, Cell>,
    attributions: Written<AttributionKey, Cookie>,
    excluded: Written<PrefixKey, u32>,
    services: Written<Frontend, Service>,
    lists: Written<u32, u32>,
    backends: Written<u32, Backend>,
    epochs: Written<u32, u64>,
    watermarks: Written<u32, u64>,
    connections: Map<ConntrackKey, ConntrackEntry>,
    ring: Map<u32, ConntrackKey>,
    cursors: Map<u32, u64>,
    fragments: Map<FragmentKey, FragmentValue>,
    affinities: Map<AffinityKey, Affinity>,
    buckets: Map<u32, DropBucket>,
    drops: PerCpuMap<u32, Counter>,
    rules: PerCpuMap<Cookie, Counter>,
}

impl Mirror {
    pub(crate) fn new(datapath: &Datapath) -> Self {
        let per_cpu = |spec: &Spec| datapath.map(spec.name).unwrap();
        Self {
            config: Written::array(datapath, &maps::CONFIG, Config::default()),
            slots_by_ifindex: Written::hash(datapath, &maps::SLOTS_BY_IFINDEX),
            slots_by_address: Written::hash(datapath, &maps::SLOTS_BY_ADDRESS),
            endpoints: Written::array(datapath, &maps::ENDPOINT, Endpoint::default()),
            addresses: Written::hash(datapath, &maps::IPCACHE),
            prefixes: Written::hash(datapath, &maps::IPCACHE_PREFIXES),
            nodes: Written::hash(datapath, &maps::NODES),
            node_cidrs: Written::hash(datapath, &maps::NODE_CIDRS),
            revisions: Written::array(datapath, &maps::TABLE_REVISIONS, 0),
            defaults: Written::array(datapath, &maps::TABLE_DEFAULTS, TableDefaults::default()),
            peers: Written::hash(datapath, &maps::PEERS),
            programs: Written::array(datapath, &maps::PROGRAMS, Program::default()),
            ranges: Written::hash(datapath, &maps::PROGRAM_RANGES),
            attributions: Written::hash(datapath, &maps::ATTRIBUTIONS),
            excluded: Written::hash(datapath, &maps::MASQUERADE_EXCLUDED),
            services: Written::hash(datapath, &maps::SERVICES),
            lists: Written::array(datapath, &maps::SERVICE_LISTS, 0),
            backends: Written::array(datapath, &maps::SERVICE_BACKENDS, Backend::default()),
            epochs: Written::array(datapath, &maps::EPOCHS, 0),
            watermarks: Written::array(datapath, &maps::WATERMARKS, 0),
            connections: open(datapath, &maps::CONNTRACK),
            ring: open(datapath, &maps::CONNTRACK_SLOTS),
            cursors: open(datapath, &maps::CONNTRACK_CURSORS),
            fragments: open(datapath, &maps::FRAGMENTS),
            affinities: open(datapath, &maps::SERVICE_AFFINITY),
            buckets: open(datapath, &maps::DROP_BUCKETS),
            drops: PerCpuMap::new(maps::DROP_COUNTERS.name, per_cpu(&maps::DROP_COUNTERS)).unwrap(),
            rules: PerCpuMap::new(maps::RULE_COUNTERS.name, per_cpu(&maps::RULE_COUNTERS)).unwrap(),
        }
    }

    /// Empties what programs write.
    pub(crate) fn forget(&self) {
        for (key, _) in self.connections.entries().unwrap() {
            self.connections.remove(&key).unwrap();
        }
        for (key, _) in self.fragments.entries().unwrap() {
            self.fragments.remove(&key).unwrap();
        }
        for (key, _) in self.affinities.entries().unwrap() {
            self.affinities.remove(&key).unwrap();
        }
        clear(&self.ring, &ConntrackKey::default());
        clear(&self.cursors, &0);
        clear(&self.buckets, &DropBucket::default());
        for (key, cpus) in self.drops.entries().unwrap() {
            if cpus.iter().any(|counter| *counter != Counter::default()) {
                self.drops.put(&key, &[], Counter::default()).unwrap();
            }
        }
        for (key, _) in self.rules.entries().unwrap() {
            self.rules.put(&key, &[], Counter::default()).unwrap();
        }
    }

    /// Forgets one connection's entry.
    pub(crate) fn forget_connection(&self, key: &ConntrackKey) {
        assert!(self.connections.remove(key).unwrap());
    }

    /// Copies what userland writes.
    pub(crate) fn write(&mut self, memory: &Memory) {
        let slower = Config {
            drop_event_interval: memory.config.drop_event_interval * SLOWER,
            ..memory.config
        };
        self.config.write([(0, slower)]);
        self.slots_by_ifindex
            .write(copied(&memory.slots_by_ifindex));
        self.slots_by_address
            .write(copied(&memory.slots_by_address));
        self.endpoints.write(copied(&memory.endpoints));
        self.addresses.write(copied(&memory.addresses));
        self.prefixes
            .write(memory.prefixes.iter().map(|(k, v)| (*k, *v)));
        self.nodes.write(copied(&memory.nodes));
        self.node_cidrs
            .write(memory.node_cidrs.iter().map(|(k, v)| (*k, *v)));
        self.revisions
            .write(memory.revisions.iter().map(|(k, v)| (*k, u64::from(*v))));
        self.defaults.write(copied(&memory.defaults));
        self.peers.write(copied(&memory.peers));
        self.programs.write(copied(&memory.programs));
        self.ranges
            .write(memory.ranges.iter().map(|(k, v)| (*k, *v)));
        self.attributions.write(copied(&memory.attributions));
        self.excluded
            .write(memory.excluded.iter().map(|prefix| (*prefix, 1)));
        self.services.write(copied(&memory.services));
        self.lists.write(copied(&memory.lists));
        self.backends.write(copied(&memory.backends));
        self.epochs.write([(0, u64::from(memory.epoch))]);
        self.watermarks
            .write((0..).zip(memory.watermarks.map(u64::from)));
    }

    /// Lets time pass: the kernel's clock can't be set, so what it measures is made older. A machine that has not been up for as long as
    /// is to pass makes things as old as itself.
    pub(crate) fn age(&self, nanoseconds: u64) {
        for (key, mut entry) in self.connections.entries().unwrap() {
            entry.created = entry.created.saturating_sub(nanoseconds);
            entry.last_seen = entry.last_seen.saturating_sub(nanoseconds);
            self.connections.put(&key, &entry).unwrap();
        }
        for (key, mut value) in self.fragments.entries().unwrap() {
            value.time = value.time.saturating_sub(nanoseconds);
            self.fragments.put(&key, &value).unwrap();
        }
        for (key, mut value) in self.affinities.entries().unwrap() {
            value.time = value.time.saturating_sub(nanoseconds);
            self.affinities.put(&key, &value).unwrap();
        }
        for (key, mut bucket) in self.buckets.entries().unwrap() {
            if bucket.full_at != 0 {
                bucket.full_at = bucket
                    .full_at
                    .saturating_sub(nanoseconds.saturating_mul(SLOWER));
                self.buckets.put(&key, &bucket).unwrap();
            }
        }
    }

    /// The connections in an order, without their times.
    pub(crate) fn connections(&self) -> Vec<ConntrackEntry> {
        let entries: Vec<_> = self
            .connections
            .entries()
            .unwrap()
            .into_iter()
            .map(|(_, entry)| entry)
            .collect();
        super::connections(&entries)
    }

    /// What rules decided, without what live connections carry.
    pub(crate) fn rules(&self) -> Vec<(Cookie, Counter)> {
        let sum = |cpus: &[Counter]| Counter {
            packets: cpus.iter().map(|cpu| cpu.packets).sum(),
            bytes: cpus.iter().map(|cpu| cpu.bytes).sum(),
        };
        let entries = self.rules.entries().unwrap();
        let mut rules: Vec<_> = entries
            .iter()
            .map(|(cookie, cpus)| (*cookie, sum(cpus)))
            .collect();
        rules.retain(|(_, counter)| *counter != Counter::default());
        rules.sort_by_key(|(cookie, _)| *cookie);
        rules
    }
}

fn copied<K: Copy, V: Copy>(map: &HashMap<K, V>) -> impl Iterator<Item = (K, V)> {
    map.iter().map(|(key, value)| (*key, *value))
}

/// Sets every element of an array.
fn clear<V: MapData>(array: &Map<u32, V>, value: &V) {
    let all: Vec<(u32, V)> = (0..array.capacity()).map(|index| (index, *value)).collect();
    array.put_all(&all).unwrap();
}
