//! Peer tables: for one set of rule sets in one direction, identity → cell, with a default per scope. Who uses a table and when it is
//! compiled anew is the index's.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_abi::{
    Cookie, Identity, Scope,
    policy::{PeerCell, PeerKey},
};
use sluice_world::Mode;

use crate::{
    delta::{RedirectSet, TableDelta},
    identity::{IdentityBook, IdentityIndex, Record},
    pool::Pool,
    program::{Lowering, Part, Program, Proxies, Rank, Shape},
    properties::{Kind, NamedPort},
    registry::{Registry, SetId},
    rule::{Direction, ProxyRule, Rule, RuleSet, Tier},
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

/// One peer's entry. The number stays here too: it is needed once the identity is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableEntry {
    index: IdentityIndex,
    pub(crate) identity: Identity,
    pub(crate) cell: PeerCell,
}

/// A table's entries, sorted by identity: there are millions, so they have no room for a hash map's empty slots, and a whole compile
/// makes them in order.
#[derive(Debug, Default)]
pub(crate) struct Entries(Vec<TableEntry>);

impl Entries {
    pub(crate) fn cells(&self) -> impl Iterator<Item = PeerCell> {
        self.0.iter().map(|entry| entry.cell)
    }

    pub(crate) fn remove(&mut self, index: IdentityIndex) -> Option<TableEntry> {
        let place = self.place(index).ok()?;
        Some(self.0.remove(place))
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

/// A rule set in use.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) set: RuleSet,
    /// The tables it is part of, as places in the index.
    pub(crate) tables: FxHashSet<u32>,
}

/// What tables are compiled from.
pub(crate) struct Sources<'a> {
    pub(crate) mode: Mode,
    pub(crate) sets: &'a FxHashMap<SetId, Installed>,
    pub(crate) registry: &'a Registry,
    pub(crate) identities: &'a IdentityBook,
    /// Identities that stand for nodes as their own pods see them.
    pub(crate) hosts: &'a FxHashSet<IdentityIndex>,
    /// Identities no address had before this commit.
    pub(crate) made: &'a FxHashSet<IdentityIndex>,
}

/// Cells by the ranks of the rules that name a peer beyond its scope.
type CellsByRanks = FxHashMap<Box<[u32]>, PeerCell>;

/// The rules of one table in order of rank, while it is compiled.
pub(crate) struct Compilation<'a> {
    sources: &'a Sources<'a>,
    direction: Direction,
    ports: Box<[NamedPort]>,
    rules: Vec<(SetId, u32, Tier, &'a Rule)>,
    base: FxHashMap<SetId, u32>,
    default_deny: bool,
    /// Some rule set, of any tier, selects the subject.
    selected: bool,
    /// Some egress rule is by port name.
    by_name: bool,
    scopes: [Program; Scope::COUNT],
    /// Cells of no rule and of each single rule, by scope and whether the peer is the local host; absent where not looked up yet.
    single: [[Vec<PeerCell>; 2]; Scope::COUNT],
    /// Cells of longer rank lists, by the same.
    cells: FxHashMap<(Scope, bool), CellsByRanks>,
    /// The same for peers with container ports that egress rules name.
    named: FxHashMap<CellKey, PeerCell>,
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
            rules: Vec::new(),
            base: FxHashMap::default(),
            default_deny: false,
            selected: false,
            by_name: false,
            scopes: Default::default(),
            single: Default::default(),
            cells: FxHashMap::default(),
            named: FxHashMap::default(),
        };
        for id in &key.sets {
            let Some(installed) = sources.sets.get(id) else {
                continue;
            };
            let set = &installed.set;
            compilation.base.insert(*id, count(compilation.rules.len()));
            compilation.default_deny |= set.default_deny;
            compilation.selected = true;
            for (index, rule) in (0..).zip(&set.rules) {
                compilation.by_name |= !rule.name_holders.is_empty();
                compilation.rules.push((*id, index, set.place.tier, rule));
            }
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
        let candidates = self.candidates();
        let groups = || candidates.chunk_by(|a, b| identity_of(*a) == identity_of(*b));
        // Most candidates get an entry.
        let most = groups().count();
        if table.new {
            delta.set.reserve_exact(most);
        }
        let old = std::mem::take(&mut table.entries.0);
        let mut old = old.into_iter().peekable();
        table.entries.0.reserve_exact(most);
        let mut ranks = Vec::new();
        for group in groups() {
            let index = identity_of(group[0]);
            while let Some(stale) = old.next_if(|entry| entry.index < index) {
                self.renew(table, Ok(stale), &[], &old_defaults, pool, &mut delta);
            }
            let known = old.next_if(|entry| entry.index == index);
            ranks.clear();
            ranks.extend(group.iter().filter_map(|pair| rank_of(*pair)));
            let known = known.ok_or(index);
            self.renew(table, known, &ranks, &old_defaults, pool, &mut delta);
        }
        for stale in old {
            self.renew(table, Ok(stale), &[], &old_defaults, pool, &mut delta);
        }
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
            .any(|index| self.sources.identities.get(*index).is_none())
        {
            retire(table, pool, self.sources.identities, retired);
        }
        let mut delta = TableDelta {
            id: table.id,
            ..TableDelta::default()
        };
        let defaults = table.defaults;
        for &index in touched {
            let ranks = self.explicit(index);
            self.update(table, index, &ranks, &defaults, pool, &mut delta);
        }
        delta
    }

    /// Appends an identity's entry to the table, where it needs one. `old` is what it had, or who it is.
    fn renew(
        &mut self,
        table: &mut Table,
        old: Result<TableEntry, IdentityIndex>,
        ranks: &[u32],
        old_defaults: &[PeerCell; Scope::COUNT],
        pool: &mut Pool,
        delta: &mut TableDelta,
    ) {
        let (index, old) = match old {
            Ok(entry) => (entry.index, Some(entry.cell)),
            Err(index) => (index, None),
        };
        let wanted = self.change(table, index, old, ranks, old_defaults, pool, delta);
        table.entries.0.extend(wanted);
    }

    fn update(
        &mut self,
        table: &mut Table,
        index: IdentityIndex,
        ranks: &[u32],
        old_defaults: &[PeerCell; Scope::COUNT],
        pool: &mut Pool,
        delta: &mut TableDelta,
    ) {
        let old = table.entries.get(index);
        match self.change(table, index, old, ranks, old_defaults, pool, delta) {
            Some(entry) if Some(entry.cell) != old => table.entries.put(entry),
            None if old.is_some() => drop(table.entries.remove(index)),
            _ => {}
        }
    }

    /// The entry that an identity needs now. Tells the delta and the pool where that differs from `old`, its entry so far.
    #[expect(clippy::too_many_arguments, reason = "the whole of one entry's change")]
    fn change(
        &mut self,
        table: &Table,
        index: IdentityIndex,
        old: Option<PeerCell>,
        ranks: &[u32],
        old_defaults: &[PeerCell; Scope::COUNT],
        pool: &mut Pool,
        delta: &mut TableDelta,
    ) -> Option<TableEntry> {
        let record = self.sources.identities.get(index)?;
        let scope = record.properties.scope();
        let local_host = self.is_local_host(record);
        let ports: &[NamedPort] = if self.by_name {
            &record.properties.ports
        } else {
            &[]
        };
        let cell = self.cell(scope, local_host, ports, ranks, pool);
        let wanted = (cell != table.defaults[scope as usize]).then_some(cell);
        // A table that nobody uses yet takes nothing away.
        if !table.new && !self.sources.made.contains(&index) {
            let before = old.unwrap_or(old_defaults[scope as usize]);
            delta.takes_access_away |= pool.takes_away(before, cell);
        }
        if wanted != old {
            match wanted {
                Some(cell) => {
                    pool.count(cell, true);
                    delta.set.push((record.number, cell));
                }
                None => delta.removed.push(record.number),
            }
            if let Some(old) = old {
                pool.count(old, false);
            }
        }
        Some(TableEntry {
            index,
            identity: record.number,
            cell: wanted?,
        })
    }

    /// Every identity that may need an entry of its own, with the rules beyond its scope's: see [`candidate`]. Sorted.
    fn candidates(&self) -> Vec<u64> {
        let mut pairs = Vec::new();
        for (rank, (_, _, _, rule)) in (0..).zip(&self.rules) {
            for &selector in &rule.peers {
                for &member in self.sources.registry.members(selector) {
                    if rule.scopes.is_empty() || !self.covered(rule, member) {
                        pairs.push(candidate(member, Some(rank)));
                    }
                }
            }
            for &holders in &rule.name_holders {
                pairs.extend(
                    self.sources
                        .registry
                        .members(holders)
                        .iter()
                        .map(|&member| candidate(member, None)),
                );
            }
        }
        if self.direction == Direction::Ingress && self.selected {
            pairs.extend(self.sources.hosts.iter().map(|&host| candidate(host, None)));
        }
        #[expect(
            clippy::stable_sort_primitive,
            reason = "members come sorted: the stable sort merges such runs"
        )]
        pairs.sort();
        pairs.dedup();
        pairs
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
        let mut ranks: Vec<u32> = if uses < self.rules.len() {
            let named = selectors.iter().flat_map(|id| {
                let rules = self.sources.registry.peer_of(*id);
                rules.map(move |rule| (*id, rule))
            });
            named
                .filter_map(|(selector, (set, rule))| {
                    let rank = self.base.get(&set)? + rule;
                    let rule = self.rules.get(rank as usize)?.3;
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
                .zip(&self.rules)
                .filter(|(_, rule)| names(rule.3))
                .map(|(rank, _)| rank)
                .collect()
        };
        ranks.retain(|rank| !self.covered(self.rules[*rank as usize].3, index));
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    fn covered(&self, rule: &Rule, index: IdentityIndex) -> bool {
        self.sources
            .identities
            .get(index)
            .is_some_and(|record| rule.scopes.holds(record.properties.scope()))
    }

    fn is_local_host(&self, record: &Record) -> bool {
        self.direction == Direction::Ingress
            && self.selected
            && record.properties.kind == Kind::Host
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
        let program = self.program(scope, ports, ranks);
        let lowering = Lowering {
            mode: self.sources.mode,
            default_deny: self.default_deny,
            local_host,
        };
        let lowered = lowering.lower(&program, self);
        let pass_unmatched = !self.default_deny && self.sources.mode == Mode::Default;
        let (shape, slots) = Shape::of(
            &lowered,
            |rank| {
                self.rules
                    .get(rank.0 as usize)
                    .map_or(Cookie::NONE, |rule| rule.3.cookie)
            },
            |cell| {
                let rules = cell.redirect.iter().filter_map(|&(rank, part)| {
                    let cookie = self.rules.get(rank.0 as usize)?.3.cookie;
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
        let scope_wide = if self.by_name && !ports.is_empty() {
            self.scope_program(scope, ports)
        } else {
            self.scopes[scope as usize].clone()
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
        let covering = (0..)
            .zip(&self.rules)
            .filter(|(_, rule)| rule.3.scopes.holds(scope));
        Program::join_all(
            covering
                .map(|(rank, _)| self.rule_program(rank, ports))
                .collect(),
        )
    }

    fn rule_program(&self, rank: u32, ports: &[NamedPort]) -> Program {
        let (_, _, tier, rule) = &self.rules[rank as usize];
        let ports = match self.direction {
            Direction::Ingress => &self.ports,
            Direction::Egress => ports,
        };
        rule.program(*tier, Rank(rank), ports)
    }

    fn proxy(&self, rank: Rank, part: Part) -> Option<&'a Arc<ProxyRule>> {
        let rule = self.rules.get(rank.0 as usize)?.3;
        rule.traffic.get(usize::from(part))?.proxy.as_ref()
    }
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
        let alive = identities.get(entry.index).is_some();
        if !alive {
            pool.count(entry.cell, false);
            retired.push(PeerKey {
                table: id,
                identity: entry.identity,
            });
        }
        alive
    });
}

/// An identity with a rule that names it, or none, as one number that sorts fast: the index above, rank + 1 or 0 below.
fn candidate(index: IdentityIndex, rank: Option<u32>) -> u64 {
    u64::from(index.0) << 32 | rank.map_or(0, |rank| u64::from(rank) + 1)
}

const fn identity_of(candidate: u64) -> IdentityIndex {
    let [a, b, c, d, ..] = candidate.to_be_bytes();
    IdentityIndex(u32::from_be_bytes([a, b, c, d]))
}

const fn rank_of(candidate: u64) -> Option<u32> {
    let [.., a, b, c, d] = candidate.to_be_bytes();
    u32::from_be_bytes([a, b, c, d]).checked_sub(1)
}

fn count(length: usize) -> u32 {
    // A table of four billion rules does not fit into memory.
    u32::try_from(length).unwrap_or(u32::MAX)
}
