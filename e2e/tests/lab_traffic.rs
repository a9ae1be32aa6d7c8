//! Live traffic in a lab: every protocol and family, against what the reference evaluator says; and policy that changes under it.

mod lab_support;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lab_support::{Folder, OwnName, PODS, Talk, addresses, enabled, manifest, udp, up};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use sluice_lab::{
    demo, objects,
    probe::{Transport, report::Options as ProbeOptions},
    store,
};

const PING: ProbeOptions = ProbeOptions {
    patience: Duration::from_secs(2),
    ping: true,
};

/// The shop of the examples, all of it, tried by TCP, UDP and ICMP over both families.
#[test]
fn the_shop_behaves_as_the_reference_evaluator_says_before_and_after_its_policies() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let shop = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    let mut supervisor = sluice_lab::Supervisor::up(&sluice_lab::Options {
        name: name.0.clone(),
        sources: vec![shop.clone()],
        mode: None,
        watch: false,
        program: lab_support::program(),
    })
    .unwrap();
    let with = demo::probe(&name.0, supervisor.world(), PING).unwrap();
    supervisor
        .delete_manifests(&store::read_paths(&[shop.join("policies")]).unwrap())
        .unwrap();
    supervisor.settle().unwrap();
    let without = demo::probe(&name.0, supervisor.world(), PING).unwrap();
    for cell in with.iter().chain(&without) {
        assert!(cell.agrees(), "{}", demo::describe(cell));
    }
    assert!(
        without.iter().all(|cell| cell.reached),
        "without policies everybody reaches everybody"
    );
    for transport in [Transport::Tcp, Transport::Udp, Transport::Icmp] {
        for v4 in [true, false] {
            let outcomes: BTreeSet<bool> = with
                .iter()
                .filter(|c| c.transport == transport && c.address.is_ipv4() == v4)
                .map(|c| c.reached)
                .collect();
            let wanted: &[bool] = if transport == Transport::Udp {
                &[true]
            } else {
                &[false, true]
            };
            assert!(
                wanted.iter().all(|outcome| outcomes.contains(outcome)),
                "{transport:?} over IPv4 {v4}: {outcomes:?}"
            );
        }
    }
    supervisor.down().unwrap();
    assert_eq!(name.traces(), Vec::<String>::new());
}

const DENY: &str = r"
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata: {name: cut, namespace: a}
spec:
  endpointSelector: {matchLabels: {app: server}}
  enableDefaultDeny: {ingress: false}
  ingressDeny:
    - fromEndpoints: [{matchLabels: {app: client}}]
";

#[test]
fn a_new_deny_cuts_an_established_connection_and_its_end_lets_it_go_on() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let folder = Folder::new(&name, &[("pods.yaml", PODS)]);
    let mut supervisor = up(&name, &folder);
    let client = name.namespace("a/client");
    let mut talks: Vec<Talk> = addresses(&supervisor, "a/server")
        .into_iter()
        .map(|address| Talk::open(&client, SocketAddr::from((address, 8080))))
        .collect();
    assert_eq!(talks.len(), 2, "both families");
    for talk in &mut talks {
        assert!(talk.echoes(Duration::from_secs(3)));
    }
    supervisor.apply(&[manifest(DENY)]).unwrap();
    for talk in &mut talks {
        assert!(
            !talk.echoes(Duration::from_millis(500)),
            "the connection outlived the deny"
        );
    }
    supervisor.delete_manifests(&[manifest(DENY)]).unwrap();
    for talk in &mut talks {
        // The kernel sends again by itself what the deny had stopped.
        assert!(
            talk.hears(Duration::from_secs(10)),
            "the connection did not recover"
        );
    }
    supervisor.down().unwrap();
}

/// A policy that lets the client reach one of two ports.
fn only(port: u16) -> String {
    format!(
        r"
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata: {{name: one-port, namespace: a}}
spec:
  endpointSelector: {{matchLabels: {{app: client}}}}
  egress:
    - toEndpoints: [{{matchLabels: {{app: server}}}}]
      toPorts: [{{ports: [{{port: '{port}', protocol: UDP}}]}}]
"
    )
}

const PORTS: [u16; 2] = [7001, 7002];
const CHANGES: usize = 30;

/// One sender, pinned to a CPU so that its packets are judged in the order they are sent, sends to both ports in turn, while the policy goes
/// back and forth between letting one and letting the other through. Whether a packet arrives says which policy judged it. Judged by whole
/// states only, the packets' policies change exactly as often as the policy did; a packet judged by a mix (both ports open, or none) would
/// show as further changes.
#[test]
fn no_packet_is_judged_by_a_mix_of_two_policies() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let folder = Folder::new(&name, &[("pods.yaml", PODS)]);
    let mut supervisor = up(&name, &folder);
    let (client, server) = (name.namespace("a/client"), name.namespace("a/server"));
    for address in addresses(&supervisor, "a/server") {
        supervisor.apply(&[manifest(&only(PORTS[0]))]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let receivers: Vec<_> = PORTS
            .map(|port| receive(udp(&server, address, port), Arc::clone(&stop)))
            .into();
        let sender = thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let socket = udp(&client, address, 0);
            move || {
                let mut cpu = CpuSet::new();
                cpu.set(0).unwrap();
                sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
                let mut sequence = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let port = PORTS[usize::from(sequence % 2 == 1)];
                    // A drop is silent: the send itself succeeds.
                    socket
                        .send_to(&sequence.to_be_bytes(), (address, port))
                        .unwrap();
                    sequence += 1;
                    sent.store(sequence, Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(50));
                }
            }
        });
        let wait_for_packets = |count: u64| {
            let from = sent.load(Ordering::Relaxed);
            while sent.load(Ordering::Relaxed) < from + count {
                thread::sleep(Duration::from_millis(1));
            }
        };
        wait_for_packets(50);
        for change in 1..=CHANGES {
            supervisor
                .apply(&[manifest(&only(PORTS[change % 2]))])
                .unwrap();
            if change % 2 == 0 {
                supervisor.settle().unwrap();
            }
            wait_for_packets(50);
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        thread::sleep(Duration::from_millis(200));
        let arrived: Vec<BTreeSet<u64>> = receivers
            .into_iter()
            .map(|receiver| receiver.join().unwrap())
            .collect();
        let total = sent.load(Ordering::Relaxed);
        let policy_of = |sequence: u64| {
            let second = sequence % 2 == 1;
            let passed = arrived[usize::from(second)].contains(&sequence);
            // Passing says that the policy is this port's; a drop, that it is the other's.
            second == passed
        };
        let policies: Vec<bool> = (0..total).map(policy_of).collect();
        let changes = policies
            .windows(2)
            .filter(|pair| pair[0] != pair[1])
            .count();
        eprintln!("{address}: {total} packets, {changes} changes of the policy that judged");
        assert_eq!(
            changes, CHANGES,
            "packets were judged by something between two policies ({total} packets)"
        );
        supervisor
            .delete_manifests(&[manifest(&only(PORTS[0]))])
            .unwrap();
    }
    supervisor.down().unwrap();
}

/// Collects sequence numbers until told to stop and nothing is left.
fn receive(
    socket: std::net::UdpSocket,
    stop: Arc<AtomicBool>,
) -> thread::JoinHandle<BTreeSet<u64>> {
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    thread::spawn(move || {
        let mut seen = BTreeSet::new();
        let mut buffer = [0; 8];
        loop {
            match socket.recv(&mut buffer) {
                Ok(_) => drop(seen.insert(u64::from_be_bytes(buffer))),
                Err(_) if stop.load(Ordering::Relaxed) => return seen,
                Err(_) => {}
            }
        }
    })
}

#[test]
fn pods_that_come_and_go_leave_the_others_addresses_and_traffic_alone() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let folder = Folder::new(&name, &[("pods.yaml", PODS)]);
    let mut supervisor = up(&name, &folder);
    let before = addresses(&supervisor, "a/server");
    let mut talk = Talk::open(
        &name.namespace("a/client"),
        SocketAddr::from((before[0], 8080)),
    );
    // First by name: addresses drawn anew would move everybody's.
    let newcomer = manifest(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: aaa, namespace: a}\nspec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}\n",
    );
    supervisor.apply(std::slice::from_ref(&newcomer)).unwrap();
    supervisor.settle().unwrap();
    assert_eq!(addresses(&supervisor, "a/server"), before);
    assert!(talk.echoes(Duration::from_secs(3)));
    let cells = demo::probe(&name.0, supervisor.world(), PING).unwrap();
    assert!(cells.iter().any(|cell| cell.to == "a/aaa" && cell.reached));
    assert!(cells.iter().all(sluice_lab::probe::report::Cell::agrees));
    supervisor.delete_manifests(&[newcomer]).unwrap();
    assert!(talk.echoes(Duration::from_secs(3)));
    assert!(!name.traces().iter().any(|trace| trace.ends_with("a.aaa")));
    let names: Vec<String> = store::parse(&[manifest(PODS)])
        .unwrap()
        .objects
        .iter()
        .map(|object| objects::name(object).to_string())
        .collect();
    assert_eq!(supervisor.status().pods.len(), names.len());
    supervisor.down().unwrap();
}
