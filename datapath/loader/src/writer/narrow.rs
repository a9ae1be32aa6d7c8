//! Taking access away where a change does not fit: what it would give is left out, what it would take drops.

use sluice_abi::policy::PeerCell;
use sluice_abi::{Identity, Scope};

use super::apply::{Parts, Plan};
use super::{MapStore, TableUpdate, Writer};

impl<S: MapStore> Writer<S> {
    /// Whether an update gives some peer less than it has.
    pub(super) fn takes_away(&self, update: &TableUpdate, parts: &Parts<'_>) -> bool {
        !self.narrowed(update, parts).is_empty()
    }

    /// The cells and defaults by which an update gives less, as a plan that blocks them and changes nothing else.
    fn narrowed(&self, update: &TableUpdate, parts: &Parts<'_>) -> Narrowed {
        let mut narrowed = Narrowed::default();
        let Some(table) = self
            .shadow
            .tables
            .get(&update.table)
            .filter(|table| table.in_force)
        else {
            return narrowed;
        };
        narrowed.defaults = table.defaults;
        for (at, (old, new)) in table.defaults.into_iter().zip(update.defaults).enumerate() {
            if self.gives_more(old, new, parts) {
                narrowed.defaults[at] = PeerCell::BLOCKED;
                narrowed.scopes += 1;
            }
        }
        let removals = update
            .remove
            .iter()
            .map(|&identity| (identity, update.defaults[identity.scope() as usize]));
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
            stored.or_else(|| {
                parts
                    .programs
                    .iter()
                    .copied()
                    .find(|program| program.id == id)
            })
        };
        match (image(old.program), image(new.program)) {
            (Some(old), Some(new)) => old.gives_more_than(new),
            // A program nobody knows gives nothing; what replaces it can't be told to give as much.
            _ => true,
        }
    }

    /// Takes away what the updates would take away, without what they would give: needs no program, no attribution, and elements only
    /// for peers that had none. Returns how many peers and scopes drop now.
    pub(super) fn fail_closed(&mut self, updates: &[&TableUpdate], parts: &Parts<'_>) -> usize {
        updates
            .iter()
            .map(|update| self.fail_table_closed(update, parts))
            .sum()
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
            self.commit(&[Plan {
                table: update.table,
                cells: narrowed.cells,
                defaults: narrowed.defaults,
            }])
        });
        if written.is_err() {
            self.close(update.table);
        }
        blocked
    }

    /// Where even the reserve is used up, the peers that have no element drop by their scope's default.
    fn shrink_to_room(&self, id: u32, narrowed: &mut Narrowed) {
        let Some(table) = self.shadow.tables.get(&id) else {
            return;
        };
        let new = narrowed
            .cells
            .iter()
            .filter(|(identity, _)| !table.peers.contains_key(identity))
            .count();
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
    pub(super) fn close(&mut self, id: u32) {
        if let Some(table) = self.shadow.tables.get_mut(&id) {
            table.in_force = false;
            let word = table.word();
            self.store.set_revision(id, word);
            self.operations += 1;
            self.shadow.unsettled.insert(id);
        }
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
