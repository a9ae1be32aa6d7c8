//! Operators and agents on loopback, with everything real but Kubernetes and the kernel.
#![allow(dead_code, reason = "each test uses its own part")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sluice_abi::{
    Identity, Scope,
    ipcache::{Address, AddressInfo},
    policy::PeerCell,
    program::Program,
};
use sluice_policy::{Delta, Endpoint, TableDelta};
use sluice_stream::{
    AuthError, Authenticate, Batch, Catalog, Event, Hub, Options, Revision, Subscription,
    TlsConfig, Update, async_trait, client::Source,
};
use sluice_world::{NodeName, PodRef};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// Tokens are `token of <node>`.
struct Tokens;

#[async_trait]
impl Authenticate for Tokens {
    async fn node_of(&self, token: &str) -> Result<NodeName, AuthError> {
        match token.strip_prefix("token of ") {
            Some(node) => Ok(NodeName(node.to_owned())),
            None => Err(AuthError::Refused("it is nobody's".to_owned())),
        }
    }
}

/// A CA with one certificate for operators.
pub(crate) struct Authority {
    pub(crate) ca: String,
    pub(crate) tls: TlsConfig,
}

pub(crate) const SERVER: &str = "sluice-operator";

impl Authority {
    pub(crate) fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("a CA");
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![SERVER.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let tls = TlsConfig::from_pem(&certificate.pem(), &key.serialize_pem()).expect("a pair");
        Self { ca: ca.pem(), tls }
    }
}

/// An operator's server.
pub(crate) struct Operator {
    pub(crate) hub: Hub,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Operator {
    pub(crate) async fn start(hub: Hub, tls: Option<TlsConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = hub.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            sluice_stream::serve(served, listener, tls, Arc::new(Tokens), shutdown)
                .await
                .expect("served");
        });
        Self {
            hub,
            address,
            stop: Some(stop),
            task,
        }
    }

    /// Ends in good order.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.expect("the server");
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn node(number: usize) -> NodeName {
    NodeName(format!("node-{number}"))
}

pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

pub(crate) fn addresses(of: &[&Operator]) -> Addresses {
    Arc::new(Mutex::new(of.iter().map(|known| known.address).collect()))
}

pub(crate) fn options(node: &NodeName, addresses: &Addresses) -> Options {
    let addresses = Arc::clone(addresses);
    let token = format!("token of {node}");
    Options {
        node: node.clone(),
        addresses: Arc::new(move || Ok(addresses.lock().expect("addresses").clone())),
        ca: None,
        server_name: SERVER.to_owned(),
        token: constant(token),
        resume: None,
    }
}

pub(crate) fn constant(value: String) -> Source<String> {
    Arc::new(move || Ok(value.clone()))
}

/// An agent without a kernel.
pub(crate) struct Agent {
    pub(crate) subscription: Subscription,
    pub(crate) catalog: Catalog,
    pub(crate) snapshots: usize,
    pub(crate) updates: Vec<Revision>,
    pub(crate) connected: Vec<SocketAddr>,
    pub(crate) acks: bool,
}

impl Agent {
    pub(crate) fn start(options: Options) -> Self {
        Self {
            subscription: Subscription::start(options),
            catalog: Catalog::default(),
            snapshots: 0,
            updates: Vec::new(),
            connected: Vec::new(),
            acks: true,
        }
    }

    /// Takes the next event in.
    pub(crate) async fn step(&mut self) -> Event {
        let event = self.subscription.next().await;
        match &event {
            Event::Update(update) => {
                let Update {
                    revision, snapshot, ..
                } = **update;
                self.snapshots += usize::from(snapshot);
                self.updates.push(revision);
                self.catalog.apply(update);
                if self.acks {
                    self.subscription.ack(revision);
                }
            }
            Event::Connected { to } => self.connected.push(*to),
            Event::ReportAgain | Event::Disconnected { .. } => {}
        }
        event
    }

    /// Goes on until it holds this revision.
    pub(crate) async fn until(&mut self, revision: Revision) {
        let reached = async {
            while self.catalog.revision() < revision {
                self.step().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .unwrap_or_else(|_| panic!("never came to {revision}"));
    }

    /// Goes on by itself, for ever.
    pub(crate) fn run(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                self.step().await;
            }
        })
    }
}

/// Waits until something holds of a hub.
pub(crate) async fn eventually(hub: &Hub, what: &str, holds: impl Fn(&Hub) -> bool) {
    within(Duration::from_secs(20), hub, what, holds).await;
}

pub(crate) async fn within(
    patience: Duration,
    hub: &Hub,
    what: &str,
    holds: impl Fn(&Hub) -> bool,
) {
    let mut changes = hub.changes();
    let deadline = Instant::now() + patience;
    while !holds(hub) {
        assert!(Instant::now() < deadline, "never: {what}");
        let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
    }
}

pub(crate) fn address(number: usize) -> Address {
    let number = u32::try_from(number).expect("a small number");
    let [_, b, c, d] = number.to_be_bytes();
    Address::v4([10, b, c, d])
}

pub(crate) fn pod_info(identity: u32, node: u32) -> AddressInfo {
    AddressInfo {
        identity: Identity(identity),
        host_identity: Identity(identity),
        node,
        flags: AddressInfo::POD,
    }
}

pub(crate) fn pod(number: usize) -> PodRef {
    PodRef {
        namespace: "default".into(),
        name: format!("pod-{number}"),
    }
}

/// Peers that a table names one by one, at most: a policy of more is one of scopes.
const ENTRIES: u32 = 200;

/// A cluster: nodes with pods, and tables that they share.
pub(crate) fn cluster(nodes: usize, pods_each: usize, tables: u32, identities: u32) -> Batch {
    let cell = PeerCell {
        program: 1,
        attribution: 0,
    };
    let first = Identity::FIRST_ALLOCATED;
    let number = |value: usize| u32::try_from(value).expect("a small number");
    let mut delta = Delta {
        programs: vec![(
            1,
            Program {
                flags: Program::PRESENT,
                ..Program::default()
            },
        )],
        ..Delta::default()
    };
    for identity in first..first + identities {
        let labels = vec![
            format!("k8s:app=app-{identity}"),
            "k8s:io.kubernetes.pod.namespace=default".to_owned(),
        ];
        delta.identities.push((Identity(identity), labels));
    }
    for id in 1..=tables {
        delta.tables.push(TableDelta {
            id,
            new: true,
            defaults: Some([cell; Scope::COUNT]),
            set: (first..first + identities.min(ENTRIES))
                .map(|peer| (Identity(peer), cell))
                .collect(),
            ..TableDelta::default()
        });
    }
    for at in 0..nodes {
        delta.nodes.push((node(at), number(at) + 1));
        for place in 0..pods_each {
            let this = at * pods_each + place;
            let identity = first + number(this) % identities;
            let endpoint = Endpoint {
                identity: Identity(identity),
                egress: 1 + number(this) % tables,
                ingress: 1 + number(this + 1) % tables,
                node: number(at) + 1,
                uid: None,
            };
            let info = pod_info(identity, number(at) + 1);
            delta.endpoints.push((pod(this), Some(endpoint)));
            delta.addresses.push((address(this), Some(info)));
        }
    }
    Batch {
        delta,
        ..Batch::default()
    }
}

/// One entry of one table differs.
pub(crate) fn change_entry(table: u32, identity: u32, program: u32) -> Batch {
    let cell = PeerCell {
        program,
        attribution: 0,
    };
    Batch {
        delta: Delta {
            tables: vec![TableDelta {
                id: table,
                set: vec![(Identity(identity), cell)],
                ..TableDelta::default()
            }],
            ..Delta::default()
        },
        ..Batch::default()
    }
}

/// A new pod address somewhere: everyone is told.
pub(crate) fn new_address(number: usize, identity: u32) -> Batch {
    Batch {
        delta: Delta {
            addresses: vec![(address(number), Some(pod_info(identity, 1)))],
            ..Delta::default()
        },
        ..Batch::default()
    }
}

/// A pod's address moves to a new identity.
pub(crate) fn relabel(number: usize, old: u32, new: u32) -> Batch {
    let mut batch = new_address(number, new);
    batch.delta.identities = vec![(Identity(new), vec!["k8s:app=new".to_owned()])];
    batch.delta.dropped_identities = vec![Identity(old)];
    batch
}
