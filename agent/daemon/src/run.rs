//! The agent from its start to its end: the parts are made and joined here, and do their work elsewhere.
//!
//! Order of the start: what an earlier process left goes on judging packets; interfaces are found again; what the operator said last is put in
//! force; the runtime's requests are served; the operator is looked for; when it has spoken, the list of plugins is written.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use sluice_abi::config::Config;
use sluice_agent::{Node, config};
use sluice_datapath::{
    load::Sizes,
    net::{
        NetNs, Netlink,
        pod::{GATEWAY_V4, GATEWAY_V6},
    },
    probe::{self, Feature},
};
use sluice_stream::{Options as StreamOptions, Subscription};
use sluice_world::NodeName;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tracing::{error, info, warn};

use crate::{
    cluster::{self, Discovery, Operators, Session, StreamReports, Tokens},
    endpoint::{self, HostLinks, Manager, Patience},
    engine::{Board, Engine, EngineHandle, Parts, ServiceSink},
    http::{self, Asked},
    install,
    metrics::Metrics,
    node::{DatapathServices, NodeRouting, RoutingOptions, forward},
    options::RunOptions,
    store,
};

/// Where operators serve agents, where no endpoint slice says.
const OPERATOR_PORT: u16 = 4245;
/// In ticks of a second: what was written goes to the disk; deletions that wait are looked for.
const FLUSH_EVERY: u64 = 5;
const DELETIONS_EVERY: u64 = 2;

/// Runs the agent until it is told to end. What is in force stays in force.
///
/// # Errors
/// The kernel, the rights or the files do not suffice: nothing of an earlier process is changed then.
pub fn run(options: &RunOptions) -> Result<()> {
    let features = examine();
    probe::mount_bpffs()?;
    if !options.keep_sysctls {
        prepare(options)?;
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting tokio")?;
    let agent = Agent::start(options, features, &runtime)?;
    let stop = Arc::clone(&agent.asked.stop);
    let ended = runtime.block_on(wait_for_end(&stop));
    info!("ending: what is in force stays in force");
    agent.end();
    ended
}

/// Says what the kernel has of what the datapath needs.
fn examine() -> Vec<Feature> {
    let features = probe::probe();
    for feature in &features {
        match feature.state {
            probe::State::Present => info!("{feature}"),
            probe::State::Absent(_) => warn!("{feature}"),
        }
    }
    features
}

fn prepare(options: &RunOptions) -> Result<()> {
    let devices = if options.devices.is_empty() {
        default_devices()?
    } else {
        options.devices.clone()
    };
    for name in forward(&devices).context("switching forwarding on")? {
        info!(sysctl = name, "switched on in the node's network namespace");
    }
    Ok(())
}

fn default_devices() -> Result<Vec<String>> {
    let mut netlink = Netlink::open()?;
    let indexes = netlink.default_interfaces()?;
    let links = netlink.links()?.into_iter();
    Ok(links
        .filter(|link| indexes.contains(&link.index))
        .map(|link| link.name)
        .collect())
}

/// Answers at `address` that all is well until the process is told to end.
///
/// # Errors
/// The address is taken.
pub fn stay_clean(address: SocketAddr) -> Result<()> {
    let runtime = Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        http::serve_clean(address)
            .await
            .with_context(|| format!("listening on {address}"))?;
        wait_for_end(&Notify::new()).await
    })
}

async fn wait_for_end(stop: &Notify) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.notified() => {}
    }
    Ok(())
}

/// A running agent.
struct Agent {
    engine: EngineHandle,
    manager: Arc<Manager>,
    asked: Asked,
}

impl Agent {
    fn start(options: &RunOptions, features: Vec<Feature>, runtime: &Runtime) -> Result<Self> {
        let board = Arc::new(Board::default());
        let metrics = Arc::new(Metrics::new(Arc::clone(&board)));
        let own = NodeName(options.node_name.clone());
        let services: Box<dyn ServiceSink> = Box::new(DatapathServices::new(own));
        let asked = Asked {
            node: options.node_name.clone(),
            board: Arc::clone(&board),
            metrics: Arc::clone(&metrics),
            manager: Arc::new(OnceLock::new()),
            features: Arc::new(features.clone()),
            services: services.path(),
            stop: Arc::new(Notify::new()),
        };
        runtime.block_on(async {
            http::serve_health(options.health_address, asked.clone())
                .await
                .with_context(|| format!("serving health at {}", options.health_address))?;
            http::serve_status(&options.files.status_socket(), asked.clone())
                .context("serving status")
        })?;
        let reports = StreamReports::default();
        let sizes = sizes(options);
        let node = open(options, &sizes)?;
        let updates = store::Updates::open(&options.files.updates())?;
        let mut engine = Engine::new(Parts {
            name: NodeName(options.node_name.clone()),
            node,
            sizes,
            updates,
            services,
            routing: Box::new(NodeRouting::new(RoutingOptions {
                devices: options.devices.clone(),
                mtu: options.mtu,
            })),
            board,
            metrics: Arc::clone(&metrics),
        })?;
        let (handle, commands) = engine.handle();
        let manager = Arc::new(Manager::new(
            Arc::new(handle.clone()),
            Arc::new(HostLinks),
            Arc::new(reports.clone()),
            store::Endpoints::open(&options.files.endpoints())?,
            Patience::default(),
        ));
        let restored = manager.restore()?;
        info!(
            alive = restored.alive.len(),
            ended = restored.ended,
            removed = restored.removed,
            "interfaces of pods"
        );
        engine.begin(restored.alive)?;
        let held = engine.held();
        engine.spawn(commands)?;
        // Not being asked for the first time yet.
        let _ = asked.manager.set(Arc::clone(&manager));
        let observe = Arc::clone(&metrics);
        endpoint::serve(
            &options.files.cni_socket(),
            Arc::clone(&manager),
            Arc::new(move |name, took, failed| observe.requested(name, took, failed)),
        )
        .context("serving the container runtime")?;
        let session = Session {
            subscription: subscribe(options, runtime, held)?,
            engine: handle.clone(),
            manager: Arc::clone(&manager),
            reports,
            features,
        };
        runtime.spawn(cluster::run(session));
        let finishing = Arc::clone(&manager);
        thread::Builder::new()
            .name("interfaces".to_owned())
            .spawn(move || finishing.finish_when_quiet())
            .context("starting the thread for interfaces")?;
        let agent = Self {
            engine: handle,
            manager,
            asked,
        };
        agent.keep_time(options)?;
        Ok(agent)
    }

    /// What is done from time to time, and the list of plugins once the agent is in sync.
    fn keep_time(&self, options: &RunOptions) -> Result<()> {
        let engine = self.engine.clone();
        let manager = Arc::clone(&self.manager);
        let deletions = options.files.deletions();
        let mut lists = (!options.without_cni_files).then(|| {
            let plugin = options.plugin.clone().unwrap_or_else(plugin_beside_us);
            (options.files.places(), plugin)
        });
        let mut ticks = 0_u64;
        let tick = move || {
            while engine.tick() {
                if let Some((places, plugin)) = &lists
                    && manager.status().is_ok()
                {
                    match announce(places, plugin) {
                        Ok(()) => lists = None,
                        Err(error) => {
                            warn!(%error, "the container runtime can't be told of the plugin");
                        }
                    }
                }
                if ticks.is_multiple_of(DELETIONS_EVERY) {
                    endpoint::follow_deletions(&manager, &deletions);
                }
                if ticks.is_multiple_of(FLUSH_EVERY)
                    && let Err(error) = manager.flush()
                {
                    warn!(%error, "what was written down does not reach the disk");
                }
                ticks += 1;
                thread::sleep(Duration::from_secs(1));
            }
        };
        thread::Builder::new()
            .name("timer".to_owned())
            .spawn(tick)
            .context("starting the timer")?;
        Ok(())
    }

    fn end(self) {
        if let Err(error) = self.engine.stop() {
            error!(error, "ending the engine");
        }
        if let Err(error) = self.manager.flush() {
            error!(%error, "what was written down does not reach the disk");
        }
        // The sockets' names stay for the next process to replace: until then the plugin learns at once that nobody listens.
    }
}

fn announce(places: &install::Places, plugin: &Path) -> std::io::Result<()> {
    install::install_plugin(plugin, &places.plugins)?;
    install::write_conflist(places)?;
    info!(list = %places.lists.join(install::CONFLIST).display(), "in sync: the container runtime may start pods");
    Ok(())
}

fn open(options: &RunOptions, sizes: &Sizes) -> Result<Node> {
    let mut settings = config(GATEWAY_V4.into(), GATEWAY_V6.into(), sizes);
    if !options.through_stack {
        settings.flags |= Config::FORWARD;
    }
    NetNs::current().context("the node's network namespace")?;
    Ok(Node::open(
        NodeName(options.node_name.clone()),
        Some(&options.datapath.instance),
        sizes,
        settings,
    )?)
}

fn sizes(options: &RunOptions) -> Sizes {
    Sizes {
        endpoints: options.sizes.max_endpoints.saturating_add(1),
        connections: options.sizes.connections_per_endpoint,
        peers: options.sizes.max_table_entries,
        addresses: options.sizes.max_addresses,
        ..Sizes::default()
    }
}

fn subscribe(
    options: &RunOptions,
    runtime: &Runtime,
    held: Option<sluice_stream::Held>,
) -> Result<Subscription> {
    let tokens = Tokens(options.token_file.clone());
    let (operators, secured) = if options.operator.is_empty() {
        let operators = Operators::remembered(options.files.operators());
        look_for(options, runtime, operators.clone());
        (operators, true)
    } else {
        let authority = options
            .operator_ca
            .as_ref()
            .map(|path| {
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
            })
            .transpose()?;
        let secured = authority.is_some();
        let given = Operators::given(options.operator.clone(), authority.unwrap_or_default());
        (given, secured)
    };
    let _inside = runtime.enter();
    Ok(Subscription::start(StreamOptions {
        node: NodeName(options.node_name.clone()),
        addresses: operators.addresses(),
        ca: secured.then(|| operators.authority()),
        server_name: options.operator_service.clone(),
        token: tokens.source(),
        resume: held,
    }))
}

/// Looks for operators, for as long as it takes to reach an API server: those of before are tried meanwhile.
fn look_for(options: &RunOptions, runtime: &Runtime, operators: Operators) {
    let discovery = Discovery {
        namespace: options.namespace.clone(),
        service: options.operator_service.clone(),
        authority: options.operator_ca_config_map.clone(),
        port: OPERATOR_PORT,
    };
    runtime.spawn(async move {
        loop {
            let client = kube::Config::infer()
                .await
                .map_err(|error| error.to_string())
                .and_then(|config| {
                    kube::Client::try_from(config).map_err(|error| error.to_string())
                });
            match client {
                Ok(client) => {
                    return cluster::follow(client, discovery, operators).await;
                }
                Err(error) => warn!(error, "the API server can't be asked for operators"),
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
}

/// The plugin is in the same folder as this program.
#[must_use]
pub fn plugin_beside_us() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(install::PLUGIN)))
        .unwrap_or_else(|| install::PLUGIN.into())
}
