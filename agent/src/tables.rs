//! The compiler's deltas as changes of the kernel's tables: grouped as the writer wants them, with the kernel's ids, and a copy of all
//! that should be in force, for when a change failed. Writing may not enter.

use std::collections::{BTreeSet, HashMap};

use sluice_abi::{
    Cookie, Identity, Scope,
    policy::PeerCell,
    program::{Cell, Program, RangeKey},
};
use sluice_datapath::writer::{
    AttributionImage, Change, Freed, ProgramImage, Snapshot, TableState, TableUpdate,
};
use sluice_policy::{Delta, TableDelta};

use crate::ids::Ids;

/// What a delta means for the tables: what comes before addresses and endpoints move, and what goes after.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// To be put in force first.
    pub(crate) come: Change,
    /// To be put in force last.
    pub(crate) go: Change,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    ids: Ids,
    programs: Ids,
    attributions: Ids,
    wanted: Wanted,
}

/// All that should be in force, by the kernel's ids.
#[derive(Debug, Default)]
struct Wanted {
    programs: HashMap<u32, ProgramImage>,
    attributions: HashMap<u32, AttributionImage>,
    tables: HashMap<u32, WantedTable>,
}

#[derive(Debug, Default)]
struct WantedTable {
    defaults: [PeerCell; Scope::COUNT],
    peers: HashMap<Identity, PeerCell>,
}

impl Tables {
    /// Knows what the kernel holds of an earlier process: it goes with [`Tables::forget_all`].
    pub(crate) fn reserve(&mut self, tables: Vec<u32>, programs: Vec<u32>, attributions: Vec<u32>) {
        self.ids.reserve(tables);
        self.programs.reserve(programs);
        self.attributions.reserve(attributions);
    }

    /// The kernel's id of a table that is in use.
    pub(crate) fn table(&self, id: u32) -> Option<u32> {
        self.ids.get(id)
    }

    /// Turns a delta into changes.
    pub(crate) fn stage(&mut self, delta: &Delta) -> Staged {
        let come = Change {
            programs: self.new_programs(delta),
            attributions: self.new_attributions(delta),
            tables: delta
                .tables
                .iter()
                .map(|table| self.update(table))
                .collect(),
            ..Change::default()
        };
        Staged {
            come,
            go: self.going(delta),
        }
    }

    /// A change that takes out all that is in force: for a new world, or after an earlier process, once the new is there.
    pub(crate) fn forget_all(&mut self) -> Change {
        self.wanted = Wanted::default();
        Change {
            release_tables: self.ids.forget_all(),
            release_programs: self.programs.forget_all(),
            release_attributions: self.attributions.forget_all(),
            ..Change::default()
        }
    }

    /// Ids that the kernel does not use any more.
    pub(crate) fn free(&mut self, freed: &Freed) {
        self.ids.free(&freed.tables);
        self.programs.free(&freed.programs);
        self.attributions.free(&freed.attributions);
    }

    /// All that should be in force.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let table = |(id, table): (&u32, &WantedTable)| TableState {
            table: *id,
            defaults: table.defaults,
            peers: table
                .peers
                .iter()
                .map(|(identity, cell)| (*identity, *cell))
                .collect(),
        };
        Snapshot {
            programs: self.wanted.programs.values().cloned().collect(),
            attributions: self.wanted.attributions.values().cloned().collect(),
            tables: self.wanted.tables.iter().map(table).collect(),
        }
    }

    fn new_programs(&mut self, delta: &Delta) -> Vec<ProgramImage> {
        let mut ranges: HashMap<u32, Vec<(RangeKey, Cell)>> = HashMap::new();
        for (key, cell) in &delta.ranges {
            ranges.entry(key.program).or_default().push((*key, *cell));
        }
        let image = |(id, inline): &(u32, Program)| {
            let kernel = self.programs.acquire(*id);
            let mut ranges = ranges.remove(id).unwrap_or_default();
            for (key, _) in &mut ranges {
                key.program = kernel;
            }
            ProgramImage {
                id: kernel,
                inline: *inline,
                ranges,
            }
        };
        let images: Vec<ProgramImage> = delta.programs.iter().map(image).collect();
        self.wanted
            .programs
            .extend(images.iter().map(|image| (image.id, image.clone())));
        images
    }

    fn new_attributions(&mut self, delta: &Delta) -> Vec<AttributionImage> {
        let mut rules: HashMap<u32, Vec<(u32, Cookie)>> = HashMap::new();
        for (key, cookie) in &delta.attributions {
            rules
                .entry(key.attribution)
                .or_default()
                .push((key.slot, *cookie));
        }
        let images: Vec<AttributionImage> = rules
            .into_iter()
            .map(|(id, rules)| AttributionImage {
                id: self.attributions.acquire(id),
                rules,
            })
            .collect();
        self.wanted
            .attributions
            .extend(images.iter().map(|image| (image.id, image.clone())));
        images
    }

    fn update(&mut self, delta: &TableDelta) -> TableUpdate {
        let id = self.ids.acquire(delta.id);
        let set: Vec<(Identity, PeerCell)> = delta
            .set
            .iter()
            .map(|(identity, cell)| (*identity, self.cell(*cell)))
            .collect();
        let defaults = delta
            .defaults
            .map(|cells| cells.map(|cell| self.cell(cell)));
        let wanted = self.wanted.tables.entry(id).or_default();
        wanted.defaults = defaults.unwrap_or(wanted.defaults);
        wanted.peers.extend(set.iter().copied());
        for identity in &delta.removed {
            wanted.peers.remove(identity);
        }
        TableUpdate {
            table: id,
            defaults: wanted.defaults,
            set,
            remove: delta.removed.clone(),
        }
    }

    fn cell(&self, cell: PeerCell) -> PeerCell {
        PeerCell {
            // An id the compiler never gave out can't be found in the kernel either: the peer drops as not ready.
            program: self.programs.get(cell.program).unwrap_or(0),
            attribution: if PeerCell::is_direct(cell.attribution) {
                cell.attribution
            } else {
                self.attributions.get(cell.attribution).unwrap_or(0)
            },
        }
    }

    /// What a delta takes out at its end.
    fn going(&mut self, delta: &Delta) -> Change {
        let mut retired: HashMap<u32, Vec<Identity>> = HashMap::new();
        for key in &delta.retired_peers {
            if let Some(table) = self.ids.get(key.table) {
                retired.entry(table).or_default().push(key.identity);
            }
        }
        let release_tables: Vec<u32> = delta
            .dropped_tables
            .iter()
            .filter_map(|id| self.ids.drop(*id))
            .collect();
        for table in &release_tables {
            self.wanted.tables.remove(table);
            retired.remove(table);
        }
        let update = |(id, remove): (u32, Vec<Identity>)| {
            let wanted = self.wanted.tables.entry(id).or_default();
            for identity in &remove {
                wanted.peers.remove(identity);
            }
            TableUpdate {
                table: id,
                defaults: wanted.defaults,
                set: Vec::new(),
                remove,
            }
        };
        let tables = retired.into_iter().map(update).collect();
        let release_programs: Vec<u32> = delta
            .dropped_programs
            .iter()
            .filter_map(|id| self.programs.drop(*id))
            .collect();
        let gone: BTreeSet<u32> = delta
            .dropped_attributions
            .iter()
            .map(|key| key.attribution)
            .collect();
        let release_attributions: Vec<u32> = gone
            .into_iter()
            .filter_map(|id| self.attributions.drop(id))
            .collect();
        for id in &release_programs {
            self.wanted.programs.remove(id);
        }
        for id in &release_attributions {
            self.wanted.attributions.remove(id);
        }
        Change {
            tables,
            release_tables,
            release_programs,
            release_attributions,
            ..Change::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_abi::policy::{AttributionKey, PeerKey};

    use super::*;

    fn cell(program: u32, attribution: u32) -> PeerCell {
        PeerCell {
            program,
            attribution,
        }
    }

    fn first() -> Delta {
        Delta {
            programs: vec![(1, Program::default())],
            ranges: vec![(RangeKey::point(1, 6, 80), Cell::default())],
            attributions: vec![(
                AttributionKey {
                    attribution: 1,
                    slot: 2,
                },
                Cookie(1024),
            )],
            tables: vec![TableDelta {
                id: 1,
                new: true,
                defaults: Some([cell(1, 0); Scope::COUNT]),
                set: vec![(Identity(300), cell(1, 1))],
                ..TableDelta::default()
            }],
            ..Delta::default()
        }
    }

    #[test]
    fn every_reference_follows_its_id() {
        let mut tables = Tables::default();
        tables.reserve(vec![1], vec![1, 2], vec![1, 2, 3]);
        let come = tables.stage(&first()).come;
        assert_eq!(
            (come.programs[0].id, come.programs[0].ranges[0].0.program),
            (3, 3)
        );
        assert_eq!(
            come.attributions,
            [AttributionImage {
                id: 4,
                rules: vec![(2, Cookie(1024))]
            }]
        );
        assert_eq!(come.tables[0].table, 2);
        assert_eq!(come.tables[0].set, [(Identity(300), cell(3, 4))]);
        assert_eq!(come.tables[0].defaults, [cell(3, 0); Scope::COUNT]);
        assert_eq!(tables.table(1), Some(2));
    }

    #[test]
    fn defaults_stay_where_a_delta_does_not_mention_them() {
        let mut tables = Tables::default();
        tables.stage(&first());
        let second = Delta {
            tables: vec![TableDelta {
                id: 1,
                removed: vec![Identity(300)],
                ..TableDelta::default()
            }],
            ..Delta::default()
        };
        let update = &tables.stage(&second).come.tables[0];
        assert_eq!(update.defaults, [cell(1, 0); Scope::COUNT]);
        assert_eq!(update.remove, [Identity(300)]);
        assert!(tables.snapshot().tables[0].peers.is_empty());
    }

    #[test]
    fn what_goes_leaves_the_copy_too() {
        let mut tables = Tables::default();
        tables.stage(&first());
        let last = Delta {
            retired_peers: vec![PeerKey {
                table: 1,
                identity: Identity(300),
            }],
            dropped_tables: vec![1],
            dropped_programs: vec![1],
            dropped_attributions: vec![AttributionKey {
                attribution: 1,
                slot: 2,
            }],
            ..Delta::default()
        };
        let go = tables.stage(&last).go;
        assert_eq!(
            (
                go.release_tables,
                go.release_programs,
                go.release_attributions
            ),
            (vec![1], vec![1], vec![1])
        );
        assert!(
            go.tables.is_empty(),
            "a table that goes needs no change before"
        );
        assert_eq!(tables.snapshot(), Snapshot::default());
    }

    #[test]
    fn forgetting_releases_all_that_the_kernel_holds() {
        let mut tables = Tables::default();
        tables.reserve(vec![7], vec![], vec![]);
        tables.stage(&first());
        let change = tables.forget_all();
        assert_eq!(change.release_tables, [1, 7]);
        assert_eq!(tables.snapshot(), Snapshot::default());
    }
}
