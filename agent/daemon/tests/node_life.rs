//! A node's life in the kernel: pods come by the real plugin, talk as policy says, and go; the agent dies in every way and comes back.

mod support;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;
use sluice_datapath::net::{Netlink, in_namespace};
use sluice_stream::Settings;
use support::{Echo, NODE, OUTER, Rig, Talker, code, enabled, ping, reaches};

const PODS: &[(&str, &[(&str, &str)])] = &[
    ("client", &[("app", "client")]),
    ("server", &[("app", "server")]),
    ("third", &[("app", "third")]),
];

const ONLY_CLIENT: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-client, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
";

const NOBODY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

/// Longer than any step between two answers takes, on a busy machine; a dropped packet costs at least TCP's 200 ms more, mostly.
const STALL: Duration = Duration::from_millis(1500);

#[test]
fn pods_talk_as_policy_says() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    let (client, client_at) = rig.pod("c-client", "shop/client");
    let (server, server_at) = rig.pod("c-server", "shop/server");
    let (third, _) = rig.pod("c-third", "shop/third");
    assert_eq!(client_at.len(), 2, "both families");
    let echoes: Vec<Echo> = server_at
        .iter()
        .map(|address| Echo::start(&server, *address, 8080))
        .collect();
    for (echo, pod) in echoes.iter().zip(&server_at) {
        assert!(reaches(&client, echo.at()), "{pod} before any policy");
        assert!(reaches(&third, echo.at()), "{pod} before any policy");
        assert!(ping(&client, *pod), "{pod}");
        assert!(reaches(&rig.node(), echo.at()), "node to {pod}");
        assert!(ping(&rig.node(), *pod), "node to {pod}");
    }
    for (own, outer) in NODE.into_iter().zip(OUTER) {
        assert!(ping(&client, own.parse().unwrap()), "pod to node {own}");
        // The machine outside knows no way back to pods but through the node.
        let route = |family: &str, net: &str| {
            let mut ip = std::process::Command::new("ip");
            ip.args([family, "route", "replace", net, "via", own]);
            assert!(
                in_namespace(&rig.outer(), || ip.status().unwrap())
                    .unwrap()
                    .success()
            );
        };
        if own.contains(':') {
            route("-6", "fd00:244:1::/64");
        } else {
            route("-4", "10.244.1.0/24");
        }
        assert!(ping(&client, outer.parse().unwrap()), "pod to {outer}");
    }
    rig.operator.apply(ONLY_CLIENT);
    for (echo, pod) in echoes.iter().zip(&server_at) {
        assert!(reaches(&client, echo.at()), "{pod} is allowed");
        assert!(!reaches(&third, echo.at()), "{pod} is denied");
        assert!(!ping(&third, *pod), "{pod} is denied");
        assert!(
            reaches(&rig.node(), echo.at()),
            "the kubelet's probes of {pod}"
        );
        assert!(!ping(&rig.outer(), *pod), "{pod} from outside is denied");
    }
    rig.operator.withdraw(ONLY_CLIENT);
    for echo in &echoes {
        assert!(reaches(&third, echo.at()));
    }
}

#[test]
fn the_runtime_s_requests_are_answered_as_the_specification_says() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    let namespace = rig.sandbox("c1");
    let first = rig.add("c1", Some("shop/client"));
    assert_eq!(first, rig.add("c1", Some("shop/client")), "again, the same");
    assert_eq!(first["cniVersion"], "1.1.0");
    assert_eq!(first["interfaces"][1]["name"], "eth0");
    assert_eq!(first["interfaces"][1]["mtu"], 1500, "the device's");
    let check =
        |more: serde_json::Value| rig.plugin_with("CHECK", "c1", Some("shop/client"), &more);
    assert!(check(json!({"prevResult": first})).status.success());
    let other = json!({"prevResult": {"ips": [{"address": "10.9.9.9/32"}]}});
    assert_eq!(code(&check(other)), 101);
    assert_eq!(code(&check(json!({}))), 7, "without prevResult");
    // Someone takes an address away.
    let address = first["ips"][1]["address"].as_str().unwrap();
    let mut ip = std::process::Command::new("ip");
    ip.args(["-6", "address", "del", address, "dev", "eth0"]);
    assert!(
        in_namespace(&namespace, || ip.status().unwrap())
            .unwrap()
            .success()
    );
    let output = check(json!({"prevResult": first}));
    assert_eq!(code(&output), 101);
    assert!(String::from_utf8_lossy(&output.stdout).contains(address.split('/').next().unwrap()));
    // An unknown pod waits for the operator, which never speaks of it.
    rig.sandbox("c2");
    assert_eq!(code(&rig.plugin("ADD", "c2", Some("shop/unheard-of"))), 11);
    assert_eq!(rig.show("endpoints").as_array().unwrap().len(), 1);
    // A person with cnitool: an interface and an address, and no traffic.
    let mine = rig.sandbox("c3");
    let result = rig.add("c3", None);
    assert_eq!(result["ips"].as_array().unwrap().len(), 2);
    for own in NODE {
        assert!(
            !ping(&mine, own.parse().unwrap()),
            "nothing flows without tables"
        );
    }
    // GC ends what nobody has.
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]});
    assert!(rig.plugin_with("GC", "c1", None, &valid).status.success());
    let endpoints = rig.show("endpoints");
    assert_eq!(endpoints.as_array().unwrap().len(), 1);
    assert_eq!(endpoints[0]["name"], "client");
    assert_eq!(endpoints[0]["state"], "ready");
    rig.del("c1");
    rig.del("c1");
    assert_eq!(rig.show("endpoints"), json!([]));
    rig.wait_unlinked();
    let metrics = rig.show("metrics").to_string();
    assert!(
        metrics.contains("sluice_agent_cni_request_seconds"),
        "{metrics}"
    );
}

#[test]
fn a_pod_that_comes_before_its_tables_waits_for_them() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    rig.sandbox("late");
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(400));
            rig.operator.add_pod("late", &[("app", "late")]);
        });
        rig.add("late", Some("shop/late"));
    });
    assert!(began.elapsed() >= Duration::from_millis(400));
    // Where policies see addresses, the answer comes after the operator has said what they are.
    rig.operator.set_cluster(Settings {
        addresses_matter: true,
        ..Settings::default()
    });
    rig.operator.wait_acknowledged();
    let (client, addresses) = rig.pod("c-client", "shop/client");
    let up = rig.operator.reported.lock().unwrap().clone();
    assert!(up.contains(&"up shop/client".to_owned()), "{up:?}");
    let late = rig.show("endpoints");
    assert_eq!(late.as_array().unwrap().len(), 2);
    assert!(
        !ping(&client, "10.244.1.200".parse().unwrap()),
        "nobody's address"
    );
    assert_eq!(addresses.len(), 2);
}

#[test]
fn no_way_of_ending_the_agent_harms_running_pods() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    let (client, _) = rig.pod("c-client", "shop/client");
    let (server, server_at) = rig.pod("c-server", "shop/server");
    let (third, _) = rig.pod("c-third", "shop/third");
    rig.operator.apply(ONLY_CLIENT);
    let echoes: Vec<Echo> = server_at
        .iter()
        .map(|address| Echo::start(&server, *address, 8080))
        .collect();
    let talkers: Vec<Talker> = echoes
        .iter()
        .map(|echo| Talker::start(&client, echo.at()))
        .collect();
    let before = rig.show("endpoints");
    let holds = |rig: &Rig, when: &str| {
        for echo in &echoes {
            assert!(reaches(&client, echo.at()), "{when}");
            assert!(!reaches(&third, echo.at()), "{when}");
            assert!(reaches(&rig.node(), echo.at()), "{when}");
        }
    };
    for (round, signal) in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL]
        .into_iter()
        .enumerate()
    {
        rig.end(signal);
        holds(&rig, "while no agent runs");
        if round == 2 {
            // Neither agent nor operator: the next agent has only what it wrote down.
            rig.operator.go_away();
        }
        rig.start();
        rig.wait_ready();
        holds(&rig, "after the restart");
        assert_eq!(rig.show("endpoints"), before);
    }
    assert_eq!(rig.show("status")["operator"]["connected"], false);
    // A pod the operator had told of starts without it.
    rig.del("c-third");
    rig.pod("c-third-2", "shop/third");
    rig.operator.serve();
    rig.operator.wait_acknowledged();
    rig.operator.apply(NOBODY);
    for echo in &echoes {
        assert!(
            !reaches(&third, echo.at()),
            "what comes after the outage is in force"
        );
        assert!(
            reaches(&client, echo.at()),
            "allowed still, by the other policy"
        );
    }
    for talker in talkers {
        assert!(talker.said() > 50, "it talked");
        let longest = talker.end();
        println!("longest wait over three restarts: {longest:?}");
        assert!(longest < STALL, "{longest:?}");
    }
}

#[test]
fn without_an_agent_pods_wait_and_deletions_are_kept() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    rig.pod("c1", "shop/client");
    let (gone, _) = rig.pod("c2", "shop/server");
    rig.end(Signal::SIGKILL);
    rig.sandbox("c3");
    assert_eq!(code(&rig.plugin("ADD", "c3", Some("shop/third"))), 11);
    assert_eq!(code(&rig.plugin("STATUS", "c3", None)), 50);
    rig.del("c1");
    assert_eq!(fs::read_dir(rig.path("run/deletions")).unwrap().count(), 1);
    // Meanwhile another sandbox goes with its namespace, as at a crash of the runtime.
    let mut inside = Netlink::open_in(&gone).unwrap();
    let index = inside.index("eth0").unwrap();
    inside.delete_link(index).unwrap();
    rig.start();
    rig.wait_ready();
    let until = Instant::now() + Duration::from_secs(10);
    while rig.show("endpoints") != json!([]) {
        assert!(Instant::now() < until, "{}", rig.show("endpoints"));
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read_dir(rig.path("run/deletions")).unwrap().count(), 0);
    // The addresses of both rest: the next pod gets another.
    let result = rig.add("c3", Some("shop/third"));
    assert_eq!(result["ips"][0]["address"], "10.244.1.3/32");
}

#[test]
fn routes_follow_the_nodes_and_cleanup_leaves_nothing() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    rig.pod("c1", "shop/client");
    let until = Instant::now() + Duration::from_secs(10);
    let routes = || {
        let marked = Netlink::open_in(&rig.node())
            .unwrap()
            .marked_routes()
            .unwrap();
        let text = marked.iter().map(|route| route.destination.to_string());
        text.collect::<Vec<_>>()
    };
    let wanted = [
        "10.244.1.0/24",
        "10.244.2.0/24",
        "fd00:244:1::/64",
        "fd00:244:2::/64",
    ];
    while routes() != wanted {
        assert!(Instant::now() < until, "{:?}", routes());
        thread::sleep(Duration::from_millis(50));
    }
    let status = rig.show("status");
    assert_eq!(status["devices"], json!(["eth0"]));
    assert_eq!(status["routing"], "direct");
    assert_eq!(status["troubles"], json!({}), "{status}");
    let health = in_namespace(&rig.node(), || {
        get("127.0.0.1:4248".parse().unwrap(), "/readyz")
    });
    assert!(health.unwrap().starts_with("HTTP/1.0 200"));
    assert!(rig.pins().exists());
    let output = rig.cleanup();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{}", rig.log());
    assert!(!rig.pins().exists());
    let marked = Netlink::open_in(&rig.node())
        .unwrap()
        .marked_routes()
        .unwrap();
    assert_eq!(marked, []);
    assert!(
        rig.links().iter().all(|name| !name.starts_with("slu")),
        "{:?}",
        rig.links()
    );
    for path in ["net.d/05-sluice.conflist", "bin/sluice-cni", "state", "run"] {
        assert!(!rig.path(path).exists(), "{path}");
    }
    // And again from nothing.
    rig.start();
    rig.wait_ready();
    let (client, _) = rig.pod("c9", "shop/client");
    assert!(ping(&client, NODE[0].parse::<IpAddr>().unwrap()));
}

fn get(address: SocketAddr, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
