//! Steps and the log of steps.

use sluice_abi::{
    Identity,
    ipcache::{Address, AddressInfo},
};
use sluice_policy::{Delta, TableDelta};
use sluice_world::NodeName;

use crate::{
    catalog::Catalog,
    hub::{log::Log, split},
    types::{Batch, Frontend, NodeInfo, Revision, Update},
};

fn info(identity: u32) -> AddressInfo {
    AddressInfo {
        identity: Identity(identity),
        host_identity: Identity(identity),
        node: 1,
        flags: AddressInfo::POD,
    }
}

fn batch(identity: u32, address: [u8; 4]) -> Batch {
    Batch {
        delta: Delta {
            identities: vec![(Identity(identity), vec!["app=web".into()])],
            tables: vec![TableDelta {
                id: 1,
                ..TableDelta::default()
            }],
            addresses: vec![(Address::v4(address), Some(info(identity)))],
            dropped_identities: vec![Identity(identity - 1)],
            errors: vec!["of no concern to agents".into()],
            ..Delta::default()
        },
        nodes: vec![
            (NodeName("gone".into()), None),
            (
                NodeName("new".into()),
                Some(NodeInfo {
                    name: NodeName("new".into()),
                    number: 2,
                    addresses: Vec::new(),
                    pod_cidrs: Vec::new(),
                }),
            ),
        ],
        services: vec![(
            Frontend {
                address: "10.96.0.1".parse().unwrap(),
                protocol: 6,
                port: 443,
            },
            None,
        )],
        ..Batch::default()
    }
}

#[test]
fn only_what_moves_takes_three_steps() {
    let mut catalog = Catalog::default();
    let first = split::split(batch(300, [10, 0, 0, 1]), &catalog);
    assert_eq!(first.len(), 1, "a new address moves nobody");
    assert!(first[0].delta.errors.is_empty());
    catalog.apply(&first[0]);
    let again = split::split(batch(300, [10, 0, 0, 1]), &catalog);
    assert_eq!(again.len(), 1, "the same identity again is no move");
    let steps = split::split(batch(301, [10, 0, 0, 1]), &catalog);
    let [come, shift, go] = &steps[..] else {
        panic!("{} steps", steps.len())
    };
    assert_eq!(come.delta.identities.len(), 1);
    assert_eq!(
        (
            come.delta.addresses.len(),
            come.delta.dropped_identities.len()
        ),
        (0, 0)
    );
    assert_eq!(come.nodes[0].0.0, "new");
    assert_eq!((shift.delta.addresses.len(), shift.services.len()), (1, 1));
    assert_eq!(go.delta.dropped_identities, [Identity(300)]);
    assert_eq!(go.nodes[0].0.0, "gone");
}

#[test]
fn a_batch_of_nothing_is_no_step() {
    assert!(split::split(Batch::default(), &Catalog::default()).is_empty());
}

#[test]
fn the_log_is_bounded_by_number_and_by_size() {
    let revision = |number| Revision { epoch: 1, number };
    let mut log = Log::default();
    let push = |log: &mut Log, number: u64, addresses: usize| {
        let delta = Delta {
            addresses: vec![(Address::v4([10, 0, 0, 1]), None); addresses],
            ..Delta::default()
        };
        let update = Update {
            revision: revision(number),
            delta,
            ..Update::default()
        };
        log.push(update.into(), rustc_hash::FxHashMap::default());
    };
    for number in 1..=5000 {
        push(&mut log, number, 1);
    }
    let reach = |log: &Log, from: u64, now: u64| {
        log.since(revision(from), revision(now))
            .map(Iterator::count)
    };
    assert_eq!(reach(&log, 5000, 5000), Some(0));
    assert_eq!(reach(&log, 4990, 5000), Some(10));
    assert_eq!(reach(&log, 904, 5000), Some(4096));
    assert_eq!(reach(&log, 903, 5000), None, "too long ago");
    assert_eq!(reach(&log, 5001, 5000), None, "from the future");
    let other = Revision {
        epoch: 2,
        number: 4990,
    };
    assert!(log.since(other, revision(5000)).is_none(), "another epoch");
    for number in 5001..=5010 {
        push(&mut log, number, 200_000);
    }
    assert!(reach(&log, 5009, 5010).is_some());
    assert_eq!(reach(&log, 5000, 5010), None, "too much since");
}
