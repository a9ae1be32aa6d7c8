//! Peer tables: for one set of rule sets in one direction, identity → cell, with a default per scope. Who uses a table and when it is
//! compiled anew is the index's.
//!
//! ```text
//! rules (by rank) ─▶ compilation (which rules name whom, and what of it changed) ─▶ programs (joined, lowered) ─▶ pool
//!                        room (what one table's compilation remembers by list of rules)
//! ```

mod compilation;
mod programs;
mod room;
mod rules;

use rustc_hash::FxHashSet;
use sluice_abi::{
    Scope,
    policy::{PeerCell, PeerKey},
};
use sluice_world::Mode;

pub(crate) use self::{compilation::Compilation, room::Room};
use crate::{
    identity::{IdentityBook, IdentityIndex},
    pool::Pool,
    properties::NamedPort,
    registry::{Registry, SetId},
    rule::Direction,
    sets::Sets,
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
    pub(crate) entries: Entries,
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
            entries: Entries::default(),
            defaults: [PeerCell::ABSENT; Scope::COUNT],
            new: true,
        }
    }
}

/// One peer's entry.
#[derive(Clone, Copy, Debug)]
struct TableEntry {
    index: IdentityIndex,
    cell: PeerCell,
}

/// A table's entries, sorted by identity: there are millions, so they have no room for a hash map's empty slots, and a whole compile
/// makes them in order.
#[derive(Debug, Default)]
pub(crate) struct Entries(Vec<TableEntry>);

impl Entries {
    pub(crate) fn cells(&self) -> impl Iterator<Item = PeerCell> {
        self.0.iter().map(|entry| entry.cell)
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn remove(&mut self, index: IdentityIndex) -> Option<PeerCell> {
        let place = self.place(index).ok()?;
        Some(self.0.remove(place).cell)
    }

    fn get(&self, index: IdentityIndex) -> Option<PeerCell> {
        Some(self.0[self.place(index).ok()?].cell)
    }

    fn put(&mut self, entry: TableEntry) {
        match self.place(entry.index) {
            Ok(place) => self.0[place] = entry,
            Err(place) => self.0.insert(place, entry),
        }
    }

    fn place(&self, index: IdentityIndex) -> Result<usize, usize> {
        // The newest identity mostly has the greatest index.
        if self.0.last().is_none_or(|last| last.index < index) {
            return Err(self.0.len());
        }
        self.0.binary_search_by_key(&index, |entry| entry.index)
    }
}

/// What tables are compiled from.
pub(crate) struct Sources<'a> {
    pub(crate) mode: Mode,
    pub(crate) sets: &'a Sets,
    pub(crate) registry: &'a Registry,
    pub(crate) identities: &'a IdentityBook,
    /// Identities that stand for nodes as their own pods see them.
    pub(crate) hosts: &'a FxHashSet<IdentityIndex>,
    /// Identities no address had before this commit.
    pub(crate) made: &'a FxHashSet<IdentityIndex>,
}

/// Takes out entries of identities that are no more. Their keys are deleted after all addresses have moved on.
fn retire(
    table: &mut Table,
    pool: &mut Pool,
    identities: &IdentityBook,
    retired: &mut Vec<PeerKey>,
) {
    let id = table.id;
    table.entries.0.retain(|entry| {
        let brief = identities.brief(entry.index);
        if !brief.alive {
            pool.count(entry.cell, false);
            retired.push(PeerKey {
                table: id,
                identity: brief.number,
            });
        }
        brief.alive
    });
}
