//! The loader against the real kernel: load, attach, judge, take over, clean up. Needs root: `cargo xtask test` runs it, by setting
//! `SLUICE_KERNEL_TESTS`.

mod loader_support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loader_support::{ALLOW, Ground, POD_A, POD_B, allow_all, deny_peer, kernel_tests, load};
use sluice_abi::Reason;
use sluice_abi::event::EventKind;
use sluice_datapath::load::{Datapath, Instance, LoadError, Sizes, remove};
use sluice_datapath::net::{NetNs, in_namespace};
use sluice_datapath::probe;

const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn this_kernel_is_fit_and_says_what_it_has() {
    if !kernel_tests() {
        return;
    }
    probe::require().unwrap();
    assert!(probe::probe().iter().any(|feature| feature.name == "tcx"));
}

#[test]
fn pods_talk_in_both_families_and_a_denial_cuts_them() {
    if !kernel_tests() {
        return;
    }
    let ground = Ground::new("talk");
    let mut datapath = load(None);
    let mut writer = datapath.writer().unwrap();
    ground.connect(&mut datapath, &mut writer);
    let mut events = datapath.events().unwrap();
    for (own, other) in Ground::address_pairs() {
        assert!(tcp(&ground, other).is_ok(), "TCP {own} to {other}");
        assert!(udp(&ground, own, other), "UDP {own} to {other}");
        assert!(ground.ping(other), "ping {other}");
    }
    writer.settle().unwrap();
    writer
        .apply(&deny_peer(ground.table_of(POD_B), POD_A))
        .unwrap();
    writer.settle().unwrap();
    while events.next_event().is_some() {}
    for (own, other) in Ground::address_pairs() {
        assert!(
            tcp(&ground, other).is_err(),
            "TCP {own} to {other} after the denial"
        );
        assert!(
            !udp(&ground, own, other),
            "UDP {own} to {other} after the denial"
        );
    }
    let mut seen = Vec::new();
    while let Some(event) = events.next_event() {
        if event.kind == EventKind::Drop as u8 {
            seen.push(Reason::from_raw(event.reason));
        }
    }
    assert!(seen.contains(&Some(Reason::PolicyDefaultDeny)), "{seen:?}");
    let drops = datapath.counters().unwrap().drops().unwrap();
    assert!(
        drops
            .iter()
            .any(|drop| drop.reason == Reason::PolicyDefaultDeny),
        "{drops:?}"
    );
    let rules = datapath.counters().unwrap().rules().unwrap();
    assert!(
        rules.get(&ALLOW).is_some_and(|counter| counter.packets > 0),
        "{rules:?}"
    );
    assert!(
        datapath
            .connections()
            .unwrap()
            .collect_at(u64::MAX, &BTreeSet::new())
            .unwrap()
            .removed
            > 0
    );
    assert_eq!(
        datapath.counters().unwrap().rules().unwrap().get(&ALLOW),
        rules.get(&ALLOW)
    );
}

#[test]
fn a_new_process_takes_over_and_no_packet_is_lost() {
    if !kernel_tests() {
        return;
    }
    let ground = Ground::new("over");
    let instance: Instance = "e2e-over".parse().unwrap();
    remove(&instance).unwrap();
    let mut first = load(Some(&instance));
    let mut writer = first.writer().unwrap();
    ground.connect(&mut first, &mut writer);
    assert!(matches!(
        Datapath::open(Some(&instance), &Sizes::small()),
        Err(LoadError::InUse(_))
    ));
    let (stop, sent, lost) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for (own, other) in Ground::address_pairs() {
            let (ground, stop, sent, lost) = (&ground, &stop, &sent, &lost);
            scope.spawn(move || echo_until(ground, own, other, stop, sent, lost));
        }
        std::thread::sleep(Duration::from_millis(300));
        // The process is gone: nothing of it but pins is left.
        drop((writer, first));
        std::thread::sleep(Duration::from_millis(200));
        let mut second = Datapath::open(Some(&instance), &Sizes::small()).unwrap();
        assert_eq!(second.take_over().unwrap().len(), 4);
        let writer = second.writer().unwrap();
        assert_eq!(writer.usage().tables, 4);
        assert_eq!(second.endpoints().unwrap().iter().count(), 2);
        std::thread::sleep(Duration::from_millis(300));
        drop((writer, second));
        // Somebody wants more room: new maps, filled beside the old ones before they take their place.
        let roomier = Sizes {
            peers: 2 * Sizes::small().peers,
            ..Sizes::small()
        };
        let mut third = Datapath::open(Some(&instance), &roomier).unwrap();
        let mut writer = third.writer().unwrap();
        assert_eq!(writer.usage().tables, 0);
        ground.describe(&third, &mut writer);
        assert_eq!(third.take_over().unwrap().len(), 4);
        third.remove_old_layouts().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        drop((writer, third));
    });
    assert!(sent.load(Ordering::Relaxed) > 1000, "{sent:?}");
    assert_eq!(lost.load(Ordering::Relaxed), 0, "of {sent:?}");
    let again = Datapath::open(Some(&instance), &Sizes::small()).unwrap();
    assert_eq!(
        again.writer().unwrap().usage().tables,
        0,
        "the old maps stayed"
    );
    drop(again);
    remove(&instance).unwrap();
    assert!(!Instance::list().unwrap().contains(&instance));
}

#[test]
fn changes_of_a_table_cost_little_and_are_written_in_batches() {
    if !kernel_tests() {
        return;
    }
    let datapath = load(None);
    let mut writer = datapath.writer().unwrap();
    writer.apply(&allow_all(&[1])).unwrap();
    writer.settle().unwrap();
    let many = loader_support::many_peers(1, 10_000);
    let begun = Instant::now();
    let report = writer.apply(&many).unwrap();
    assert_eq!(report.operations, 10_001);
    println!("10,000 peers in {:?}", begun.elapsed());
    writer.settle().unwrap();
    let begun = Instant::now();
    writer.apply(&deny_peer(1, POD_A)).unwrap();
    println!("one peer in {:?}", begun.elapsed());
    assert_eq!(datapath.writer().unwrap().usage().peers, 10_000);
}

#[test]
fn what_a_killed_process_leaves_is_found_by_name() {
    if !kernel_tests() {
        return;
    }
    let ground = Ground::new("left");
    let names = ground.names();
    // As if killed: nothing is cleaned up.
    let _killed = std::mem::ManuallyDrop::new(ground);
    for name in &names {
        assert!(NetNs::list(name).unwrap().contains(name));
        NetNs::delete(name).unwrap();
        NetNs::delete(name).unwrap();
        assert!(NetNs::list(name).unwrap().is_empty());
    }
}

/// One connection with a byte there and back.
fn tcp(ground: &Ground, other: IpAddr) -> std::io::Result<()> {
    let listener = in_namespace(ground.pod(POD_B), || TcpListener::bind((other, 0))).unwrap()?;
    let address = listener.local_addr()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        listener.set_nonblocking(true)?;
        let server = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((mut stream, _)) = listener.accept() {
                    let mut byte = [0];
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.read_exact(&mut byte)?;
                    return stream.write_all(&byte);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let answer = in_namespace(ground.pod(POD_A), || ask(address)).unwrap();
        stop.store(true, Ordering::Relaxed);
        let _ = server.join().unwrap();
        answer
    })
}

fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(400))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"x")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)
}

/// One datagram there and back.
fn udp(ground: &Ground, own: IpAddr, other: IpAddr) -> bool {
    let server = in_namespace(ground.pod(POD_B), || UdpSocket::bind((other, 0)))
        .unwrap()
        .unwrap();
    let client = in_namespace(ground.pod(POD_A), || UdpSocket::bind((own, 0)))
        .unwrap()
        .unwrap();
    echo(&client, &server, Duration::from_millis(300)).is_ok()
}

fn echo(client: &UdpSocket, server: &UdpSocket, patience: Duration) -> std::io::Result<()> {
    let mut buffer = [0; 16];
    server.set_read_timeout(Some(patience))?;
    client.set_read_timeout(Some(patience))?;
    client.send_to(b"ping", server.local_addr()?)?;
    let (length, from) = server.recv_from(&mut buffer)?;
    server.send_to(&buffer[..length], from)?;
    client.recv_from(&mut buffer).map(drop)
}

fn echo_until(
    ground: &Ground,
    own: IpAddr,
    other: IpAddr,
    stop: &AtomicBool,
    sent: &AtomicUsize,
    lost: &AtomicUsize,
) {
    let server = in_namespace(ground.pod(POD_B), || UdpSocket::bind((other, 0)))
        .unwrap()
        .unwrap();
    let client = in_namespace(ground.pod(POD_A), || UdpSocket::bind((own, 0)))
        .unwrap()
        .unwrap();
    while !stop.load(Ordering::Relaxed) {
        sent.fetch_add(1, Ordering::Relaxed);
        if echo(&client, &server, Duration::from_secs(1)).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
