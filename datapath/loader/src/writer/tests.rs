//! The writer against the fake maps: whatever fails, and wherever, readers see a table before or after its change.

use std::collections::BTreeMap;

use sluice_abi::policy::PeerCell;
use sluice_abi::program::{Cell, PortRange, Program, RangeKey, Verdict};
use sluice_abi::{Cookie, Identity, Scope};

use super::fake::{Fake, UNIVERSE};
use super::{
    AttributionImage, Capacities, Change, Freed, ProgramImage, Refusal, Snapshot, TableState,
    TableUpdate, WriteError, Writer,
};

const ROOMY: Capacities = Capacities {
    tables: 8,
    peers: 1000,
    programs: 64,
    ranges: 1000,
    attributions: 1000,
};
const ALLOW: PeerCell = PeerCell {
    program: 1,
    attribution: 1,
};
const DENY: PeerCell = PeerCell {
    program: 2,
    attribution: 1,
};
const WEB: PeerCell = PeerCell {
    program: 3,
    attribution: 2,
};
const LONG: PeerCell = PeerCell {
    program: 4,
    attribution: 3,
};

fn cell(verdict: Verdict, slot: u16) -> Cell {
    Cell {
        verdict: verdict as u8,
        slot,
        ..Cell::default()
    }
}

/// Allow all, deny all, allow TCP 80 to 90, and the same but for 85 and more in the trie.
fn program(id: u32) -> ProgramImage {
    let mut inline = Program {
        flags: Program::PRESENT,
        other: cell(Verdict::Deny, 0),
        ..Program::default()
    };
    let mut ranges = Vec::new();
    match id {
        1 => inline.other = cell(Verdict::Allow, 0),
        2 => {}
        3 => {
            inline.count = 1;
            inline.ranges[0] = PortRange {
                low: 80,
                high: 90,
                protocol: 6,
                cell: cell(Verdict::Allow, 1),
                ..PortRange::default()
            };
        }
        _ => {
            inline.flags |= Program::IN_TRIE;
            for (port, bits) in [(80, 12), (443, 16), (53, 16)] {
                let key = RangeKey {
                    prefix_bits: RangeKey::EXACT_BITS + bits,
                    ..RangeKey::point(id, 6, port)
                };
                ranges.push((key, cell(Verdict::Allow, 2)));
            }
        }
    }
    ProgramImage { id, inline, ranges }
}

fn attribution(id: u32) -> AttributionImage {
    let rules = (0..3).map(|slot| (slot, Cookie(2000 + (id & 0xff) * 10 + slot)));
    AttributionImage {
        id,
        rules: rules.collect(),
    }
}

type Tables = BTreeMap<u32, TableState>;

fn snapshot(tables: &Tables) -> Snapshot {
    Snapshot {
        programs: (1..=4).map(program).collect(),
        attributions: (1..=3).map(attribution).collect(),
        tables: tables.values().cloned().collect(),
    }
}

fn table(id: u32, defaults: [PeerCell; Scope::COUNT], peers: &[(u32, PeerCell)]) -> TableState {
    let peers = peers
        .iter()
        .map(|&(identity, cell)| (Identity(identity), cell))
        .collect();
    TableState {
        table: id,
        defaults,
        peers,
    }
}

fn two_tables() -> Tables {
    let one = table(1, [ALLOW; 5], &[(256, DENY), (257, WEB), (9, LONG)]);
    let two = table(2, [DENY; 5], &[(256, ALLOW), (258, WEB)]);
    [one, two].map(|table| (table.table, table)).into()
}

/// Table 1 gets a new default and loses, gains and exchanges peers; table 2 loses access; table 3 appears.
fn bigger_change() -> Change {
    Change {
        programs: (1..=4).map(program).collect(),
        attributions: (1..=3).map(attribution).collect(),
        tables: vec![
            TableUpdate {
                table: 1,
                defaults: [DENY, ALLOW, DENY, WEB, ALLOW],
                set: vec![
                    (Identity(257), ALLOW),
                    (Identity(259), LONG),
                    (Identity(1), WEB),
                ],
                remove: vec![Identity(256), Identity(9)],
            },
            TableUpdate {
                table: 2,
                defaults: [DENY; 5],
                set: vec![(Identity(256), WEB), (Identity(0x0100_0100), LONG)],
                remove: vec![Identity(258)],
            },
            TableUpdate {
                table: 3,
                defaults: [WEB; 5],
                set: vec![(Identity(258), DENY)],
                remove: vec![],
            },
        ],
        ..Change::default()
    }
}

/// The state after a change that fits.
fn after(tables: &Tables, change: &Change) -> Tables {
    let mut tables = tables.clone();
    for update in &change.tables {
        let state = tables.entry(update.table).or_default();
        state.table = update.table;
        state.defaults = update.defaults;
        state.peers.retain(|(identity, _)| {
            !update.remove.contains(identity) && update.set.iter().all(|(new, _)| new != identity)
        });
        state.peers.extend(update.set.iter().copied());
    }
    tables
}

fn loaded(capacities: Capacities, tables: &Tables) -> Writer<Fake> {
    let mut writer = Writer::open(Fake::new(capacities)).unwrap();
    writer.sync(&snapshot(tables)).unwrap();
    writer.settle().unwrap();
    writer
}

fn assert_holds(writer: &Writer<Fake>, tables: &Tables) {
    let wanted = loaded(ROOMY, tables);
    for id in tables.keys() {
        assert_eq!(
            writer.store().view(*id),
            wanted.store().view(*id),
            "table {id}"
        );
    }
}

/// Nothing but the wanted state is in the maps.
fn assert_holds_nothing_else(writer: &mut Writer<Fake>, tables: &Tables) {
    writer.settle().unwrap();
    let wanted = loaded(ROOMY, tables);
    assert_eq!(writer.usage(), wanted.usage());
    let (have, want) = (writer.store(), wanted.store());
    assert!(have.peers.keys().eq(want.peers.keys()));
    assert_eq!(have.ranges, want.ranges);
    assert_eq!(have.attributions, want.attributions);
}

#[test]
fn a_change_that_fits_is_in_force_and_leaves_nothing_behind() {
    let mut writer = loaded(ROOMY, &two_tables());
    let report = writer.apply(&bigger_change()).unwrap();
    assert_eq!(report.revisions, [(1, 2), (2, 2), (3, 1)]);
    let tables = after(&two_tables(), &bigger_change());
    assert_holds(&writer, &tables);
    assert_holds_nothing_else(&mut writer, &tables);
}

#[test]
fn a_change_costs_only_what_differs() {
    let mut writer = loaded(ROOMY, &two_tables());
    let one_peer = Change {
        tables: vec![TableUpdate {
            table: 1,
            defaults: [ALLOW; 5],
            set: vec![(Identity(256), WEB)],
            remove: vec![],
        }],
        ..Change::default()
    };
    // One peer and the revision.
    assert_eq!(writer.apply(&one_peer).unwrap().operations, 2);
    // It is in force already.
    assert_eq!(writer.apply(&one_peer).unwrap().operations, 0);
    assert_eq!(writer.settle().unwrap(), Freed::default());
}

#[test]
fn a_failure_at_any_step_leaves_old_or_less_and_a_retry_converges() {
    let (tables, change) = (two_tables(), bigger_change());
    let wanted = after(&tables, &change);
    let clean = loaded(ROOMY, &tables);
    let steps = {
        let mut writer = Writer::open(clean.store().clone()).unwrap();
        let before = writer.store().steps;
        writer.apply(&change).unwrap();
        writer.store().steps - before
    };
    assert!(steps > 25, "{steps}");
    for (at, on, restart) in (0..steps).flat_map(|at| {
        [
            (at, false, false),
            (at, false, true),
            (at, true, false),
            (at, true, true),
        ]
    }) {
        let mut writer = Writer::open(clean.store().clone()).unwrap();
        let first = writer.store().steps + at;
        writer.store_mut().fail = Some((first, on));
        let outcome = writer.apply(&change);
        assert!(
            matches!(outcome, Err(WriteError::Store(_))),
            "step {at}: {outcome:?}"
        );
        assert_no_more_access(&clean, &writer, &wanted, at);
        writer.store_mut().fail = None;
        if restart {
            writer = Writer::open(writer.store().clone()).unwrap();
        }
        writer.apply(&change).unwrap();
        assert_holds(&writer, &wanted);
        assert_holds_nothing_else(&mut writer, &wanted);
    }
}

/// Passes only what passed before and still should: nobody who loses access keeps it, nobody gains any.
fn assert_no_more_access(before: &Writer<Fake>, now: &Writer<Fake>, wanted: &Tables, at: usize) {
    let wanted = loaded(ROOMY, wanted);
    for id in [1, 2, 3] {
        let (before, after) = (before.store().view(id), wanted.store().view(id));
        for (index, now) in now.store().view(id).into_iter().enumerate() {
            let may_pass = before[index].0 && after[index].0;
            assert!(
                !now.0 || may_pass,
                "step {at}, table {id}, point {index}: {now:?}"
            );
            assert!(
                !now.0 || now == before[index],
                "step {at}: neither old nor dropped"
            );
        }
    }
}

#[test]
fn many_changes_in_a_row_with_failures_in_between_stay_consistent() {
    let mut random = Random(7);
    let mut tables = two_tables();
    let mut writer = loaded(ROOMY, &tables);
    for round in 0..400 {
        let change = random.change(&tables);
        let fails = random.below(3) == 0;
        if fails {
            let first = writer.store().steps + random.below(40);
            writer.store_mut().fail = Some((first, random.below(2) == 0));
        }
        let mut outcome = writer.apply(&change);
        writer.store_mut().fail = None;
        if outcome.is_err() {
            assert!(fails, "round {round}: {outcome:?}");
            if random.below(3) == 0 {
                writer = Writer::open(writer.store().clone()).unwrap();
            }
            outcome = writer.apply(&change);
        }
        outcome.unwrap();
        tables = after(&tables, &change);
        assert_holds(&writer, &tables);
        match random.below(4) {
            0 => drop(writer.settle().unwrap()),
            1 => writer = Writer::open(writer.store().clone()).unwrap(),
            _ => {}
        }
    }
    assert_holds_nothing_else(&mut writer, &tables);
}

#[test]
fn what_only_adds_leaves_the_reserve_alone_and_says_how_much_is_missing() {
    // Five peers are there; of 16 elements one is reserved.
    let mut writer = loaded(Capacities { peers: 16, ..ROOMY }, &two_tables());
    let add = |count: u32, cell| Change {
        tables: vec![TableUpdate {
            table: 2,
            defaults: [DENY; 5],
            set: (0..count).map(|n| (Identity(1000 + n), cell)).collect(),
            remove: vec![],
        }],
        ..Change::default()
    };
    let Err(WriteError::Full(full)) = writer.apply(&add(11, ALLOW)) else {
        panic!("it fits")
    };
    assert_eq!(
        (
            full[0].table,
            full[0].full.map,
            full[0].full.needed,
            full[0].full.capacity
        ),
        (2, "peers", 16, 15)
    );
    assert_eq!(full[0].blocked, 0);
    assert_holds(&writer, &two_tables());
    writer.apply(&add(10, ALLOW)).unwrap();
    writer.settle().unwrap();
    // Table 1 allows by default; taking that from one peer may use the reserve.
    let deny = |identity| Change {
        tables: vec![TableUpdate {
            table: 1,
            defaults: [ALLOW; 5],
            set: vec![(Identity(identity), DENY)],
            remove: vec![],
        }],
        ..Change::default()
    };
    writer.apply(&deny(258)).unwrap();
    // Nothing is left: the scope drops, those with a word of their own don't.
    let Err(WriteError::Full(full)) = writer.apply(&deny(259)) else {
        panic!("it fits")
    };
    assert_eq!(full[0].blocked, 1);
    let view = writer.store().view(1);
    let points = view.len() / UNIVERSE.len();
    let of = |identity: u32| {
        UNIVERSE
            .iter()
            .position(|known| known.0 == identity)
            .unwrap()
            * points
    };
    assert_eq!(view[of(259)].1, sluice_abi::Reason::TableFull);
    assert!(
        view[of(257)].0,
        "port 80 stays open to the peer with its own entry"
    );
    assert!(view[of(4)].0, "other scopes stay open");
    // With room again the same change converges.
    let release = Change {
        release_tables: vec![2],
        ..Change::default()
    };
    writer.apply(&release).unwrap();
    writer.apply(&deny(259)).unwrap_or_else(|_| {
        writer.settle().unwrap();
        writer.apply(&deny(259)).unwrap()
    });
    let view = writer.store().view(1);
    assert_eq!(view[of(259)].1, sluice_abi::Reason::PolicyDeny);
    assert!(view[of(256) + 1].1 == sluice_abi::Reason::PolicyDeny && !view[of(259)].0);
}

#[test]
fn tables_that_fit_change_though_others_do_not() {
    let mut writer = loaded(
        Capacities {
            ranges: 4,
            programs: 8,
            ..ROOMY
        },
        &Tables::new(),
    );
    let mut tables = two_tables();
    tables.remove(&2);
    writer.sync(&snapshot(&tables)).unwrap();
    writer.settle().unwrap();
    let mut change = bigger_change();
    change.tables.truncate(2);
    change.tables[0].set = vec![(
        Identity(258),
        PeerCell {
            program: 5,
            attribution: 1,
        },
    )];
    change.tables[1].set = vec![(Identity(258), WEB)];
    change.tables[1].remove = vec![];
    change.programs.push(program(5));
    let Err(WriteError::Full(full)) = writer.apply(&change) else {
        panic!("it fits")
    };
    assert_eq!(full.len(), 1);
    assert_eq!((full[0].table, full[0].full.map), (1, "program_ranges"));
    assert!(full[0].blocked > 0);
    assert_eq!((writer.revision(1), writer.revision(2)), (2, 1));
}

#[test]
fn ids_are_free_only_when_nothing_uses_them_and_nobody_reads_them() {
    let mut writer = loaded(ROOMY, &two_tables());
    let release = Change {
        release_tables: vec![1],
        release_programs: vec![3, 4],
        release_attributions: vec![3],
        ..Change::default()
    };
    writer.apply(&release).unwrap();
    assert_eq!(writer.revision(1), 0);
    let freed = writer.settle().unwrap();
    // Table 2 still uses program 3.
    assert_eq!(
        (freed.tables, freed.programs, freed.attributions),
        (vec![1], vec![4], vec![3])
    );
    // The id's next table goes on counting: connections remember (table, revision).
    let mut again = Change {
        tables: vec![TableUpdate {
            table: 1,
            defaults: [DENY; 5],
            ..TableUpdate::default()
        }],
        ..Change::default()
    };
    writer.apply(&again).unwrap();
    assert_eq!(writer.revision(1), 2);
    let mut restarted = Writer::open(writer.store().clone()).unwrap();
    again.tables[0].defaults = [ALLOW; 5];
    restarted.apply(&again).unwrap();
    assert_eq!(restarted.revision(1), 3);
}

#[test]
fn a_snapshot_touches_only_tables_that_differ() {
    let mut tables = two_tables();
    let mut writer = Writer::open(loaded(ROOMY, &tables).store().clone()).unwrap();
    assert_eq!(writer.sync(&snapshot(&tables)).unwrap().operations, 0);
    tables.remove(&1);
    tables.get_mut(&2).unwrap().peers.pop();
    writer.sync(&snapshot(&tables)).unwrap();
    assert_eq!((writer.revision(1), writer.revision(2)), (0, 2));
    assert_holds(&writer, &tables);
    assert_holds_nothing_else(&mut writer, &tables);
}

#[test]
fn changes_that_make_no_sense_are_refused_whole() {
    let mut writer = loaded(ROOMY, &two_tables());
    let good = TableUpdate {
        table: 1,
        defaults: [ALLOW; 5],
        set: vec![(Identity(300), WEB)],
        remove: vec![],
    };
    let bad = [
        (
            TableUpdate {
                table: 0,
                ..good.clone()
            },
            Refusal::Zero { kind: "table" },
        ),
        (
            TableUpdate {
                defaults: [ALLOW, ALLOW, PeerCell::ABSENT, ALLOW, ALLOW],
                ..good.clone()
            },
            Refusal::NoDefault(1),
        ),
        (
            TableUpdate {
                remove: vec![Identity(300)],
                ..good.clone()
            },
            Refusal::Twice(1),
        ),
        (
            TableUpdate {
                set: vec![(
                    Identity(300),
                    PeerCell {
                        program: 9,
                        attribution: 0,
                    },
                )],
                ..good.clone()
            },
            Refusal::Missing {
                table: 1,
                kind: "program",
                id: 9,
            },
        ),
        (
            TableUpdate {
                set: vec![(
                    Identity(300),
                    PeerCell {
                        program: 1,
                        attribution: 9,
                    },
                )],
                ..good.clone()
            },
            Refusal::Missing {
                table: 1,
                kind: "attribution",
                id: 9,
            },
        ),
    ];
    for (update, refusal) in bad {
        let change = Change {
            tables: vec![update],
            ..Change::default()
        };
        assert!(
            matches!(writer.apply(&change), Err(WriteError::Refused(r)) if r == refusal),
            "{refusal}"
        );
    }
    let changed = Change {
        programs: vec![ProgramImage {
            id: 1,
            ..program(2)
        }],
        ..Change::default()
    };
    assert!(matches!(
        writer.apply(&changed),
        Err(WriteError::Refused(Refusal::Changed {
            kind: "program",
            id: 1
        }))
    ));
    let direct = PeerCell::direct(&[Cookie(2000)]).expect("one small cookie");
    let no_id = Change {
        attributions: vec![attribution(direct)],
        ..Change::default()
    };
    assert!(matches!(
        writer.apply(&no_id),
        Err(WriteError::Refused(Refusal::NoId(id))) if id == direct
    ));
    assert_holds(&writer, &two_tables());
}

#[test]
fn a_cell_that_names_its_rules_itself_needs_no_attribution() {
    let mut writer = loaded(ROOMY, &two_tables());
    let before = writer.usage().attributions;
    let direct = PeerCell {
        program: 1,
        attribution: PeerCell::direct(&[Cookie(2000), Cookie::DEFAULT_DENY]).expect("small"),
    };
    let mut tables = two_tables();
    let table = tables.get_mut(&1).expect("one of the two");
    table.peers.push((Identity(300), direct));
    let change = Change {
        tables: vec![TableUpdate {
            table: 1,
            defaults: table.defaults,
            set: vec![(Identity(300), direct)],
            remove: Vec::new(),
        }],
        ..Change::default()
    };
    writer.apply(&change).expect("nothing is missing");
    writer.settle().expect("the fake maps do not fail");
    assert_holds(&writer, &tables);
    assert_eq!(writer.usage().attributions, before);
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn cell(&mut self) -> PeerCell {
        [ALLOW, DENY, WEB, LONG][self.below(4)]
    }

    fn change(&mut self, tables: &Tables) -> Change {
        let mut change = Change {
            programs: (1..=4).map(program).collect(),
            attributions: (1..=3).map(attribution).collect(),
            ..Change::default()
        };
        for id in 1..=3 {
            if self.below(2) == 0 {
                continue;
            }
            let known = tables.get(&id).map_or([DENY; 5], |table| table.defaults);
            let mut update = TableUpdate {
                table: id,
                defaults: known,
                ..TableUpdate::default()
            };
            if self.below(2) == 0 {
                update.defaults = [(); 5].map(|()| self.cell());
            }
            for identity in UNIVERSE {
                match self.below(4) {
                    0 => update.set.push((identity, self.cell())),
                    1 => update.remove.push(identity),
                    _ => {}
                }
            }
            change.tables.push(update);
        }
        change
    }
}
