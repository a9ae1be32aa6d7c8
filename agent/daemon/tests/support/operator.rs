//! An operator without a Kubernetes: the compiler fed with items by the test, its deltas published by the real hub. It takes in the
//! addresses that the agent reports, as the real one does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sluice_datapath::net::{NetNs, in_namespace};
use sluice_policy::{Delta, Index, Settings};
use sluice_stream::{
    AuthError, Authenticate, Batch, Hub, NodeInfo, Report, SessionInfo, Settings as Cluster,
};
use sluice_world::{
    ContainerPort, Labels, Mode, Namespace, Node, NodeName, Pod, PodRef, PodUid, Policy, WorldItem,
};
use tokio::runtime::Runtime;

use super::{NODE, OTHER};

/// See the module.
pub(crate) struct Operator {
    runtime: Option<Runtime>,
    hub: Hub,
    world: Arc<Mutex<World>>,
    address: SocketAddr,
    node: NetNs,
    serving: Option<tokio::sync::oneshot::Sender<()>>,
    pub(crate) reported: Arc<Mutex<Vec<String>>>,
}

struct World {
    index: Index,
    pods: BTreeMap<PodRef, Pod>,
    identities: BTreeMap<PodRef, u32>,
    /// Which pods are meant, where it is not the first of the name.
    uids: BTreeMap<PodRef, String>,
    first: bool,
    cluster: Cluster,
    hub: Hub,
}

struct Anyone;

#[sluice_stream::async_trait]
impl Authenticate for Anyone {
    async fn node_of(&self, _: &str) -> Result<NodeName, AuthError> {
        Ok(NodeName("n1".to_owned()))
    }
}

impl Operator {
    /// An operator on the node's loopback address, which knows these pods of it: name and labels.
    pub(crate) fn start(node: &NetNs, pods: &[(&str, &[(&str, &str)])]) -> Self {
        let runtime = Runtime::new().unwrap();
        let hub = Hub::new(1);
        let mut world = World {
            index: Index::new(Settings {
                mode: Mode::Default,
                nodes: nodes()
                    .into_iter()
                    .map(|node| (node.name, node.number))
                    .collect(),
                ..Settings::default()
            }),
            pods: BTreeMap::new(),
            identities: BTreeMap::new(),
            uids: BTreeMap::new(),
            first: true,
            cluster: Cluster::default(),
            hub: hub.clone(),
        };
        world.begin();
        for (name, labels) in pods {
            world.add(name, labels);
        }
        let listener =
            in_namespace(node, || std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut operator = Self {
            runtime: Some(runtime),
            hub,
            world: Arc::new(Mutex::new(world)),
            address,
            node: NetNs::open(node.name()).unwrap(),
            serving: None,
            reported: Arc::default(),
        };
        operator.listen();
        operator.publish();
        operator.serve();
        operator
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves agents.
    pub(crate) fn serve(&mut self) {
        let address = self.address;
        let listener =
            in_namespace(&self.node, || std::net::TcpListener::bind(address).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        self.serving = Some(stop);
        let hub = self.hub.clone();
        self.runtime.as_ref().unwrap().spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let ended = async {
                let _ = stopped.await;
            };
            sluice_stream::serve(hub, listener, None, Arc::new(Anyone), ended)
                .await
                .unwrap();
        });
    }

    /// Serves no more, until [`Operator::serve`].
    pub(crate) fn go_away(&mut self) {
        self.serving.take().unwrap().send(()).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while !self.sessions().is_empty() {
            assert!(Instant::now() < until, "sessions stay");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn sessions(&self) -> Vec<SessionInfo> {
        self.hub.sessions()
    }

    /// A new pod of the node.
    pub(crate) fn add_pod(&self, name: &str, labels: &[(&str, &str)]) {
        self.world.lock().unwrap().add(name, labels);
        self.publish();
    }

    /// The number of a pod's identity.
    pub(crate) fn identity(&self, name: &str) -> u32 {
        self.world.lock().unwrap().identities[&pod("shop", name, &[]).id]
    }

    /// A new pod of the other node, with these addresses.
    pub(crate) fn add_far(&self, name: &str, labels: &[(&str, &str)], addresses: &[IpAddr]) {
        let mut far = pod("shop", name, labels);
        far.node = NodeName("n2".to_owned());
        far.addresses = addresses.to_vec();
        let item = WorldItem::Pod(far);
        self.world.lock().unwrap().index.apply(item);
        self.publish();
    }

    /// Another pod in place of one of the same name.
    pub(crate) fn replace_pod(&self, name: &str, uid: &str, labels: &[(&str, &str)]) {
        let mut world = self.world.lock().unwrap();
        world.add(name, labels);
        let id = pod("shop", name, labels).id;
        world.uids.insert(id, uid.to_owned());
        drop(world);
        self.publish();
    }

    /// Many new pods, of the other node.
    pub(crate) fn add_others(&self, count: u32) {
        let mut world = self.world.lock().unwrap();
        for number in 0..count {
            let [.., high, low] = number.to_be_bytes();
            let mut pod = pod(
                "crowd",
                &format!("p{number}"),
                &[("number", &number.to_string())],
            );
            pod.node = NodeName("n2".to_owned());
            pod.addresses = vec![[10, 64, high, low].into()];
            world.index.apply(WorldItem::Pod(pod));
        }
        drop(world);
        self.publish();
    }

    /// The cluster's settings.
    pub(crate) fn set_cluster(&self, cluster: Cluster) {
        self.world.lock().unwrap().cluster = cluster.clone();
        let batch = Batch {
            settings: Some(cluster),
            ..Batch::default()
        };
        self.runtime
            .as_ref()
            .unwrap()
            .block_on(self.hub.publish(batch));
    }

    /// Puts policies in force, everywhere: the answer comes when agents have them.
    pub(crate) fn apply(&self, manifest: &str) {
        let (objects, problems) = sluice_crds::manifest::read("test", manifest);
        assert!(problems.is_empty(), "{problems:?}");
        let mut world = self.world.lock().unwrap();
        for object in objects {
            use sluice_crds::manifest::Object;
            let policy = match object {
                Object::NetworkPolicy(policy) => Policy::Network(policy),
                Object::Policy(policy) => Policy::Rules(policy),
                Object::TierPolicy(policy) => Policy::Tier(policy),
                other => panic!("{other:?}"),
            };
            world.index.apply(WorldItem::Policy(Arc::new(policy)));
        }
        drop(world);
        self.publish();
        self.wait_acknowledged();
    }

    /// Takes policies out.
    pub(crate) fn withdraw(&self, manifest: &str) {
        let (objects, _) = sluice_crds::manifest::read("test", manifest);
        let mut world = self.world.lock().unwrap();
        for object in objects {
            if let sluice_crds::manifest::Object::NetworkPolicy(policy) = object {
                world
                    .index
                    .delete(sluice_policy::ItemRef::Policy(policy.origin));
            }
        }
        drop(world);
        self.publish();
        self.wait_acknowledged();
    }

    /// Waits until the agent has everything.
    pub(crate) fn wait_acknowledged(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        let revision = self.hub.revision();
        let has = |session: &SessionInfo| session.acked.is_some_and(|acked| acked >= revision);
        loop {
            let sessions = self.sessions();
            if !sessions.is_empty() && sessions.iter().all(has) {
                return;
            }
            assert!(
                Instant::now() < until,
                "{revision} is not acknowledged: {sessions:?}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn publish(&self) {
        publish(&self.world, self.runtime.as_ref().unwrap());
    }

    /// Takes reports in.
    fn listen(&self) {
        let mut reports = self.hub.reports();
        let world = Arc::clone(&self.world);
        let reported = Arc::clone(&self.reported);
        self.runtime.as_ref().unwrap().spawn(async move {
            while let Some((_, report)) = reports.recv().await {
                let batch = {
                    let mut world = world.lock().unwrap();
                    match report {
                        Report::EndpointUp { pod, addresses, .. } => {
                            reported.lock().unwrap().push(format!("up {pod}"));
                            world.moved(&pod, addresses)
                        }
                        Report::EndpointDown { pod, .. } => {
                            reported.lock().unwrap().push(format!("down {pod}"));
                            world.moved(&pod, Vec::new())
                        }
                        Report::Status(_) => None,
                    }
                };
                if let Some((hub, batch)) = batch {
                    hub.publish(batch).await;
                }
            }
        });
    }
}

fn publish(world: &Mutex<World>, runtime: &Runtime) {
    let (hub, batch) = {
        let mut world = world.lock().unwrap();
        let batch = world.commit();
        (world.hub.clone(), batch)
    };
    runtime.block_on(hub.publish(batch));
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl World {
    fn begin(&mut self) {
        for name in ["shop", "crowd"] {
            let label = ("kubernetes.io/metadata.name".to_owned(), name.to_owned());
            self.index.apply(WorldItem::Namespace(Namespace {
                name: name.to_owned(),
                labels: Labels::from([label]),
            }));
        }
        for node in nodes() {
            self.index.apply(WorldItem::Node(Node {
                name: node.name,
                labels: Labels::new(),
                addresses: node.addresses,
                pod_cidrs: node.pod_cidrs,
            }));
        }
    }

    fn add(&mut self, name: &str, labels: &[(&str, &str)]) {
        let pod = pod("shop", name, labels);
        self.pods.insert(pod.id.clone(), pod.clone());
        self.index.apply(WorldItem::Pod(pod));
    }

    fn moved(&mut self, pod: &PodRef, addresses: Vec<IpAddr>) -> Option<(Hub, Batch)> {
        let known = self.pods.get_mut(pod)?;
        if known.addresses == addresses {
            return None;
        }
        known.addresses = addresses;
        let item = WorldItem::Pod(known.clone());
        self.index.apply(item);
        let batch = self.commit();
        Some((self.hub.clone(), batch))
    }

    fn commit(&mut self) -> Batch {
        let mut delta: Delta = self.index.commit();
        for (pod, endpoint) in &mut delta.endpoints {
            if let Some(endpoint) = endpoint {
                let given = self.uids.get(pod).cloned();
                let uid = given.unwrap_or_else(|| format!("uid-{}", pod.name));
                endpoint.uid = PodUid::of(&uid);
            }
        }
        assert!(delta.errors.is_empty(), "{:?}", delta.errors);
        let told = delta
            .endpoints
            .iter()
            .filter_map(|(pod, told)| Some((pod.clone(), told.as_ref()?.identity.0)));
        self.identities.extend(told);
        let mut batch = Batch {
            delta,
            ..Batch::default()
        };
        if std::mem::take(&mut self.first) {
            batch.settings = Some(self.cluster.clone());
            batch.nodes = nodes()
                .into_iter()
                .map(|node| (node.name.clone(), Some(node)))
                .collect();
        }
        batch
    }
}

fn nodes() -> Vec<NodeInfo> {
    let node = |number: u32, addresses: [&str; 2]| NodeInfo {
        name: NodeName(format!("n{number}")),
        number,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        pod_cidrs: vec![
            format!("10.244.{number}.0/24").parse().unwrap(),
            format!("fd00:244:{number}::/64").parse().unwrap(),
        ],
    };
    vec![node(1, NODE), node(2, OTHER)]
}

fn pod(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Pod {
    Pod {
        id: PodRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        service_account: "default".to_owned(),
        node: NodeName("n1".to_owned()),
        host_network: false,
        addresses: Vec::new(),
        named_ports: BTreeSet::<ContainerPort>::new(),
        listens: BTreeSet::new(),
        external: false,
    }
}
