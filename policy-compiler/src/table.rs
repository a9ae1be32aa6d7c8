//! Peer tables: for one set of rule sets in one direction, identity → cell, with a default per scope. Who uses a table and when it is
//! compiled anew is the index's.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_abi::{
    Cookie, Scope,
    policy::{PeerCell, PeerKey},
};
use sluice_world::Mode;

use crate::{
    delta::{RedirectSet, TableDelta},
    gather::{Gathering, List},
    identity::{Brief, IdentityBook, IdentityIndex},
    pool::Pool,
    program::{Lowering, Part, Program, Proxies, Rank, Shape},
    properties::NamedPort,
    registry::{Registry, SetId},
    rule::{Direction, ProxyRule, Rule, Tier},
    sets::{Installed, Sets},
};

/// What tables are shared by: equal keys have equal content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableKey {
    pub(crate) direction: Direction,
    /// In order of their places.
    pub(crate) sets: Box<[SetId]>,
    /// At ingress: the subject's container ports that the rules name.
    pub(crate) ports: Box<[NamedPort]>,
}

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) id: u32,
    pub(crate) key: TableKey,
    /// How many identities have it as subjects.
    pub(crate) subjects: u32,
    pub(crate) entries: Entries,
    pub(crate) defaults: [PeerCell; Scope::COUNT],
    /// No delta has told of it yet.
    pub(crate) new: bool,
}

impl Table {
    pub(crate) fn new(id: u32, key: TableKey) -> Self {
        Self {
            id,
            key,
            subjects: 0,
            entries: Entries::default(),
            defaults: [PeerCell::ABSENT; Scope::COUNT],
            new: true,
        }
    }
}

/// One peer's entry.
#[derive(Clone, Copy, Debug)]
struct TableEntry {
    index: IdentityIndex,
    cell: PeerCell,
}

/// A table's entries, sorted by identity: there are millions, so they have no room for a hash map's empty slots, and a whole compile
/// makes them in order.
#[derive(Debug, Default)]
pub(crate) struct Entries(Vec<TableEntry>);

impl Entries {
    pub(crate) fn cells(&self) -> impl Iterator<Item = PeerCell> {
        self.0.iter().map(|entry| entry.cell)
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn remove(&mut self, index: IdentityIndex) -> Option<PeerCell> {
        let place = self.place(index).ok()?;
        Some(self.0.remove(place).cell)
    }

    fn get(&self, index: IdentityIndex) -> Option<PeerCell> {
        Some(self.0[self.place(index).ok()?].cell)
    }

    fn put(&mut self, entry: TableEntry) {
        match self.place(entry.index) {
            Ok(place) => self.0[place] = entry,
            Err(place) => self.0.insert(place, entry),
        }
    }

    fn place(&self, index: IdentityIndex) -> Result<usize, usize> {
        // The newest identity mostly has the greatest index.
        if self.0.last().is_none_or(|last| last.index < index) {
            return Err(self.0.len());
        }
        self.0.binary_search_by_key(&index, |entry| entry.index)
    }
}

/// What tables are compiled from.
pub(crate) struct Sources<'a> {
    pub(crate) mode: Mode,
    pub(crate) sets: &'a Sets,
    pub(crate) registry: &'a Registry,
    pub(crate) identities: &'a IdentityBook,
    /// Identities that stand for nodes as their own pods see them.
    pub(crate) hosts: &'a FxHashSet<IdentityIndex>,
    /// Identities no address had before this commit.
    pub(crate) made: &'a FxHashSet<IdentityIndex>,
}

/// Cells by the ranks of the rules that name a peer beyond its scope.
type CellsByRanks = FxHashMap<Box<[u32]>, PeerCell>;

/// The rules of one table, by rank: those of its rule sets one after another.
#[derive(Debug, Default)]
struct Rules<'a> {
    /// Each with the rank of its first rule.
    sets: Vec<(u32, &'a Installed)>,
    length: u32,
}

impl<'a> Rules<'a> {
    fn push(&mut self, installed: &'a Installed) {
        self.sets.push((self.length, installed));
        self.length += count(installed.set().rules.len());
    }

    fn get(&self, rank: u32) -> Option<(Tier, &'a Rule)> {
        let behind = self.sets.partition_point(|(first, _)| *first <= rank);
        let (first, installed) = self.sets.get(behind.checked_sub(1)?)?;
        let set = installed.set();
        let rule = set.rules.get((rank - first) as usize)?;
        Some((set.place.tier, rule))
    }

    /// All of them, in order of rank.
    fn iter(&self) -> impl Iterator<Item = &'a Rule> {
        self.sets
            .iter()
            .flat_map(|(_, installed)| &installed.set().rules)
    }

    /// Those that cover the scope, with their ranks.
    fn covering(&self, scope: Scope) -> impl Iterator<Item = u32> {
        self.sets.iter().flat_map(move |(first, installed)| {
            let rules = installed.covering();
            rules
                .filter(move |(_, rule)| rule.scopes.holds(scope))
                .map(move |(position, _)| first + position)
        })
    }
}

/// The rules of one table in order of rank, while it is compiled.
pub(crate) struct Compilation<'a> {
    sources: &'a Sources<'a>,
    direction: Direction,
    ports: Box<[NamedPort]>,
    rules: Rules<'a>,
    base: FxHashMap<SetId, u32>,
    default_deny: bool,
    /// Some rule set, of any tier, selects the subject.
    selected: bool,
    /// Which egress rules are by port name.
    by_name: ByName,
    /// Programs of rules whose port names are resolved by nobody or the subject, as far as asked for.
    alone: Vec<Option<Arc<Program>>>,
    scopes: [Program; Scope::COUNT],
    /// Cells of no rule and of each single rule, by scope and whether the peer is the local host; absent where not looked up yet.
    single: [[Vec<PeerCell>; 2]; Scope::COUNT],
    /// Cells of longer rank lists, by the same.
    cells: FxHashMap<(Scope, bool), CellsByRanks>,
    /// The same for peers with container ports that egress rules name.
    named: FxHashMap<CellKey, PeerCell>,
}

/// Room to compile one table after another in, so that memory is not asked for each anew.
#[derive(Debug, Default)]
pub(crate) struct Room {
    gathering: Gathering,
    cells: CellsByList,
    programs: ProgramsByList,
    /// By list: whether some rule is by port name, as far as asked for.
    named: Vec<Option<bool>>,
}

/// What holds for peers that the same rules name, by scope and whether the peer is the local host, then by list; absent where not
/// looked up yet.
#[derive(Debug, Default)]
struct CellsByList([[Vec<CellUse>; 2]; Scope::COUNT]);

#[derive(Clone, Copy, Debug)]
struct CellUse {
    cell: PeerCell,
    /// Entries that have come to hold the cell.
    uses: u32,
}

impl CellsByList {
    fn at(&mut self, list: List, scope: Scope, local_host: bool) -> &mut CellUse {
        let unknown = CellUse {
            cell: PeerCell::ABSENT,
            uses: 0,
        };
        at(
            &mut self.0[scope as usize][usize::from(local_host)],
            list.number(),
            unknown,
        )
    }

    /// Empties it; what was in it.
    fn take(&mut self) -> impl Iterator<Item = CellUse> {
        self.0
            .iter_mut()
            .flatten()
            .flat_map(|cells| cells.drain(..))
    }
}

/// The programs behind [`CellsByList`], by scope, then by list.
type ProgramsByList = [Vec<Joined>; Scope::COUNT];

/// What is known of the program of a list.
#[derive(Clone, Debug)]
enum Joined {
    Unknown,
    /// Its last rule adds nothing to what the list before says.
    AsBefore,
    Own(Arc<Program>),
}

/// The element of this index, where a list that is too short is filled up.
fn at<T: Clone>(list: &mut Vec<T>, index: usize, filling: T) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, filling);
    }
    &mut list[index]
}

/// What tells cells of peers with container ports apart: list, scope, whether the peer is the local host, ports.
type NamedKey<'a> = (usize, Scope, bool, &'a [NamedPort]);

/// Which egress rules of a table are by port name, which the peer resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ByName {
    None,
    /// Some, none of which covers a scope.
    Some,
    /// One that covers a scope, perhaps among others.
    Covering,
}

impl ByName {
    const fn of(rule: &Rule) -> Self {
        match (rule.name_holders.is_empty(), rule.scopes.is_empty()) {
            (true, _) => Self::None,
            (false, true) => Self::Some,
            (false, false) => Self::Covering,
        }
    }
}

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

    fn new_cell(
        &self,
        scope: Scope,
        local_host: bool,
        ports: &[NamedPort],
        ranks: &[u32],
        pool: &mut Pool,
    ) -> PeerCell {
        self.lowered(&self.program(scope, ports, ranks), local_host, pool)
    }

    fn lowered(&self, program: &Program, local_host: bool, pool: &mut Pool) -> PeerCell {
        let lowering = Lowering {
            mode: self.sources.mode,
            default_deny: self.default_deny,
            local_host,
        };
        let lowered = lowering.lower(program, self);
        let pass_unmatched = !self.default_deny && self.sources.mode == Mode::Default;
        let (shape, slots) = Shape::of(
            &lowered,
            |rank| {
                self.rules
                    .get(rank.0)
                    .map_or(Cookie::NONE, |(_, rule)| rule.cookie)
            },
            |cell| {
                let rules = cell.redirect.iter().filter_map(|&(rank, part)| {
                    let cookie = self.rules.get(rank.0)?.1.cookie;
                    Some((cookie, Arc::clone(self.proxy(rank, part)?)))
                });
                pool.redirect(RedirectSet {
                    rules: rules.collect(),
                    pass_unmatched,
                })
            },
        );
        pool.cell(shape, slots)
    }

    fn program(&self, scope: Scope, ports: &[NamedPort], ranks: &[u32]) -> Program {
        let scope_wide = if ports.is_empty() {
            self.scopes[scope as usize].clone()
        } else {
            self.scope_program(scope, ports)
        };
        if ranks.is_empty() {
            return scope_wide;
        }
        let mut programs: Vec<Program> = ranks
            .iter()
            .map(|&rank| self.rule_program(rank, ports))
            .collect();
        programs.push(scope_wide);
        Program::join_all(programs)
    }

    fn scope_program(&self, scope: Scope, ports: &[NamedPort]) -> Program {
        Program::join_all(
            self.rules
                .covering(scope)
                .map(|rank| self.rule_program(rank, ports))
                .collect(),
        )
    }

    fn rule_program(&self, rank: u32, ports: &[NamedPort]) -> Program {
        rule_program(&self.rules, rank, self.direction, &self.ports, ports)
    }

    fn proxy(&self, rank: Rank, part: Part) -> Option<&'a Arc<ProxyRule>> {
        let (_, rule) = self.rules.get(rank.0)?;
        rule.traffic.get(usize::from(part))?.proxy.as_ref()
    }
}

/// A rule's program. Port names are resolved by the subject at ingress and by the peer at egress.
fn rule_program(
    rules: &Rules<'_>,
    rank: u32,
    direction: Direction,
    subject: &[NamedPort],
    peer: &[NamedPort],
) -> Program {
    let Some((tier, rule)) = rules.get(rank) else {
        return Program::default();
    };
    let ports = match direction {
        Direction::Ingress => subject,
        Direction::Egress => peer,
    };
    rule.program(tier, Rank(rank), ports)
}

impl Proxies for Compilation<'_> {
    fn conflict(&self, entries: &[(Rank, Part)]) -> bool {
        let rules: Vec<&ProxyRule> = entries
            .iter()
            .filter_map(|&(rank, part)| Some(&**self.proxy(rank, part)?))
            .collect();
        crate::proxy::conflict(&rules)
    }
}

/// Takes out entries of identities that are no more. Their keys are deleted after all addresses have moved on.
fn retire(
    table: &mut Table,
    pool: &mut Pool,
    identities: &IdentityBook,
    retired: &mut Vec<PeerKey>,
) {
    let id = table.id;
    table.entries.0.retain(|entry| {
        let brief = identities.brief(entry.index);
        if !brief.alive {
            pool.count(entry.cell, false);
            retired.push(PeerKey {
                table: id,
                identity: brief.number,
            });
        }
        brief.alive
    });
}

fn count(length: usize) -> u32 {
    // A table of four billion rules does not fit into memory.
    u32::try_from(length).unwrap_or(u32::MAX)
}
