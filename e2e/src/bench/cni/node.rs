//! A node of its own in a network namespace, with the real agent as a process and an operator in this one. All of it goes when the node is
//! dropped. Measuring may not enter.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use sluice_datapath::net::{NetNs, Netlink, in_namespace};
use sluice_policy::{Index, Settings};
use sluice_stream::{AuthError, Authenticate, Batch, Hub, NodeInfo, Report, Settings as Cluster};
use sluice_world::{
    Labels, Mode, Namespace, Node as NodeItem, NodeName, Pod, PodRef, PodUid, WorldItem,
};
use tokio::runtime::Runtime;

/// Names programs that were built: `cargo xtask bench` sets it.
const PROGRAMS: &str = "SLUICE_PROGRAMS";
const NAME: &str = "n1";
const NAMESPACE: &str = "bench";
/// The node's addresses.
const OWN: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const START: Duration = Duration::from_mins(1);

/// See the module.
pub(super) struct Node {
    name: String,
    folder: PathBuf,
    programs: PathBuf,
    agent: Option<Child>,
    runtime: Option<Runtime>,
}

/// The name of its datapath.
fn instance() -> String {
    format!("bench-{}", std::process::id())
}

/// What a kubelet says of the pod of a number.
pub(super) fn arguments(pod: usize) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME=p{pod};K8S_POD_UID={}",
        uid(pod)
    )
}

fn uid(pod: usize) -> String {
    format!("00000000-0000-4000-8000-{pod:012x}")
}

impl Node {
    /// A node whose agent is in sync and knows so many pods, of two identities.
    pub(super) fn start(pods: usize) -> Result<Self> {
        let programs = std::env::var_os(PROGRAMS)
            .map(PathBuf::from)
            .with_context(|| {
                format!("{PROGRAMS} is not set: this runs through `cargo xtask bench`")
            })?;
        let name = format!("sluice-bench-{}-cni", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("token"), "bench")?;
        let mut node = Self {
            folder,
            programs,
            agent: None,
            runtime: Some(Runtime::new()?),
            name,
        };
        let namespace = NetNs::create(&node.name("node"))?;
        let mut netlink = Netlink::open_in(&namespace)?;
        let loopback = netlink.index("lo")?;
        netlink.set_up(loopback)?;
        for address in OWN {
            netlink.add_address(loopback, address.parse::<IpAddr>()?.into())?;
        }
        let listener = in_namespace(&namespace, || TcpListener::bind("127.0.0.1:0"))??;
        let address = listener.local_addr()?.to_string();
        node.operate(listener, pods)?;
        node.agent = Some(node.run(&namespace, &address)?);
        node.wait()?;
        Ok(node)
    }

    /// A name that is removed with the node if it is a namespace's.
    pub(super) fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    pub(super) fn namespace(&self) -> Result<NetNs> {
        Ok(NetNs::open(&self.name("node"))?)
    }

    /// Where its files are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The plugin, as the agent installed it.
    pub(super) fn plugin(&self) -> PathBuf {
        self.folder.join("bin/sluice-cni")
    }

    fn run(&self, namespace: &NetNs, operator: &str) -> Result<Child> {
        let log = fs::File::create(self.folder.join("log"))?;
        let mut command = Command::new(self.programs.join("sluice-agent"));
        command
            .args(["run", "--node-name", NAME, "--operator", operator])
            .args(["--instance", &instance()])
            .arg("--token-file")
            .arg(self.folder.join("token"))
            .arg("--plugin")
            .arg(self.programs.join("sluice-cni"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (flag, folder) in [
            ("--state-dir", "state"),
            ("--run-dir", "run"),
            ("--cni-bin-dir", "bin"),
            ("--cni-conf-dir", "net.d"),
        ] {
            command.arg(flag).arg(self.folder.join(folder));
        }
        in_namespace(namespace, || command.spawn())?.context("starting the agent")
    }

    /// Waits until pods may be started: the list of plugins is written last.
    fn wait(&self) -> Result<()> {
        let until = Instant::now() + START;
        while !self.folder.join("net.d/05-sluice.conflist").exists() {
            if Instant::now() > until {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("the agent is not in sync in time:\n{log}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn operate(&self, listener: TcpListener, pods: usize) -> Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = self.runtime.as_ref().context("a runtime")?;
        let hub = Hub::new(1);
        let mut world = World::new(pods);
        let batch = world.begin()?;
        runtime.block_on(hub.publish(batch));
        let mut reports = hub.reports();
        let (publisher, world) = (hub.clone(), Arc::new(Mutex::new(world)));
        runtime.spawn(async move {
            while let Some((_, report)) = reports.recv().await {
                let batch = world
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(report);
                if let Some(batch) = batch {
                    publisher.publish(batch).await;
                }
            }
        });
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let served = sluice_stream::serve(
                hub,
                listener,
                None,
                Arc::new(Anyone),
                std::future::pending(),
            );
            served.await.map_err(std::io::Error::other)
        });
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if let Err(error) = sluice_agent::remove_instance(&instance()) {
            eprintln!("removing the datapath: {error}");
        }
        for left in NetNs::list(&format!("{}-", self.name)).unwrap_or_default() {
            if let Err(error) = NetNs::delete(&left) {
                eprintln!("{left}: {error}");
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

struct Anyone;

#[sluice_stream::async_trait]
impl Authenticate for Anyone {
    async fn node_of(&self, _: &str) -> Result<NodeName, AuthError> {
        Ok(NodeName(NAME.to_owned()))
    }
}

/// A compiler that is told what the agent reports.
struct World {
    index: Index,
    pods: usize,
}

impl World {
    fn new(pods: usize) -> Self {
        let index = Index::new(Settings {
            mode: Mode::Default,
            nodes: [(NodeName(NAME.to_owned()), 1)].into(),
            ..Settings::default()
        });
        Self { index, pods }
    }

    fn begin(&mut self) -> Result<Batch> {
        let info = NodeInfo {
            name: NodeName(NAME.to_owned()),
            number: 1,
            addresses: vec![OWN[0].parse()?, OWN[1].parse()?],
            pod_cidrs: vec!["10.244.0.0/16".parse()?, "fd00:244::/64".parse()?],
        };
        let label = (
            "kubernetes.io/metadata.name".to_owned(),
            NAMESPACE.to_owned(),
        );
        self.index.apply(WorldItem::Namespace(Namespace {
            name: NAMESPACE.to_owned(),
            labels: Labels::from([label]),
        }));
        self.index.apply(WorldItem::Node(NodeItem {
            name: info.name.clone(),
            labels: Labels::new(),
            addresses: info.addresses.clone(),
            pod_cidrs: info.pod_cidrs.clone(),
        }));
        let (objects, problems) = sluice_crds::manifest::read("bench", POLICY);
        ensure!(problems.is_empty(), "{problems:?}");
        for object in objects {
            if let sluice_crds::manifest::Object::NetworkPolicy(policy) = object {
                let policy = sluice_world::Policy::Network(policy);
                self.index.apply(WorldItem::Policy(Arc::new(policy)));
            }
        }
        for number in 0..self.pods {
            self.index.apply(WorldItem::Pod(pod(number, Vec::new())));
        }
        Ok(Batch {
            settings: Some(Cluster::default()),
            nodes: vec![(info.name.clone(), Some(info))],
            ..self.commit()
        })
    }

    fn take(&mut self, report: Report) -> Option<Batch> {
        let (id, addresses) = match report {
            Report::EndpointUp { pod, addresses, .. } => (pod, addresses),
            Report::EndpointDown { pod, .. } => (pod, Vec::new()),
            Report::Status(_) => return None,
        };
        let number = id.name.strip_prefix('p')?.parse().ok()?;
        self.index.apply(WorldItem::Pod(pod(number, addresses)));
        Some(self.commit())
    }

    fn commit(&mut self) -> Batch {
        let mut delta = self.index.commit();
        for (id, endpoint) in &mut delta.endpoints {
            let number = id.name.strip_prefix('p').and_then(|text| text.parse().ok());
            if let (Some(endpoint), Some(number)) = (endpoint, number) {
                endpoint.uid = PodUid::of(&uid(number));
            }
        }
        Batch {
            delta,
            ..Batch::default()
        }
    }
}

/// Tells two identities apart.
const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web, namespace: bench}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]
";

fn pod(number: usize, addresses: Vec<IpAddr>) -> Pod {
    let app = if number.is_multiple_of(2) {
        "web"
    } else {
        "db"
    };
    Pod {
        id: PodRef {
            namespace: NAMESPACE.to_owned(),
            name: format!("p{number}"),
        },
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        service_account: "default".to_owned(),
        node: NodeName(NAME.to_owned()),
        host_network: false,
        addresses,
        named_ports: BTreeSet::new(),
        listens: BTreeSet::new(),
        external: false,
    }
}
