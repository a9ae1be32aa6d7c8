//! The pods whose traffic is counted while things are killed, and the policies between them. Killing may not enter.
//!
//! ```text
//! client ──┬─ 8080 ─▶ server     every request answered, in held and in new connections, TCP and UDP
//!          ├─ 8081 ─▶ server     nothing: the port is not admitted
//!          └─ 8082 ─▶ server     as the policy `switch` says at the time
//! stranger ── 8080 ─▶ server     nothing: not admitted
//! mute ────── 8080 ─▶ server     nothing: admitted, but may send nothing
//! ```

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluice_cluster::{
    Cluster,
    traffic::{self, Flow, Kind, Order},
};

use super::judge::{Counted, Expected};
use crate::test::{
    pods::{self, Attempt},
    sluice::{Sluice, traffic_image},
};

const NAMESPACE: &str = "kills";
const IN_NAMESPACE: &str = "--namespace=kills";
/// Where pods leave their reports, on their nodes.
const REPORTS: &str = "/run/traffic";
/// What policy admits, what it doesn't, and what `switch` decides.
const ADMITTED: u16 = 8080;
const CLOSED: u16 = 8081;
const SWITCHED: u16 = 8082;
/// Nobody listens: where `switch` points while it admits nothing of use.
const ELSEWHERE: u16 = 8083;

/// Who a pod is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Server,
    Client,
    Stranger,
    Mute,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Stranger => "stranger",
            Self::Mute => "mute",
        }
    }
}

/// The pods and what is expected of their flows.
pub(super) struct Scene<'a> {
    sluice: &'a Sluice<'a>,
    /// Each address with its node.
    servers: Vec<(IpAddr, u8)>,
    pods: Vec<Placed>,
    expected: BTreeMap<String, Expected>,
}

#[derive(Clone, Debug)]
struct Placed {
    name: String,
    node: u8,
}

impl<'a> Scene<'a> {
    /// Makes everything on two nodes, or on the only one, and waits until it is as expected.
    pub(super) fn make(sluice: &'a Sluice<'a>) -> Result<Self> {
        let mut scene = Self {
            sluice,
            servers: Vec::new(),
            pods: Vec::new(),
            expected: BTreeMap::new(),
        };
        scene.remove()?;
        scene.cluster().kubectl().apply(&namespace())?;
        scene.cluster().kubectl().apply(&policies())?;
        scene.switch(true)?;
        let second = scene.cluster().options().nodes.min(2);
        for node in [1, second] {
            let name = format!("server-{node}");
            if !scene.pods.iter().any(|pod| pod.name == name) {
                scene.start(&name, Role::Server, node)?;
                scene.ready(&name, Duration::from_mins(1))?;
                let addresses = pods::addresses(scene.cluster().kubectl(), NAMESPACE, &name)?;
                scene
                    .servers
                    .extend(addresses.into_iter().map(|address| (address, node)));
            }
        }
        for node in [1, second] {
            for role in [Role::Client, Role::Stranger] {
                let name = format!("{}-{node}", role.name());
                if !scene.pods.iter().any(|pod| pod.name == name) {
                    scene.start(&name, role, node)?;
                }
            }
        }
        scene.start("mute-1", Role::Mute, 1)?;
        for pod in scene.pods.clone() {
            scene.ready(&pod.name, Duration::from_mins(1))?;
        }
        Ok(scene)
    }

    /// Removes everything, also what an earlier run left.
    pub(super) fn remove(&self) -> Result<()> {
        pods::remove_namespaces(self.cluster().kubectl(), [NAMESPACE])
    }

    pub(super) fn cluster(&self) -> &'a Cluster {
        self.sluice.cluster
    }

    pub(super) const fn expected(&self) -> &BTreeMap<String, Expected> {
        &self.expected
    }

    /// Makes a pod; it is not waited for.
    pub(super) fn start(&mut self, name: &str, role: Role, node: u8) -> Result<()> {
        let flows = self.flows(name, role);
        let order = Order {
            ports: if role == Role::Server {
                vec![ADMITTED, CLOSED]
            } else {
                Vec::new()
            },
            flows: flows.iter().map(|(flow, _)| flow.clone()).collect(),
            report: report(name),
        };
        self.cluster()
            .kubectl()
            .apply(&pod(name, role, node, &order)?)?;
        self.expected.extend(
            flows
                .into_iter()
                .map(|(flow, expected)| (flow.name, expected)),
        );
        self.pods.push(Placed {
            name: name.to_owned(),
            node,
        });
        Ok(())
    }

    /// Removes a pod, and what was expected of it.
    pub(super) fn end(&mut self, name: &str) -> Result<()> {
        self.pods.retain(|pod| pod.name != name);
        let prefix = format!("{name}>");
        self.expected.retain(|flow, _| !flow.starts_with(&prefix));
        self.cluster().kubectl().run(&[
            "delete",
            "pod",
            name,
            IN_NAMESPACE,
            "--ignore-not-found",
            "--timeout=60s",
        ])?;
        Ok(())
    }

    /// Waits until a pod is ready.
    pub(super) fn ready(&self, name: &str, limit: Duration) -> Result<()> {
        pods::ready(self.cluster().kubectl(), NAMESPACE, name, limit)
    }

    /// Whether a program of the pod runs.
    pub(super) fn runs(&self, name: &str) -> Result<bool> {
        let pod = self
            .cluster()
            .kubectl()
            .json(&["get", "pod", name, IN_NAMESPACE])?;
        Ok(pod["status"]["phase"] == "Running")
    }

    /// Gives a pod another role's label.
    pub(super) fn relabel(&self, name: &str, role: Role) -> Result<()> {
        let label = format!("role={}", role.name());
        self.cluster().kubectl().run(&[
            "label",
            "pod",
            name,
            &label,
            "--overwrite",
            IN_NAMESPACE,
        ])?;
        Ok(())
    }

    /// The counts of every pod now. One that has not begun has none.
    pub(super) fn counted(&self) -> Result<Counted> {
        let mut counted = Counted::default();
        for pod in &self.pods {
            if let Some(report) = self.report(&pod.name)? {
                counted.add(report);
            }
        }
        Ok(counted)
    }

    /// The report of one pod; none if it has not begun.
    pub(super) fn report(&self, name: &str) -> Result<Option<traffic::Report>> {
        let pod = self.pods.iter().find(|pod| pod.name == name);
        let node = pod.with_context(|| format!("there is no pod {name}"))?.node;
        let path = report(name).display().to_string();
        let script = "if test -e \"$1\"; then cat \"$1\"; fi";
        let text = self
            .cluster()
            .node_exec(node, &["sh", "-c", script, "report", &path])?;
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(traffic::parse(&text)?))
    }

    /// Opens or closes a port by policy, and waits until the policy's status says that every node follows it.
    pub(super) fn switch(&self, open: bool) -> Result<()> {
        let port = if open { SWITCHED } else { ELSEWHERE };
        let policy = admitting("switch", &["client"], &[("TCP", port)]);
        self.cluster().kubectl().apply(&policy.to_string())?;
        self.sluice
            .cli(&["policy", "wait", "switch", IN_NAMESPACE, "--timeout=60s"])?;
        Ok(())
    }

    /// Whether every client finds the switched port of every server open, or none does.
    pub(super) fn is_switched(&self, open: bool) -> Result<()> {
        let attempts: Vec<Attempt> = self
            .servers
            .iter()
            .map(|&(address, _)| Attempt {
                transport: "TCP".to_owned(),
                address,
                port: SWITCHED,
            })
            .collect();
        let wanted = if open { "answered" } else { "silence" };
        for client in self
            .pods
            .iter()
            .filter(|pod| pod.name.starts_with("client-"))
        {
            let outcomes = pods::probe(
                self.cluster(),
                NAMESPACE,
                &client.name,
                "traffic",
                &attempts,
            )?;
            ensure!(
                outcomes.iter().all(|outcome| outcome.outcome == wanted),
                "{} tries port {SWITCHED} of all servers over both families: {outcomes:?}, not {wanted}",
                client.name
            );
        }
        Ok(())
    }

    /// Whether everything that a pod sends to servers on other nodes than this one has been answered at least once.
    pub(super) fn is_answered_except_on(&self, node: u8, name: &str) -> Result<bool> {
        let report = self.report(name)?.unwrap_or_default();
        let elsewhere = self.servers.iter().filter(|(_, on)| *on != node);
        let prefixes: Vec<String> = elsewhere.map(|(to, _)| flows_between(name, *to)).collect();
        let answered = |prefix: &String| {
            let mut flows = report
                .flows
                .iter()
                .filter(|(flow, _)| flow.starts_with(prefix))
                .peekable();
            flows.peek().is_some() && flows.all(|(_, counts)| counts.answered > 0)
        };
        Ok(!prefixes.is_empty() && prefixes.iter().all(answered))
    }

    fn flows(&self, name: &str, role: Role) -> Vec<(Flow, Expected)> {
        let kinds: &[(Kind, u16, u64, Expected)] = match role {
            Role::Server => &[],
            Role::Client => &[
                (Kind::Hold, ADMITTED, 20, Expected::Passes),
                (Kind::Dial, ADMITTED, 20, Expected::Passes),
                (Kind::Datagram, ADMITTED, 10, Expected::Passes),
                (Kind::Dial, CLOSED, 100, Expected::Nothing),
            ],
            Role::Stranger | Role::Mute => &[
                (Kind::Dial, ADMITTED, 50, Expected::Nothing),
                (Kind::Datagram, ADMITTED, 20, Expected::Nothing),
            ],
        };
        let flow = |&(kind, port, beat, expected): &(Kind, u16, u64, Expected), to: IpAddr| {
            let name = format!("{}{port} {kind:?}", flows_between(name, to));
            let to = (to, port).into();
            (
                Flow {
                    name,
                    kind,
                    to,
                    beat,
                },
                expected,
            )
        };
        self.servers
            .iter()
            .flat_map(|&(to, _)| kinds.iter().map(move |kind| flow(kind, to)))
            .collect()
    }
}

/// How the names of all flows from a pod to a server begin.
fn flows_between(pod: &str, server: IpAddr) -> String {
    format!("{pod}>{server} ")
}

fn report(pod: &str) -> PathBuf {
    PathBuf::from(REPORTS).join(format!("{pod}.json"))
}

fn namespace() -> String {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string()
}

fn policies() -> String {
    let servers = admitting(
        "servers",
        &["client", "mute"],
        &[("TCP", ADMITTED), ("UDP", ADMITTED)],
    );
    let mute = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "mute", "namespace": NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"role": "mute"}}, "policyTypes": ["Egress"]},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [servers, mute]}).to_string()
}

/// Servers admit these roles to these ports.
fn admitting(name: &str, roles: &[&str], ports: &[(&str, u16)]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(protocol, port)| json!({"port": port.to_string(), "protocol": protocol}))
        .collect();
    json!({
        "apiVersion": "sluice.io/v1",
        "kind": "SluiceNetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "endpointSelector": {"matchLabels": {"role": "server"}},
            "ingress": [{
                "fromEndpoints": [{"matchExpressions": [{"key": "role", "operator": "In", "values": roles}]}],
                "toPorts": [{"ports": ports}],
            }],
        },
    })
}

fn pod(name: &str, role: Role, node: u8, order: &Order) -> Result<String> {
    let image = traffic_image();
    let mut containers = vec![json!({
        "name": "traffic",
        "image": image,
        "imagePullPolicy": "Never",
        "args": [serde_json::to_string(order).context("writing an order")?],
        // Without a share of its own it gets next to nothing of a busy processor.
        "resources": {"requests": {"cpu": "100m"}},
        // Room for datagrams that wait.
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "volumeMounts": [{"name": "reports", "mountPath": REPORTS}],
    })];
    if role == Role::Server {
        containers.push(json!({
            "name": "switched",
            "image": image,
            "imagePullPolicy": "Never",
            "command": ["/sluice", "connectivity", "serve"],
            "args": [format!("--name={NAMESPACE}/{name}"), format!("TCP:{SWITCHED}")],
        }));
    }
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"role": role.name()}},
        "spec": {
            "nodeName": format!("node{node}"),
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            // It stays where it is while its node's kubelet is away.
            "tolerations": [{"operator": "Exists"}],
            "containers": containers,
            "volumes": [{"name": "reports", "hostPath": {"path": REPORTS, "type": "DirectoryOrCreate"}}],
        },
    });
    Ok(pod.to_string())
}
