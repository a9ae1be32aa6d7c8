//! What happens after the readers of the last state are gone: superseded elements are removed, ids become free.

use sluice_abi::policy::{AttributionKey, PeerCell, PeerKey, TableDefaults};
use sluice_abi::program::Program;

use super::shadow::Table;
use super::{Freed, MapStore, StoreError, WriteError, Writer};

impl<S: MapStore> Writer<S> {
    /// Waits for a grace period if anything changed, then removes what no reader can see any more. Best called after each change, when
    /// nobody waits for it. Returns the ids that are free again.
    ///
    /// # Errors
    /// A map call failed; what is left is removed by a later call.
    pub fn settle(&mut self) -> Result<Freed, WriteError> {
        self.operations = 0;
        self.settle_now()?;
        let mut freed = std::mem::take(&mut self.freed);
        freed.operations = self.operations;
        Ok(freed)
    }

    pub(super) fn settle_now(&mut self) -> Result<(), StoreError> {
        if !self.shadow.unsettled.is_empty() {
            self.store.grace_period()?;
        }
        self.restore_all()?;
        if !self.shadow.unsettled.is_empty() {
            self.remove_superseded()?;
            self.level_defaults()?;
            self.forget_released_tables();
            self.shadow.unsettled.clear();
        }
        self.remove_programs()?;
        self.remove_attributions()
    }

    /// What failed changes left in tables that nobody changed since.
    fn restore_all(&mut self) -> Result<(), StoreError> {
        let dirty = self
            .shadow
            .tables
            .iter()
            .filter(|(_, table)| !table.dirty.is_empty());
        let dirty: Vec<u32> = dirty.map(|(id, _)| *id).collect();
        dirty.into_iter().try_for_each(|id| self.restore(id))
    }

    /// Elements whose state in force is "absent".
    fn remove_superseded(&mut self) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        for id in &self.shadow.unsettled {
            let Some(table) = self.shadow.tables.get(id) else {
                continue;
            };
            let gone = table
                .peers
                .iter()
                .filter(|(_, peer)| peer.cell == PeerCell::ABSENT);
            keys.extend(gone.map(|(&identity, _)| PeerKey {
                table: *id,
                identity,
            }));
        }
        if keys.is_empty() {
            return Ok(());
        }
        self.operations += keys.len() as u64;
        self.store.remove_peers(&keys)?;
        for key in &keys {
            if let Some(table) = self.shadow.tables.get_mut(&key.table) {
                table.peers.remove(&key.identity);
                table.dirty.remove(&key.identity);
            }
        }
        self.shadow.peers -= keys.len();
        Ok(())
    }

    /// Makes both parities of the defaults equal, so that a change of peers alone need not write them.
    fn level_defaults(&mut self) -> Result<(), StoreError> {
        let mut writes = Vec::new();
        for id in &self.shadow.unsettled {
            let Some(table) = self.shadow.tables.get_mut(id) else {
                continue;
            };
            let level = TableDefaults::constant(table.defaults);
            if table.in_force && table.written_defaults != Some(level) {
                table.written_defaults = None;
                writes.push((*id, level));
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.operations += writes.len() as u64;
        self.store.put_defaults(&writes)?;
        for (id, level) in writes {
            if let Some(table) = self.shadow.tables.get_mut(&id) {
                table.written_defaults = Some(level);
            }
        }
        Ok(())
    }

    fn forget_released_tables(&mut self) {
        for id in &self.shadow.unsettled {
            let Some(table) = self.shadow.tables.get_mut(id) else {
                continue;
            };
            if table.released {
                *table = Table {
                    last: table.last,
                    ..Table::default()
                };
                self.freed.tables.push(*id);
            }
        }
    }

    fn remove_programs(&mut self) -> Result<(), StoreError> {
        let unused = self
            .shadow
            .programs
            .values()
            .filter(|p| p.released && p.uses == 0);
        let ids: Vec<u32> = unused.clone().map(|p| p.image.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let ranges: Vec<_> = unused
            .flat_map(|p| p.image.ranges.iter().map(|(key, _)| *key))
            .collect();
        let cleared: Vec<_> = ids.iter().map(|&id| (id, Program::default())).collect();
        self.operations += (cleared.len() + ranges.len()) as u64;
        self.store.put_programs(&cleared)?;
        if !ranges.is_empty() {
            self.store.remove_ranges(&ranges)?;
        }
        self.shadow.ranges -= ranges.len();
        for id in &ids {
            self.shadow.programs.remove(id);
        }
        self.freed.programs.extend(ids);
        Ok(())
    }

    fn remove_attributions(&mut self) -> Result<(), StoreError> {
        let unused = self
            .shadow
            .attributions
            .values()
            .filter(|a| a.released && a.uses == 0);
        let ids: Vec<u32> = unused.clone().map(|a| a.image.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = unused
            .flat_map(|a| {
                a.image.rules.iter().map(|&(slot, _)| AttributionKey {
                    attribution: a.image.id,
                    slot,
                })
            })
            .collect();
        if !keys.is_empty() {
            self.operations += keys.len() as u64;
            self.store.remove_attributions(&keys)?;
        }
        self.shadow.rules -= keys.len();
        for id in &ids {
            self.shadow.attributions.remove(id);
        }
        self.freed.attributions.extend(ids);
        Ok(())
    }
}
