//! Agents without a kernel, one for each fake node: each shows its own token, takes every update into a catalog as a real one does,
//! acknowledges it, and reports its pods. They look out for marks, so that it is known when everyone has something.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use sluice_abi::{
    ipcache::Address,
    program::{Cell, Program, RangeKey},
};
use sluice_policy::Delta;
use sluice_stream::{
    AgentStatus, Catalog, Event, Handle, Options, Report, Revision, Subscription, Update,
};
use sluice_world::{NodeName, PodRef};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// What an update is recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A program opens this port.
    Port(u16),
    /// An identity has a label that ends like this.
    Identity(String),
    /// An address is somebody's, or somebody else's.
    Address(IpAddr),
}

impl Mark {
    fn is_in(&self, update: &Update) -> bool {
        let delta = &update.delta;
        match self {
            Self::Port(port) => {
                let inline = delta
                    .programs
                    .iter()
                    .flat_map(|(_, program)| ports(program));
                inline.chain(trie_ports(delta)).any(|open| open == *port)
            }
            Self::Identity(end) => delta
                .identities
                .iter()
                .any(|(_, labels)| labels.iter().any(|label| label.ends_with(end))),
            Self::Address(address) => {
                let address = Address::from(*address);
                delta
                    .addresses
                    .iter()
                    .any(|(known, info)| *known == address && info.is_some())
            }
        }
    }
}

/// Single ports that a program of few ranges names.
fn ports(program: &Program) -> impl Iterator<Item = u16> {
    let count = usize::from(program.count).min(program.ranges.len());
    let ranges = program.ranges.into_iter().take(count);
    ranges
        .filter(|range| range.low == range.high)
        .map(|range| range.low)
}

/// Single ports in the trie of longer programs.
fn trie_ports(delta: &Delta) -> impl Iterator<Item = u16> {
    let single = |(key, _): &&(RangeKey, Cell)| key.prefix_bits == RangeKey::ALL_BITS;
    let ranges = delta.ranges.iter().filter(single);
    ranges.map(|(key, _)| u16::from_be_bytes(key.port))
}

/// A pod as its node's agent meets it.
#[derive(Clone, Debug)]
pub(crate) struct LocalPod {
    pub(crate) pod: PodRef,
    pub(crate) uid: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// An agent saw a mark, and has acknowledged the update.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    agent: usize,
    mark: usize,
    at: Instant,
}

#[derive(Debug, Default)]
struct State {
    catalog: Catalog,
    acknowledged: Option<(Revision, Instant)>,
    connections: usize,
    pods: BTreeMap<PodRef, LocalPod>,
    reported: BTreeSet<PodRef>,
}

struct Agent {
    state: Arc<Mutex<State>>,
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is looked out for, each under a number of its own.
type Marks = Arc<RwLock<BTreeMap<usize, Mark>>>;

/// Where the operators are and how they are trusted.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) operators: Vec<SocketAddr>,
    pub(crate) ca: String,
    pub(crate) server_name: String,
}

impl Gate {
    fn options(&self, node: &str, token: &str) -> Options {
        let (operators, ca, token) = (self.operators.clone(), self.ca.clone(), token.to_owned());
        Options {
            node: NodeName(node.to_owned()),
            addresses: Arc::new(move || Ok(operators.clone())),
            ca: Some(Arc::new(move || Ok(ca.clone()))),
            server_name: self.server_name.clone(),
            token: Arc::new(move || Ok(token.clone())),
            resume: None,
        }
    }
}

/// All agents.
pub(crate) struct Fleet {
    gate: Gate,
    /// Node names and tokens, in the agents' order.
    nodes: Vec<(String, String)>,
    agents: Vec<Agent>,
    marks: Marks,
    next_mark: usize,
    sender: mpsc::UnboundedSender<Sighting>,
    sightings: mpsc::UnboundedReceiver<Sighting>,
}

impl Fleet {
    /// Starts an agent for each node, given with its token.
    pub(crate) fn start(gate: Gate, nodes: Vec<(String, String)>) -> Self {
        let (sender, sightings) = mpsc::unbounded_channel();
        let mut fleet = Self {
            gate,
            nodes,
            agents: Vec::new(),
            marks: Marks::default(),
            next_mark: 0,
            sender,
            sightings,
        };
        for number in 0..fleet.nodes.len() {
            let agent = fleet.start_agent(number, BTreeMap::new());
            fleet.agents.push(agent);
        }
        fleet
    }

    /// An agent that knows nothing but the pods on its node.
    fn start_agent(&self, number: usize, pods: BTreeMap<PodRef, LocalPod>) -> Agent {
        let (node, token) = &self.nodes[number];
        let subscription = Subscription::start(self.gate.options(node, token));
        let state = Arc::new(Mutex::new(State {
            reported: pods.keys().cloned().collect(),
            pods,
            ..State::default()
        }));
        let handle = subscription.handle();
        let life = Life {
            number,
            state: Arc::clone(&state),
            marks: Arc::clone(&self.marks),
            sightings: self.sender.clone(),
        };
        Agent {
            state,
            handle,
            task: tokio::spawn(life.run(subscription)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.agents.len()
    }

    /// A pod has started on a node: its agent reports it once it knows of it.
    pub(crate) fn add_pod(&self, agent: usize, pod: LocalPod) {
        let agent = &self.agents[agent];
        let mut state = lock(&agent.state);
        let id = pod.pod.clone();
        state.pods.insert(id.clone(), pod);
        if state.catalog.endpoint(&id).is_some() {
            report_pod(&mut state, &agent.handle, &id);
        }
    }

    /// Everyone's last acknowledgement, in time.
    pub(crate) fn last_acknowledgement(&self) -> Option<Instant> {
        let times = self.agents.iter();
        times
            .filter_map(|agent| Some(lock(&agent.state).acknowledged?.1))
            .max()
    }

    /// How often agents have connected, all together.
    pub(crate) fn connections(&self) -> usize {
        let counts = self.agents.iter();
        counts.map(|agent| lock(&agent.state).connections).sum()
    }

    /// Looks out for a mark from now on.
    pub(crate) fn watch_for(&mut self, mark: Mark) -> usize {
        let number = self.next_mark;
        self.next_mark += 1;
        self.marks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, mark);
        number
    }

    /// Waits until each of these agents has seen its mark; when the last one had.
    pub(crate) async fn seen(
        &mut self,
        mark: usize,
        by: &BTreeSet<usize>,
        limit: Duration,
    ) -> Result<Instant> {
        let mut missing = by.clone();
        let mut last = None;
        let waiting = async {
            while !missing.is_empty() {
                let Some(sighting) = self.sightings.recv().await else {
                    break;
                };
                if sighting.mark == mark && missing.remove(&sighting.agent) {
                    last = last.max(Some(sighting.at));
                }
            }
        };
        let in_time = timeout(limit, waiting).await.is_ok();
        let mark = self
            .marks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&mark);
        if !in_time {
            bail!(
                "{} of {} agents did not see {mark:?} within {limit:?}",
                missing.len(),
                by.len()
            );
        }
        last.context("nobody was to see it")
    }

    /// Every agent.
    pub(crate) fn all(&self) -> BTreeSet<usize> {
        (0..self.len()).collect()
    }

    /// The ports that programs of this agent open.
    pub(crate) fn ports(&self, agent: usize) -> BTreeSet<u16> {
        let delta = lock(&self.agents[agent].state).catalog.snapshot().delta;
        let inline = delta
            .programs
            .iter()
            .flat_map(|(_, program)| ports(program));
        inline.chain(trie_ports(&delta)).collect()
    }

    /// Starts an agent anew, and compares what the one before had gathered, delta by delta and over its operators' deaths, with what its
    /// successor is given whole.
    pub(crate) async fn replace(&mut self, agent: usize) -> Result<()> {
        let node = self.nodes[agent].0.clone();
        let (mut gathered, pods) = {
            let state = lock(&self.agents[agent].state);
            (state.catalog.snapshot(), state.pods.clone())
        };
        self.agents[agent] = self.start_agent(agent, pods);
        let state = Arc::clone(&self.agents[agent].state);
        let begun = Instant::now();
        while lock(&state).acknowledged.is_none() {
            ensure!(
                begun.elapsed() < Duration::from_secs(20),
                "{node}: a new agent is given nothing"
            );
            sleep(Duration::from_millis(5)).await;
        }
        let mut given = lock(&state).catalog.snapshot();
        // Steps that do not concern a node do not reach it.
        gathered.revision = Revision::default();
        given.revision = Revision::default();
        match difference(&gathered, &given) {
            None => Ok(()),
            Some(what) => bail!(
                "{node}: the {what} that its agent gathered are not those that a new one is given"
            ),
        }
    }
}

fn difference(gathered: &Update, given: &Update) -> Option<&'static str> {
    let (one, other) = (&gathered.delta, &given.delta);
    let parts = [
        ("programs", one.programs == other.programs),
        ("attributions", one.attributions == other.attributions),
        ("rules", one.cookies == other.cookies),
        ("identities", one.identities == other.identities),
        ("tables", one.tables == other.tables),
        ("addresses", one.addresses == other.addresses),
        ("prefixes", one.prefixes == other.prefixes),
        ("endpoints", one.endpoints == other.endpoints),
        ("nodes", gathered.nodes == given.nodes),
        ("services", gathered.services == given.services),
        ("settings", gathered.settings == given.settings),
        ("parts", gathered == given),
    ];
    parts.iter().find(|(_, same)| !same).map(|(name, _)| *name)
}

/// An agent's task.
struct Life {
    number: usize,
    state: Arc<Mutex<State>>,
    marks: Marks,
    sightings: mpsc::UnboundedSender<Sighting>,
}

impl Life {
    async fn run(self, mut subscription: Subscription) {
        let handle = subscription.handle();
        loop {
            match subscription.next().await {
                Event::Update(update) => self.take(&update, &handle),
                Event::Connected { .. } => {
                    lock(&self.state).connections += 1;
                    self.report_all(&handle);
                }
                Event::ReportAgain => self.report_all(&handle),
                Event::Disconnected { .. } => {}
            }
        }
    }

    fn take(&self, update: &Update, handle: &Handle) {
        let mut state = lock(&self.state);
        state.catalog.apply(update);
        handle.ack(update.revision);
        let at = Instant::now();
        state.acknowledged = Some((update.revision, at));
        let started: Vec<PodRef> = update
            .delta
            .endpoints
            .iter()
            .filter(|(id, endpoint)| endpoint.is_some() && state.pods.contains_key(id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in started {
            if !state.reported.contains(&id) {
                report_pod(&mut state, handle, &id);
            }
        }
        drop(state);
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        for (mark, wanted) in &*marks {
            if wanted.is_in(update) {
                let sighting = Sighting {
                    agent: self.number,
                    mark: *mark,
                    at,
                };
                // Nobody looks any more once the fleet is gone.
                let _ = self.sightings.send(sighting);
            }
        }
    }

    fn report_all(&self, handle: &Handle) {
        let mut state = lock(&self.state);
        let endpoints = u32::try_from(state.reported.len()).unwrap_or(u32::MAX);
        handle.report(&Report::Status(AgentStatus {
            release: "simulated".to_owned(),
            revision: state.acknowledged.map(|(revision, _)| revision),
            endpoints,
            ready: endpoints,
            ..AgentStatus::default()
        }));
        let ids: Vec<PodRef> = state.reported.iter().cloned().collect();
        for id in ids {
            report_pod(&mut state, handle, &id);
        }
    }
}

fn report_pod(state: &mut State, handle: &Handle, id: &PodRef) {
    let Some(pod) = state.pods.get(id) else {
        return;
    };
    handle.report(&Report::EndpointUp {
        pod: pod.pod.clone(),
        uid: pod.uid.clone(),
        addresses: pod.addresses.clone(),
        container: "simulated".to_owned(),
    });
    state.reported.insert(id.clone());
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
