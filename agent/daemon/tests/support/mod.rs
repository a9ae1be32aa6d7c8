//! A node of its own in a network namespace, with the real agent and the real plugin, and an operator in this process: all gone when the
//! test ends, however it ends.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its part of this"
)]

mod far;
mod operator;
mod traffic;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use sluice_datapath::net::{Mac, NetNs, Netlink, VethEnd, in_namespace, set_sysctls};

pub(crate) use far::{FAR, Far};
pub(crate) use operator::Operator;
pub(crate) use traffic::{Echo, Talker, ping, ping_from, reaches};

/// Whether kernel tests are wanted; says so where they are not.
pub(crate) fn enabled() -> bool {
    let wanted = std::env::var_os("SLUICE_KERNEL_TESTS").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: needs root and SLUICE_KERNEL_TESTS=1");
    }
    wanted
}

/// The plugin of this build, built first if need be; or the one that `SLUICE_CNI_PLUGIN` names.
fn plugin() -> PathBuf {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        if let Some(given) = std::env::var_os("SLUICE_CNI_PLUGIN") {
            return given.into();
        }
        let agent = Path::new(env!("CARGO_BIN_EXE_sluice-agent"));
        let profile = agent.parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args([
                "build",
                "--quiet",
                "--package",
                "sluice-cni",
                "--target-dir",
            ])
            .arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "building sluice-cni");
        profile.join("sluice-cni")
    };
    PLUGIN.get_or_init(build).clone()
}

/// The node's own addresses, and those of a machine on its segment that is no node.
pub(crate) const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];
pub(crate) const OUTER: [&str; 2] = ["192.0.2.9", "2001:db8:2::9"];
/// Another node, which is not there.
pub(crate) const OTHER: [&str; 2] = ["192.0.2.2", "2001:db8:2::2"];

/// See the module.
pub(crate) struct Rig {
    pub(crate) operator: Operator,
    pub(crate) folder: tempfile::TempDir,
    name: String,
    agent: Option<Child>,
    pods: Vec<String>,
}

impl Rig {
    /// A node with a running agent that is in sync.
    pub(crate) fn new(pods: &[(&str, &[(&str, &str)])]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ag{}x{count}", std::process::id());
        let node = NetNs::create(&format!("{name}-node")).unwrap();
        let outer = NetNs::create(&format!("{name}-outer")).unwrap();
        join(&node, &outer);
        let operator = Operator::start(&node, pods);
        let mut rig = Self {
            operator,
            folder: tempfile::tempdir().unwrap(),
            name,
            agent: None,
            pods: Vec::new(),
        };
        fs::write(rig.path("token"), "test").unwrap();
        rig.start();
        rig.wait_ready();
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The node's namespace.
    pub(crate) fn node(&self) -> NetNs {
        NetNs::open(&format!("{}-node", self.name)).unwrap()
    }

    /// The namespace of the machine that is no node.
    pub(crate) fn outer(&self) -> NetNs {
        NetNs::open(&format!("{}-outer", self.name)).unwrap()
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let mut command = Self::program();
        command
            .arg("run")
            .args(["--node-name", "n1", "--operator"])
            .arg(self.operator.address().to_string())
            .args([
                "--max-endpoints",
                "127",
                "--connections-per-endpoint",
                "256",
            ])
            .args(["--max-table-entries", "65536", "--max-addresses", "65536"])
            .arg("--token-file")
            .arg(self.path("token"))
            .arg("--plugin")
            .arg(plugin())
            .args(["--instance", &self.name]);
        self.files(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.agent = Some(in_namespace(&self.node(), || command.spawn().unwrap()).unwrap());
    }

    fn program() -> Command {
        Command::new(env!("CARGO_BIN_EXE_sluice-agent"))
    }

    fn files(&self, command: &mut Command) {
        for (flag, folder) in [
            ("--state-dir", "state"),
            ("--run-dir", "run"),
            ("--cni-bin-dir", "bin"),
            ("--cni-conf-dir", "net.d"),
        ] {
            command.arg(flag).arg(self.path(folder));
        }
    }

    /// Takes everything out, as at an uninstall.
    pub(crate) fn cleanup(&mut self) -> Output {
        let mut command = Self::program();
        command.args(["cleanup", "--instance", &self.name]);
        self.files(&mut command);
        let output = in_namespace(&self.node(), || command.output().unwrap()).unwrap();
        if let Some(mut agent) = self.agent.take() {
            agent.wait().unwrap();
        }
        output
    }

    /// The bpf file system's folder of this node.
    pub(crate) fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/sluice").join(&self.name)
    }

    /// Waits until pods may be started.
    pub(crate) fn wait_ready(&self) {
        let until = Instant::now() + Duration::from_mins(1);
        while self.plugin("STATUS", "", None).status.code() != Some(0)
            || !self.path("net.d/05-sluice.conflist").exists()
        {
            assert!(Instant::now() < until, "not ready in time:\n{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the agent; [`Rig::end`] is to follow.
    pub(crate) fn kill(&self) {
        let pid = i32::try_from(self.agent.as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }

    /// Ends the agent, at once or in order.
    pub(crate) fn end(&mut self, signal: Signal) {
        let mut agent = self.agent.take().unwrap();
        let pid = i32::try_from(agent.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        agent.wait().unwrap();
    }

    /// Resident memory of the agent in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let id = self.agent.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Makes a sandbox: a namespace as a container runtime does.
    pub(crate) fn sandbox(&mut self, container: &str) -> NetNs {
        let name = format!("{}-{container}", self.name);
        let made = NetNs::create(&name).unwrap();
        in_namespace(&made, || {
            fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        })
        .unwrap();
        self.pods.push(name);
        made
    }

    /// Runs the plugin as a runtime does. `pod` is `namespace/name`, and may have `@` and a UID after it.
    pub(crate) fn plugin(&self, command: &str, container: &str, pod: Option<&str>) -> Output {
        self.plugin_with(command, container, pod, &json!({}))
    }

    /// As [`Rig::plugin`], with more in the configuration.
    pub(crate) fn plugin_with(
        &self,
        command: &str,
        container: &str,
        pod: Option<&str>,
        more: &Value,
    ) -> Output {
        let mut config = json!({
            "cniVersion": "1.1.0",
            "name": "sluice",
            "type": "sluice-cni",
            "socket": self.path("run/cni.sock"),
            "deletions": self.path("run/deletions"),
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let mut run = Command::new(plugin());
        run.env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_NETNS", format!("/run/netns/{}-{container}", self.name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some((namespace, name)) = pod.and_then(|pod| pod.split_once('/')) {
            let (name, uid) = match name.split_once('@') {
                Some((name, uid)) => (name, uid.to_owned()),
                None => (name, format!("uid-{name}")),
            };
            let arguments = format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}"
            );
            run.env("CNI_ARGS", arguments);
        }
        let mut child = run.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(config.to_string().as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// ADD that must succeed: the result.
    pub(crate) fn add(&self, container: &str, pod: Option<&str>) -> Value {
        let output = self.plugin("ADD", container, pod);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{}", self.log());
        serde_json::from_str(&text).unwrap()
    }

    /// A sandbox with an interface: its namespace and addresses, IPv4 first.
    pub(crate) fn pod(&mut self, container: &str, pod: &str) -> (NetNs, Vec<IpAddr>) {
        let namespace = self.sandbox(container);
        let result = self.add(container, Some(pod));
        (namespace, addresses(&result))
    }

    /// DEL that must succeed.
    pub(crate) fn del(&self, container: &str) {
        let output = self.plugin("DEL", container, None);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.is_empty(), "{text}");
    }

    /// Waits until the node has no pod's interface, and no pin of one: the kernel is given time for it after DEL.
    pub(crate) fn wait_unlinked(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        let left = || {
            let own = self.links().into_iter();
            let own = own.filter(|name| name.starts_with("slu"));
            let pins = fs::read_dir(self.pins().join("links")).unwrap();
            let pins = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap());
            let pins = pins.filter(|name| name.ends_with("endpoint"));
            own.chain(pins).collect::<Vec<_>>()
        };
        while !left().is_empty() {
            assert!(Instant::now() < until, "left over: {:?}", left());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks the agent's status socket.
    pub(crate) fn show(&self, what: &str) -> Value {
        let mut stream = UnixStream::connect(self.path("run/agent.sock")).unwrap();
        write!(stream, "GET /{what} HTTP/1.0\r\nHost: agent\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))
    }

    /// Names of the node's interfaces.
    pub(crate) fn links(&self) -> Vec<String> {
        let links = Netlink::open_in(&self.node()).unwrap().links().unwrap();
        links.into_iter().map(|link| link.name).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let _ = sluice_agent::remove_instance(&self.name);
        for name in self
            .pods
            .iter()
            .cloned()
            .chain(["node", "outer"].map(|part| format!("{}-{part}", self.name)))
        {
            let _ = NetNs::delete(&name);
        }
    }
}

/// The addresses in a result of ADD.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| {
        let text = ip["address"].as_str().unwrap();
        text.split('/').next().unwrap().parse().unwrap()
    })
    .collect()
}

/// The code of an error that the plugin printed.
pub(crate) fn code(output: &Output) -> u64 {
    assert!(!output.status.success());
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    printed["code"].as_u64().unwrap()
}

/// A segment with the node on one side and a machine that is no node on the other.
fn join(node: &NetNs, outer: &NetNs) {
    let near = VethEnd {
        name: "eth0",
        mac: Mac::local(1),
        mtu: 1500,
    };
    let far = VethEnd {
        name: "eth0",
        mac: Mac::local(2),
        mtu: 1500,
    };
    let at_once = [
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
    ];
    set_sysctls(node, &at_once).unwrap();
    set_sysctls(outer, &at_once).unwrap();
    Netlink::open_in(node)
        .unwrap()
        .create_veth(&near, &far, outer)
        .unwrap();
    for (namespace, own) in [(node, NODE), (outer, OUTER)] {
        let mut netlink = Netlink::open_in(namespace).unwrap();
        for name in ["lo", "eth0"] {
            let index = netlink.index(name).unwrap();
            netlink.set_up(index).unwrap();
        }
        let index = netlink.index("eth0").unwrap();
        for (address, bits) in own.into_iter().zip([24, 64]) {
            let net = format!("{address}/{bits}").parse().unwrap();
            netlink.add_address(index, net).unwrap();
        }
    }
}
