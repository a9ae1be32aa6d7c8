//! One change: planned against the shadow, fitted, written, put in force; and what is done where it does not fit.

use std::collections::HashSet;

use sluice_abi::policy::{AttributionKey, PeerCell, PeerKey, PeerValue, TableDefaults, Versioned};
use sluice_abi::{Identity, Scope, maps};

use super::shadow::Peer;
use super::{
    AttributionImage, Change, Full, MapStore, ProgramImage, Report, StoreError, TableFull, TableUpdate,
    WriteError, Writer,
};

/// One part in this many of each map is kept for changes that take access away.
const RESERVE: u32 = 16;

/// What one table's change writes.
#[derive(Debug)]
struct Plan {
    table: u32,
    /// Peers whose cell differs, with the new one.
    cells: Vec<(Identity, PeerCell)>,
    defaults: [PeerCell; Scope::COUNT],
}

/// The parts of a change that are not tables.
#[derive(Clone, Debug, Default)]
struct Parts<'a> {
    programs: Vec<&'a ProgramImage>,
    attributions: Vec<&'a AttributionImage>,
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
        change.tables.iter().any(|update| unsettled.contains(&update.table))
            || change.release_tables.iter().any(|id| unsettled.contains(id))
            || change.programs.iter().any(|p| self.shadow.programs.get(&p.id).is_some_and(|s| s.released))
            || change.attributions.iter().any(|a| self.shadow.attributions.get(&a.id).is_some_and(|s| s.released))
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

    fn one_by_one(&mut self, updates: &[&TableUpdate], parts: &Parts<'_>, report: &mut Report) -> Result<(), WriteError> {
        let mut full = Vec::new();
        for (at, update) in updates.iter().enumerate() {
            match self.attempt(&[update], &parts.of(update), report) {
                Ok(()) => {}
                Err(Failure::Full(reason)) => {
                    let blocked = self.fail_closed(&[update], parts);
                    full.push(TableFull { table: update.table, full: reason, blocked });
                }
                Err(Failure::Store(error)) => {
                    self.fail_closed(&updates[at..], parts);
                    return Err(error.into());
                }
            }
        }
        if full.is_empty() { Ok(()) } else { Err(WriteError::Full(full)) }
    }

    /// Writes updates whole, or leaves every table of theirs as it is.
    fn attempt(&mut self, updates: &[&TableUpdate], parts: &Parts<'_>, report: &mut Report) -> Result<(), Failure> {
        for update in updates {
            self.restore(update.table)?;
        }
        let plans: Vec<Plan> = updates.iter().filter_map(|update| self.plan(update)).collect();
        let parts = self.not_stored(parts);
        self.check_room(&plans, updates, &parts).map_err(Failure::Full)?;
        self.put_parts(&parts)?;
        self.commit(&plans)?;
        report.revisions.extend(plans.iter().map(|plan| (plan.table, self.revision(plan.table))));
        Ok(())
    }

    /// What differs from the state in force; `None` for nothing.
    fn plan(&self, update: &TableUpdate) -> Option<Plan> {
        let known = self.shadow.tables.get(&update.table);
        let cell_of = |identity: &Identity| {
            known.and_then(|table| table.peers.get(identity)).map_or(PeerCell::ABSENT, |peer| peer.cell)
        };
        let removals = update.remove.iter().map(|identity| (*identity, PeerCell::ABSENT));
        let cells: Vec<_> = update
            .set
            .iter()
            .copied()
            .chain(removals)
            .filter(|(identity, cell)| cell_of(identity) != *cell)
            .collect();
        let same = known.is_some_and(|table| table.in_force && table.defaults == update.defaults);
        (!same || !cells.is_empty()).then_some(Plan { table: update.table, cells, defaults: update.defaults })
    }

    /// The parts that have yet to be written.
    fn not_stored<'a>(&self, parts: &Parts<'a>) -> Parts<'a> {
        let mut left = parts.clone();
        left.programs.retain(|p| self.shadow.programs.get(&p.id).is_none_or(|stored| !stored.whole));
        left.attributions.retain(|a| self.shadow.attributions.get(&a.id).is_none_or(|stored| !stored.whole));
        left
    }

    /// Whether everything fits: within the reserve only if some table's change takes access away.
    fn check_room(&self, plans: &[Plan], updates: &[&TableUpdate], parts: &Parts<'_>) -> Result<(), Full> {
        let capacities = self.store.capacities();
        let index = |map, id: u32, capacity: u32| {
            if id < capacity {
                Ok(())
            } else {
                Err(Full { map, needed: u64::from(id) + 1, capacity: u64::from(capacity) })
            }
        };
        for plan in plans {
            index(maps::TABLE_DEFAULTS.name, plan.table, capacities.tables)?;
        }
        for program in &parts.programs {
            index(maps::PROGRAMS.name, program.id, capacities.programs)?;
        }
        let new_ranges = parts.programs.iter().filter(|p| !self.shadow.programs.contains_key(&p.id));
        let new_rules = parts.attributions.iter().filter(|a| !self.shadow.attributions.contains_key(&a.id));
        let needs = [
            (maps::PEERS.name, self.shadow.peers + self.new_keys(plans), capacities.peers),
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
                let capacity = u64::from(if reserved { size - size / RESERVE } else { size });
                let needed = needed as u64;
                (needed > capacity).then_some(Full { map, needed, capacity })
            })
        };
        match over(true) {
            None => Ok(()),
            Some(_) if over(false).is_none() && updates.iter().any(|u| self.takes_away(u, parts)) => Ok(()),
            Some(full) => Err(full),
        }
    }

    fn new_keys(&self, plans: &[Plan]) -> usize {
        let is_new = |table: u32, identity: &Identity| {
            self.shadow.tables.get(&table).is_none_or(|known| !known.peers.contains_key(identity))
        };
        plans
            .iter()
            .map(|plan| plan.cells.iter().filter(|(identity, _)| is_new(plan.table, identity)).count())
            .sum()
    }

    /// Writes programs and attributions. No table uses them yet, so their order and what is left after a failure matter to nobody.
    fn put_parts(&mut self, parts: &Parts<'_>) -> Result<(), StoreError> {
        for program in &parts.programs {
            self.store_program_intent(program)?;
        }
        for attribution in &parts.attributions {
            self.store_attribution_intent(attribution)?;
        }
        let ranges: Vec<_> = parts.programs.iter().flat_map(|p| p.ranges.iter().copied()).collect();
        let rules: Vec<_> = parts
            .attributions
            .iter()
            .flat_map(|a| {
                a.rules.iter().map(|&(slot, cookie)| (AttributionKey { attribution: a.id, slot }, cookie))
            })
            .collect();
        let inline: Vec<_> = parts.programs.iter().map(|p| (p.id, p.inline)).collect();
        self.operations += (ranges.len() + rules.len() + inline.len()) as u64;
        if !ranges.is_empty() {
            self.store.put_ranges(&ranges)?;
        }
        if !rules.is_empty() {
            self.store.put_attributions(&rules)?;
        }
        if !inline.is_empty() {
            self.store.put_programs(&inline)?;
        }
        for program in &parts.programs {
            if let Some(stored) = self.shadow.programs.get_mut(&program.id) {
                stored.whole = true;
            }
        }
        for attribution in &parts.attributions {
            if let Some(stored) = self.shadow.attributions.get_mut(&attribution.id) {
                stored.whole = true;
            }
        }
        Ok(())
    }

    /// Notes that a program is about to be written, so that what a failure leaves of it is known; clears what an earlier failure left of
    /// another one with this id.
    fn store_program_intent(&mut self, program: &ProgramImage) -> Result<(), StoreError> {
        if let Some(stored) = self.shadow.programs.get(&program.id) {
            if stored.image.same(program) {
                return Ok(());
            }
            let left: Vec<_> = stored.image.ranges.iter().map(|(key, _)| *key).collect();
            if !left.is_empty() {
                self.operations += left.len() as u64;
                self.store.remove_ranges(&left)?;
            }
            self.shadow.ranges -= left.len();
            self.shadow.programs.remove(&program.id);
        }
        self.shadow.add_program(program.clone());
        if let Some(stored) = self.shadow.programs.get_mut(&program.id) {
            stored.whole = false;
        }
        Ok(())
    }

    /// As [`Self::store_program_intent`], for an attribution.
    fn store_attribution_intent(&mut self, attribution: &AttributionImage) -> Result<(), StoreError> {
        if let Some(stored) = self.shadow.attributions.get(&attribution.id) {
            if stored.image.same(attribution) {
                return Ok(());
            }
            let left: Vec<_> = stored
                .image
                .rules
                .iter()
                .map(|&(slot, _)| AttributionKey { attribution: attribution.id, slot })
                .collect();
            if !left.is_empty() {
                self.operations += left.len() as u64;
                self.store.remove_attributions(&left)?;
            }
            self.shadow.rules -= left.len();
            self.shadow.attributions.remove(&attribution.id);
        }
        self.shadow.add_attribution(attribution.clone());
        if let Some(stored) = self.shadow.attributions.get_mut(&attribution.id) {
            stored.whole = false;
        }
        Ok(())
    }

    /// Undoes what a failed change left in a table's elements. Readers see no difference: they see the old half either way.
    pub(super) fn restore(&mut self, id: u32) -> Result<(), StoreError> {
        let Some(table) = self.shadow.tables.get(&id).filter(|table| !table.dirty.is_empty()) else {
            return Ok(());
        };
        let (mut back, mut gone) = (Vec::new(), Vec::new());
        for &identity in &table.dirty {
            let key = PeerKey { table: id, identity };
            match table.peers.get(&identity).map_or(PeerCell::ABSENT, |peer| peer.cell) {
                PeerCell::ABSENT => gone.push(key),
                cell => back.push((key, PeerValue { key, cell: Versioned { old: cell, new: cell, ..Versioned::default() } })),
            }
        }
        self.operations += (back.len() + gone.len()) as u64;
        if !back.is_empty() {
            self.store.put_peers(&back)?;
        }
        if !gone.is_empty() {
            self.store.remove_peers(&gone)?;
        }
        self.shadow.peers -= gone.len();
        if let Some(table) = self.shadow.tables.get_mut(&id) {
            for key in &gone {
                table.peers.remove(&key.identity);
            }
            table.dirty.clear();
        }
        Ok(())
    }

    /// Writes plans and puts them in force. Until the first revision is stored every reader sees the old state, and storing cannot fail.
    fn commit(&mut self, plans: &[Plan]) -> Result<(), StoreError> {
        self.put_cells(plans)?;
        self.put_plan_defaults(plans)?;
        for plan in plans {
            self.raise(plan);
        }
        Ok(())
    }

    fn put_cells(&mut self, plans: &[Plan]) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        for plan in plans {
            let table = self.shadow.tables.entry(plan.table).or_default();
            for &(identity, new) in &plan.cells {
                let key = PeerKey { table: plan.table, identity };
                let mut added = false;
                let peer = table.peers.entry(identity).or_insert_with(|| {
                    added = true;
                    Peer::default()
                });
                self.shadow.peers += usize::from(added);
                table.dirty.insert(identity);
                let cell = Versioned { old: peer.cell, new, from_revision: table.last + 1, reserved: 0 };
                entries.push((key, PeerValue { key, cell }));
            }
        }
        self.operations += entries.len() as u64;
        if entries.is_empty() { Ok(()) } else { self.store.put_peers(&entries) }
    }

    fn put_plan_defaults(&mut self, plans: &[Plan]) -> Result<(), StoreError> {
        let mut writes = Vec::new();
        for plan in plans {
            let table = self.shadow.tables.entry(plan.table).or_default();
            let mut wanted = TableDefaults::constant(plan.defaults);
            if table.in_force {
                let parity = usize::from(table.last & 1 == 1);
                for (cells, old) in wanted.scopes.iter_mut().zip(table.defaults) {
                    cells[parity] = old;
                }
            }
            if table.written_defaults != Some(wanted) {
                table.written_defaults = None;
                writes.push((plan.table, wanted));
            }
        }
        self.operations += writes.len() as u64;
        if writes.is_empty() {
            return Ok(());
        }
        self.store.put_defaults(&writes)?;
        for (id, written) in writes {
            if let Some(table) = self.shadow.tables.get_mut(&id) {
                table.written_defaults = Some(written);
            }
        }
        Ok(())
    }

    fn raise(&mut self, plan: &Plan) {
        let table = self.shadow.tables.entry(plan.table).or_default();
        table.last += 1;
        table.in_force = true;
        table.released = false;
        table.dirty.clear();
        let mut exchanged: Vec<(PeerCell, PeerCell)> = table.defaults.into_iter().zip(plan.defaults).collect();
        table.defaults = plan.defaults;
        for &(identity, new) in &plan.cells {
            let peer = table.peers.entry(identity).or_default();
            exchanged.push((std::mem::replace(&mut peer.cell, new), new));
        }
        let word = table.word();
        self.store.set_revision(plan.table, word);
        self.operations += 1;
        self.shadow.unsettled.insert(plan.table);
        for (old, new) in exchanged {
            if old != new {
                self.shadow.count_use(old, false);
                self.shadow.count_use(new, true);
            }
        }
    }

    /// Whether an update gives some peer less than it has.
    fn takes_away(&self, update: &TableUpdate, parts: &Parts<'_>) -> bool {
        !self.narrowed(update, parts).is_empty()
    }

    /// The cells and defaults by which an update gives less, as a plan that blocks them and changes nothing else.
    fn narrowed(&self, update: &TableUpdate, parts: &Parts<'_>) -> Narrowed {
        let mut narrowed = Narrowed::default();
        let Some(table) = self.shadow.tables.get(&update.table).filter(|table| table.in_force) else {
            return narrowed;
        };
        narrowed.defaults = table.defaults;
        for (at, (old, new)) in table.defaults.into_iter().zip(update.defaults).enumerate() {
            if self.gives_more(old, new, parts) {
                narrowed.defaults[at] = PeerCell::BLOCKED;
                narrowed.scopes += 1;
            }
        }
        let removals = update.remove.iter().map(|&identity| (identity, update.defaults[identity.scope() as usize]));
        for (identity, new) in update.set.iter().copied().chain(removals) {
            if self.gives_more(table.effective(identity), new, parts) {
                narrowed.cells.push((identity, PeerCell::BLOCKED));
            }
        }
        narrowed
    }

    fn gives_more(&self, old: PeerCell, new: PeerCell, parts: &Parts<'_>) -> bool {
        if old.program == new.program || old == PeerCell::ABSENT || old == PeerCell::BLOCKED {
            return false;
        }
        let image = |id: u32| {
            let stored = self.shadow.programs.get(&id).map(|stored| &stored.image);
            stored.or_else(|| parts.programs.iter().copied().find(|program| program.id == id))
        };
        match (image(old.program), image(new.program)) {
            (Some(old), Some(new)) => old.gives_more_than(new),
            // A program nobody knows gives nothing; what replaces it can't be told to give as much.
            _ => true,
        }
    }

    /// Takes away what the updates would take away, without what they would give: needs no program, no attribution, and elements only
    /// for peers that had none. Returns how many peers and scopes drop now.
    fn fail_closed(&mut self, updates: &[&TableUpdate], parts: &Parts<'_>) -> usize {
        updates.iter().map(|update| self.fail_table_closed(update, parts)).sum()
    }

    fn fail_table_closed(&mut self, update: &TableUpdate, parts: &Parts<'_>) -> usize {
        // Before the bookkeeping of what failed is undone: it needs the programs, not the dirty elements.
        let mut narrowed = self.narrowed(update, parts);
        if narrowed.is_empty() {
            return 0;
        }
        let blocked = narrowed.cells.len() + narrowed.scopes;
        let written = self.restore(update.table).and_then(|()| {
            self.shrink_to_room(update.table, &mut narrowed);
            self.commit(&[Plan { table: update.table, cells: narrowed.cells, defaults: narrowed.defaults }])
        });
        if written.is_err() {
            self.close(update.table);
        }
        blocked
    }

    /// Where even the reserve is used up, the peers that have no element drop by their scope's default.
    fn shrink_to_room(&self, id: u32, narrowed: &mut Narrowed) {
        let Some(table) = self.shadow.tables.get(&id) else { return };
        let new = narrowed.cells.iter().filter(|(identity, _)| !table.peers.contains_key(identity)).count();
        if self.shadow.peers + new <= self.store.capacities().peers as usize {
            return;
        }
        let defaults = &mut narrowed.defaults;
        narrowed.cells.retain(|(identity, _)| {
            let known = table.peers.contains_key(identity);
            if !known {
                defaults[identity.scope() as usize] = PeerCell::BLOCKED;
            }
            known
        });
    }

    /// The last resort, a store into memory that can't fail: the whole table drops.
    fn close(&mut self, id: u32) {
        if let Some(table) = self.shadow.tables.get_mut(&id) {
            table.in_force = false;
            let word = table.word();
            self.store.set_revision(id, word);
            self.operations += 1;
            self.shadow.unsettled.insert(id);
        }
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
        let Some(table) = self.shadow.tables.get_mut(&id) else { return };
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

/// What an update takes away.
#[derive(Debug, Default)]
struct Narrowed {
    cells: Vec<(Identity, PeerCell)>,
    defaults: [PeerCell; Scope::COUNT],
    scopes: usize,
}

impl Narrowed {
    fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.scopes == 0
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
        let cells = || update.set.iter().map(|(_, cell)| cell).chain(&update.defaults);
        let programs: HashSet<u32> = cells().map(|cell| cell.program).collect();
        let attributions: HashSet<u32> = cells().map(|cell| cell.attribution).collect();
        Self {
            programs: self.programs.iter().copied().filter(|p| programs.contains(&p.id)).collect(),
            attributions: self.attributions.iter().copied().filter(|a| attributions.contains(&a.id)).collect(),
        }
    }
}
