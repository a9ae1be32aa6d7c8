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
    pub(crate) entries: FxHashMap<IdentityIndex, (Identity, PeerCell)>,
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
            entries: FxHashMap::default(),
            defaults: [PeerCell::ABSENT; Scope::COUNT],
            new: true,
        }
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
    /// Cells of rank lists, by scope and whether the peer is the local host.
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
        let mut stale: FxHashSet<IdentityIndex> = table.entries.keys().copied().collect();
        let candidates = self.candidates();
        if table.new {
            table.entries.reserve(candidates.len());
            delta.set.reserve(candidates.len());
        }
        let mut ranks = Vec::new();
        for group in candidates.chunk_by(|a, b| a.0 == b.0) {
            let index = group[0].0;
            stale.remove(&index);
            ranks.clear();
            ranks.extend(group.iter().filter_map(|pair| pair.1.checked_sub(1)));
            self.update(table, index, &ranks, &old_defaults, pool, &mut delta);
        }
        for index in stale {
            self.update(table, index, &[], &old_defaults, pool, &mut delta);
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

    fn update(
        &mut self,
        table: &mut Table,
        index: IdentityIndex,
        ranks: &[u32],
        old_defaults: &[PeerCell; Scope::COUNT],
        pool: &mut Pool,
        delta: &mut TableDelta,
    ) {
        let Some(record) = self.sources.identities.get(index) else {
            return;
        };
        let scope = record.properties.scope();
        let local_host = self.is_local_host(record);
        let ports = if self.by_name {
            record.properties.ports.clone()
        } else {
            Box::default()
        };
        let cell = self.cell(scope, local_host, &ports, ranks, pool);
        let default = table.defaults[scope as usize];
        let wanted = (cell != default).then_some(cell);
        let old = table.entries.get(&index).map(|entry| entry.1);
        if !self.sources.made.contains(&index) {
            let before = old.unwrap_or(old_defaults[scope as usize]);
            delta.takes_access_away |= pool.takes_away(before, cell);
        }
        if wanted == old {
            return;
        }
        if let Some(cell) = wanted {
            pool.count(cell, true);
            table.entries.insert(index, (record.number, cell));
            delta.set.push((record.number, cell));
        } else {
            table.entries.remove(&index);
            delta.removed.push(record.number);
        }
        if let Some(old) = old {
            pool.count(old, false);
        }
    }

    /// Every identity that may need an entry of its own, with the rules beyond its scope's: (identity, rank + 1), 0 for no rule. Sorted.
    fn candidates(&self) -> Vec<(IdentityIndex, u32)> {
        let mut pairs = Vec::new();
        for (rank, (_, _, _, rule)) in (0..).zip(&self.rules) {
            for &selector in &rule.peers {
                for &member in self.sources.registry.members(selector) {
                    if rule.scopes.is_empty() || !self.covered(rule, member) {
                        pairs.push((member, rank + 1));
                    }
                }
            }
            for &holders in &rule.name_holders {
                pairs.extend(
                    self.sources
                        .registry
                        .members(holders)
                        .iter()
                        .map(|&m| (m, 0)),
                );
            }
        }
        if self.direction == Direction::Ingress && self.selected {
            pairs.extend(self.sources.hosts.iter().map(|&host| (host, 0)));
        }
        pairs.sort_unstable();
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
    table.entries.retain(|index, (identity, cell)| {
        let alive = identities.get(*index).is_some();
        if !alive {
            pool.count(*cell, false);
            retired.push(PeerKey {
                table: id,
                identity: *identity,
            });
        }
        alive
    });
}

fn count(length: usize) -> u32 {
    // A table of four billion rules does not fit into memory.
    u32::try_from(length).unwrap_or(u32::MAX)
}
