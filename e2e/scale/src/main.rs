//! `sluice-scale`: Sluice's operator with more nodes and pods than a machine can run. Either its core alone (`cargo xtask bench operator`),
//! or on a real API server with objects in place of machines: then `cargo xtask cluster scale` has made the cluster, and starts this in the
//! control plane's network.
//!
//! ```text
//! this program ─ policies, pods ─▶ API server ─▶ sluice-operator (two replicas) ─ TLS, tokens ─▶ agents without a kernel
//!       └──────────────────── what came when ◀──────────────────────────────────────────────────┘
//! ```
#![forbid(unsafe_code)]

mod cluster;
mod core;
mod fleet;
mod harness;
mod operators;
mod stages;
mod tell;
mod times;
mod world;

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::AtomicU16,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use ipnet::IpNet;
use serde_json::{Value, json};
use sluice_figures::report;

use crate::{
    cluster::Server,
    fleet::{Fleet, Gate},
    harness::Harness,
    operators::{NAME, Operators, Program},
    stages::Scene,
    tell::Told,
    world::World,
};

/// The service account of agents.
const AGENT: &str = "sluice-agent";
/// Replicas of the operator.
const REPLICAS: u16 = 2;
/// Where nodes' blocks are cut from: the chart's pools.
const POOLS: &str = "10.244.0.0/16+24,fd00:10:244::/48+64";

/// What Sluice's operator takes
#[derive(Debug, Parser)]
#[command(name = "sluice-scale", version)]
enum Arguments {
    /// Measure it on a running cluster of fake nodes
    Cluster(Measure),
    /// Measure its core in this process
    Operator {
        /// Put the table into this document
        #[arg(long)]
        write: Option<PathBuf>,
    },
}

/// What to measure on a cluster.
#[derive(Debug, Args)]
struct Measure {
    /// The cluster's name
    #[arg(long)]
    name: String,
    /// The program that has made the cluster
    #[arg(long)]
    harness: PathBuf,
    /// The address at which operators are reached: the control plane's
    #[arg(long)]
    address: IpAddr,
    /// The operator's program
    #[arg(long)]
    operator: PathBuf,
    /// A folder for logs
    #[arg(long)]
    folder: PathBuf,
    /// The chart
    #[arg(long)]
    chart: PathBuf,
    /// How many fake nodes, each with an agent
    #[arg(long, default_value_t = 100)]
    fake_nodes: u16,
    /// How many pods
    #[arg(long, default_value_t = 500)]
    pods: usize,
    /// How many policies
    #[arg(long, default_value_t = 1000)]
    policies: usize,
    /// How many changes of each kind are timed
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// How long the API server is away, in seconds
    #[arg(long, default_value_t = 60)]
    outage: u64,
    /// Put the tables into this document
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match carry_out() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out() -> Result<()> {
    let machine = report::machine();
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match Arguments::parse() {
        Arguments::Cluster(given) => {
            let told = runtime.block_on(measure(&given))?;
            let text = told.text(&given, &machine, begun.elapsed());
            publish("scale", &text, given.write.as_deref())?;
            told.judge()
        }
        Arguments::Operator { write } => {
            let text = runtime.block_on(core::measure())?;
            let took = begun.elapsed().as_secs_f64();
            let text = format!("`cargo xtask bench operator`, {took:.0} s; {machine}.\n\n{text}");
            publish("operator", &text, write.as_deref())
        }
    }
}

fn publish(section: &str, text: &str, document: Option<&Path>) -> Result<()> {
    println!("{text}");
    match document {
        Some(document) => report::write_section(document, section, text),
        None => Ok(()),
    }
}

async fn measure(arguments: &Measure) -> Result<Told> {
    let harness = Harness {
        program: arguments.harness.clone(),
        name: arguments.name.clone(),
    };
    let server = Server::connect().await?;
    fs::create_dir_all(&arguments.folder)
        .with_context(|| format!("making {}", arguments.folder.display()))?;
    install(arguments)?;
    let nodes: Vec<String> = (0..usize::from(arguments.fake_nodes))
        .map(world::node_name)
        .collect();
    let tokens = agents(&server, &nodes).await?;

    let program = Program {
        path: arguments.operator.clone(),
        folder: arguments.folder.clone(),
        address: arguments.address,
        pools: POOLS.to_owned(),
    };
    let admin = std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?;
    program.prepare(&server, Path::new(&admin)).await?;
    let mut operators = Operators::start(program, REPLICAS)?;
    operators
        .new_leader(None, true, Duration::from_mins(1))
        .await?;
    webhook(&operators)?;
    let blocks = blocks(&server, &nodes).await?;
    let gate = Gate {
        operators: operators.addresses(),
        ca: authority()?,
        server_name: NAME.to_owned(),
    };
    let fleet = Fleet::start(gate, nodes.into_iter().zip(tokens).collect());
    let all = u64::from(arguments.fake_nodes);
    operators
        .until(
            "every agent is connected",
            Duration::from_mins(1),
            |gauges| gauges.get("agents") == Some(all),
        )
        .await?;
    let scene = Scene {
        world: World {
            nodes: usize::from(arguments.fake_nodes),
            pods: arguments.pods,
            policies: arguments.policies,
        },
        server,
        operators,
        fleet,
        given: vec![0; blocks.len()],
        blocks,
        ports: AtomicU16::new(world::FIRST_PORT),
        open: BTreeMap::new(),
    };
    run(arguments, &harness, scene).await
}

/// The stages, one after the other.
async fn run(arguments: &Measure, harness: &Harness, mut scene: Scene) -> Result<Told> {
    let say = |what: &str| eprintln!("==> {what}");
    let leader = scene.operators.leader().await.context("nobody leads")?;
    let before = cluster::requests()?;
    let idle = scene.operators.memory(leader)?;
    let processor = scene.operators.processor(leader)?;
    say("everything at once");
    let loaded = scene.load().await?;
    let memory = scene.operators.memory(leader)?;
    let processor = scene.operators.processor(leader)?.saturating_sub(processor);
    let requests = tell::difference(&before, &cluster::requests()?);
    say("policies change");
    let few = scene.change_policies(arguments.changes).await?;
    let all = scene.change_fleet_policy(arguments.changes).await?;
    say("new identities");
    let (identities, addresses) = scene.new_identities((arguments.changes / 3).max(1)).await?;
    say("relabelling");
    let relabelled = scene.relabel((arguments.changes / 3).max(1)).await?;
    say("the leader is killed");
    let take_over = scene.kill_leader().await?;
    let compared = scene.compare(20).await?;
    say("the API server is away");
    let outage = scene
        .outage(harness, Duration::from_secs(arguments.outage))
        .await?;
    let compared = compared + scene.compare(20).await?;
    Ok(Told {
        idle,
        memory,
        processor,
        requests,
        loaded,
        few,
        all,
        identities,
        addresses,
        relabelled,
        take_over,
        outage,
        compared,
    })
}

/// Custom resources, service accounts and rights, as the chart has them.
fn install(arguments: &Measure) -> Result<()> {
    let chart = arguments.chart.display().to_string();
    // A link, which kubectl does not follow.
    let resources = fs::canonicalize(arguments.chart.join("crds")).context("the chart's crds")?;
    let resources = resources.display().to_string();
    harness::kubectl(&["apply", "--server-side", "-f", &resources])?;
    harness::kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ])?;
    let rights = harness::helm(&[
        "template",
        "sluice",
        &chart,
        "--namespace=kube-system",
        // Nobody is asked for it here, and helm's own guess is too old for the chart.
        "--kube-version=1.34.0",
        // Images are not looked at: the operator runs as a process.
        "--set=image.registry=none",
        "--show-only=templates/serviceaccounts.yaml",
        "--show-only=templates/rbac.yaml",
    ])?;
    harness::apply(&rights)?;
    Ok(())
}

/// Policies are reviewed as with the chart, but at an address: nothing leads to a service's here.
fn webhook(operators: &Operators) -> Result<()> {
    let rule = json!({
        "operations": ["CREATE", "UPDATE"],
        "apiGroups": ["sluice.io"],
        "apiVersions": ["v1"],
        "resources": ["sluicenetworkpolicies", "sluiceclusterwidenetworkpolicies", "sluicecidrgroups"],
        "scope": "*",
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": NAME },
        "webhooks": [{
            "name": "policies.sluice.io",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Ignore",
            "timeoutSeconds": 3,
            "matchPolicy": "Exact",
            "clientConfig": { "url": format!("https://{}/validate", operators.webhook()) },
            "rules": [rule],
        }],
    });
    harness::apply(&configuration.to_string())
}

/// A pod for each agent, and a token that is bound to it.
async fn agents(server: &Server, nodes: &[String]) -> Result<Vec<String>> {
    let token = |(agent, node): (usize, &String)| {
        let pod = world::agent_pod(agent, node, AGENT);
        async move {
            let made = server.create(&pod).await?;
            server.agent_token(AGENT, &made, NAME).await
        }
    };
    let tokens: Vec<_> = nodes.iter().enumerate().map(token).collect();
    stream::iter(tokens).buffered(16).try_collect().await
}

/// The blocks that each node has been given.
async fn blocks(server: &Server, nodes: &[String]) -> Result<Vec<Vec<IpNet>>> {
    let begun = Instant::now();
    loop {
        let stored = server
            .api("SluiceNode", None)
            .list(&kube::api::ListParams::default())
            .await?;
        let found: BTreeMap<String, Vec<IpNet>> = stored
            .items
            .into_iter()
            .map(|node| {
                let blocks = node.data["spec"]["podCIDRs"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                (
                    node.metadata.name.unwrap_or_default(),
                    blocks.filter_map(|text| text.parse().ok()).collect(),
                )
            })
            .collect();
        let all: Option<Vec<_>> = nodes
            .iter()
            .map(|node| found.get(node).filter(|blocks| blocks.len() == 2).cloned())
            .collect();
        if let Some(all) = all {
            return Ok(all);
        }
        ensure!(
            begun.elapsed() < Duration::from_mins(1),
            "not every node has blocks of both families"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The certificates to trust operators by.
fn authority() -> Result<String> {
    let map = harness::json(&["get", "configmap", "sluice-ca", "--namespace=kube-system"])?;
    map["data"]["ca.crt"]
        .as_str()
        .map(str::to_owned)
        .context("the ConfigMap sluice-ca has no ca.crt")
}
