//! Maps in ordinary memory, with readers that look after every single step and never forget what a revision meant, and with a step at
//! which writing fails.

use std::collections::{BTreeMap, BTreeSet};

use sluice_abi::policy::{
    AttributionKey, Judgement, PeerKey, PeerValue, PolicyTables, TableDefaults, judge,
};
use sluice_abi::program::{Cell, Program, RangeKey};
use sluice_abi::{Cookie, Identity, Reason};

use super::{Capacities, Dump, MapStore, StoreError};

/// The identities that readers ask about: of each scope one with and one without an entry of its own, as a rule.
pub(super) const UNIVERSE: [Identity; 9] = [
    Identity(256),
    Identity(257),
    Identity(258),
    Identity(259),
    Identity::HOST,
    Identity::REMOTE_NODE,
    Identity::WORLD_IPV4,
    Identity(0x0100_0100),
    Identity::HEALTH,
];
/// The points that readers ask about.
pub(super) const POINTS: [(u8, u16); 5] = [(6, 80), (6, 443), (6, 90), (17, 53), (1, 8)];

/// One answer: does it pass, why not, by which rule.
pub(super) type Answer = (bool, Reason, Cookie);

#[derive(Clone, Debug)]
pub(super) struct Fake {
    pub(super) capacities: Capacities,
    pub(super) revisions: BTreeMap<u32, u64>,
    pub(super) defaults: BTreeMap<u32, TableDefaults>,
    pub(super) peers: BTreeMap<PeerKey, PeerValue>,
    pub(super) programs: BTreeMap<u32, Program>,
    pub(super) ranges: BTreeMap<RangeKey, Cell>,
    pub(super) attributions: BTreeMap<AttributionKey, Cookie>,
    /// Steps done.
    pub(super) steps: usize,
    /// The step that fails, and whether all after it do.
    pub(super) fail: Option<(usize, bool)>,
    /// What each revision that a reader may still hold means.
    live: BTreeMap<(u32, u32), Vec<Answer>>,
}

impl Fake {
    pub(super) fn new(capacities: Capacities) -> Self {
        Self {
            capacities,
            revisions: BTreeMap::new(),
            defaults: BTreeMap::new(),
            peers: BTreeMap::new(),
            programs: BTreeMap::new(),
            ranges: BTreeMap::new(),
            attributions: BTreeMap::new(),
            steps: 0,
            fail: None,
            live: BTreeMap::new(),
        }
    }

    /// What a table says of everything at its revision now.
    pub(super) fn view(&self, table: u32) -> Vec<Answer> {
        self.view_at(table, self.current(table))
    }

    fn view_at(&self, table: u32, revision: u32) -> Vec<Answer> {
        let reader = Reader {
            maps: self,
            revision,
        };
        let asked = UNIVERSE
            .iter()
            .flat_map(|peer| POINTS.iter().map(move |point| (*peer, *point)));
        asked
            .map(|(peer, (protocol, port))| {
                let Judgement {
                    verdict,
                    reason,
                    cookie,
                    ..
                } = judge(&reader, table, peer, protocol, port);
                (verdict.passes(), reason, cookie)
            })
            .collect()
    }

    fn current(&self, table: u32) -> u32 {
        let word = self.revisions.get(&table).copied().unwrap_or(0);
        u32::try_from(word & u64::from(u32::MAX)).unwrap()
    }

    /// Every reader looks again, also those that read their revision before.
    fn look(&self) {
        for ((table, revision), meant) in &self.live {
            assert_eq!(
                &self.view_at(*table, *revision),
                meant,
                "after step {}, table {table} means something else at revision {revision}",
                self.steps
            );
        }
    }

    /// One step: fails if it is its turn, else happens, and the readers look.
    fn step(
        &mut self,
        map: &'static str,
        act: impl FnOnce(&mut Self) -> bool,
    ) -> Result<(), StoreError> {
        let at = self.steps;
        self.steps += 1;
        let fails = self
            .fail
            .is_some_and(|(first, on)| at == first || on && at > first);
        if fails || !act(self) {
            return Err(StoreError::Full(map));
        }
        self.look();
        Ok(())
    }
}

/// A reader that has read its table's revision.
struct Reader<'a> {
    maps: &'a Fake,
    revision: u32,
}

impl PolicyTables for Reader<'_> {
    fn revision(&self, _table: u32) -> u32 {
        self.revision
    }
    fn defaults(&self, table: u32) -> Option<&TableDefaults> {
        self.maps.defaults.get(&table)
    }
    fn peer(&self, key: &PeerKey) -> Option<PeerValue> {
        self.maps.peers.get(key).copied()
    }
    fn program(&self, id: u32) -> Option<&Program> {
        self.maps.programs.get(&id)
    }
    fn range(&self, key: &RangeKey) -> Option<Cell> {
        (RangeKey::EXACT_BITS..=RangeKey::ALL_BITS)
            .rev()
            .find_map(|bits| {
                let mask = u16::MAX.checked_shl(RangeKey::ALL_BITS - bits).unwrap_or(0);
                let port = u16::from_be_bytes(key.port) & mask;
                let shorter = RangeKey {
                    prefix_bits: bits,
                    port: port.to_be_bytes(),
                    ..*key
                };
                self.maps.ranges.get(&shorter).copied()
            })
    }
    fn attribution(&self, key: &AttributionKey) -> Option<Cookie> {
        self.maps.attributions.get(key).copied()
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, capacity: u32, key: K, value: V) -> bool {
    let fits = map.contains_key(&key) || map.len() < capacity as usize;
    if fits {
        map.insert(key, value);
    }
    fits
}

impl MapStore for Fake {
    fn capacities(&self) -> Capacities {
        self.capacities
    }

    fn dump(&self) -> Result<Dump, StoreError> {
        let present = |(_, program): &(u32, Program)| program.flags & Program::PRESENT != 0;
        Ok(Dump {
            revisions: self
                .revisions
                .iter()
                .map(|(k, v)| (*k, *v))
                .filter(|(_, word)| *word != 0)
                .collect(),
            defaults: self.defaults.iter().map(|(k, v)| (*k, *v)).collect(),
            peers: self.peers.iter().map(|(k, v)| (*k, *v)).collect(),
            programs: self
                .programs
                .iter()
                .map(|(k, v)| (*k, *v))
                .filter(present)
                .collect(),
            ranges: self.ranges.iter().map(|(k, v)| (*k, *v)).collect(),
            attributions: self.attributions.iter().map(|(k, v)| (*k, *v)).collect(),
        })
    }

    fn put_programs(&mut self, entries: &[(u32, Program)]) -> Result<(), StoreError> {
        for &(id, program) in entries {
            self.step("programs", |maps| {
                maps.programs.insert(id, program);
                true
            })?;
        }
        Ok(())
    }

    fn put_ranges(&mut self, entries: &[(RangeKey, Cell)]) -> Result<(), StoreError> {
        for &(key, cell) in entries {
            self.step("program_ranges", |maps| {
                put(&mut maps.ranges, maps.capacities.ranges, key, cell)
            })?;
        }
        Ok(())
    }

    fn remove_ranges(&mut self, keys: &[RangeKey]) -> Result<(), StoreError> {
        for key in keys {
            self.step("program_ranges", |maps| {
                maps.ranges.remove(key);
                true
            })?;
        }
        Ok(())
    }

    fn put_attributions(&mut self, entries: &[(AttributionKey, Cookie)]) -> Result<(), StoreError> {
        for &(key, cookie) in entries {
            self.step("attributions", |maps| {
                put(
                    &mut maps.attributions,
                    maps.capacities.attributions,
                    key,
                    cookie,
                )
            })?;
        }
        Ok(())
    }

    fn remove_attributions(&mut self, keys: &[AttributionKey]) -> Result<(), StoreError> {
        for key in keys {
            self.step("attributions", |maps| {
                maps.attributions.remove(key);
                true
            })?;
        }
        Ok(())
    }

    fn put_peers(&mut self, entries: &[(PeerKey, PeerValue)]) -> Result<(), StoreError> {
        for &(key, value) in entries {
            self.step("peers", |maps| {
                put(&mut maps.peers, maps.capacities.peers, key, value)
            })?;
        }
        Ok(())
    }

    fn remove_peers(&mut self, keys: &[PeerKey]) -> Result<(), StoreError> {
        for key in keys {
            self.step("peers", |maps| {
                maps.peers.remove(key);
                true
            })?;
        }
        Ok(())
    }

    fn put_defaults(&mut self, entries: &[(u32, TableDefaults)]) -> Result<(), StoreError> {
        for &(table, defaults) in entries {
            // An array element is overwritten in place: readers see it half done.
            for scope in 0..defaults.scopes.len() {
                for parity in 0..2 {
                    self.step("table_defaults", |maps| {
                        maps.defaults.entry(table).or_default().scopes[scope][parity] =
                            defaults.scopes[scope][parity];
                        true
                    })?;
                }
            }
        }
        Ok(())
    }

    fn set_revision(&mut self, table: u32, word: u64) {
        self.revisions.insert(table, word);
        let revision = self.current(table);
        if revision != 0 {
            let meant = self.view(table);
            self.live.entry((table, revision)).or_insert(meant);
        }
        self.look();
    }

    fn grace_period(&mut self) -> Result<(), StoreError> {
        self.step("grace period", |maps| {
            let now: BTreeSet<_> = maps
                .revisions
                .keys()
                .map(|table| (*table, maps.current(*table)))
                .collect();
            maps.live.retain(|key, _| now.contains(key));
            true
        })
    }
}
