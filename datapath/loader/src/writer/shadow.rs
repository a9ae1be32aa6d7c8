//! What the writer knows the maps to hold: the state in force, what is written but not in force, and what is to be removed. Writing may
//! not enter here.

use std::collections::{BTreeSet, HashMap, HashSet};

use sluice_abi::policy::{AttributionKey, PeerCell, TableDefaults};
use sluice_abi::program::Program;
use sluice_abi::{Identity, Scope};

use super::{AttributionImage, Dump, ProgramImage, Usage};

/// Revisions end here: the bit above is [`Table::word`]'s.
pub(super) const LAST_REVISION: u32 = u32::MAX >> 1;

/// Everything known of the maps.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    pub(super) tables: HashMap<u32, Table>,
    pub(super) programs: HashMap<u32, Stored<ProgramImage>>,
    pub(super) attributions: HashMap<u32, Stored<AttributionImage>>,
    /// Tables that changed since the last grace period.
    pub(super) unsettled: BTreeSet<u32>,
    /// Elements of the peers map; of the trie; of the attributions map.
    pub(super) peers: usize,
    pub(super) ranges: usize,
    pub(super) rules: usize,
}

/// A program or attribution in the maps.
#[derive(Debug)]
pub(super) struct Stored<T> {
    pub(super) image: T,
    /// Whether every write of it succeeded.
    pub(super) whole: bool,
    /// Whether it is to go when nothing uses it.
    pub(super) released: bool,
    /// How many cells in force name it.
    pub(super) uses: usize,
}

/// One table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The highest revision this id ever had, below [`LAST_REVISION`]. It never falls, also where the id is given to another table: connections remember
    /// verdicts by (table id, revision).
    pub(super) last: u32,
    /// Whether packets are judged by it.
    pub(super) in_force: bool,
    /// Whether it is to be removed.
    pub(super) released: bool,
    pub(super) defaults: [PeerCell; Scope::COUNT],
    /// The array's element, or `None` if a write of it failed and it may be either.
    pub(super) written_defaults: Option<TableDefaults>,
    /// Every key that the map may hold.
    pub(super) peers: HashMap<Identity, Peer>,
    /// Keys whose element holds a state that is not to come into force.
    pub(super) dirty: HashSet<Identity>,
}

/// One key of the peers map.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    /// The cell in force; absent for an element that is to be removed.
    pub(super) cell: PeerCell,
}

impl<T> Stored<T> {
    pub(super) fn new(image: T) -> Self {
        Self {
            image,
            whole: true,
            released: false,
            uses: 0,
        }
    }
}

impl Table {
    /// The revision by which packets are judged; 0 for none.
    pub(super) fn current(&self) -> u32 {
        if self.in_force { self.last } else { 0 }
    }

    /// The word of the revisions array. Readers see the low half; the high half remembers, where that is 0, the last revision and whether
    /// the table is to be removed or only closed.
    pub(super) fn word(&self) -> u64 {
        u64::from(self.released) << 63 | u64::from(self.last) << 32 | u64::from(self.current())
    }

    /// What holds for a peer.
    pub(super) fn effective(&self, identity: Identity) -> PeerCell {
        match self.peers.get(&identity) {
            Some(peer) if peer.cell != PeerCell::ABSENT => peer.cell,
            _ => self.defaults[identity.scope() as usize],
        }
    }
}

impl Shadow {
    /// What a dump shows.
    pub(super) fn of(dump: &Dump) -> Self {
        let mut shadow = Self::default();
        for &(table, word) in &dump.revisions {
            let (high, current) = halves(word);
            let table = shadow.tables.entry(table).or_default();
            table.last = high & LAST_REVISION;
            table.in_force = current != 0;
            table.released = high > LAST_REVISION;
        }
        for &(id, defaults) in &dump.defaults {
            if let Some(table) = shadow.tables.get_mut(&id)
                && !table.released
            {
                table.written_defaults = Some(defaults);
                table.defaults = Scope::ALL.map(|scope| defaults.at(scope, table.last));
            }
        }
        for (key, value) in &dump.peers {
            // Of a table that a killed process was loading for the first time nothing holds at revision 0; of one that it was removing
            // nothing is to hold any more.
            let table = shadow.tables.entry(key.table).or_default();
            let cell = if table.released {
                PeerCell::ABSENT
            } else {
                value.cell.at(table.last)
            };
            if value.cell.from_revision > table.last {
                table.dirty.insert(key.identity);
            }
            table.peers.insert(key.identity, Peer { cell });
            shadow.peers += 1;
        }
        let mut ranges: HashMap<u32, Vec<_>> = HashMap::new();
        for &(key, cell) in &dump.ranges {
            ranges.entry(key.program).or_default().push((key, cell));
        }
        for &(id, inline) in &dump.programs {
            let ranges = ranges.remove(&id).unwrap_or_default();
            shadow.add_program(ProgramImage { id, inline, ranges });
        }
        // Ranges whose program was never written, or is removed already: they go at the next settling.
        for (id, ranges) in ranges {
            shadow.add_program(ProgramImage {
                id,
                inline: Program::default(),
                ranges,
            });
            if let Some(stored) = shadow.programs.get_mut(&id) {
                stored.whole = false;
                stored.released = true;
            }
        }
        let mut rules: HashMap<u32, Vec<_>> = HashMap::new();
        for &(AttributionKey { attribution, slot }, cookie) in &dump.attributions {
            rules.entry(attribution).or_default().push((slot, cookie));
        }
        for (id, rules) in rules {
            shadow.add_attribution(AttributionImage { id, rules });
        }
        let cells: Vec<PeerCell> = shadow.tables.values().flat_map(Table::cells).collect();
        for cell in cells {
            shadow.count_use(cell, true);
        }
        shadow.release_unknown();
        for table in shadow.tables.values_mut() {
            // One that was removed whole has nothing left to remove.
            table.released &= !table.peers.is_empty();
        }
        // Nobody knows when the process before this one raised a revision.
        shadow.unsettled = shadow.tables.keys().copied().collect();
        shadow
    }

    pub(super) fn add_program(&mut self, image: ProgramImage) {
        self.ranges += image.ranges.len();
        self.programs.insert(image.id, Stored::new(image));
    }

    pub(super) fn add_attribution(&mut self, image: AttributionImage) {
        self.rules += image.rules.len();
        self.attributions.insert(image.id, Stored::new(image));
    }

    /// Counts a cell that comes into force or ceases to be.
    pub(super) fn count_use(&mut self, cell: PeerCell, more: bool) {
        let step = |uses: &mut usize| {
            *uses = if more {
                *uses + 1
            } else {
                uses.saturating_sub(1)
            }
        };
        if let Some(program) = self.programs.get_mut(&cell.program) {
            step(&mut program.uses);
        }
        if let Some(attribution) = self.attributions.get_mut(&cell.attribution) {
            step(&mut attribution.uses);
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            tables: self.tables.values().filter(|table| table.in_force).count(),
            peers: self.peers,
            programs: self.programs.len(),
            ranges: self.ranges,
            attributions: self.rules,
        }
    }

    /// A program or attribution of a killed process that may be written in part only is not trusted to be whole: unless a table in force
    /// uses it, it is written again by whoever needs it.
    fn release_unknown(&mut self) {
        for program in self.programs.values_mut() {
            program.whole = program.whole && program.uses > 0;
        }
        for attribution in self.attributions.values_mut() {
            attribution.whole = attribution.uses > 0;
        }
    }
}

impl Table {
    /// Every cell in force, or in force again when a closed table opens.
    pub(super) fn cells(&self) -> Vec<PeerCell> {
        let own = self.peers.values().map(|peer| peer.cell);
        own.chain(self.defaults).collect()
    }
}

const fn halves(word: u64) -> (u32, u32) {
    let low = word & 0xffff_ffff;
    #[allow(clippy::cast_possible_truncation)] // both are below 2³²
    ((word >> 32) as u32, low as u32)
}
