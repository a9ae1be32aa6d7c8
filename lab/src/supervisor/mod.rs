//! The process that looks after a lab: it holds the objects, the compiler's index and the node, and does what commands ask.
//!
//! ```text
//! control socket, signals, changed files ──▶ one loop ──▶ Supervisor ──▶ index ──▶ agent ──▶ kernel
//! ring buffer ──▶ a thread ──▶ those who follow flows
//! ```

mod run;
mod update;

pub use run::run;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use sluice_agent::{AgentError, Node as Agent, config};
use sluice_datapath::{load::Sizes, probe};
use sluice_policy::{Index, Settings, Store as IdentityStore};
use sluice_world::{Mode, NodeName, World};

use crate::{
    LabError, cleanup, control,
    control::{PodStatus, Status},
    name::LabName,
    network::Node as Network,
    objects,
    plan::{self, GATEWAY_V4, GATEWAY_V6, Numbers},
    pods::Pods,
    record::Record,
    store::{self, Parsed, Store},
};

/// What a lab is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: LabName,
    /// Files and folders of manifests. Empty only to take over a lab as it is.
    pub sources: Vec<PathBuf>,
    /// The enforcement mode; a lab that is taken over keeps its own where this is none.
    pub mode: Option<Mode>,
    /// Follow changes of the sources.
    pub watch: bool,
    /// The `sluice` program, started again for each pod's responder.
    pub program: PathBuf,
}

/// A running lab. Dropping it leaves the lab in force, as being killed does; [`Supervisor::down`] ends it.
#[derive(Debug)]
pub struct Supervisor {
    name: LabName,
    record: Record,
    store: Store,
    world: World,
    numbers: Numbers,
    index: Index,
    agent: Agent,
    network: Network,
    pods: Pods,
    /// What authors should know of the objects that came since somebody was told.
    warnings: Vec<String>,
}

impl Supervisor {
    /// Brings a lab up, or takes over one whose supervisor is gone, without a packet dropped or judged by a mix of states.
    ///
    /// On failure nothing is left of a new lab; one that was there stays as it was.
    ///
    /// # Errors
    /// Another supervisor looks after it, the manifests are invalid (each problem is named), or the kernel or the rights do not suffice.
    pub fn up(options: &Options) -> Result<Self, LabError> {
        let name = &options.name;
        let before = Record::read(name)?;
        if let Some(record) = &before
            && control::is_attended(name)
        {
            return Err(LabError::Present {
                name: name.clone(),
                pid: record.supervisor,
            });
        }
        if before.is_none() {
            if options.sources.is_empty() {
                return Err(LabError::Absent(name.clone()));
            }
            // What an `up` that was killed half-way may have left.
            cleanup::remove(name)?;
        }
        let made_new = before.is_none();
        Self::begin(options, before.as_ref()).inspect_err(|_| {
            if made_new {
                // The error that is returned is the one that matters.
                let _ = cleanup::remove(name);
            }
        })
    }

    fn begin(options: &Options, before: Option<&Record>) -> Result<Self, LabError> {
        probe::mount_bpffs().map_err(|error| LabError::Agent(AgentError::Load(error.into())))?;
        let name = options.name.clone();
        // The manifests are read before anything is made: most failures are there.
        let manifests = store::read_paths(&options.sources)?;
        let Parsed { objects, warnings } = store::parse(&manifests)?;
        let mut store = Store::open(&name.directory().join("manifests"))?;
        if !options.sources.is_empty() {
            update::replace(&mut store, &manifests, objects)?;
        }
        let (numbers, addresses, left) = before.map_or_else(Default::default, |record| {
            (record.numbers(), record.addresses(), record.responders())
        });
        let world = objects::world(store.objects(), addresses)?;
        let mode = options
            .mode
            .unwrap_or_else(|| before.map_or(Mode::Default, Record::enforcement_mode));
        let sources = match before {
            Some(record) if options.sources.is_empty() => record.sources.clone(),
            _ => options
                .sources
                .iter()
                .map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone()))
                .collect(),
        };
        let record = Record::new(&name, mode_text(mode).to_owned(), sources, options.watch);
        let network = Network::ensure(&name.node_namespace(), plan::node_addresses(&world))?;
        let sizes = sizes();
        let home = world
            .nodes
            .keys()
            .next()
            .cloned()
            .unwrap_or_else(|| NodeName("lab-node".to_owned()));
        let agent = Agent::open(
            home,
            Some(&name.instance()),
            &sizes,
            config(GATEWAY_V4.into(), GATEWAY_V6.into(), &sizes),
        )?;
        let settings = Settings {
            mode,
            store: read_identities(&name.directory())?,
            ..Settings::default()
        };
        let mut supervisor = Self {
            pods: Pods::new(options.program.clone()),
            index: Index::new(settings),
            world: World::default(),
            name,
            record,
            store,
            numbers,
            agent,
            network,
            warnings,
        };
        supervisor.start(world, &left)?;
        Ok(supervisor)
    }

    /// Ends the lab: nothing of it is left on the machine.
    ///
    /// # Errors
    /// Something can't be removed; all else is by then.
    pub fn down(mut self) -> Result<cleanup::Removed, LabError> {
        self.pods.end_responders();
        let ended = self.agent.remove();
        let mut removed = cleanup::remove(&self.name)?;
        ended?;
        removed.datapath = true;
        Ok(removed)
    }

    /// The lab's name.
    #[must_use]
    pub const fn name(&self) -> &LabName {
        &self.name
    }

    /// What the authors of the objects that came since the last call should know, one line each.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The world as it is now.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// The node, for flows and counters.
    #[must_use]
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Removes connections that are over. Call it every few seconds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn collect_connections(&mut self) -> Result<usize, AgentError> {
        self.agent.collect_connections()
    }

    /// How the lab is.
    #[must_use]
    pub fn status(&self) -> Status {
        let usage = self.agent.usage();
        let figures = [
            ("tables", usage.tables),
            ("peers", usage.peers),
            ("programs", usage.programs),
            ("ranges", usage.ranges),
            ("attributions", usage.attributions),
        ];
        Status {
            record: self.record.clone(),
            pods: self
                .pods
                .plans()
                .map(|plan| self.pod_status(plan))
                .collect(),
            policies: self.world.policies.len(),
            tables: figures
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count as u64))
                .collect(),
        }
    }

    fn pod_status(&self, plan: &plan::PodPlan) -> PodStatus {
        let listens = plan.listens.iter().map(|(protocol, port)| match protocol {
            6 => format!("{port}/TCP"),
            17 => format!("{port}/UDP"),
            other => format!("{port}/{other} (no responder)"),
        });
        PodStatus {
            pod: plan.pod.to_string(),
            addresses: plan.addresses.clone(),
            identity: self
                .agent
                .subject(&plan.pod)
                .map(|subject| subject.identity.0),
            listens: listens.collect(),
            external: plan.external,
        }
    }
}

/// Room for a few hundred pods and ten thousand policies.
fn sizes() -> Sizes {
    Sizes {
        endpoints: 256,
        addresses: 1 << 16,
        prefixes: 1 << 16,
        tables: 1 << 14,
        peers: 1 << 19,
        programs: 1 << 15,
        ranges: 1 << 18,
        attributions: 1 << 19,
        services: 1024,
        backends: 8192,
        connections: 1024,
        rules: 1 << 16,
        event_bytes: 1 << 21,
    }
}

fn identities_path(directory: &Path) -> PathBuf {
    directory.join("identities.json")
}

fn read_identities(directory: &Path) -> Result<IdentityStore, LabError> {
    let path = identities_path(directory);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(IdentityStore::default()),
        Err(error) => Err(LabError::io(format!("reading {}", path.display()))(error)),
        Ok(text) => serde_json::from_str(&text).map_err(|source| LabError::Record { path, source }),
    }
}

const fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Default => "default",
        Mode::Always => "always",
        Mode::Never => "never",
    }
}

/// Who holds which address, for flow records.
fn holders(world: &World) -> std::collections::HashMap<std::net::IpAddr, String> {
    let nodes = world.nodes.values().flat_map(|node| {
        node.addresses
            .iter()
            .map(|address| (*address, format!("node {}", node.name)))
    });
    let pods = world.pods.values().filter(|pod| !pod.host_network);
    nodes
        .chain(pods.flat_map(|pod| {
            pod.addresses
                .iter()
                .map(|address| (*address, pod.id.to_string()))
        }))
        .collect()
}

/// Pods of the record, as they are now.
fn record_pods(pods: &Pods, numbers: &Numbers) -> BTreeMap<String, crate::record::PodRecord> {
    let record = |plan: &plan::PodPlan| {
        let entry = crate::record::PodRecord {
            number: numbers.0.get(&plan.pod).copied().unwrap_or(0),
            addresses: plan.addresses.clone(),
            namespace: plan.namespace.clone(),
            responder: pods.responder(&plan.pod),
        };
        (plan.pod.to_string(), entry)
    };
    pods.plans().map(record).collect()
}
