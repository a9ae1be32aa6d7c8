//! The writers' work as packets meet it. A full map of peers: what would be given is not, what would be taken away is, and trying again
//! converges. Removed connections: their counts stay.

use std::collections::BTreeSet;

use sluice_abi::config::Config;
use sluice_abi::endpoint::Endpoint;
use sluice_abi::event::Hook;
use sluice_abi::ipcache::AddressInfo;
use sluice_abi::policy::PeerCell;
use sluice_abi::program::{Cell, Program, Verdict};
use sluice_abi::{Cookie, Identity, Range, Reason};
use sluice_datapath::load::Sizes;
use sluice_datapath::state::{AddressChange, Place};
use sluice_datapath::writer::{AttributionImage, Change, ProgramImage, TableUpdate, WriteError};

use crate::common::{
    A, ALLOW_ALL, B, B_INGRESS, FAMILIES, Family, NODE, OUTWARD, POD_A, POD_B, POD_REMOTE, RULE,
    cell, frame, host_mac, ifindex, ip, mac, udp,
};
use crate::kernel_rig::{Kernel, kernel_tests};

/// Elements of the map.
const ROOM: u32 = 32;
const ALLOWED: PeerCell = PeerCell {
    program: 1,
    attribution: 1,
};
const DENIED: PeerCell = PeerCell {
    program: 2,
    attribution: 2,
};

#[test]
fn a_full_map_of_peers_fails_closed() {
    if !kernel_tests() {
        return;
    }
    let mut kernel = kernel();
    let mut writer = kernel.datapath.writer().unwrap();
    writer.apply(&first()).unwrap();
    writer.settle().unwrap();
    let from_a = |f: Family, port| {
        (
            Hook::FromEndpoint,
            frame(A, &ip(f.a(), f.b(), 17, &udp(port, 80))),
        )
    };
    let from_remote = |f: Family| {
        (
            Hook::FromOutside,
            frame(B, &ip(f.remote(), f.b(), 17, &udp(9, 80))),
        )
    };
    for f in FAMILIES {
        assert_eq!(judge(&mut kernel, from_a(f, 1)), None);
        assert_eq!(
            judge(&mut kernel, from_remote(f)),
            Some((Reason::PolicyDefaultDeny, Cookie::DEFAULT_DENY))
        );
    }

    // More access for more peers than there is room for: nobody gets any, and nobody loses any.
    let Err(WriteError::Full(full)) = writer.apply(&change(crowd(), Vec::new())) else {
        panic!("{ROOM} elements took all of them");
    };
    assert_eq!(
        (full.len(), full[0].table, full[0].blocked),
        (1, B_INGRESS, 0)
    );
    for f in FAMILIES {
        assert_eq!(judge(&mut kernel, from_a(f, 1)), None, "known");
        assert_eq!(judge(&mut kernel, from_a(f, 2)), None, "new");
        assert_eq!(
            judge(&mut kernel, from_remote(f)),
            Some((Reason::PolicyDefaultDeny, Cookie::DEFAULT_DENY))
        );
    }

    // The same, and A is no longer allowed: A is cut off, and it shows why.
    let Err(WriteError::Full(full)) = writer.apply(&change(crowd(), vec![POD_A])) else {
        panic!("{ROOM} elements took all of them");
    };
    assert_eq!((full[0].table, full[0].blocked), (B_INGRESS, 1));
    for f in FAMILIES {
        assert_eq!(
            judge(&mut kernel, from_a(f, 1)),
            Some((Reason::TableFull, Cookie::NONE)),
            "known"
        );
        assert_eq!(
            judge(&mut kernel, from_a(f, 3)),
            Some((Reason::TableFull, Cookie::NONE)),
            "new"
        );
        assert_eq!(
            judge(&mut kernel, from_remote(f)),
            Some((Reason::PolicyDefaultDeny, Cookie::DEFAULT_DENY))
        );
    }

    // As much of it as there is room for.
    writer
        .apply(&change(vec![(POD_REMOTE, ALLOWED)], vec![POD_A]))
        .unwrap();
    for f in FAMILIES {
        assert_eq!(
            judge(&mut kernel, from_a(f, 4)),
            Some((Reason::PolicyDefaultDeny, Cookie::DEFAULT_DENY))
        );
        assert_eq!(judge(&mut kernel, from_remote(f)), None);
    }
}

#[test]
fn what_the_connections_of_a_removed_endpoint_counted_stays_counted() {
    if !kernel_tests() {
        return;
    }
    let kernel = kernel();
    kernel.datapath.writer().unwrap().apply(&first()).unwrap();
    for f in FAMILIES {
        let sent = frame(A, &ip(f.a(), f.b(), 17, &udp(1, 80)));
        kernel.run(Hook::FromEndpoint, ifindex(A), ifindex(A), 0, &sent);
    }
    let counters = kernel.datapath.counters().unwrap();
    let before = counters.rules().unwrap();
    assert_eq!(before[&RULE].packets, 2);
    let connections = kernel.datapath.connections().unwrap();
    let place = kernel.datapath.endpoints().unwrap().place(ifindex(B));
    let gone = place.expect("B is an endpoint");
    let another = Place {
        generation: gone.generation + 1,
        ..gone
    };
    let collect = |place| connections.collect(&BTreeSet::from([place])).unwrap();
    assert_eq!(collect(another).removed, 0, "of the next one in its slot");
    assert_eq!(collect(gone).removed, 2);
    assert!(connections.list().unwrap().is_empty());
    assert_eq!(counters.rules().unwrap(), before);
}

/// Why a frame drops and what decided so, or `None` if it passes.
fn judge(kernel: &mut Kernel, (hook, frame): (Hook, Vec<u8>)) -> Option<(Reason, Cookie)> {
    kernel.take_events();
    let interface = if hook == Hook::FromEndpoint {
        ifindex(A)
    } else {
        OUTWARD
    };
    let output = kernel.run(hook, interface, interface, 0, &frame);
    let events = kernel.take_events();
    let event = events.last().filter(|event| event.reason != 0);
    assert_eq!(output.code == 2, event.is_some());
    event.map(|event| {
        (
            Reason::from_raw(event.reason).unwrap(),
            event.destination.cookie,
        )
    })
}

/// Both pods of the specification's node, and the remote one.
fn kernel() -> Kernel {
    let kernel = Kernel::new(&Sizes {
        peers: ROOM,
        ..Sizes::small()
    });
    let settings = kernel.datapath.settings().unwrap();
    let config = Config {
        node: NODE,
        conntrack_quota: 256,
        ..Config::default()
    };
    settings.put(&config).unwrap();
    settings.raise_watermark(Range::Pod, 1000);
    let mut endpoints = kernel.datapath.endpoints().unwrap();
    let mut addresses = AddressChange::default();
    for (slot, identity, ingress_table) in [(A, POD_A, ALLOW_ALL), (B, POD_B, B_INGRESS)] {
        let [v4, v6] = FAMILIES.map(|f| if slot == A { f.a() } else { f.b() });
        let endpoint = Endpoint {
            ipv4: v4.into(),
            ipv6: v6.into(),
            identity,
            egress_table: ALLOW_ALL,
            ingress_table,
            ifindex: ifindex(slot),
            flags: Endpoint::IPV4 | Endpoint::IPV6,
            mac: mac(slot),
            host_mac: host_mac(slot),
            ..Endpoint::default()
        };
        endpoints.put(&endpoint).unwrap();
        addresses
            .set
            .extend([v4, v6].map(|ip| (ip.into(), pod(identity, NODE))));
    }
    let remote = FAMILIES.map(|f| (f.remote().into(), pod(POD_REMOTE, NODE + 1)));
    addresses.set.extend(remote);
    kernel
        .datapath
        .addresses()
        .unwrap()
        .apply(&addresses)
        .unwrap();
    kernel
}

fn pod(identity: Identity, node: u32) -> AddressInfo {
    AddressInfo {
        identity,
        host_identity: identity,
        node,
        flags: AddressInfo::POD,
    }
}

/// A may reach B, nobody else may.
fn first() -> Change {
    let program = |id, verdict: Verdict| ProgramImage {
        id,
        inline: Program {
            flags: Program::PRESENT,
            other: Cell {
                verdict: verdict as u8,
                ..Cell::default()
            },
            ..Program::default()
        },
        ranges: Vec::new(),
    };
    let attribution = |id, cookie| AttributionImage {
        id,
        rules: vec![(0, cookie)],
    };
    let open = TableUpdate {
        table: ALLOW_ALL,
        defaults: [ALLOWED; 5],
        ..TableUpdate::default()
    };
    let mut change = change(vec![(POD_A, ALLOWED)], Vec::new());
    change.programs = vec![program(1, Verdict::Allow), program(2, Verdict::Deny)];
    change.attributions = vec![attribution(1, RULE), attribution(2, Cookie::DEFAULT_DENY)];
    change.tables.push(open);
    change
}

fn change(set: Vec<(Identity, PeerCell)>, remove: Vec<Identity>) -> Change {
    let update = TableUpdate {
        table: B_INGRESS,
        defaults: [DENIED; 5],
        set,
        remove,
    };
    Change {
        tables: vec![update],
        ..Change::default()
    }
}

/// More peers than there is room for, the remote pod among them.
fn crowd() -> Vec<(Identity, PeerCell)> {
    let more = (0..ROOM).map(|n| (Identity(POD_REMOTE.0 + n), cell(1, 1)));
    more.collect()
}
