//! The test cluster itself: it starts without a network, is dual-stack, survives what tests do to it and leaves nothing behind.
//! Needs root, a built cluster (`cargo xtask cluster build`) and `SLUICE_CLUSTER_TESTS=1`, for it takes a minute and 2 GB.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use sluice_cluster::{
    Cluster, Machine, Name, Options, Proxy,
    fake::{self, Pods},
    oci::Image,
};

const NODE: Machine = Machine::Node(1);

fn enabled() -> bool {
    let wanted = std::env::var_os("SLUICE_CLUSTER_TESTS").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: needs root, a built cluster and SLUICE_CLUSTER_TESTS=1");
    }
    wanted
}

fn say(message: &str) {
    eprintln!("{message}");
}

/// One cluster for everything: starting one takes half a minute.
#[test]
fn a_cluster_lives_and_leaves_nothing() {
    if !enabled() {
        return;
    }
    let name: Name = "life".parse().unwrap();
    let options = Options {
        name: name.clone(),
        nodes: 1,
        proxy: Proxy::None,
        fake_nodes: true,
        dns: false,
        ..Options::default()
    };
    let cluster = Cluster::up_owned(options.clone(), &mut say).unwrap();
    assert!(Cluster::up(options, &mut say).is_err(), "it is up already");
    nodes_wait_for_a_network(&cluster);
    services_are_dual_stack(&cluster);
    images_are_loaded(&cluster);
    killed_services_come_back(&cluster);
    the_api_server_stays_down_until_started(&cluster);
    fake_nodes_and_pods_are_told_by_the_api(&cluster);
    the_outside_answers(&cluster);
    drop(cluster);
    assert_eq!(remains("slc-life-"), Vec::<PathBuf>::new());
    assert!(Cluster::open(&name).is_err());
}

fn nodes_wait_for_a_network(cluster: &Cluster) {
    let ready = cluster
        .kubectl()
        .run(&[
            "get",
            "node",
            "node1",
            "-o",
            r#"jsonpath={.status.conditions[?(@.type=="Ready")]}"#,
        ])
        .unwrap();
    assert!(
        ready.contains(r#""status":"False""#) && ready.contains("cni"),
        "{ready}"
    );
}

fn services_are_dual_stack(cluster: &Cluster) {
    let manifest = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "both", "namespace": "default"},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]}}"#;
    cluster.kubectl().apply(manifest).unwrap();
    let service = cluster.kubectl().json(&["get", "service", "both"]).unwrap();
    assert_eq!(
        service["spec"]["ipFamilies"],
        serde_json::json!(["IPv4", "IPv6"])
    );
}

fn images_are_loaded(cluster: &Cluster) {
    let root = cluster.folder().join("image-root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("hello"), "hello").unwrap();
    let file = cluster.folder().join("image.tar");
    Image::new("localhost/sluice/hello:dev", &["/hello"])
        .write(&root, &file)
        .unwrap();
    cluster.load_image(1, &file).unwrap();
    let images = cluster
        .node_exec(
            1,
            &["ctr", "--namespace=k8s.io", "images", "list", "--quiet"],
        )
        .unwrap();
    assert!(
        images
            .lines()
            .any(|image| image == "localhost/sluice/hello:dev"),
        "{images}"
    );
}

fn killed_services_come_back(cluster: &Cluster) {
    for service in ["containerd", "kubelet"] {
        let before = cluster.service_pid(NODE, service).unwrap().unwrap();
        cluster.kill(NODE, service).unwrap();
        within(Duration::from_secs(10), service, || {
            cluster
                .service_pid(NODE, service)
                .unwrap()
                .is_some_and(|now| now != before)
        });
    }
    let killed = cluster.kill_processes(NODE, "containerd").unwrap();
    assert_eq!(killed, 1);
    assert_eq!(cluster.kill_processes(NODE, "no-such-thing").unwrap(), 0);
    within(Duration::from_secs(20), "containerd", || {
        cluster.node_exec(1, &["ctr", "version"]).is_ok()
    });
    assert!(cluster.kill(NODE, "etcd").is_err(), "a node has no etcd");
}

fn the_api_server_stays_down_until_started(cluster: &Cluster) {
    cluster.stop_api_server().unwrap();
    thread::sleep(Duration::from_secs(2));
    assert!(!cluster.kubectl().is_ready());
    cluster.start_api_server().unwrap();
    cluster.kubectl().run(&["get", "service", "both"]).unwrap();
}

fn fake_nodes_and_pods_are_told_by_the_api(cluster: &Cluster) {
    fake::create_nodes(cluster.kubectl(), 0, 3).unwrap();
    let pods = Pods {
        namespace: "default".to_owned(),
        prefix: "shop".to_owned(),
        count: 20,
        labels: [("app".to_owned(), "shop".to_owned())].into(),
        first_node: 0,
        nodes: 3,
        first_place: 1,
    };
    fake::create_pods(cluster.kubectl(), &pods).unwrap();
    let listed = cluster
        .kubectl()
        .json(&["get", "pods", "-l", "app=shop"])
        .unwrap();
    let listed = listed["items"].as_array().unwrap();
    assert_eq!(listed.len(), 20);
    for pod in listed {
        assert_eq!(pod["status"]["phase"], "Running");
        assert_eq!(pod["status"]["podIPs"].as_array().map(Vec::len), Some(2));
    }
    let node = cluster
        .kubectl()
        .json(&["get", "node", &fake::node_name(0)])
        .unwrap();
    assert_eq!(node["status"]["conditions"][0]["status"], "True");
}

fn the_outside_answers(cluster: &Cluster) {
    for address in sluice_cluster::plan::addresses(Machine::Outside).both() {
        cluster
            .node_exec(1, &["ping", "-c1", "-W2", &address.to_string()])
            .unwrap();
    }
}

/// A run that is killed at any time is cleaned up by name.
#[test]
fn what_a_killed_start_leaves_is_removed() {
    if !enabled() {
        return;
    }
    let name: Name = "killed".parse().unwrap();
    for after in [
        Duration::from_millis(300),
        Duration::from_secs(3),
        Duration::from_secs(9),
    ] {
        let mut up = Command::new(env!("CARGO_BIN_EXE_sluice-cluster"));
        up.args(["up", "--name", "killed", "--nodes", "1"]);
        let mut up = up.spawn().unwrap();
        within(Duration::from_secs(30), "the start", || {
            !remains("slc-killed-").is_empty()
        });
        thread::sleep(after);
        up.kill().unwrap();
        up.wait().unwrap();
        Cluster::down(&name).unwrap();
        assert_eq!(
            remains("slc-killed-"),
            Vec::<PathBuf>::new(),
            "killed after {after:?}"
        );
    }
}

/// Namespaces and control groups whose names start so.
fn remains(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["/run/netns", "/sys/fs/cgroup/unified"] {
        collect(Path::new(folder), prefix, &mut found);
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        collect(&hierarchy.unwrap().path(), prefix, &mut found);
    }
    found
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
}

fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(
            begin.elapsed() < limit,
            "{what} did not come within {limit:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}
