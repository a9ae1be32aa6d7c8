//! Making the maps hold exactly a wanted state: only what differs is written.

use std::collections::{HashMap, HashSet};

use sluice_abi::policy::PeerCell;

use super::{Change, MapStore, Report, Snapshot, TableState, TableUpdate, WriteError, Writer};

impl<S: MapStore> Writer<S> {
    /// Makes the maps hold what `wanted` says and nothing else, whatever they hold now. Tables that are right already are not touched:
    /// their connections stay judged.
    ///
    /// # Errors
    /// As for [`Writer::apply`].
    pub fn sync(&mut self, wanted: &Snapshot) -> Result<Report, WriteError> {
        let change = self.difference(wanted);
        self.apply(&change)
    }

    fn difference(&self, wanted: &Snapshot) -> Change {
        let tables: HashSet<u32> = wanted.tables.iter().map(|table| table.table).collect();
        let programs: HashSet<u32> = wanted.programs.iter().map(|program| program.id).collect();
        let attributions: HashSet<u32> = wanted.attributions.iter().map(|one| one.id).collect();
        let known = self
            .shadow
            .tables
            .iter()
            .filter(|(_, table)| table.in_force);
        Change {
            programs: wanted.programs.clone(),
            attributions: wanted.attributions.clone(),
            tables: wanted
                .tables
                .iter()
                .filter_map(|table| self.table_difference(table))
                .collect(),
            release_tables: known
                .map(|(id, _)| *id)
                .filter(|id| !tables.contains(id))
                .collect(),
            release_programs: absent(self.shadow.programs.keys(), &programs),
            release_attributions: absent(self.shadow.attributions.keys(), &attributions),
        }
    }

    fn table_difference(&self, wanted: &TableState) -> Option<TableUpdate> {
        let whole = || TableUpdate {
            table: wanted.table,
            defaults: wanted.defaults,
            set: wanted.peers.clone(),
            remove: Vec::new(),
        };
        let Some(known) = self
            .shadow
            .tables
            .get(&wanted.table)
            .filter(|known| known.in_force)
        else {
            return Some(whole());
        };
        let cells: HashMap<_, _> = wanted.peers.iter().copied().collect();
        let mut update = whole();
        update.set.retain(|(identity, cell)| {
            known
                .peers
                .get(identity)
                .is_none_or(|peer| peer.cell != *cell)
        });
        update.remove = known
            .peers
            .iter()
            .filter(|(identity, peer)| {
                peer.cell != PeerCell::ABSENT && !cells.contains_key(identity)
            })
            .map(|(identity, _)| *identity)
            .collect();
        let same =
            update.set.is_empty() && update.remove.is_empty() && known.defaults == wanted.defaults;
        (!same).then_some(update)
    }
}

fn absent<'a>(known: impl Iterator<Item = &'a u32>, wanted: &HashSet<u32>) -> Vec<u32> {
    known.copied().filter(|id| !wanted.contains(id)).collect()
}
