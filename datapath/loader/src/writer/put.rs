//! Writing what was planned, in the order that readers need: parts, cells of the next revision, its defaults, the revision. Deciding
//! what to write may not enter.

use sluice_abi::policy::{AttributionKey, PeerCell, PeerKey, PeerValue, TableDefaults, Versioned};

use super::apply::{Parts, Plan};
use super::shadow::Peer;
use super::{AttributionImage, MapStore, ProgramImage, StoreError, Writer};

impl<S: MapStore> Writer<S> {
    /// Writes programs and attributions. No table uses them yet, so their order and what is left after a failure matter to nobody.
    pub(super) fn put_parts(&mut self, parts: &Parts<'_>) -> Result<(), StoreError> {
        for program in &parts.programs {
            self.store_program_intent(program)?;
        }
        for attribution in &parts.attributions {
            self.store_attribution_intent(attribution)?;
        }
        let ranges: Vec<_> = parts
            .programs
            .iter()
            .flat_map(|p| p.ranges.iter().copied())
            .collect();
        let rules: Vec<_> = parts
            .attributions
            .iter()
            .flat_map(|a| {
                a.rules.iter().map(|&(slot, cookie)| {
                    (
                        AttributionKey {
                            attribution: a.id,
                            slot,
                        },
                        cookie,
                    )
                })
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
    fn store_attribution_intent(
        &mut self,
        attribution: &AttributionImage,
    ) -> Result<(), StoreError> {
        if let Some(stored) = self.shadow.attributions.get(&attribution.id) {
            if stored.image.same(attribution) {
                return Ok(());
            }
            let left: Vec<_> = stored
                .image
                .rules
                .iter()
                .map(|&(slot, _)| AttributionKey {
                    attribution: attribution.id,
                    slot,
                })
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
        let Some(table) = self
            .shadow
            .tables
            .get(&id)
            .filter(|table| !table.dirty.is_empty())
        else {
            return Ok(());
        };
        let (mut back, mut gone) = (Vec::new(), Vec::new());
        for &identity in &table.dirty {
            let key = PeerKey {
                table: id,
                identity,
            };
            match table
                .peers
                .get(&identity)
                .map_or(PeerCell::ABSENT, |peer| peer.cell)
            {
                PeerCell::ABSENT => gone.push(key),
                cell => back.push((
                    key,
                    PeerValue {
                        key,
                        cell: Versioned {
                            old: cell,
                            new: cell,
                            ..Versioned::default()
                        },
                    },
                )),
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
    pub(super) fn commit(&mut self, plans: &[Plan]) -> Result<(), StoreError> {
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
                let key = PeerKey {
                    table: plan.table,
                    identity,
                };
                let mut added = false;
                let peer = table.peers.entry(identity).or_insert_with(|| {
                    added = true;
                    Peer::default()
                });
                self.shadow.peers += usize::from(added);
                table.dirty.insert(identity);
                let cell = Versioned {
                    old: peer.cell,
                    new,
                    from_revision: table.last + 1,
                    reserved: 0,
                };
                entries.push((key, PeerValue { key, cell }));
            }
        }
        self.operations += entries.len() as u64;
        if entries.is_empty() {
            Ok(())
        } else {
            self.store.put_peers(&entries)
        }
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
        let mut exchanged: Vec<(PeerCell, PeerCell)> =
            table.defaults.into_iter().zip(plan.defaults).collect();
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
}
