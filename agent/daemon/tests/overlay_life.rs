//! A node in the overlay, with the real agent: its device is made, kept, mended and removed; its pods and itself reach another node's pod, and
//! are reached, as whom they are. The other node is the kernel's own VXLAN.

mod support;

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;
use sluice_datapath::net::{Hop, Link, NetNs, Netlink, in_namespace, overlay};
use sluice_stream::{Overlay, Settings};
use support::{Echo, FAR, Far, NODE, OTHER, Rig, Talker, enabled, ping, ping_from, reaches};

const PODS: &[(&str, &[(&str, &str)])] = &[
    ("client", &[("app", "client")]),
    ("server", &[("app", "server")]),
];
const DEVICE: &str = "sluice_vxlan";
const PORT: u16 = 8472;
/// As in `node_life`: a dropped packet costs more, mostly.
const STALL: Duration = Duration::from_millis(1500);
/// Within which an agent looks after its device.
const LOOK: Duration = Duration::from_secs(15);

const ONLY_FAR: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-far, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: far}}}]}]
";

/// A node in the overlay, and another with a pod.
struct Scene {
    rig: Rig,
    far: Far,
}

impl Scene {
    fn new() -> Self {
        let rig = Rig::new(PODS);
        set(&rig, Overlay::Vxlan { port: PORT });
        let addresses = FAR.map(|text| text.parse::<IpAddr>().unwrap());
        rig.operator.add_far("far", &[("app", "far")], &addresses);
        rig.operator.wait_acknowledged();
        let far = Far::start(rig.outer());
        let scene = Self { rig, far };
        scene.wrap(PORT);
        scene
    }

    /// The far pod's packets bear its number, and go to this port.
    fn wrap(&self, port: u16) {
        self.far.device(self.rig.operator.identity("far"), port);
    }

    fn device(&self) -> Option<Link> {
        let mut netlink = Netlink::open_in(&self.rig.node()).unwrap();
        netlink.link(DEVICE).unwrap()
    }

    /// The far pod is reached from here, in both families.
    fn reached(&self, from: &NetNs, when: &str) {
        for at in self.far.at() {
            soon(&format!("{at} {when}"), || reaches(from, at));
        }
    }
}

fn set(rig: &Rig, overlay: Overlay) {
    rig.operator.set_cluster(Settings {
        overlay,
        masquerade: true,
        ..Settings::default()
    });
    rig.operator.wait_acknowledged();
}

fn ip(namespace: &NetNs, words: &str) {
    let mut ip = Command::new("ip");
    ip.args(words.split(' '));
    let done = in_namespace(namespace, || ip.output().unwrap()).unwrap();
    assert!(done.status.success(), "ip {words}: {done:?}");
}

/// Addresses that the kernel would rather send from: before the node's own in the device's list, and more like the pod's.
fn put_decoys(node: &NetNs) {
    ip(node, "address add 10.1.1.1/24 dev eth0");
    let own = format!("{}/24", NODE[0]);
    for what in ["del", "add"] {
        ip(node, &format!("address {what} {own} dev eth0"));
    }
    ip(node, "address add fd00:244:ff::1/64 dev eth0 nodad");
}

/// The address with which a connection from here arrives.
fn own_address(from: &NetNs, to: SocketAddr) -> IpAddr {
    let stream = in_namespace(from, || TcpStream::connect(to).unwrap()).unwrap();
    stream.local_addr().unwrap().ip()
}

#[test]
fn pods_and_nodes_talk_through_the_overlay() {
    if !enabled() {
        return;
    }
    let mut scene = Scene::new();
    let node = scene.rig.node();
    put_decoys(&node);
    let (client, _) = scene.rig.pod("c-client", "shop/client");
    let (server, server_at) = scene.rig.pod("c-server", "shop/server");
    let inside = Netlink::open_in(&client).unwrap().link("eth0").unwrap();
    assert_eq!(inside.unwrap().mtu, 1450, "room for the wrapping");
    let device = scene.device().unwrap();
    assert_eq!((device.mtu, device.up), (1450, true));
    assert_eq!(device.mac, Some(overlay::mac(1)));
    scene.reached(&client, "from a pod");
    scene.reached(&node, "from the node");
    for (at, own) in scene.far.at().into_iter().zip(NODE) {
        assert!(ping(&client, at.ip()), "{at}");
        let own: IpAddr = own.parse().unwrap();
        assert_eq!(own_address(&node, at), own);
        // A pod and a node that is not its own, either way.
        assert!(
            ping_from(&scene.rig.outer(), at.ip(), own),
            "far pod to node {own}"
        );
        let other = OTHER[usize::from(own.is_ipv6())].parse().unwrap();
        assert!(ping(&client, other), "pod to node {other}");
    }
    let echoes: Vec<Echo> = server_at
        .iter()
        .map(|pod| Echo::start(&server, *pod, 8080))
        .collect();
    let from_far = |echo: &Echo| reaches(&scene.rig.outer(), echo.at());
    soon("before any policy", || echoes.iter().all(from_far));
    scene.rig.operator.apply(ONLY_FAR);
    for echo in &echoes {
        assert!(!reaches(&client, echo.at()), "{} is denied", echo.at());
        // The far pod is whom its number says, and it has another since its labels count.
        assert!(!from_far(echo), "{} is denied to its old number", echo.at());
    }
    scene.wrap(PORT);
    soon("allowed", || echoes.iter().all(from_far));
    let status = scene.rig.show("status");
    assert_eq!(status["routing"], "vxlan");
    assert_eq!(status["mtu"], 1450);
    assert_eq!(
        status["devices"],
        json!(["eth0"]),
        "the overlay's faces no world"
    );
    assert_eq!(status["troubles"], json!({}), "{status}");
}

#[test]
fn what_netfilter_sends_to_other_nodes_pods_has_the_nodes_address_or_is_dropped() {
    if !enabled() {
        return;
    }
    let scene = Scene::new();
    let (node, outer) = (scene.rig.node(), scene.rig.outer());
    put_decoys(&node);
    for (own, far) in NODE.into_iter().zip(FAR) {
        let family = if far.contains(':') { "ip6" } else { "ip" };
        let to = SocketAddr::new(far.parse().unwrap(), 8080);
        let port: SocketAddr = (own.parse::<IpAddr>().unwrap(), 30_080).into();
        nft(
            &node,
            &format!(
                "table {family} nodeport {{
                    chain in {{ type nat hook prerouting priority -100; tcp dport 30080 dnat to {to}; }}
                    chain out {{ type nat hook postrouting priority 100; ct status dnat masquerade; }}
                }}"
            ),
        );
        let kept = Talker::start(&outer, port);
        assert!(reaches(&outer, port), "{port}\n{}", scene.rig.log());
        assert!(kept.end() < STALL);
        // With the client's own address nobody would believe the node, so that it does not even leave.
        let before = forged(&scene.rig);
        nft(&node, &format!("flush chain {family} nodeport out"));
        assert!(!reaches(&outer, port), "{port} as the client itself");
        let until = Instant::now() + LOOK;
        while forged(&scene.rig) == before {
            assert!(Instant::now() < until, "no drop is told of");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn the_device_outlives_the_agent_and_returns_when_it_is_taken_away() {
    if !enabled() {
        return;
    }
    let mut scene = Scene::new();
    let (client, _) = scene.rig.pod("c-client", "shop/client");
    let (node, index) = (scene.rig.node(), scene.device().unwrap().index);
    scene.reached(&client, "before");
    let talkers: Vec<Talker> = scene
        .far
        .at()
        .into_iter()
        .flat_map(|at| [Talker::start(&client, at), Talker::start(&node, at)])
        .collect();
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL] {
        scene.rig.end(signal);
        scene.reached(&client, "while no agent runs");
        scene.rig.start();
        scene.rig.wait_ready();
        scene.reached(&client, "after the restart");
    }
    for talker in talkers {
        assert!(talker.said() > 50, "it talked");
        let longest = talker.end();
        println!("longest wait over three restarts: {longest:?}");
        assert!(longest < STALL, "{longest:?}");
    }
    assert_eq!(scene.device().unwrap().index, index, "the same device");
    // Somebody takes it away, at once or by pieces.
    ip(&node, &format!("link del {DEVICE}"));
    eventually(&scene, &client, "the device is made again");
    ip(&node, &format!("link set {DEVICE} down"));
    eventually(&scene, &client, "it is set up again");
    ip(&node, &format!("link set {DEVICE} mtu 1400"));
    let until = Instant::now() + LOOK;
    while scene.device().is_none_or(|device| device.mtu != 1450) {
        assert!(Instant::now() < until, "{:?}", scene.device());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_mode_and_the_port_can_change_under_running_pods() {
    if !enabled() {
        return;
    }
    let mut scene = Scene::new();
    let (client, _) = scene.rig.pod("c-client", "shop/client");
    let first = scene.device().unwrap().index;
    scene.wrap(4790);
    set(&scene.rig, Overlay::Vxlan { port: 4790 });
    eventually(&scene, &client, "by the other port");
    assert_ne!(scene.device().unwrap().index, first, "another device");
    let hops = |scene: &Scene| -> Vec<Hop> {
        let mut netlink = Netlink::open_in(&scene.rig.node()).unwrap();
        let routes = netlink.marked_routes().unwrap().into_iter();
        routes.map(|route| route.hop).collect()
    };
    let index = scene.device().unwrap().index;
    let both = [Hop::Unreachable, Hop::Interface(index)].repeat(2);
    assert_eq!(hops(&scene), both);
    scene.far.unwrap();
    set(&scene.rig, Overlay::Direct);
    eventually(&scene, &client, "by routes");
    assert_eq!(scene.device(), None);
    assert!(matches!(hops(&scene)[1], Hop::Via { .. }));
    assert_eq!(scene.rig.show("status")["routing"], "direct");
    scene.wrap(PORT);
    set(&scene.rig, Overlay::Vxlan { port: PORT });
    eventually(&scene, &client, "in the overlay again");
    let output = scene.rig.cleanup();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(scene.device(), None);
    assert_eq!(hops(&scene), []);
}

/// Waits until both of the far pod's addresses are reached.
fn eventually(scene: &Scene, from: &NetNs, when: &str) {
    soon(when, || {
        scene.far.at().into_iter().all(|at| reaches(from, at))
    });
}

/// A single try may end before its answer comes, on a busy machine.
fn soon(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + LOOK;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
    }
}

/// Packets that the node would not send on in another's name.
fn forged(rig: &Rig) -> u64 {
    let metrics = rig.show("metrics");
    let lines = metrics.as_str().unwrap().lines();
    lines
        .filter(|line| line.contains("ToOverlay") && line.contains("ForgedOverlay"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn nft(namespace: &NetNs, rules: &str) {
    let mut nft = Command::new("nft");
    nft.arg(rules);
    let done = in_namespace(namespace, || nft.output().unwrap()).unwrap();
    assert!(done.status.success(), "{rules}: {done:?}");
}
