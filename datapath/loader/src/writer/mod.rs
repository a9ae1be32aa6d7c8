//! The policy tables' writer: turns a change into map writes such that every reader, at every moment, sees a table as it was or as it
//! will be, never a mix; and such that a change that does not fit leaves the last complete table, or less access, but never more.
//!
//! ```text
//! Change ─validate─▶ plan (what differs from the shadow) ─fits?─▶ programs, ranges, attributions
//!                                                                 ─▶ peers as (old, new, from revision + 1)
//!                                                                 ─▶ defaults of revision + 1's parity
//!                                                                 ─▶ revision + 1          the change is in force
//! settle: a grace period ─▶ superseded entries, programs and attributions are removed, their ids are free
//! ```
//!
//! One thing is easily missed: an entry has room for two states. A table may therefore change again only after a grace period, when
//! nobody reads by the revision before the last; [`Writer::apply`] waits for it where a table changes twice in a row, and whoever
//! calls [`Writer::settle`] between changes never waits.
//!
//! Packets, policy and where the ids come from may not enter.

mod apply;
mod error;
mod image;
mod kernel;
mod narrow;
mod put;
mod settle;
mod shadow;
mod store;
mod sync;
mod validate;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use error::{Full, Refusal, TableFull, WriteError};
pub use image::{AttributionImage, ProgramImage};
pub use kernel::KernelStore;
pub use store::{Capacities, Dump, MapStore, StoreError};

use sluice_abi::policy::PeerCell;
use sluice_abi::{Identity, Scope};

use shadow::Shadow;

/// What is to become of one table. What is not mentioned stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableUpdate {
    /// Table id.
    pub table: u32,
    /// The defaults after the change, by [`Scope`].
    pub defaults: [PeerCell; Scope::COUNT],
    /// Peers that get this cell of their own.
    pub set: Vec<(Identity, PeerCell)>,
    /// Peers that fall back to the default.
    pub remove: Vec<Identity>,
}

/// A change of any number of tables, each of which changes in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Programs that the tables use and that may not be there yet. An id's content never changes while it is in use.
    pub programs: Vec<ProgramImage>,
    /// Attributions likewise.
    pub attributions: Vec<AttributionImage>,
    /// Tables that appear or change.
    pub tables: Vec<TableUpdate>,
    /// Tables that no endpoint uses any more.
    pub release_tables: Vec<u32>,
    /// Programs that are to go when no table uses them.
    pub release_programs: Vec<u32>,
    /// Attributions that are to go when no table uses them.
    pub release_attributions: Vec<u32>,
}

/// One table, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// Table id.
    pub table: u32,
    /// The defaults, by [`Scope`].
    pub defaults: [PeerCell; Scope::COUNT],
    /// Every peer with a cell of its own.
    pub peers: Vec<(Identity, PeerCell)>,
}

/// Everything that the tables are to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every program.
    pub programs: Vec<ProgramImage>,
    /// Every attribution.
    pub attributions: Vec<AttributionImage>,
    /// Every table.
    pub tables: Vec<TableState>,
}

/// What a change took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Elements written, removed or stored, over all maps.
    pub operations: u64,
    /// Tables in force anew, with their revisions.
    pub revisions: Vec<(u32, u32)>,
}

/// Ids that may be given out again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Program ids.
    pub programs: Vec<u32>,
    /// Attribution ids.
    pub attributions: Vec<u32>,
    /// Table ids.
    pub tables: Vec<u32>,
    /// Elements written or removed, over all maps.
    pub operations: u64,
}

/// How much of the maps is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tables in force.
    pub tables: usize,
    /// Elements of the peers map.
    pub peers: usize,
    /// Programs.
    pub programs: usize,
    /// Elements of the trie of long programs.
    pub ranges: usize,
    /// Elements of the attributions map.
    pub attributions: usize,
}

/// The one writer of the tables in a store. Two at once would undo each other's bookkeeping; the caller sees to it that there is one.
#[derive(Debug)]
pub struct Writer<S> {
    store: S,
    shadow: Shadow,
    operations: u64,
    /// Ids that became free while a change waited for its tables to settle; told at the next [`Writer::settle`].
    freed: Freed,
}

impl<S: MapStore> Writer<S> {
    /// Takes over a store: reads what is there, so that a restarted process goes on where the one before it ended, or was killed.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn open(store: S) -> Result<Self, WriteError> {
        let shadow = Shadow::of(&store.dump()?);
        Ok(Self {
            store,
            shadow,
            operations: 0,
            freed: Freed::default(),
        })
    }

    /// How much of the maps is in use.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shadow.usage()
    }

    /// A table's revision; 0 where it is not in force.
    #[must_use]
    pub fn revision(&self, table: u32) -> u32 {
        self.shadow
            .tables
            .get(&table)
            .map_or(0, shadow::Table::current)
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The store, for its other uses; its policy maps are the writer's alone.
    #[must_use]
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }
}
