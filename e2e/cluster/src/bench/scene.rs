//! Three pods of a running cluster: who asks, who answers on the same node, who answers on another. Their namespaces are entered from their
//! nodes with this program; what is measured may not enter.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sluice_cluster::{Cluster, Machine, Name};

use super::load;

const MANIFEST: &str = include_str!("../../manifests/bench.yaml");
const NAMESPACE: &str = "bench";
/// Where this program is put on a node.
const PROGRAM: &str = "/run/sluice-bench";
/// How long pods get to start.
const START: &str = "--timeout=180s";

/// Where the one who answers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    SameNode,
    OtherNode,
}

/// See the module. Its pods go with it.
pub(super) struct Scene {
    cluster: Cluster,
    /// What the cluster's nodes are connected by.
    pub(super) network: String,
    asks: String,
    near: Vec<IpAddr>,
    far: Vec<IpAddr>,
    servers: Vec<Child>,
}

impl Scene {
    pub(super) fn open(name: &Name) -> Result<Self> {
        let cluster = Cluster::open(name)?;
        ensure!(
            cluster.options().nodes >= 2,
            "the cluster {name} has one node; two are measured between"
        );
        let kubectl = cluster.kubectl();
        kubectl.apply(MANIFEST)?;
        let of = format!("--namespace={NAMESPACE}");
        kubectl
            .run(&["wait", "--for=condition=Ready", "pods", "--all", &of, START])
            .with_context(|| format!("the pods of {name} do not start"))?;
        for node in [1, 2] {
            deliver(&cluster, node)?;
        }
        let mut scene = Self {
            network: network(&cluster)?,
            asks: String::new(),
            near: addresses(&cluster, "near")?,
            far: addresses(&cluster, "far")?,
            servers: Vec::new(),
            cluster,
        };
        scene.asks = scene.namespace(1, &addresses(&scene.cluster, "client")?)?;
        for (node, pod) in [(1, scene.near.clone()), (2, scene.far.clone())] {
            let namespace = scene.namespace(node, &pod)?;
            let server = scene.command(node, &namespace, &["serve".to_owned()])?;
            scene.servers.push(server);
        }
        Ok(scene)
    }

    /// What the program prints that is one side of the traffic to a pod.
    pub(super) fn measure(
        &self,
        what: &str,
        place: Place,
        ipv4: bool,
        time: Duration,
    ) -> Result<f64> {
        let pod = match place {
            Place::SameNode => &self.near,
            Place::OtherNode => &self.far,
        };
        let address = pod.iter().find(|address| address.is_ipv4() == ipv4);
        let address = address.context("the pod has no address of this family")?;
        let words = [
            what.to_owned(),
            SocketAddr::new(*address, load::PORT).to_string(),
            time.as_millis().to_string(),
        ];
        let done = self
            .command(1, &self.asks, &words)?
            .wait_with_output()
            .context("waiting for the traffic")?;
        let (said, wrong) = (
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr),
        );
        said.trim()
            .parse()
            .with_context(|| format!("{what} on {}: {said}{wrong}", self.network))
    }

    /// Starts this program in a pod's namespace.
    fn command(&self, node: u8, namespace: &str, words: &[String]) -> Result<Child> {
        let mut argv = vec![
            "nsenter".to_owned(),
            format!("--net={namespace}"),
            PROGRAM.to_owned(),
            "load".to_owned(),
        ];
        argv.extend_from_slice(words);
        self.cluster
            .command(Machine::Node(node), &argv)?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the traffic")
    }

    /// The network namespace, on its node, that has a pod's address.
    fn namespace(&self, node: u8, pod: &[IpAddr]) -> Result<String> {
        let address = pod.first().context("the pod has no address")?;
        let script = format!(
            "for n in /run/netns/*; do nsenter --net=$n ip -o address show | grep -qF ' {address}/' && echo $n; done; true"
        );
        let found = self.cluster.node_exec(node, &["sh", "-c", &script])?;
        let first = found.lines().next();
        Ok(first
            .with_context(|| format!("no namespace of node{node} has {address}"))?
            .to_owned())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        let gone = self
            .cluster
            .kubectl()
            .run(&["delete", "namespace", NAMESPACE, "--wait=false"]);
        if let Err(error) = gone {
            eprintln!("error: {error}");
        }
    }
}

fn deliver(cluster: &Cluster, node: u8) -> Result<()> {
    let own = std::env::current_exe().context("finding this program's own file")?;
    let file = File::open(&own).with_context(|| format!("reading {}", own.display()))?;
    // Renamed over one that may be running still.
    let script =
        format!("cat > {PROGRAM}.new && chmod +x {PROGRAM}.new && mv {PROGRAM}.new {PROGRAM}");
    let argv = ["sh", "-c", &script].map(str::to_owned);
    let status = cluster
        .command(Machine::Node(node), &argv)?
        .stdin(file)
        .status()
        .context("copying this program to a node")?;
    ensure!(
        status.success(),
        "copying this program to node{node}: {status}"
    );
    Ok(())
}

fn addresses(cluster: &Cluster, pod: &str) -> Result<Vec<IpAddr>> {
    let path = "jsonpath={.status.podIPs[*].ip}";
    let of = format!("--namespace={NAMESPACE}");
    let listed = cluster
        .kubectl()
        .run(&["get", "pod", pod, &of, "-o", path])?;
    listed
        .split_whitespace()
        .map(|text| {
            text.parse()
                .with_context(|| format!("address {text} of {pod}"))
        })
        .collect()
}

/// Sluice's nodes say how packets travel between them; where there are none, it is the baseline.
fn network(cluster: &Cluster) -> Result<String> {
    if cluster.options().cni == sluice_cluster::Cni::Bridge {
        return Ok("bridge and routes".to_owned());
    }
    let path = "jsonpath={.items[0].status.routingMode}";
    let mode = cluster.kubectl().run(&["get", "sluicenodes", "-o", path])?;
    ensure!(
        !mode.trim().is_empty(),
        "the nodes do not say how they are connected"
    );
    Ok(mode.trim().to_owned())
}
