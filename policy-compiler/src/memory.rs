//! The kernel's maps as ordinary memory, filled from deltas exactly as the kernel's writer does. No judging here: that is
//! `sluice_abi`'s, over these.

use std::{net::IpAddr, sync::Arc};

use rustc_hash::FxHashMap;
use sluice_abi::{
    Cookie, Identity,
    ipcache::{Address, AddressInfo, PrefixKey},
    policy::{
        AttributionKey, PeerCell, PeerKey, PeerValue, PolicyTables, TableDefaults, Versioned,
    },
    program::{Cell, Program, RangeKey},
};
use sluice_world::PodRef;

use crate::delta::{Delta, Endpoint, RedirectSet, TableDelta};

/// Tables in memory.
#[derive(Clone, Debug, Default)]
pub struct MemTables {
    revisions: FxHashMap<u32, u32>,
    defaults: FxHashMap<u32, TableDefaults>,
    peers: FxHashMap<PeerKey, PeerValue>,
    programs: FxHashMap<u32, Program>,
    ranges: FxHashMap<RangeKey, Cell>,
    attributions: FxHashMap<AttributionKey, Cookie>,
    redirects: FxHashMap<u32, Arc<RedirectSet>>,
    addresses: FxHashMap<Address, AddressInfo>,
    prefixes: FxHashMap<PrefixKey, AddressInfo>,
    endpoints: FxHashMap<PodRef, Endpoint>,
}

impl MemTables {
    /// Applies a delta, field by field in its order.
    pub fn apply(&mut self, delta: &Delta) {
        self.programs.extend(delta.programs.iter().copied());
        self.ranges.extend(delta.ranges.iter().copied());
        self.attributions.extend(delta.attributions.iter().copied());
        self.redirects.extend(delta.redirects.iter().cloned());
        for table in &delta.tables {
            self.change(table);
        }
        for (key, info) in &delta.prefixes {
            put(&mut self.prefixes, key, info.as_ref());
        }
        for (address, info) in &delta.addresses {
            put(&mut self.addresses, address, info.as_ref());
        }
        for (pod, endpoint) in &delta.endpoints {
            put(&mut self.endpoints, pod, endpoint.as_ref());
        }
        for key in &delta.retired_peers {
            self.peers.remove(key);
        }
        for table in &delta.dropped_tables {
            self.revisions.remove(table);
            self.defaults.remove(table);
            self.peers.retain(|key, _| key.table != *table);
        }
        delta.dropped_programs.iter().for_each(|id| {
            self.programs.remove(id);
        });
        delta.dropped_ranges.iter().for_each(|key| {
            self.ranges.remove(key);
        });
        delta.dropped_attributions.iter().for_each(|key| {
            self.attributions.remove(key);
        });
        delta.dropped_redirects.iter().for_each(|id| {
            self.redirects.remove(id);
        });
    }

    /// Writes a table's entries for the next revision, and raises the revision at the end.
    fn change(&mut self, table: &TableDelta) {
        let revision = self.revisions.get(&table.id).copied().unwrap_or(0);
        let changed = |old: PeerCell, new| Versioned {
            old,
            new,
            from_revision: revision + 1,
            reserved: 0,
        };
        let set = table.set.iter().map(|&(identity, cell)| (identity, cell));
        let removed = table
            .removed
            .iter()
            .map(|&identity| (identity, PeerCell::ABSENT));
        for (identity, new) in set.chain(removed) {
            let key = PeerKey {
                table: table.id,
                identity,
            };
            let old = self
                .peers
                .get(&key)
                .map_or(PeerCell::ABSENT, |value| value.cell.at(revision));
            self.peers.insert(
                key,
                PeerValue {
                    key,
                    cell: changed(old, new),
                },
            );
        }
        // Every revision has its defaults on its own side of the pair, changed or not.
        let entry = self.defaults.entry(table.id).or_default();
        let (now, next) = ((revision & 1) as usize, ((revision + 1) & 1) as usize);
        for (index, pair) in entry.scopes.iter_mut().enumerate() {
            pair[next] = table.defaults.map_or(pair[now], |defaults| defaults[index]);
        }
        self.revisions.insert(table.id, revision + 1);
        for &identity in &table.removed {
            self.peers.remove(&PeerKey {
                table: table.id,
                identity,
            });
        }
    }

    /// What is known of an address: its own entry, else the longest prefix's.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<AddressInfo> {
        let address = Address::from(address);
        if let Some(info) = self.addresses.get(&address) {
            return Some(*info);
        }
        let shortest = if address.is_v4() { Address::V4_BITS } else { 0 };
        let bits = u128::from_be_bytes(address.0);
        (shortest..=128).rev().find_map(|prefix_bits| {
            let mask = u128::MAX.checked_shl(128 - prefix_bits).unwrap_or(0);
            let address = Address((bits & mask).to_be_bytes());
            self.prefixes
                .get(&PrefixKey {
                    prefix_bits,
                    address,
                })
                .copied()
        })
    }

    /// A pod as subject.
    #[must_use]
    pub fn endpoint(&self, pod: &PodRef) -> Option<&Endpoint> {
        self.endpoints.get(pod)
    }

    /// What a redirect asks of the proxy.
    #[must_use]
    pub fn redirect(&self, id: u32) -> Option<&RedirectSet> {
        self.redirects.get(&id).map(|set| &**set)
    }

    /// All pods that are subjects.
    pub fn endpoints(&self) -> impl Iterator<Item = (&PodRef, &Endpoint)> {
        self.endpoints.iter()
    }

    /// All peers with an entry of their own in a table.
    pub fn peers_of(&self, table: u32) -> impl Iterator<Item = Identity> {
        self.peers
            .keys()
            .filter(move |key| key.table == table)
            .map(|key| key.identity)
    }

    /// How many entries there are: programs, trie ranges, peers, addresses, prefixes.
    #[must_use]
    pub fn sizes(&self) -> [usize; 5] {
        [
            self.programs.len(),
            self.ranges.len(),
            self.peers.len(),
            self.addresses.len(),
            self.prefixes.len(),
        ]
    }
}

fn put<K: Clone + std::hash::Hash + Eq, V: Copy>(
    map: &mut FxHashMap<K, V>,
    key: &K,
    value: Option<&V>,
) {
    match value {
        Some(value) => drop(map.insert(key.clone(), *value)),
        None => drop(map.remove(key)),
    }
}

impl PolicyTables for MemTables {
    fn revision(&self, table: u32) -> u32 {
        self.revisions.get(&table).copied().unwrap_or(0)
    }

    fn defaults(&self, table: u32) -> Option<&TableDefaults> {
        self.defaults.get(&table)
    }

    fn peer(&self, key: &PeerKey) -> Option<PeerValue> {
        self.peers.get(key).copied()
    }

    fn program(&self, id: u32) -> Option<&Program> {
        self.programs.get(&id)
    }

    fn range(&self, key: &RangeKey) -> Option<Cell> {
        let port = u16::from_be_bytes(key.port);
        (0..=16u32).rev().find_map(|bits| {
            let mask = u16::MAX.checked_shl(16 - bits).unwrap_or(0);
            let prefix_bits = RangeKey::EXACT_BITS + bits;
            let masked = RangeKey::point(key.program, key.protocol, port & mask);
            self.ranges
                .get(&RangeKey {
                    prefix_bits,
                    ..masked
                })
                .copied()
        })
    }

    fn attribution(&self, key: &AttributionKey) -> Option<Cookie> {
        self.attributions.get(key).copied()
    }
}
