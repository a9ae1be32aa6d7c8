//! One table compiled, whole or for some identities: which rules name a peer beyond its scope, and how its entry changes by them. What
//! the rules' programs join to is the module `programs`'.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_abi::{
    Scope,
    policy::{PeerCell, PeerKey},
};

use super::{
    Sources, Table, TableEntry, TableKey, retire,
    room::{Joined, Room, at},
    rules::{ByName, Rules, rule_program},
};
use crate::{
    delta::TableDelta,
    gather::{Gathering, List},
    identity::{Brief, IdentityIndex},
    pool::Pool,
    program::Program,
    properties::NamedPort,
    registry::SetId,
    rule::{Direction, Rule},
};

/// Cells by the ranks of the rules that name a peer beyond its scope.
type CellsByRanks = FxHashMap<Box<[u32]>, PeerCell>;

/// The rules of one table in order of rank, while it is compiled.
pub(crate) struct Compilation<'a> {
    pub(super) sources: &'a Sources<'a>,
    pub(super) direction: Direction,
    pub(super) ports: Box<[NamedPort]>,
    pub(super) rules: Rules<'a>,
    base: FxHashMap<SetId, u32>,
    pub(super) default_deny: bool,
    /// Some rule set, of any tier, selects the subject.
    selected: bool,
    /// Which egress rules are by port name.
    by_name: ByName,
    /// Programs of rules whose port names are resolved by nobody or the subject, as far as asked for.
    alone: Vec<Option<Arc<Program>>>,
    pub(super) scopes: [Program; Scope::COUNT],
    /// Cells of no rule and of each single rule, by scope and whether the peer is the local host; absent where not looked up yet.
    single: [[Vec<PeerCell>; 2]; Scope::COUNT],
    /// Cells of longer rank lists, by the same.
    cells: FxHashMap<(Scope, bool), CellsByRanks>,
    /// The same for peers with container ports that egress rules name.
    named: FxHashMap<CellKey, PeerCell>,
}

/// What tells cells of peers with container ports apart: list, scope, whether the peer is the local host, ports.
type NamedKey<'a> = (usize, Scope, bool, &'a [NamedPort]);

#[derive(PartialEq, Eq, Hash)]
struct CellKey {
    scope: Scope,
    local_host: bool,
    ports: Box<[NamedPort]>,
    ranks: Box<[u32]>,
}

impl<'a> Compilation<'a> {
    pub(crate) fn new(key: &TableKey, sources: &'a Sources<'a>) -> Self {
        let mut compilation = Self {
            sources,
            direction: key.direction,
            ports: key.ports.clone(),
            rules: Rules::default(),
            base: FxHashMap::default(),
            default_deny: false,
            selected: false,
            by_name: ByName::None,
            alone: Vec::new(),
            scopes: Default::default(),
            single: Default::default(),
            cells: FxHashMap::default(),
            named: FxHashMap::default(),
        };
        for id in &key.sets {
            let Some(installed) = sources.sets.get(*id) else {
                continue;
            };
            compilation.base.insert(*id, compilation.rules.length);
            compilation.default_deny |= installed.set().default_deny;
            compilation.selected = true;
            for (_, rule) in installed.naming() {
                compilation.by_name = compilation.by_name.max(ByName::of(rule));
            }
            compilation.rules.push(installed);
        }
        for scope in Scope::ALL {
            compilation.scopes[scope as usize] = compilation.scope_program(scope, &[]);
        }
        compilation
    }

    /// Compiles the whole table and tells what is different.
    pub(crate) fn compile(
        mut self,
        table: &mut Table,
        room: &mut Room,
        pool: &mut Pool,
        retired: &mut Vec<PeerKey>,
    ) -> TableDelta {
        let mut delta = TableDelta {
            id: table.id,
            new: table.new,
            ..TableDelta::default()
        };
        retire(table, pool, self.sources.identities, retired);
        let old_defaults = table.defaults;
        let defaults = Scope::ALL.map(|scope| self.cell(scope, false, &[], &[], pool));
        if table.new || defaults != old_defaults {
            for (old, new) in old_defaults.iter().zip(defaults) {
                delta.takes_access_away |= pool.takes_away(*old, new);
                pool.count(new, true);
                pool.count(*old, false);
            }
            table.defaults = defaults;
            delta.defaults = Some(defaults);
        }
        self.gather(&mut room.gathering);
        self.renew(table, &old_defaults, room, pool, &mut delta);
        table.new = false;
        delta
    }

    /// Compiles the entries of some identities only. The rules that cover scopes must be what they were.
    pub(crate) fn touch(
        mut self,
        table: &mut Table,
        touched: &FxHashSet<IdentityIndex>,
        pool: &mut Pool,
        retired: &mut Vec<PeerKey>,
    ) -> TableDelta {
        if touched
            .iter()
            .any(|index| !self.sources.identities.brief(*index).alive)
        {
            retire(table, pool, self.sources.identities, retired);
        }
        let mut delta = TableDelta {
            id: table.id,
            ..TableDelta::default()
        };
        for &index in touched {
            let ranks = self.explicit(index);
            self.update(table, index, &ranks, pool, &mut delta);
        }
        delta
    }

    /// Notes every identity that may need an entry of its own, with the rules that name it beyond its scope.
    fn gather(&self, gathering: &mut Gathering) {
        gathering.begin(self.sources.identities.places());
        let registry = self.sources.registry;
        for (rank, rule) in (0..).zip(self.rules.iter()) {
            gathering.rank(rank);
            for member in rule.peers.iter().flat_map(|id| registry.members(*id)) {
                if rule.scopes.is_empty() || !self.covered(rule, *member) {
                    gathering.add(*member);
                }
            }
            for holder in rule
                .name_holders
                .iter()
                .flat_map(|id| registry.members(*id))
            {
                gathering.touch(*holder);
            }
        }
        if self.direction == Direction::Ingress && self.selected {
            for &host in self.sources.hosts {
                gathering.touch(host);
            }
        }
    }

    /// Makes a table's entries anew from what was gathered. The entries it had are to be of identities in use.
    fn renew(
        &mut self,
        table: &mut Table,
        old_defaults: &[PeerCell; Scope::COUNT],
        room: &mut Room,
        pool: &mut Pool,
        delta: &mut TableDelta,
    ) {
        // Most of the gathered get an entry.
        let most = room.gathering.len();
        if table.new {
            delta.set.reserve_exact(most);
        }
        let old = std::mem::replace(&mut table.entries.0, Vec::with_capacity(most));
        let mut old = old.into_iter().peekable();
        let mut named: FxHashMap<NamedKey<'a>, PeerCell> = FxHashMap::default();
        let mut cursor = 0;
        while let Some((index, list)) = room.gathering.take_next(&mut cursor) {
            while let Some(stale) = old.next_if(|entry| entry.index < index) {
                self.renew_unnamed(table, stale, old_defaults, pool, delta);
            }
            let before = old.next_if(|entry| entry.index == index);
            let before = before.map(|entry| entry.cell);
            let brief = self.sources.identities.brief(index);
            let local_host = self.is_local_host(brief);
            let ports = if self.names_ports(list, room) {
                self.ports_of(index)
            } else {
                &[]
            };
            let cell = if ports.is_empty() {
                self.cell_of(list, brief.scope, local_host, room, pool)
            } else {
                let key = (list.number(), brief.scope, local_host, ports);
                *named.entry(key).or_insert_with(|| {
                    let ranks = room.gathering.ranks(list);
                    self.new_cell(brief.scope, local_host, ports, &ranks, pool)
                })
            };
            let wanted = if !table.new {
                self.change(table, index, before, cell, old_defaults, pool, delta)
            } else if cell == table.defaults[brief.scope as usize] {
                None
            } else {
                // The way of millions: nothing was there before.
                delta.set.push((brief.number, cell));
                Some(TableEntry { index, cell })
            };
            table.entries.0.extend(wanted);
            if wanted.is_some() && before != Some(cell) {
                if ports.is_empty() {
                    room.cells.at(list, brief.scope, local_host).uses += 1;
                } else {
                    pool.count(cell, true);
                }
            }
        }
        for stale in old {
            self.renew_unnamed(table, stale, old_defaults, pool, delta);
        }
        for known in room.cells.take().filter(|known| known.uses > 0) {
            pool.count_up(known.cell, known.uses);
        }
        room.programs.iter_mut().for_each(Vec::clear);
        room.named.clear();
    }

    /// The cell of peers without container ports that the rules of a list name.
    fn cell_of(
        &mut self,
        list: List,
        scope: Scope,
        local_host: bool,
        room: &mut Room,
        pool: &mut Pool,
    ) -> PeerCell {
        let known = room.cells.at(list, scope, local_host).cell;
        if known != PeerCell::ABSENT {
            return known;
        }
        let cell = match room.gathering.link(list) {
            None => self.lowered(&self.scopes[scope as usize], local_host, pool),
            Some(link) if link.length > Self::STEPWISE => {
                let ranks = room.gathering.ranks(list);
                self.new_cell(scope, local_host, &[], &ranks, pool)
            }
            Some(link) => {
                self.join(list, scope, room);
                match &room.programs[scope as usize][list.number()] {
                    Joined::Own(program) => self.lowered(program, local_host, pool),
                    _ => self.cell_of(link.before, scope, local_host, room, pool),
                }
            }
        };
        room.cells.at(list, scope, local_host).cell = cell;
        cell
    }

    /// Lists up to this length are joined a rule at a time, which lists that begin alike share, and each step is kept; the steps of
    /// longer ones would take more room than they are worth.
    const STEPWISE: u32 = 8;

    /// Finds the program of a list, and of those that it continues.
    fn join(&mut self, list: List, scope: Scope, room: &mut Room) {
        let Some(link) = room.gathering.link(list) else {
            return;
        };
        let programs = &mut room.programs[scope as usize];
        if !matches!(
            at(programs, list.number(), Joined::Unknown),
            Joined::Unknown
        ) {
            return;
        }
        self.join(link.before, scope, room);
        let programs = &room.programs[scope as usize];
        let mut before = link.before;
        let before: &Program = loop {
            match (room.gathering.link(before), programs.get(before.number())) {
                (Some(_), Some(Joined::Own(program))) => break program,
                (Some(link), _) => before = link.before,
                (None, _) => break &self.scopes[scope as usize],
            }
        };
        let alone = at(&mut self.alone, link.rank as usize, None);
        if alone.is_none() {
            let (rules, ports) = (&self.rules, &self.ports);
            let program = rule_program(rules, link.rank, self.direction, ports, &[]);
            *alone = Some(Arc::new(program));
        }
        let joined = match alone {
            Some(alone) if before.is_silent() => Joined::Own(Arc::clone(alone)),
            Some(alone) => match before.join(alone) {
                joined if joined == *before => Joined::AsBefore,
                joined => Joined::Own(Arc::new(joined)),
            },
            None => Joined::AsBefore,
        };
        room.programs[scope as usize][list.number()] = joined;
    }

    /// The same for an entry of an identity that was not gathered.
    fn renew_unnamed(
        &mut self,
        table: &mut Table,
        old: TableEntry,
        old_defaults: &[PeerCell; Scope::COUNT],
        pool: &mut Pool,
        delta: &mut TableDelta,
    ) {
        let brief = self.sources.identities.brief(old.index);
        let local_host = self.is_local_host(brief);
        let cell = self.cell(brief.scope, local_host, self.ports_of(old.index), &[], pool);
        let old_cell = Some(old.cell);
        let wanted = self.change(table, old.index, old_cell, cell, old_defaults, pool, delta);
        if wanted.is_some() && wanted.map(|entry| entry.cell) != old_cell {
            pool.count(cell, true);
        }
        table.entries.0.extend(wanted);
    }

    fn update(
        &mut self,
        table: &mut Table,
        index: IdentityIndex,
        ranks: &[u32],
        pool: &mut Pool,
        delta: &mut TableDelta,
    ) {
        let brief = self.sources.identities.brief(index);
        if !brief.alive {
            return;
        }
        let local_host = self.is_local_host(brief);
        let cell = self.cell(brief.scope, local_host, self.ports_of(index), ranks, pool);
        let old = table.entries.get(index);
        let defaults = table.defaults;
        match self.change(table, index, old, cell, &defaults, pool, delta) {
            Some(entry) if old != Some(entry.cell) => {
                pool.count(entry.cell, true);
                table.entries.put(entry);
            }
            None if old.is_some() => drop(table.entries.remove(index)),
            _ => {}
        }
    }

    /// The entry that an identity needs now, given the cell that holds for it. Tells the delta where that differs from `old`, its entry
    /// so far, which the pool no longer counts then; the caller counts the new one.
    #[expect(clippy::too_many_arguments, reason = "the whole of one entry's change")]
    fn change(
        &self,
        table: &Table,
        index: IdentityIndex,
        old: Option<PeerCell>,
        cell: PeerCell,
        old_defaults: &[PeerCell; Scope::COUNT],
        pool: &mut Pool,
        delta: &mut TableDelta,
    ) -> Option<TableEntry> {
        let brief = self.sources.identities.brief(index);
        let scope = brief.scope as usize;
        let wanted = (cell != table.defaults[scope]).then_some(cell);
        // A table that nobody uses yet takes nothing away.
        if !table.new && !delta.takes_access_away && !self.sources.made.contains(&index) {
            let before = old.unwrap_or(old_defaults[scope]);
            delta.takes_access_away = pool.takes_away(before, cell);
        }
        if wanted != old {
            match wanted {
                Some(cell) => delta.set.push((brief.number, cell)),
                None => delta.removed.push(brief.number),
            }
            if let Some(old) = old {
                pool.count(old, false);
            }
        }
        Some(TableEntry {
            index,
            cell: wanted?,
        })
    }

    /// The ranks of the rules that name an identity beyond its scope. Goes the shorter way: over the table's rules or over the
    /// identity's selectors.
    fn explicit(&self, index: IdentityIndex) -> Vec<u32> {
        let Some(record) = self.sources.identities.get(index) else {
            return Vec::new();
        };
        let selectors = &record.selectors;
        let uses: usize = selectors
            .iter()
            .map(|id| self.sources.registry.peer_count(*id))
            .sum();
        let mut ranks: Vec<u32> = if uses < self.rules.length as usize {
            let named = selectors.iter().flat_map(|id| {
                let rules = self.sources.registry.peer_of(*id);
                rules.map(move |rule| (*id, rule))
            });
            named
                .filter_map(|(selector, (set, rule))| {
                    let rank = self.base.get(&set)? + rule;
                    let (_, rule) = self.rules.get(rank)?;
                    // The same link serves selectors of port-name holders, which select nobody.
                    rule.peers.contains(&selector).then_some(rank)
                })
                .collect()
        } else {
            let names = |rule: &Rule| {
                rule.peers
                    .iter()
                    .any(|id| selectors.binary_search(id).is_ok())
            };
            (0..)
                .zip(self.rules.iter())
                .filter(|(_, rule)| names(rule))
                .map(|(rank, _)| rank)
                .collect()
        };
        ranks.retain(|rank| {
            let rule = self.rules.get(*rank);
            rule.is_some_and(|(_, rule)| !self.covered(rule, index))
        });
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    fn covered(&self, rule: &Rule, index: IdentityIndex) -> bool {
        rule.scopes
            .holds(self.sources.identities.brief(index).scope)
    }

    fn is_local_host(&self, peer: Brief) -> bool {
        self.direction == Direction::Ingress && self.selected && peer.host
    }

    /// The container ports of a peer, where some rule is by their names.
    fn ports_of(&self, index: IdentityIndex) -> &'a [NamedPort] {
        let record = match self.by_name {
            ByName::None => None,
            ByName::Some | ByName::Covering => self.sources.identities.get(index),
        };
        record.map_or(&[], |record| &record.properties.ports)
    }

    /// Whether some rule of the list, or one that covers a scope, is by port name.
    fn names_ports(&self, list: List, room: &mut Room) -> bool {
        match self.by_name {
            ByName::None => return false,
            ByName::Covering => return true,
            ByName::Some => {}
        }
        let known = at(&mut room.named, list.number(), None);
        *known.get_or_insert_with(|| {
            let ranks = room.gathering.ranks(list);
            ranks
                .iter()
                .filter_map(|rank| self.rules.get(*rank))
                .any(|(_, rule)| ByName::of(rule) != ByName::None)
        })
    }

    fn cell(
        &mut self,
        scope: Scope,
        local_host: bool,
        ports: &[NamedPort],
        ranks: &[u32],
        pool: &mut Pool,
    ) -> PeerCell {
        // Nearly all entries end here, so nothing is allocated to look.
        if ports.is_empty() {
            let at = match ranks {
                [] => Some(0),
                [rank] => Some(*rank as usize + 1),
                _ => None,
            };
            if let Some(at) = at {
                let known = self.single[scope as usize][usize::from(local_host)].get(at);
                if let Some(cell) = known.filter(|cell| **cell != PeerCell::ABSENT) {
                    return *cell;
                }
                let cell = self.new_cell(scope, local_host, ports, ranks, pool);
                let single = &mut self.single[scope as usize][usize::from(local_host)];
                if single.len() <= at {
                    single.resize(at + 1, PeerCell::ABSENT);
                }
                single[at] = cell;
                return cell;
            }
            let known = self
                .cells
                .get(&(scope, local_host))
                .and_then(|cells| cells.get(ranks));
            if let Some(cell) = known {
                return *cell;
            }
            let cell = self.new_cell(scope, local_host, ports, ranks, pool);
            self.cells
                .entry((scope, local_host))
                .or_default()
                .insert(ranks.into(), cell);
            return cell;
        }
        let key = CellKey {
            scope,
            local_host,
            ports: ports.into(),
            ranks: ranks.into(),
        };
        if let Some(cell) = self.named.get(&key) {
            return *cell;
        }
        let cell = self.new_cell(scope, local_host, ports, ranks, pool);
        self.named.insert(key, cell);
        cell
    }
}
