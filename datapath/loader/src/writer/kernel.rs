//! The kernel's maps as the writer's store.

use std::os::fd::OwnedFd;

use sluice_abi::policy::{AttributionKey, PeerKey, PeerValue, TableDefaults};
use sluice_abi::program::{Cell, Program, RangeKey};
use sluice_abi::{Cookie, maps};

use super::{Capacities, Dump, MapStore, StoreError};
use crate::sys::{GracePeriod, Map, MappedWords, SysError};

/// The maps of the policy tables.
#[derive(Debug)]
pub struct KernelStore {
    revisions: MappedWords,
    defaults: Map<u32, TableDefaults>,
    peers: Map<PeerKey, PeerValue>,
    programs: Map<u32, Program>,
    ranges: Map<RangeKey, Cell>,
    attributions: Map<AttributionKey, Cookie>,
    grace: GracePeriod,
}

impl KernelStore {
    /// Takes the maps; `fd` gives the descriptor of a map by its name.
    ///
    /// # Errors
    /// A map is missing or of another layout.
    pub fn new(mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>) -> Result<Self, SysError> {
        let revisions = Map::new(maps::TABLE_REVISIONS.name, fd(maps::TABLE_REVISIONS.name)?)?;
        Ok(Self {
            revisions: MappedWords::new(maps::TABLE_REVISIONS.name, &revisions)?,
            defaults: Map::new(maps::TABLE_DEFAULTS.name, fd(maps::TABLE_DEFAULTS.name)?)?,
            peers: Map::new(maps::PEERS.name, fd(maps::PEERS.name)?)?,
            programs: Map::new(maps::PROGRAMS.name, fd(maps::PROGRAMS.name)?)?,
            ranges: Map::new(maps::PROGRAM_RANGES.name, fd(maps::PROGRAM_RANGES.name)?)?,
            attributions: Map::new(maps::ATTRIBUTIONS.name, fd(maps::ATTRIBUTIONS.name)?)?,
            grace: GracePeriod::new()?,
        })
    }
}

impl MapStore for KernelStore {
    fn capacities(&self) -> Capacities {
        Capacities {
            tables: self.revisions.len().min(self.defaults.capacity()),
            peers: self.peers.capacity(),
            programs: self.programs.capacity(),
            ranges: self.ranges.capacity(),
            attributions: self.attributions.capacity(),
        }
    }

    fn dump(&self) -> Result<Dump, StoreError> {
        let revisions: Vec<_> = (0..self.revisions.len())
            .map(|table| (table, self.revisions.load(table)))
            .filter(|(_, word)| *word != 0)
            .collect();
        let mut defaults = Vec::new();
        for (table, _) in &revisions {
            if let Some(value) = self.defaults.get(table)? {
                defaults.push((*table, value));
            }
        }
        let present = |(_, program): &(u32, Program)| program.flags & Program::PRESENT != 0;
        Ok(Dump {
            defaults,
            revisions,
            peers: self.peers.entries()?,
            programs: self
                .programs
                .entries()?
                .into_iter()
                .filter(present)
                .collect(),
            ranges: self.ranges.entries()?,
            attributions: self.attributions.entries()?,
        })
    }

    fn put_programs(&mut self, entries: &[(u32, Program)]) -> Result<(), StoreError> {
        Ok(self.programs.put_all(entries)?)
    }

    fn put_ranges(&mut self, entries: &[(RangeKey, Cell)]) -> Result<(), StoreError> {
        Ok(self.ranges.put_all(entries)?)
    }

    fn remove_ranges(&mut self, keys: &[RangeKey]) -> Result<(), StoreError> {
        Ok(self.ranges.remove_all(keys)?)
    }

    fn put_attributions(&mut self, entries: &[(AttributionKey, Cookie)]) -> Result<(), StoreError> {
        Ok(self.attributions.put_all(entries)?)
    }

    fn remove_attributions(&mut self, keys: &[AttributionKey]) -> Result<(), StoreError> {
        Ok(self.attributions.remove_all(keys)?)
    }

    fn put_peers(&mut self, entries: &[(PeerKey, PeerValue)]) -> Result<(), StoreError> {
        Ok(self.peers.put_all(entries)?)
    }

    fn remove_peers(&mut self, keys: &[PeerKey]) -> Result<(), StoreError> {
        Ok(self.peers.remove_all(keys)?)
    }

    fn put_defaults(&mut self, entries: &[(u32, TableDefaults)]) -> Result<(), StoreError> {
        Ok(self.defaults.put_all(entries)?)
    }

    fn set_revision(&mut self, table: u32, word: u64) {
        let within = self.revisions.store(table, word);
        debug_assert!(within, "the table id was checked against the capacity");
    }

    fn grace_period(&mut self) -> Result<(), StoreError> {
        Ok(self.grace.wait()?)
    }
}
