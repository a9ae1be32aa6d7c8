//! Which identity is governed by which tables, and the tables themselves: made, changed in place, dropped.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_world::Mode;

use super::{
    Index,
    policies::{Gone, Touched, selectors},
};
use crate::{
    delta::Delta,
    identity::IdentityIndex,
    properties::Kind,
    registry::SetId,
    rule::{Direction, Place},
    sets::Installed,
    table::{Compilation, Sources, Table, TableKey},
};

/// The tables of one subject, as slots: (egress, ingress).
pub(super) type Pair = [Option<u32>; 2];

/// Identities with the keys of the tables they move to.
type Moving = Vec<(IdentityIndex, TableKey)>;

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    tables: Vec<Option<Table>>,
    free: Vec<u32>,
    /// Given up in this commit; free in the next.
    resting: Vec<u32>,
    by_key: FxHashMap<TableKey, u32>,
    of: FxHashMap<IdentityIndex, Pair>,
    /// Tables to be compiled whole.
    whole: FxHashSet<u32>,
    /// Tables with the identities whose entries are to be compiled.
    partly: BTreeMap<u32, FxHashSet<IdentityIndex>>,
    /// Tables that lost a subject.
    thinned: FxHashSet<u32>,
}

impl Subjects {
    /// The ids of the tables that govern an identity.
    pub(super) fn tables_of(&self, identity: IdentityIndex) -> Option<[u32; 2]> {
        let [egress, ingress] = *self.of.get(&identity)?;
        Some([egress? + 1, ingress? + 1])
    }

    fn table_mut(&mut self, slot: u32) -> Option<&mut Table> {
        self.tables.get_mut(slot as usize)?.as_mut()
    }
}

impl Index {
    /// Lets new identities in and old ones out, and finds whom both concern.
    pub(super) fn commit_identities(&mut self, touched: &mut Touched, delta: &mut Delta) {
        self.subjects.free.append(&mut self.subjects.resting);
        let empty = self.vocabulary.empty;
        let unused = self.identities.take_unused();
        for index in unused {
            self.retire(index, delta);
        }
        for index in self.identities.take_made() {
            let Some(record) = self.identities.get_mut(index) else {
                continue;
            };
            record.fresh = false;
            match record.properties.kind {
                Kind::Pod => drop(touched.subjects.insert(index)),
                Kind::Host => drop(self.hosts.insert(index)),
                _ => {}
            }
            let labels = record.labels().map(str::to_owned).collect();
            delta.identities.push((record.number, labels));
            touched.made.insert(index);
            self.vocabulary
                .registry
                .insert(index, &mut self.identities, empty);
            let Some(record) = self.identities.get(index) else {
                continue;
            };
            for &selector in &record.selectors {
                let sets = self.vocabulary.registry.peer_of(selector);
                touched.peers.extend(sets.map(|(set, _)| (set, index)));
            }
        }
        self.vocabulary.registry.settle(&mut self.identities, empty);
        for &(set, rule) in &touched.rules {
            let Some(rule) = self
                .sets
                .get(set)
                .and_then(|s| s.set().rules.get(rule as usize))
            else {
                continue;
            };
            for &selector in rule.peers.iter().chain(&rule.name_holders) {
                let members = self.vocabulary.registry.members(selector);
                touched
                    .peers
                    .extend(members.iter().map(|&member| (set, member)));
            }
        }
        for set in &touched.new_subjects {
            if let Some(installed) = self.sets.get(*set) {
                touched
                    .subjects
                    .extend(self.vocabulary.registry.members(installed.set().subject));
            }
        }
    }

    /// Takes an identity without users out of everything. Its entries are deleted at the end of the delta.
    fn retire(&mut self, index: IdentityIndex, delta: &mut Delta) {
        let Some(record) = self.identities.forget(index) else {
            return;
        };
        self.vocabulary
            .registry
            .remove(index, &record.properties, &record.selectors);
        let mut slots: FxHashSet<u32> = FxHashSet::default();
        for &selector in &record.selectors {
            for (set, _) in self.vocabulary.registry.peer_of(selector) {
                slots.extend(
                    self.sets
                        .get(set)
                        .into_iter()
                        .flat_map(|known| &known.tables),
                );
            }
        }
        // A local host's entries hang on no selector. Entries by selectors that went in this very commit are found when their tables are
        // compiled.
        if self.hosts.remove(&index) {
            slots.extend(0..u32::try_from(self.subjects.tables.len()).unwrap_or(u32::MAX));
        }
        for slot in slots {
            let Some(table) = self.subjects.tables[slot as usize].as_mut() else {
                continue;
            };
            if let Some(cell) = table.entries.remove(index) {
                self.pool.count(cell, false);
                delta.retired_peers.push(sluice_abi::policy::PeerKey {
                    table: table.id,
                    identity: record.number,
                });
            }
        }
        for slot in self
            .subjects
            .of
            .remove(&index)
            .unwrap_or_default()
            .into_iter()
            .flatten()
        {
            if let Some(table) = self.subjects.table_mut(slot) {
                table.subjects -= 1;
                self.subjects.thinned.insert(slot);
            }
        }
        if !record.fresh {
            delta.dropped_identities.push(record.number);
        }
    }

    pub(super) fn commit_subjects(&mut self, touched: &mut Touched, delta: &mut Delta) {
        self.assign(touched);
        self.drop_tables(delta);
        for set in &touched.whole {
            let tables = self
                .sets
                .get(*set)
                .into_iter()
                .flat_map(|known| &known.tables);
            self.subjects.whole.extend(tables);
        }
        let mut peers = std::mem::take(&mut self.subjects.partly);
        touched.peers.sort_unstable();
        touched.peers.dedup();
        for &(set, index) in &touched.peers {
            for &slot in self
                .sets
                .get(set)
                .into_iter()
                .flat_map(|known| &known.tables)
            {
                peers.entry(slot).or_default().insert(index);
            }
        }
        let new_hosts: Vec<IdentityIndex> =
            self.hosts.intersection(&touched.made).copied().collect();
        if !new_hosts.is_empty() {
            for (slot, table) in (0..).zip(&self.subjects.tables) {
                if table
                    .as_ref()
                    .is_some_and(|t| t.key.direction == Direction::Ingress)
                {
                    peers.entry(slot).or_default().extend(&new_hosts);
                }
            }
        }
        self.compile(&peers, &touched.made, delta);
    }

    fn compile(
        &mut self,
        peers: &BTreeMap<u32, FxHashSet<IdentityIndex>>,
        made: &FxHashSet<IdentityIndex>,
        delta: &mut Delta,
    ) {
        let sources = Sources {
            mode: self.mode,
            sets: &self.sets,
            registry: &self.vocabulary.registry,
            identities: &self.identities,
            hosts: &self.hosts,
            made,
        };
        let mut whole: Vec<u32> = self.subjects.whole.drain().collect();
        whole.sort_unstable();
        for slot in &whole {
            let Some(table) = self.subjects.tables[*slot as usize].as_mut() else {
                continue;
            };
            let change = Compilation::new(&table.key.clone(), &sources).compile(
                table,
                &mut self.room,
                &mut self.pool,
                &mut delta.retired_peers,
            );
            if change.new || change.changes() {
                delta.tables.push(change);
            }
        }
        for (slot, touched) in peers {
            if whole.binary_search(slot).is_ok() {
                continue;
            }
            let Some(table) = self.subjects.tables[*slot as usize].as_mut() else {
                continue;
            };
            let change = Compilation::new(&table.key.clone(), &sources).touch(
                table,
                touched,
                &mut self.pool,
                &mut delta.retired_peers,
            );
            if change.changes() {
                delta.tables.push(change);
            }
        }
    }

    /// Gives identities the tables of the rule sets that select them now.
    fn assign(&mut self, touched: &Touched) {
        let mut subjects: Vec<IdentityIndex> = touched.subjects.iter().copied().collect();
        subjects.sort_unstable();
        let mut moves: BTreeMap<(Option<u32>, usize), Moving> = BTreeMap::new();
        for index in subjects {
            let Some(record) = self.identities.get(index) else {
                continue;
            };
            if record.properties.kind != Kind::Pod {
                continue;
            }
            let old = self.subjects.of.get(&index).copied().unwrap_or_default();
            for (at, direction) in DIRECTIONS.into_iter().enumerate() {
                let key = self.key_of(index, direction);
                let current = old[at].and_then(|slot| self.subjects.tables[slot as usize].as_ref());
                if current.is_none_or(|table| table.key != key) {
                    moves.entry((old[at], at)).or_default().push((index, key));
                }
            }
        }
        for ((old, at), moving) in moves {
            if let Some(slot) = old
                && self.rekey(slot, &moving, &touched.gone)
            {
                continue;
            }
            for (index, key) in moving {
                self.move_subject(index, at, old, &key);
            }
        }
    }

    /// Where all subjects of a table move to one key that has no table yet, the table moves with them: what changes is its difference.
    fn rekey(
        &mut self,
        slot: u32,
        moving: &[(IdentityIndex, TableKey)],
        gone: &FxHashMap<SetId, Gone>,
    ) -> bool {
        let Some(table) = self.subjects.tables[slot as usize].as_ref() else {
            return false;
        };
        let key = &moving[0].1;
        let together = moving.len() == table.subjects as usize
            && moving.iter().all(|(_, other)| other == key)
            && !self.subjects.by_key.contains_key(key);
        if together {
            let named = self
                .named_between(&table.key, key, gone)
                // Many entries are sooner made all at once.
                .filter(|named| !table.new && named.len() <= 64 + table.entries.len() / 4);
            match named {
                Some(named) => drop(self.subjects.partly.insert(slot, named)),
                None => drop(self.subjects.whole.insert(slot)),
            }
            self.unlink(slot);
            if let Some(table) = self.subjects.table_mut(slot) {
                let old = std::mem::replace(&mut table.key, key.clone());
                self.subjects.by_key.remove(&old);
            }
            self.link(slot, key);
        }
        together
    }

    /// Whose entries may differ between a table of one key and one of another; `None` where it may be everyone's.
    fn named_between(
        &self,
        old: &TableKey,
        new: &TableKey,
        gone: &FxHashMap<SetId, Gone>,
    ) -> Option<FxHashSet<IdentityIndex>> {
        if old.ports != new.ports || old.sets.is_empty() || new.sets.is_empty() {
            return None;
        }
        let mut named = FxHashSet::default();
        let (mut before, mut after) = (false, false);
        // Both are in order of place, and no rule set ever leaves its place.
        let mut old = old.sets.iter().peekable();
        for id in &new.sets {
            while let Some(gone) = old.peek().and_then(|id| gone.get(id)) {
                named.extend(&gone.peers);
                before |= gone.default_deny;
                old.next();
            }
            let installed = self.sets.get(*id)?;
            after |= installed.set().default_deny;
            if old.next_if_eq(&id).is_some() {
                before |= installed.set().default_deny;
                continue;
            }
            if installed.covering().next().is_some() {
                return None;
            }
            let selectors = installed.set().rules.iter().flat_map(selectors);
            named.extend(selectors.flat_map(|selector| self.vocabulary.registry.members(selector)));
        }
        for id in old {
            let gone = gone.get(id)?;
            named.extend(&gone.peers);
            before |= gone.default_deny;
        }
        // Default deny decides everyone's entry.
        (before == after).then_some(named)
    }

    fn move_subject(&mut self, index: IdentityIndex, at: usize, old: Option<u32>, key: &TableKey) {
        let slot = if let Some(&slot) = self.subjects.by_key.get(key) {
            slot
        } else {
            let slot = self.subjects.free.pop().unwrap_or_else(|| {
                self.subjects.tables.push(None);
                u32::try_from(self.subjects.tables.len() - 1).unwrap_or(u32::MAX)
            });
            self.subjects.tables[slot as usize] = Some(Table::new(slot + 1, key.clone()));
            self.link(slot, key);
            self.subjects.whole.insert(slot);
            slot
        };
        if let Some(table) = self.subjects.table_mut(slot) {
            table.subjects += 1;
        }
        if let Some(old) = old
            && let Some(table) = self.subjects.table_mut(old)
        {
            table.subjects -= 1;
            self.subjects.thinned.insert(old);
        }
        self.subjects.of.entry(index).or_default()[at] = Some(slot);
        let pods = self.workloads.pods_of(index);
        self.workloads.changed.extend(pods);
    }

    fn link(&mut self, slot: u32, key: &TableKey) {
        self.subjects.by_key.insert(key.clone(), slot);
        for set in &key.sets {
            if let Some(installed) = self.sets.get_mut(*set) {
                installed.tables.insert(slot);
            }
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Some(table) = self.subjects.tables[slot as usize].as_ref() else {
            return;
        };
        for set in &table.key.sets {
            if let Some(installed) = self.sets.get_mut(*set) {
                installed.tables.remove(&slot);
            }
        }
    }

    fn drop_tables(&mut self, delta: &mut Delta) {
        let mut thinned: Vec<u32> = self.subjects.thinned.drain().collect();
        thinned.sort_unstable();
        for slot in thinned {
            let unused = |table: &Table| table.subjects == 0;
            if !self.subjects.tables[slot as usize]
                .as_ref()
                .is_some_and(unused)
            {
                continue;
            }
            self.unlink(slot);
            if let Some(table) = self.subjects.tables[slot as usize].take() {
                if self.subjects.by_key.get(&table.key) == Some(&slot) {
                    self.subjects.by_key.remove(&table.key);
                }
                self.subjects.whole.remove(&slot);
                if table.new {
                    self.subjects.free.push(slot);
                    continue;
                }
                for cell in table.entries.cells() {
                    self.pool.count(cell, false);
                }
                for cell in table.defaults {
                    self.pool.count(cell, false);
                }
                delta.dropped_tables.push(table.id);
                self.subjects.resting.push(slot);
            }
        }
    }

    fn key_of(&self, index: IdentityIndex, direction: Direction) -> TableKey {
        let mut key = TableKey {
            direction,
            sets: Box::default(),
            ports: Box::default(),
        };
        let Some(record) = self
            .identities
            .get(index)
            .filter(|_| self.mode != Mode::Never)
        else {
            return key;
        };
        let registry = &self.vocabulary.registry;
        let mut sets: Vec<(&Place, SetId)> = record
            .selectors
            .iter()
            .flat_map(|selector| registry.subject_of(*selector))
            .filter_map(|id| Some((*id, self.sets.get(*id)?.set())))
            .filter(|(_, set)| set.direction == direction)
            .map(|(id, set)| (&set.place, id))
            .collect();
        sets.sort_unstable();
        key.sets = sets.iter().map(|(_, id)| *id).collect();
        if direction == Direction::Ingress && !record.properties.ports.is_empty() {
            let named = |port: &&crate::properties::NamedPort| {
                key.sets
                    .iter()
                    .filter_map(|id| self.sets.get(*id))
                    .flat_map(Installed::naming)
                    .any(|(_, rule)| rule.names_port(port.name))
            };
            key.ports = record
                .properties
                .ports
                .iter()
                .filter(named)
                .copied()
                .collect();
        }
        key
    }
}
