//! One change: planned against the shadow, fitted, and handed on to be written; what is done where it does not fit. Writing is `put`'s,
//! taking access away without room is `narrow`'s.

use std::collections::HashSet;

use sluice_abi::policy::PeerCell;
use sluice_abi::{Identity, Scope, maps};

use super::{
    AttributionImage, Change, Full, MapStore, ProgramImage, Report, StoreError, TableFull,
    TableUpdate, WriteError, Writer,
};

/// One part in this many of each map is kept for changes that take access away.
const RESERVE: u32 = 16;

/// What one table's change writes.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) table: u32,
    /// Peers whose cell differs, with the new one.
    pub(super) cells: Vec<(Identity, PeerCell)>,
    pub(super) defaults: [PeerCell; Scope::COUNT],
}

/// The parts of a change that are not tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) programs: Vec<&'a ProgramImage>,
    pub(super) attributions: Vec<&'a AttributionImage>,
}

/// Why an attempt did not come into force. No table has changed then.
enum Failure {
    Full(Full),
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<S: MapStore> Writer<S> {
    /// Puts a change in force, each table in one step. Tables that change for the second time since the last [`Writer::settle`] wait for
    /// a grace period first.
    ///
    /// Where not everything fits, each table is tried by itself; those that do not fit keep their last complete state, except that peers
    /// whose access their change takes away drop. Trying again later converges: send the same change, or the difference from what is
    /// in force, with its programs and attributions.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn apply(&mut self, change: &Change) -> Result<Report, WriteError> {
        self.operations = 0;
        self.make_way(change)?;
        self.validate(change)?;
        let mut report = Report::default();
        let outcome = self.put_in_force(change, &mut report);
        if outcome.is_ok() {
            self.release(change);
        }
        report.operations = self.operations;
        outcome.map(|()| report)
    }

    /// Settles first where the change needs it.
    fn make_way(&mut self, change: &Change) -> Result<(), StoreError> {
        if !self.must_settle(change) {
            return Ok(());
        }
        self.settle_now().inspect_err(|_| {
            // There is no room for a third state beside the two that readers may see; dropping needs none.
            let parts = Parts::all(change);
            for update in &change.tables {
                if self.takes_away(update, &parts) {
                    self.close(update.table);
                }
            }
        })
    }

    /// Whether something the change touches still has readers of the state before the last, or an id is to be cleared first.
    fn must_settle(&self, change: &Change) -> bool {
        let unsettled = &self.shadow.unsettled;
        change
            .tables
            .iter()
            .any(|update| unsettled.contains(&update.table))
            || change
                .release_tables
                .iter()
                .any(|id| unsettled.contains(id))
            || change
                .programs
                .iter()
                .any(|p| self.shadow.programs.get(&p.id).is_some_and(|s| s.released))
            || change.attributions.iter().any(|a| {
                self.shadow
                    .attributions
                    .get(&a.id)
                    .is_some_and(|s| s.released)
            })
    }

    fn put_in_force(&mut self, change: &Change, report: &mut Report) -> Result<(), WriteError> {
        let updates: Vec<&TableUpdate> = change.tables.iter().collect();
        let parts = Parts::all(change);
        match self.attempt(&updates, &parts, report) {
            Ok(()) => Ok(()),
            Err(Failure::Store(error)) => {
                self.fail_closed(&updates, &parts);
                Err(error.into())
            }
            Err(Failure::Full(_)) => self.one_by_one(&updates, &parts, report),
        }
    }

    fn one_by_one(
        &mut self,
        updates: &[&TableUpdate],
        parts: &Parts<'_>,
        report: &mut Report,
    ) -> Result<(), WriteError> {
        let mut full = Vec::new();
        for (at, update) in updates.iter().enumerate() {
            match self.attempt(&[update], &parts.of(update), report) {
                Ok(()) => {}
                Err(Failure::Full(reason)) => {
                    let blocked = self.fail_closed(&[update], parts);
                    full.push(TableFull {
                        table: update.table,
                        full: reason,
                        blocked,
                    });
                }
                Err(Failure::Store(error)) => {
                    self.fail_closed(&updates[at..], parts);
                    return Err(error.into());
                }
            }
        }
        if full.is_empty() {
            Ok(())
        } else {
            Err(WriteError::Full(full))
        }
    }

    /// Writes updates whole, or leaves every table of theirs as it is.
    fn attempt(
        &mut self,
        updates: &[&TableUpdate],
        parts: &Parts<'_>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        for update in updates {
            self.restore(update.table)?;
        }
        let plans: Vec<Plan> = updates
            .iter()
            .filter_map(|update| self.plan(update))
            .collect();
        let parts = self.not_stored(parts);
        self.check_room(&plans, updates, &parts)
            .map_err(Failure::Full)?;
        self.put_parts(&parts)?;
        self.commit(&plans)?;
        report.revisions.extend(
            plans
                .iter()
                .map(|plan| (plan.table, self.revision(plan.table))),
        );
        Ok(())
    }

    /// What differs from the state in force; `None` for nothing.
    fn plan(&self, update: &TableUpdate) -> Option<Plan> {
        let known = self.shadow.tables.get(&update.table);
        let cell_of = |identity: &Identity| {
            known
                .and_then(|table| table.peers.get(identity))
                .map_or(PeerCell::ABSENT, |peer| peer.cell)
        };
        let removals = update
            .remove
            .iter()
            .map(|identity| (*identity, PeerCell::ABSENT));
        let cells: Vec<_> = update
            .set
            .iter()
            .copied()
            .chain(removals)
            .filter(|(identity, cell)| cell_of(identity) != *cell)
            .collect();
        let same = known.is_some_and(|table| table.in_force && table.defaults == update.defaults);
        (!same || !cells.is_empty()).then_some(Plan {
            table: update.table,
            cells,
            defaults: update.defaults,
        })
    }

    /// The parts that have yet to be written.
    fn not_stored<'a>(&self, parts: &Parts<'a>) -> Parts<'a> {
        let mut left = parts.clone();
        left.programs.retain(|p| {
            self.shadow
                .programs
                .get(&p.id)
                .is_none_or(|stored| !stored.whole)
        });
        left.attributions.retain(|a| {
            self.shadow
                .attributions
                .get(&a.id)
                .is_none_or(|stored| !stored.whole)
        });
        left
    }

    /// Whether everything fits: within the reserve only if some table's change takes access away.
    fn check_room(
        &self,
        plans: &[Plan],
        updates: &[&TableUpdate],
        parts: &Parts<'_>,
    ) -> Result<(), Full> {
        let capacities = self.store.capacities();
        let index = |map, id: u32, capacity: u32| {
            if id < capacity {
                Ok(())
            } else {
                Err(Full {
                    map,
                    needed: u64::from(id) + 1,
                    capacity: u64::from(capacity),
                })
            }
        };
        for plan in plans {
            index(maps::TABLE_DEFAULTS.name, plan.table, capacities.tables)?;
        }
        for program in &parts.programs {
            index(maps::PROGRAMS.name, program.id, capacities.programs)?;
        }
        let new_ranges = parts
            .programs
            .iter()
            .filter(|p| !self.shadow.programs.contains_key(&p.id));
        let new_rules = parts
            .attributions
            .iter()
            .filter(|a| !self.shadow.attributions.contains_key(&a.id));
        let needs = [
            (
                maps::PEERS.name,
                self.shadow.peers + self.new_keys(plans),
                capacities.peers,
            ),
            (
                maps::PROGRAM_RANGES.name,
                self.shadow.ranges + new_ranges.map(|p| p.ranges.len()).sum::<usize>(),
                capacities.ranges,
            ),
            (
                maps::ATTRIBUTIONS.name,
                self.shadow.rules + new_rules.map(|a| a.rules.len()).sum::<usize>(),
                capacities.attributions,
            ),
        ];
        let over = |reserved: bool| {
            needs.iter().find_map(|&(map, needed, size)| {
                let capacity = u64::from(if reserved {
                    size - size / RESERVE
                } else {
                    size
                });
                let needed = needed as u64;
                (needed > capacity).then_some(Full {
                    map,
                    needed,
                    capacity,
                })
            })
        };
        match over(true) {
            None => Ok(()),
            Some(_)
                if over(false).is_none() && updates.iter().any(|u| self.takes_away(u, parts)) =>
            {
                Ok(())
            }
            Some(full) => Err(full),
        }
    }

    fn new_keys(&self, plans: &[Plan]) -> usize {
        let is_new = |table: u32, identity: &Identity| {
            self.shadow
                .tables
                .get(&table)
                .is_none_or(|known| !known.peers.contains_key(identity))
        };
        plans
            .iter()
            .map(|plan| {
                plan.cells
                    .iter()
                    .filter(|(identity, _)| is_new(plan.table, identity))
                    .count()
            })
            .sum()
    }

    fn release(&mut self, change: &Change) {
        for id in &change.release_tables {
            self.release_table(*id);
        }
        for id in &change.release_programs {
            if let Some(program) = self.shadow.programs.get_mut(id) {
                program.released = true;
            }
        }
        for id in &change.release_attributions {
            if let Some(attribution) = self.shadow.attributions.get_mut(id) {
                attribution.released = true;
            }
        }
    }

    fn release_table(&mut self, id: u32) {
        let Some(table) = self.shadow.tables.get_mut(&id) else {
            return;
        };
        let mut cells: Vec<PeerCell> = table.defaults.to_vec();
        for peer in table.peers.values_mut() {
            cells.push(std::mem::replace(&mut peer.cell, PeerCell::ABSENT));
        }
        table.defaults = [PeerCell::ABSENT; Scope::COUNT];
        table.released = true;
        for cell in cells {
            self.shadow.count_use(cell, false);
        }
        self.close(id);
    }
}

impl<'a> Parts<'a> {
    fn all(change: &'a Change) -> Self {
        Self {
            programs: change.programs.iter().collect(),
            attributions: change.attributions.iter().collect(),
        }
    }

    /// Those that one table's update names.
    fn of(&self, update: &TableUpdate) -> Self {
        let cells = || {
            update
                .set
                .iter()
                .map(|(_, cell)| cell)
                .chain(&update.defaults)
        };
        let programs: HashSet<u32> = cells().map(|cell| cell.program).collect();
        let attributions: HashSet<u32> = cells().map(|cell| cell.attribution).collect();
        Self {
            programs: self
                .programs
                .iter()
                .copied()
                .filter(|p| programs.contains(&p.id))
                .collect(),
            attributions: self
                .attributions
                .iter()
                .copied()
                .filter(|a| attributions.contains(&a.id))
                .collect(),
        }
    }
}
