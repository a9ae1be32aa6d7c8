//! A lab's supervisor: killed and followed by another with traffic flowing; failing; ended. Nothing may be left on the machine.

mod lab_support;

use std::{
    fs,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lab_support::{Folder, OwnName, PODS, enabled, sluice, udp};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sluice_datapath::net::NetNs;
use sluice_lab::{
    LabError, cleanup, control,
    record::{Record, all},
};

/// The client may reach the server's UDP port, and nothing else.
const POLICY: &str = r"
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata: {name: udp-only, namespace: a}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
    - toEndpoints: [{matchLabels: {app: server}}]
      toPorts: [{ports: [{port: '9000', protocol: UDP}]}]
";

fn kill_supervisor(name: &OwnName) {
    let pid = Record::read(&name.0).unwrap().unwrap().supervisor;
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while control::is_attended(&name.0) {
        assert!(
            Instant::now() < deadline,
            "the supervisor outlives its kill"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn up_detached(name: &OwnName, folder: &Folder) {
    let (done, text) = sluice(&[
        "lab",
        "up",
        "--name",
        &name.0.to_string(),
        "--detach",
        "-f",
        folder.0.to_str().unwrap(),
    ]);
    assert!(done, "{text}");
}

fn addresses(name: &OwnName, pod: &str) -> Vec<IpAddr> {
    Record::read(&name.0).unwrap().unwrap().pods[pod]
        .addresses
        .clone()
}

/// Asks and waits for each answer before the next; a question without one within this time is lost.
const PATIENCE: Duration = Duration::from_millis(500);

/// Counts of one asker.
#[derive(Debug, Default)]
struct Tally {
    asked: u64,
    answered: u64,
    /// Datagrams to a port that policy denies, and that a listener there saw.
    leaked: u64,
}

/// Asks the server over an allowed port, and knocks at a denied one where a listener waits, until told to stop.
fn ask(name: &OwnName, address: IpAddr, stop: Arc<AtomicBool>) -> thread::JoinHandle<Tally> {
    let socket = udp(&name.namespace("a/client"), address, 0);
    let denied = udp(&name.namespace("a/server"), address, 9001);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    denied.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let mut tally = Tally::default();
        let mut buffer = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            tally.asked += 1;
            socket
                .send_to(&tally.asked.to_be_bytes(), (address, 9000))
                .unwrap();
            socket.send_to(b"knock", (address, 9001)).unwrap();
            tally.answered += u64::from(socket.recv(&mut buffer).is_ok());
            tally.leaked += u64::from(denied.recv(&mut buffer).is_ok());
            thread::sleep(Duration::from_micros(200));
        }
        tally
    })
}

#[test]
fn a_killed_supervisor_leaves_policy_in_force_and_another_takes_over_without_a_packet_lost_or_let_through()
 {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let folder = Folder::new(&name, &[("pods.yaml", PODS), ("policy.yaml", POLICY)]);
    up_detached(&name, &folder);
    let stop = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = addresses(&name, "a/server")
        .into_iter()
        .map(|address| ask(&name, address, Arc::clone(&stop)))
        .collect();
    assert_eq!(askers.len(), 2, "both families");
    thread::sleep(Duration::from_millis(300));
    for _ in 0..3 {
        kill_supervisor(&name);
        thread::sleep(Duration::from_millis(200));
        assert!(matches!(
            control::ask(&name.0, &control::Request::Status),
            Err(LabError::Unattended { .. })
        ));
        let (done, text) = sluice(&[
            "lab",
            "up",
            "--name",
            &name.0.to_string(),
            "--detach",
            "--resume",
        ]);
        assert!(done, "{text}");
        thread::sleep(Duration::from_millis(200));
    }
    stop.store(true, Ordering::Relaxed);
    for asker in askers {
        let tally = asker.join().unwrap();
        eprintln!("{tally:?}");
        assert!(tally.asked > 100);
        assert_eq!(tally.asked, tally.answered, "packets were lost");
        assert_eq!(tally.leaked, 0, "packets were let through");
    }
    // Whoever took over is in charge: what it changes holds.
    let (agrees, text) = sluice(&["lab", "probe", "--name", &name.0.to_string(), "--ping"]);
    assert!(agrees, "{text}");
    let (done, text) = sluice(&["lab", "down", "--name", &name.0.to_string()]);
    assert!(done, "{text}");
    assert_eq!(name.traces(), Vec::<String>::new());
}

#[test]
fn down_leaves_nothing_behind_after_a_kill() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let folder = Folder::new(&name, &[("pods.yaml", PODS)]);
    up_detached(&name, &folder);
    assert!(all().unwrap().contains(&name.0));
    // Somebody's command in a pod goes too.
    let namespace = name.namespace("a/client");
    let mut command = sluice_datapath::net::in_namespace(&namespace, || {
        std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap()
    })
    .unwrap();
    drop(namespace);
    assert!(!name.traces().is_empty());
    kill_supervisor(&name);
    assert!(
        name.traces().iter().any(|trace| trace.contains("bpf")),
        "policy went with its supervisor"
    );
    let removed = cleanup::down(&name.0).unwrap();
    assert_eq!(removed.namespaces, 4);
    assert!(removed.datapath && removed.directory);
    assert_eq!(name.traces(), Vec::<String>::new());
    assert!(!command.wait().unwrap().success());
    assert!(
        cleanup::down(&name.0).unwrap().is_empty(),
        "a second time there is nothing"
    );
}

/// Two host-network pods that listen on one port: found out only when everything else has been made.
const CLASH: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: a}
spec: {hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: a}
spec: {hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}
";

#[test]
fn an_up_that_fails_leaves_nothing_behind_and_says_why() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let own_name = name.0.to_string();
    let folder = Folder::new(&name, &[("pods.yaml", PODS), ("clash.yaml", CLASH)]);
    let arguments = [
        "lab",
        "up",
        "--name",
        &own_name,
        "-f",
        folder.0.to_str().unwrap(),
    ];
    let (done, text) = sluice(&arguments);
    assert!(!done && text.contains("8080"), "{text}");
    assert_eq!(name.traces(), Vec::<String>::new());
    // Invalid manifests are found out before anything is made.
    fs::write(folder.0.join("clash.yaml"), "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelector: {}, nonsense: 1}\n").unwrap();
    let (done, text) = sluice(&arguments);
    assert!(
        !done && text.contains("nonsense") && text.contains("clash.yaml"),
        "{text}"
    );
    assert_eq!(name.traces(), Vec::<String>::new());
}

#[test]
fn two_labs_run_side_by_side_and_one_name_only_once() {
    if !enabled() {
        return;
    }
    let (one, two) = (OwnName::new(), OwnName::new());
    let folder = Folder::new(&one, &[("pods.yaml", PODS), ("policy.yaml", POLICY)]);
    up_detached(&one, &folder);
    up_detached(&two, &folder);
    let (done, text) = sluice(&[
        "lab",
        "up",
        "--name",
        &one.0.to_string(),
        "-f",
        folder.0.to_str().unwrap(),
    ]);
    assert!(!done && text.contains("up already"), "{text}");
    cleanup::down(&one.0).unwrap();
    let (agrees, text) = sluice(&["lab", "probe", "--name", &two.0.to_string()]);
    assert!(agrees, "the other lab suffered: {text}");
}

#[test]
fn watch_follows_edits() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let own_name = name.0.to_string();
    let folder = Folder::new(&name, &[("pods.yaml", PODS)]);
    let (done, text) = sluice(&[
        "lab",
        "up",
        "--name",
        &own_name,
        "--detach",
        "--watch",
        "-f",
        folder.0.to_str().unwrap(),
    ]);
    assert!(done, "{text}");
    let policies = || match control::ask(&name.0, &control::Request::Status).unwrap() {
        control::Response::Status(status) => status.policies,
        other => panic!("{other:?}"),
    };
    let becomes = |wanted: usize| {
        let deadline = Instant::now() + Duration::from_secs(5);
        while policies() != wanted {
            assert!(
                Instant::now() < deadline,
                "the lab did not follow its files to {wanted} policies"
            );
            thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(policies(), 0);
    fs::write(folder.0.join("policy.yaml"), POLICY).unwrap();
    becomes(1);
    let (agrees, text) = sluice(&["lab", "probe", "--name", &own_name]);
    assert!(
        agrees && text.contains("SluiceNetworkPolicy a/udp-only"),
        "{text}"
    );
    fs::remove_file(folder.0.join("policy.yaml")).unwrap();
    becomes(0);
    // A change that is still resting when the lab is told to end does not swallow the word.
    fs::write(folder.0.join("policy.yaml"), POLICY).unwrap();
    thread::sleep(Duration::from_millis(30));
    cleanup::down(&name.0).unwrap();
    assert_eq!(name.traces(), Vec::<String>::new());
}

/// Two policies at one place of the Admin tier, the first of which is there from the beginning, and pods of two nodes.
const SAME_PLACE: [&str; 2] = [
    "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: first}, spec: {tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}}\n",
    "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: second}, spec: {tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}}\n",
];
const TWO_NODES: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: a}, spec: {nodeName: n1, containers: []}}
---
{apiVersion: v1, kind: Pod, metadata: {name: two, namespace: a, colour: red}, spec: {nodeName: n2, containers: []}}
";

#[test]
fn authors_are_told_once_what_their_manifests_do_not_do() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let folder = Folder::new(
        &name,
        &[("pods.yaml", TWO_NODES), ("first.yaml", SAME_PLACE[0])],
    );
    let lab = name.0.to_string();
    let path = folder.0.to_str().unwrap();
    let (done, text) = sluice(&["lab", "up", "--name", &lab, "--detach", "-f", path]);
    assert!(done, "{text}");
    assert_eq!(text.matches("metadata.colour").count(), 1, "{text}");
    assert_eq!(text.matches("1 of the pods are on n2").count(), 1, "{text}");
    assert!(!text.contains("priority"), "{text}");
    let second = folder.0.join("second.yaml");
    fs::write(&second, SAME_PLACE[1]).unwrap();
    let apply = [
        "lab",
        "apply",
        "--name",
        &lab,
        "-f",
        second.to_str().unwrap(),
    ];
    let (done, text) = sluice(&apply);
    assert!(done, "{text}");
    assert_eq!(
        text.matches("warning: ClusterNetworkPolicy second: another policy of this tier has the same priority").count(),
        1,
        "{text}"
    );
    assert!(!text.contains("colour") && !text.contains("n2"), "{text}");
}

#[test]
fn a_lab_of_which_only_pins_are_left_is_found_and_removed() {
    if !enabled() {
        return;
    }
    let name = OwnName::new();
    let folder = Folder::new(&name, &[("pods.yaml", PODS)]);
    up_detached(&name, &folder);
    kill_supervisor(&name);
    for namespace in NetNs::list(&name.0.namespace_prefix()).unwrap() {
        NetNs::delete(&namespace).unwrap();
    }
    fs::remove_dir_all(name.0.directory()).unwrap();
    assert!(!all().unwrap().contains(&name.0), "no record is left");
    assert!(cleanup::everything().unwrap().contains(&name.0));
    // What `lab down --all` does with each; others of this machine are not this test's.
    assert!(cleanup::down(&name.0).unwrap().datapath);
    assert!(!cleanup::everything().unwrap().contains(&name.0));
}
