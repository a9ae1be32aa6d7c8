//! What is refused before anything is written.

use std::collections::HashSet;

use sluice_abi::policy::PeerCell;

use super::shadow::LAST_REVISION;
use super::{Change, MapStore, Refusal, TableUpdate, Writer};

impl<S: MapStore> Writer<S> {
    /// Refuses a change that makes no sense, whatever room there is.
    pub(super) fn validate(&self, change: &Change) -> Result<(), Refusal> {
        for program in &change.programs {
            program.check()?;
            if let Some(stored) = self.shadow.programs.get(&program.id)
                && (stored.whole || stored.uses > 0)
                && !stored.image.same(program)
            {
                return Err(Refusal::Changed {
                    kind: "program",
                    id: program.id,
                });
            }
        }
        for attribution in &change.attributions {
            attribution.check()?;
            if let Some(stored) = self.shadow.attributions.get(&attribution.id)
                && (stored.whole || stored.uses > 0)
                && !stored.image.same(attribution)
            {
                return Err(Refusal::Changed {
                    kind: "attribution",
                    id: attribution.id,
                });
            }
        }
        let programs: HashSet<u32> = change.programs.iter().map(|program| program.id).collect();
        let attributions: HashSet<u32> = change.attributions.iter().map(|one| one.id).collect();
        let mut tables = HashSet::new();
        for update in &change.tables {
            if update.table == 0 {
                return Err(Refusal::Zero { kind: "table" });
            }
            if !tables.insert(update.table) {
                return Err(Refusal::Twice(update.table));
            }
            self.validate_table(update, &programs, &attributions)?;
        }
        Ok(())
    }

    fn validate_table(
        &self,
        update: &TableUpdate,
        programs: &HashSet<u32>,
        attributions: &HashSet<u32>,
    ) -> Result<(), Refusal> {
        let table = update.table;
        if update.defaults.contains(&PeerCell::ABSENT) {
            return Err(Refusal::NoDefault(table));
        }
        let mut seen = HashSet::new();
        let peers = update
            .set
            .iter()
            .map(|(identity, _)| identity)
            .chain(&update.remove);
        for identity in peers {
            if !seen.insert(identity) {
                return Err(Refusal::Twice(table));
            }
        }
        if self
            .shadow
            .tables
            .get(&table)
            .is_some_and(|known| known.last >= LAST_REVISION)
        {
            return Err(Refusal::RevisionsUsedUp(table));
        }
        for cell in update
            .set
            .iter()
            .map(|(_, cell)| cell)
            .chain(&update.defaults)
        {
            let stored = self
                .shadow
                .programs
                .get(&cell.program)
                .is_some_and(|p| p.whole);
            if !stored && !programs.contains(&cell.program) {
                return Err(Refusal::Missing {
                    table,
                    kind: "program",
                    id: cell.program,
                });
            }
            let stored = self
                .shadow
                .attributions
                .get(&cell.attribution)
                .is_some_and(|a| a.whole);
            let needed = cell.attribution != 0 && !PeerCell::is_direct(cell.attribution);
            if needed && !stored && !attributions.contains(&cell.attribution) {
                return Err(Refusal::Missing {
                    table,
                    kind: "attribution",
                    id: cell.attribution,
                });
            }
        }
        Ok(())
    }
}
