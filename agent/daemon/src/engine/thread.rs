//! The thread that owns the node: what it does with each command. Talking to it is the handle's.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, mpsc::SyncSender},
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

use sluice_abi::ipcache::Address;
use sluice_agent::{AgentError, Interface, Node};
use sluice_datapath::{
    load::{Attacher, Sizes},
    net::{Mac, NetError, NetNs},
};
use sluice_policy::Delta;
use sluice_stream::Update;
use sluice_world::{NodeName, PodRef};
use thiserror::Error;
use tokio::sync::mpsc::{Receiver, channel};
use tracing::{error, info, warn};

use super::{
    Acknowledge, Board, Cluster, EngineHandle, Routing, ServiceSink, board::Subject,
    handle::Command, keep::Kept,
};
use crate::{
    endpoint::Site,
    metrics::Metrics,
    store::{StoreError, Updates},
};

/// Updates and requests that may wait for the engine.
const QUEUE: usize = 64;
/// In ticks, which come every second: connections that are over, a failed change tried again, routes looked at.
const COLLECT_EVERY: u64 = 5;
const RETRY_EVERY: u64 = 5;
const ROUTES_EVERY: u64 = 10;

/// The engine can't start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The datapath.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A datapath without name.
    #[error("the node's datapath has no name, so that nothing of it would outlive this process")]
    Anonymous,
    /// The state on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node's namespace.
    #[error(transparent)]
    Net(#[from] NetError),
    /// No thread.
    #[error("starting the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What an engine is made of.
pub struct Parts {
    /// This node.
    pub name: NodeName,
    /// The opened datapath.
    pub node: Node,
    /// What it was opened with.
    pub sizes: Sizes,
    /// What the operator said last.
    pub updates: Updates,
    /// Services.
    pub services: Box<dyn ServiceSink>,
    /// Routes and devices.
    pub routing: Box<dyn Routing>,
    /// Where to tell.
    pub board: Arc<Board>,
    /// What to count.
    pub metrics: Arc<Metrics>,
}

/// What an engine is asked.
pub struct Commands(Receiver<Command>);

/// What is to be tried again.
struct Failed {
    /// Of the last of them.
    acknowledge: Acknowledge,
    /// What they may have left in the kernel.
    removed: Delta,
}

/// See the module.
pub struct Engine {
    name: NodeName,
    node: Node,
    attacher: Arc<Attacher>,
    sizes: Sizes,
    namespace: NetNs,
    kept: Kept,
    services: Box<dyn ServiceSink>,
    routing: Box<dyn Routing>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    interfaces: BTreeMap<PodRef, Interface>,
    /// Updates that failed, in part or whole: nothing after them is acknowledged until all of them is in force.
    failed: Option<Failed>,
    /// Programs are attached to interfaces that are no endpoint's: their pins are removed once they are gone.
    left_attached: bool,
    /// Programs and links of this process are in place.
    took_over: bool,
    ticks: u64,
}

impl Engine {
    /// An engine over what an earlier process left.
    ///
    /// # Errors
    /// The state on disk can't be read.
    pub fn new(parts: Parts) -> Result<Self, EngineError> {
        let attacher = parts.node.attacher()?.ok_or(EngineError::Anonymous)?;
        Ok(Self {
            name: parts.name,
            node: parts.node,
            attacher: Arc::new(attacher),
            sizes: parts.sizes,
            namespace: NetNs::current()?,
            kept: Kept::read(parts.updates)?,
            services: parts.services,
            routing: parts.routing,
            board: parts.board,
            metrics: parts.metrics,
            interfaces: BTreeMap::new(),
            failed: None,
            left_attached: false,
            took_over: false,
            ticks: 0,
        })
    }

    /// What the last process had been told: where a subscription goes on.
    #[must_use]
    pub fn held(&self) -> Option<sluice_stream::Held> {
        (!self.kept.is_empty()).then(|| self.kept.held.clone())
    }

    /// Knows the interfaces that are there, puts in force what the operator said last, and takes over from an earlier process.
    ///
    /// # Errors
    /// The kernel refuses. What the earlier process had in force is then in force still.
    pub fn begin(&mut self, interfaces: Vec<(PodRef, Interface)>) -> Result<(), EngineError> {
        self.interfaces = interfaces.into_iter().collect();
        self.know_interfaces()?;
        self.node.end_unknown_endpoints()?;
        if self.kept.is_empty() {
            info!("nothing is known from before: waiting for an operator");
        } else {
            let troubles =
                self.with_routing(|routing, node, cluster| routing.resume(node, cluster));
            for trouble in troubles {
                warn!(trouble, "routing as before");
            }
            let whole = self.kept.catalog.snapshot();
            let applied = self.node.apply(&whole.delta);
            self.after(&whole, applied, None);
        }
        Ok(())
    }

    /// A way to this engine, and what it will be asked through it once it runs.
    #[must_use]
    pub fn handle(&self) -> (EngineHandle, Commands) {
        let (commands, received) = channel(QUEUE);
        let handle = EngineHandle {
            commands,
            board: Arc::clone(&self.board),
            attacher: Arc::clone(&self.attacher),
        };
        (handle, Commands(received))
    }

    /// Runs on a thread of its own from now on.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn spawn(self, commands: Commands) -> Result<JoinHandle<()>, EngineError> {
        Ok(thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || self.run(commands.0))?)
    }

    fn run(mut self, mut commands: Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            match command {
                Command::Attach {
                    pod,
                    interface,
                    done,
                } => answer(&done, self.attach(&pod, interface)),
                Command::Detach { pod, mac, done } => answer(&done, self.detach(&pod, mac)),
                Command::Update {
                    update,
                    acknowledge,
                } => self.update(&update, acknowledge),
                Command::Tick => self.tick(),
                Command::Stop { done } => {
                    // The lock on the instance goes with the node, and whoever waits may want it.
                    drop(self);
                    answer(&done, Ok(()));
                    return;
                }
            }
            self.board
                .write(|known| known.heartbeat = Some(Instant::now()));
        }
    }

    /// Makes an interface, whose programs are attached, the pod's endpoint.
    fn attach(&mut self, pod: &PodRef, interface: Interface) -> Result<(), AgentError> {
        if self.interfaces.contains_key(pod) {
            // The sandbox before this one may live for a while: its programs stay where they are and let nothing through.
            self.node.close_interface(pod)?;
            self.left_attached = true;
        }
        self.node.know_interface(pod, interface.clone())?;
        self.board.write(|known| {
            known.interfaces.insert(pod.clone(), interface.index);
        });
        self.interfaces.insert(pod.clone(), interface);
        Ok(())
    }

    fn detach(&mut self, pod: &PodRef, mac: Mac) -> Result<(), AgentError> {
        let is_this = |interface: &Interface| interface.mac == mac;
        if !self.interfaces.get(pod).is_some_and(is_this) {
            return Ok(());
        }
        let Some(interface) = self.interfaces.remove(pod) else {
            return Ok(());
        };
        self.board.write(|known| {
            known.interfaces.remove(pod);
            for address in &interface.addresses {
                known.awaited.remove(address);
                known.heard.remove(address);
            }
        });
        // The programs go with the interface. If it is gone already, so are they, and only their pins are left.
        self.left_attached = true;
        self.node.close_interface(pod)
    }

    fn update(&mut self, update: &Update, acknowledge: Acknowledge) {
        let began = Instant::now();
        if let Err(error) = self.kept.take(update) {
            // Enforcement goes on; the next start begins with what was kept before, and hears the rest again.
            warn!(%error, "what the operator said could not be kept");
        }
        let applied = self.put_in_force(update);
        self.after(update, applied, Some(acknowledge));
        self.metrics.applied(update.snapshot, began.elapsed());
        if let Err(error) = self.node.settle() {
            warn!(%error, "what went could not be taken out yet");
        }
        self.measure();
    }

    fn put_in_force(&mut self, update: &Update) -> Result<(), AgentError> {
        if update.snapshot {
            self.node.start_anew();
            self.know_interfaces()?;
        }
        self.node.apply(&update.delta)
    }

    /// What follows an update that is in force, or is not.
    fn after(
        &mut self,
        update: &Update,
        applied: Result<(), AgentError>,
        acknowledge: Option<Acknowledge>,
    ) {
        if let Err(error) = applied {
            error!(revision = %update.revision, %error, "an update is not in force: what it takes away is, the rest is tried again");
            self.board.trouble("tables", vec![error.to_string()]);
            self.metrics.failed();
            self.note_failed(update, acknowledge);
            return;
        }
        if update.snapshot {
            self.failed = None;
            self.end_forgotten();
        }
        self.serve(update);
        let names_nodes = update.settings.is_some() || !update.nodes.is_empty();
        // Maps may be new ones: nothing is to be missing in them when packets begin to be judged by them.
        let is_routed = names_nodes && !self.took_over;
        if is_routed {
            self.route();
        }
        if let Err(error) = self.take_over() {
            warn!(%error, "programs of an earlier process could not all be replaced");
        }
        if self.failed.is_some() {
            // This one went through; what failed before it may still be missing.
            self.note_failed(update, acknowledge);
            self.retry();
            return;
        }
        self.board.trouble("tables", Vec::new());
        self.tell(update);
        if let Some(acknowledge) = acknowledge {
            acknowledge(update.revision);
        }
        if names_nodes && !is_routed {
            self.route();
        }
    }

    fn note_failed(&mut self, update: &Update, acknowledge: Option<Acknowledge>) {
        let acknowledge = acknowledge.unwrap_or_else(|| Arc::new(|_| ()));
        let failed = self.failed.get_or_insert_with(|| Failed {
            acknowledge: Arc::clone(&acknowledge),
            removed: Delta::default(),
        });
        failed.acknowledge = acknowledge;
        let (delta, removed) = (&update.delta, &mut failed.removed);
        let prefixes = delta.prefixes.iter().map(|(prefix, _)| (*prefix, None));
        removed.prefixes.extend(prefixes);
        let addresses = delta.addresses.iter().map(|(address, _)| (*address, None));
        removed.addresses.extend(addresses);
        let pods = delta.endpoints.iter().map(|(pod, _)| (pod.clone(), None));
        removed.endpoints.extend(pods);
    }

    /// Puts the whole state in force once more. The node compares tables itself where one failed; all else is told again.
    fn retry(&mut self) {
        let Some(Failed {
            acknowledge,
            removed,
        }) = self.failed.take()
        else {
            return;
        };
        let mut whole = self.kept.catalog.snapshot();
        let all = mem::take(&mut whole.delta);
        let mut delta = Delta {
            watermarks: all.watermarks,
            nodes: all.nodes,
            ..removed
        };
        delta.prefixes.extend(all.prefixes);
        delta.addresses.extend(all.addresses);
        delta.endpoints.extend(all.endpoints);
        last_word(&mut delta.prefixes);
        last_word(&mut delta.addresses);
        last_word(&mut delta.endpoints);
        let again = Update {
            snapshot: false,
            delta,
            ..whole
        };
        let applied = self.node.apply(&again.delta);
        self.after(&again, applied, Some(acknowledge));
    }

    fn know_interfaces(&mut self) -> Result<(), AgentError> {
        for (pod, interface) in &self.interfaces {
            self.node.know_interface(pod, interface.clone())?;
        }
        let indexes = self
            .interfaces
            .iter()
            .map(|(pod, interface)| (pod.clone(), interface.index))
            .collect();
        self.board.write(|known| known.interfaces = indexes);
        Ok(())
    }

    /// A pod that the operator knows no more has no tables; its endpoint ends until it is known again.
    fn end_forgotten(&mut self) {
        for (pod, interface) in &self.interfaces {
            if self.node.subject(pod).is_none() {
                let closed = self
                    .node
                    .close_interface(pod)
                    .and_then(|()| self.node.know_interface(pod, interface.clone()));
                if let Err(error) = closed {
                    warn!(%pod, %error, "the endpoint of a pod without subject");
                }
            }
        }
    }

    /// Runs this process's programs at all interfaces, once the maps hold what they should.
    fn take_over(&mut self) -> Result<(), AgentError> {
        if mem::replace(&mut self.took_over, true) {
            return Ok(());
        }
        self.node.take_over()?;
        let mut failed = None;
        for interface in self.interfaces.values() {
            // A link that was pinned is updated in place; one that was lost, or never made, is made. One interface may be going: the others
            // are not to wait for it.
            if let Err(error) = self.attacher.fasten(interface.index) {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn serve(&mut self, update: &Update) {
        if update.services.is_empty() && !update.snapshot {
            return;
        }
        let served = self
            .services
            .apply(&mut self.node, &update.services, update.snapshot);
        self.board
            .trouble("services", served.err().into_iter().collect());
    }

    /// Has the routing do something by what is known of the cluster.
    fn with_routing<T>(
        &mut self,
        ask: impl FnOnce(&mut dyn Routing, &mut Node, &Cluster<'_>) -> T,
    ) -> T {
        let settings = self.kept.catalog.settings().cloned().unwrap_or_default();
        let cluster = Cluster {
            own: &self.name,
            nodes: self.kept.catalog.nodes(),
            settings: &settings,
            namespace: &self.namespace,
        };
        ask(self.routing.as_mut(), &mut self.node, &cluster)
    }

    fn route(&mut self) {
        let troubles = self.with_routing(|routing, node, cluster| routing.apply(node, cluster));
        for trouble in &troubles {
            warn!(trouble, "routing");
        }
        self.board.trouble("routing", troubles);
        let devices = self.routing.devices();
        self.board.write(|known| known.devices = devices);
    }

    /// Tells the board what is in force now.
    fn tell(&mut self, update: &Update) {
        let settings = self.kept.catalog.settings().cloned().unwrap_or_default();
        let site = self.site();
        let catalog = &self.kept.catalog;
        self.board.write(|known| {
            if update.snapshot {
                known.subjects.clear();
            }
            for (pod, subject) in &update.delta.endpoints {
                match subject {
                    Some(subject) => known.subjects.insert(
                        pod.clone(),
                        Subject {
                            identity: subject.identity.0,
                            uid: subject.uid,
                        },
                    ),
                    None => known.subjects.remove(pod),
                };
            }
            if !known.awaited.is_empty() {
                let said = update
                    .delta
                    .addresses
                    .iter()
                    .filter(|(_, info)| info.is_some());
                let said: Vec<Address> = said.map(|(address, _)| *address).collect();
                let heard = known
                    .awaited
                    .iter()
                    .filter(|address| said.contains(&Address::from(**address)));
                let heard: Vec<_> = heard.copied().collect();
                known.heard.extend(heard);
            }
            if !update.nodes.is_empty() || update.snapshot {
                known.nodes.clone_from(catalog.nodes());
            }
            known.settings = settings;
            known.services = catalog.services().len();
            known.sizes = catalog.sizes();
            known.site = site;
            known.revision = Some(update.revision);
            known.since = Some(SystemTime::now());
        });
    }

    fn site(&mut self) -> Option<Site> {
        self.with_routing(|routing, _, cluster| {
            let own = cluster.nodes.get(cluster.own)?;
            Some(Site {
                mtu: routing.mtu(cluster),
                pod_cidrs: own.pod_cidrs.clone(),
                addresses: own.addresses.clone(),
                addresses_matter: cluster.settings.addresses_matter,
            })
        })
    }

    fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(RETRY_EVERY) && self.failed.is_some() {
            self.retry();
        }
        if self.ticks.is_multiple_of(ROUTES_EVERY) && !self.kept.is_empty() {
            self.route();
            self.remove_dead_links();
        }
        if self.ticks.is_multiple_of(COLLECT_EVERY) {
            if let Err(error) = self.node.settle() {
                warn!(%error, "what went could not be taken out yet");
            }
            match self.node.collect_connections() {
                Ok(live) => self.board.write(|known| known.connections = live),
                Err(error) => warn!(%error, "connections that are over could not be removed"),
            }
            self.measure();
            self.metrics.drops(self.node.datapath());
        }
    }

    fn remove_dead_links(&mut self) {
        if !mem::take(&mut self.left_attached) {
            return;
        }
        if let Err(error) = self.node.take_over() {
            warn!(%error, "links of interfaces that are gone could not be removed");
            self.left_attached = true;
        }
    }

    fn measure(&self) {
        let usage = self.node.usage();
        let sizes = &self.sizes;
        let [.., addresses, prefixes, _, _] = self.kept.catalog.sizes();
        let of = |name, used: usize, size: u32| (name, used as u64, u64::from(size));
        let maps = vec![
            of("endpoints", self.interfaces.len(), sizes.endpoints),
            of("addresses", addresses, sizes.addresses),
            of("prefixes", prefixes, sizes.prefixes),
            of("tables", usage.tables, sizes.tables),
            of("peers", usage.peers, sizes.peers),
            of("programs", usage.programs, sizes.programs),
            of("ranges", usage.ranges, sizes.ranges),
            of("attributions", usage.attributions, sizes.attributions),
        ];
        self.board.write(|known| known.maps = maps);
    }
}

/// Leaves of each key only what was said of it last.
fn last_word<K: Ord + Clone, V>(said: &mut Vec<(K, V)>) {
    let last: BTreeMap<K, V> = mem::take(said).into_iter().collect();
    said.extend(last);
}

fn answer(done: &SyncSender<Result<(), String>>, result: Result<(), AgentError>) {
    // Whoever asked may have given up.
    let _ = done.send(result.map_err(|error| error.to_string()));
}
