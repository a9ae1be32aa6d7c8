//! Interfaces one by one: what the plugin answers whoever follows the CNI specification, what a pod inherits of others, and what judges its
//! packets from its first moment on.

mod support;

use std::{
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sluice_datapath::net::{NetNs, in_namespace};
use support::{Echo, NODE, Rig, addresses, code, enabled, ping, reaches};

const PODS: &[(&str, &[(&str, &str)])] = &[
    ("client", &[("app", "client")]),
    ("server", &[("app", "server")]),
    ("web-0", &[("app", "client")]),
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

/// As [`reaches`], tried for longer: on a busy machine a second is not much.
fn gets_to(namespace: &NetNs, echo: &Echo) -> bool {
    (0..5).any(|_| reaches(namespace, echo.at()))
}

/// What `ip` says in a namespace.
fn ip(namespace: &NetNs, arguments: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(arguments);
    let output = in_namespace(namespace, || command.output().unwrap()).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_plugin_needs_only_what_the_specification_gives_it() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    let version: Value = serde_json::from_slice(&rig.plugin("VERSION", "", None).stdout).unwrap();
    assert_eq!(version["cniVersion"], "1.1.0");
    assert!(
        version["supportedVersions"]
            .as_array()
            .unwrap()
            .contains(&json!("1.0.0"))
    );
    assert!(rig.plugin("STATUS", "", None).status.success());
    let inside = rig.sandbox("tool");
    let result = rig.add("tool", None);
    assert_eq!(rig.add("tool", None), result, "again, the same");
    let given = addresses(&result);
    assert!(given.len() == 2 && given[0].is_ipv4() && given[1].is_ipv6());
    let own = ip(&inside, &["-o", "address", "show", "dev", "eth0"]);
    for address in &given {
        assert!(own.contains(&format!(" {address}/")), "{own}");
    }
    for family in ["-4", "-6"] {
        let routes = ip(&inside, &[family, "route", "show", "default"]);
        assert!(routes.contains("dev eth0"), "{routes}");
    }
    let previous = json!({"prevResult": result});
    assert!(
        rig.plugin_with("CHECK", "tool", None, &previous)
            .status
            .success()
    );
    // A second interface beside the first one is another attachment, and another container another.
    rig.sandbox("other");
    assert_ne!(addresses(&rig.add("other", None)), given);
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "other", "ifname": "eth0"}]});
    assert!(rig.plugin_with("GC", "", None, &valid).status.success());
    assert_eq!(code(&rig.plugin_with("CHECK", "tool", None, &previous)), 3);
    rig.del("tool");
    rig.del("other");
    rig.del("other");
    rig.wait_unlinked();
    assert_eq!(rig.show("endpoints"), json!([]));
    // The same container anew, at once after its end.
    rig.add("tool", None);
    rig.del("tool");
    rig.add("tool", None);
    assert!(ip(&inside, &["-o", "link"]).contains("eth0"));
    for (variable, wanted) in [("CNI_NETNS", 5), ("CNI_CONTAINERID", 4)] {
        let output = rig.plugin("ADD", if wanted == 5 { "nowhere" } else { "" }, None);
        assert_eq!(code(&output), wanted, "{variable}");
    }
}

#[test]
fn a_pod_has_nothing_of_the_one_before_it_of_its_name() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    let (server, server_at) = rig.pod("c-server", "shop/server");
    let echoes: Vec<Echo> = server_at
        .iter()
        .map(|address| Echo::start(&server, *address, 8080))
        .collect();
    rig.operator.apply(ONLY_CLIENT);
    let (first, _) = rig.pod("c-first", "shop/web-0");
    for echo in &echoes {
        assert!(gets_to(&first, echo), "it is a client");
    }
    rig.del("c-first");
    // The kubelet makes its successor before the operator has spoken of it. It is no client.
    let second = rig.sandbox("c-second");
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(500));
            rig.operator
                .replace_pod("web-0", "two", &[("app", "third")]);
        });
        rig.add("c-second", Some("shop/web-0@two"));
    });
    assert!(began.elapsed() >= Duration::from_millis(500), "it waited");
    for echo in &echoes {
        assert!(!reaches(&second, echo.at()), "it is no client");
    }
    let shown = rig.show("endpoints");
    let states: Vec<&Value> = shown
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["state"])
        .collect();
    assert_eq!(states, ["ready", "ready"], "{shown}");
    // Nor has a sandbox that lives on what is said of its successor.
    rig.operator
        .replace_pod("web-0", "three", &[("app", "client")]);
    rig.operator.wait_acknowledged();
    for echo in &echoes {
        assert!(!reaches(&second, echo.at()), "it is not meant");
    }
    for own in NODE {
        assert!(!ping(&second, own.parse().unwrap()), "it has no tables");
    }
}

#[test]
fn the_connections_of_a_pod_end_with_it() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    let (client, _) = rig.pod("c-client", "shop/client");
    let (server, server_at) = rig.pod("c-server", "shop/server");
    let echoes: Vec<Echo> = server_at
        .iter()
        .map(|address| Echo::start(&server, *address, 8080))
        .collect();
    // Open, and silent: nobody says anything of it when the server goes.
    let open: Vec<TcpStream> = echoes
        .iter()
        .map(|echo| in_namespace(&client, || TcpStream::connect(echo.at()).unwrap()).unwrap())
        .collect();
    let wait_for = |wanted: fn(u64) -> bool| {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let count = rig.show("status")["connections"].as_u64().unwrap();
            if wanted(count) {
                return;
            }
            assert!(Instant::now() < until, "{count} connections");
            thread::sleep(Duration::from_millis(100));
        }
    };
    wait_for(|count| count >= 2);
    rig.del("c-server");
    wait_for(|count| count == 0);
    drop(open);
}

#[test]
fn a_pod_is_judged_from_its_first_moment_whatever_becomes_of_the_agent() {
    if !enabled() {
        return;
    }
    let mut rig = Rig::new(PODS);
    let (server, server_at) = rig.pod("c-server", "shop/server");
    let echoes: Vec<Echo> = server_at
        .iter()
        .map(|address| Echo::start(&server, *address, 8080))
        .collect();
    rig.operator.apply(ONLY_CLIENT);
    rig.operator.add_pod("third", &[("app", "third")]);
    let pairs = [
        ("c-client", "shop/client", true),
        ("c-third", "shop/third", false),
    ];
    let sandboxes = pairs.map(|(container, _, _)| rig.sandbox(container));
    // A request that waits holds back what the agent leaves for later, and it is killed before it is done.
    rig.sandbox("c-waits");
    thread::scope(|scope| {
        let request = scope.spawn(|| rig.plugin("ADD", "c-waits", Some("shop/unheard-of")));
        thread::sleep(Duration::from_millis(100));
        for (container, pod, _) in pairs {
            rig.add(container, Some(pod));
        }
        rig.kill();
        assert_eq!(code(&request.join().unwrap()), 11);
    });
    rig.end(Signal::SIGKILL);
    let holds = |when: &str| {
        for (namespace, (_, pod, allowed)) in sandboxes.iter().zip(pairs) {
            for echo in &echoes {
                let passes = if allowed {
                    gets_to(namespace, echo)
                } else {
                    reaches(namespace, echo.at())
                };
                assert_eq!(passes, allowed, "{pod} {when}");
            }
        }
    };
    assert_eq!(guarded(&rig), 2, "no link has been made");
    holds("without agent");
    rig.start();
    rig.wait_ready();
    holds("after its return");
    let until = Instant::now() + Duration::from_secs(10);
    while guarded(&rig) > 0 {
        assert!(Instant::now() < until, "filters stay");
        thread::sleep(Duration::from_millis(50));
    }
    holds("with links");
    let links = std::fs::read_dir(rig.pins().join("links")).unwrap();
    let of_pods = links.filter(|pin| {
        let name = pin.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with("endpoint")
    });
    assert_eq!(of_pods.count(), 6, "two for each pod");
}

/// Pods' interfaces that filters judge at.
fn guarded(rig: &Rig) -> usize {
    let mut netlink = sluice_datapath::net::Netlink::open_in(&rig.node()).unwrap();
    let links = netlink.links().unwrap();
    let own = links.iter().filter(|link| link.name.starts_with("slu"));
    own.filter(|link| netlink.has_filters(link.index).unwrap())
        .count()
}
