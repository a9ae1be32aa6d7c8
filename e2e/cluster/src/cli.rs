//! The words of the command line and their help. Doing anything may not enter.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sluice_cluster::{Cni, Machine, Name, Options, Proxy, upstream};

use crate::bench::load::Load;

/// A real Kubernetes of several nodes on this machine, for tests.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask cluster",
    bin_name = "cargo xtask cluster",
    version
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do with a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build Kubernetes and all else that a cluster is made of, except what is built already
    Build,

    /// Start a cluster
    #[command(
        after_help = "Examples:\n  cargo xtask cluster up\n  cargo xtask cluster up --nodes 2 --cni bridge"
    )]
    Up(Up),

    /// Remove a cluster, or what a killed run left of one
    Down {
        #[command(flatten)]
        which: Which,
    },

    /// Run a command on a machine: `cp`, `out` or a node's number
    #[command(
        after_help = "Examples:\n  cargo xtask cluster exec 1 -- ip route\n  cargo xtask cluster exec out -- ping -c1 172.30.0.11"
    )]
    Exec {
        #[command(flatten)]
        which: Which,
        /// `cp`, `out` or a node's number
        machine: Machine,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },

    /// Run kubectl as the administrator
    #[command(after_help = "Examples:\n  cargo xtask cluster kubectl -- get pods --all-namespaces")]
    Kubectl(Tool),

    /// Run helm as the administrator
    #[command(after_help = "Examples:\n  cargo xtask cluster helm -- list --all-namespaces")]
    Helm(Tool),

    /// Kill a service with SIGKILL; it comes back after a second
    #[command(after_help = "Examples:\n  cargo xtask cluster kill 1 containerd")]
    Kill(Service),

    /// Stop a service until it is started again
    #[command(after_help = "Examples:\n  cargo xtask cluster stop cp kube-apiserver")]
    Stop(Service),

    /// Start a service that was stopped
    #[command(after_help = "Examples:\n  cargo xtask cluster start cp kube-apiserver")]
    Start(Service),

    /// Run Kubernetes' own tests against a running cluster
    #[command(
        after_help = "Examples:\n  cargo xtask cluster upstream\n  cargo xtask cluster upstream --focus 'Netpol' --skip 'SCTP'"
    )]
    Upstream(Upstream),

    /// Build Sluice's images, load them into a running cluster and install the chart
    #[command(
        after_help = "Examples:\n  cargo xtask cluster install\n  cargo xtask cluster install --routing direct -- --set log.level=debug"
    )]
    Install(Install),

    /// Run parts of `test` on a running cluster with Sluice installed
    #[command(
        after_help = "Examples:\n  cargo xtask cluster check\n  cargo xtask cluster check kills --kills 200"
    )]
    Check(Check),

    /// Start a cluster, test Sluice on it, remove it
    #[command(
        after_help = "Examples:\n  cargo xtask cluster test\n  cargo xtask cluster test --routing direct --quick\n  cargo xtask cluster test --baseline"
    )]
    Test(Test),

    /// Measure the operator on a cluster whose nodes and pods are objects
    #[command(
        after_help = "Examples:\n  cargo xtask cluster scale\n  cargo xtask cluster scale --write"
    )]
    Scale(Scale),

    /// Measure pods' traffic on clusters that are up, beside the baseline
    #[command(
        after_help = "Examples:\n  cargo xtask cluster up --name bridge --nodes 2 --cni bridge\n  cargo xtask cluster bench --baseline bridge vxlan direct --write"
    )]
    Bench(Bench),

    /// Be one side of the traffic that is measured
    #[command(hide = true, subcommand)]
    Load(Load),

    /// Be the first process of a machine
    #[command(hide = true)]
    Init {
        /// What the machine is like
        spec: PathBuf,
    },
}

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// The cluster's name
    #[arg(long, default_value_t)]
    pub(crate) name: Name,
}

/// What the cluster to start is like.
#[derive(Args, Debug)]
pub(crate) struct Up {
    #[command(flatten)]
    which: Which,
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Who connects pods
    #[arg(long, value_enum, default_value_t)]
    cni: Cni,
    /// Who translates service addresses
    #[arg(long, value_enum, default_value_t)]
    proxy: Proxy,
    /// An image file that every node loads; may be given several times
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Let Kubernetes give every node its pod addresses, as with --cni bridge
    #[arg(long)]
    node_pod_cidrs: bool,
    /// Keep nodes without heartbeats as they are, for fake ones
    #[arg(long)]
    fake_nodes: bool,
    /// Leave cluster DNS out
    #[arg(long)]
    no_dns: bool,
}

impl From<Up> for Options {
    fn from(up: Up) -> Self {
        Self {
            name: up.which.name,
            nodes: up.nodes,
            cni: up.cni,
            proxy: up.proxy,
            images: up.images,
            node_pod_cidrs: up.node_pod_cidrs || up.cni == Cni::Bridge,
            fake_nodes: up.fake_nodes,
            dns: !up.no_dns,
            api_server_switches: Vec::new(),
        }
    }
}

/// A program run as the administrator.
#[derive(Args, Debug)]
pub(crate) struct Tool {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Its arguments
    #[arg(last = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// A service of a machine.
#[derive(Args, Debug)]
pub(crate) struct Service {
    #[command(flatten)]
    pub(crate) which: Which,
    /// `cp` or a node's number
    pub(crate) machine: Machine,
    /// containerd, kubelet or kube-proxy; etcd, kube-apiserver, kube-controller-manager or kube-scheduler
    #[arg(value_name = "SERVICE")]
    pub(crate) unit: String,
}

/// Which upstream tests.
#[derive(Args, Debug)]
pub(crate) struct Upstream {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Tests whose name matches this regular expression
    #[arg(long, default_value = upstream::CONFORMANCE)]
    focus: String,
    /// But none whose name matches this one
    #[arg(long, default_value = r"\[Serial\]")]
    skip: String,
    /// How many at once
    #[arg(long, default_value_t = 6)]
    parallel: u8,
}

impl Upstream {
    pub(crate) fn selection(&self) -> upstream::Selection {
        upstream::Selection {
            focus: self.focus.clone(),
            skip: self.skip.clone(),
            parallel: self.parallel,
        }
    }
}

/// How packets get from node to node.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Routing {
    /// By routes of the segment that the nodes share.
    Direct,
    /// Wrapped, in an overlay.
    Vxlan,
}

impl Routing {
    /// As the chart's values call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
        }
    }
}

/// How Sluice's own programs are built.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Profile {
    /// As users get them.
    #[default]
    Release,
    /// As the other tests have built most of them already, where a release build would take too long.
    Dev,
}

impl Profile {
    /// Cargo's folder for what it builds.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }

    /// Cargo's name for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }
}

/// What to install.
#[derive(Args, Debug)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) sluice: Sluice,
    /// Further arguments of `helm install`
    #[arg(last = true)]
    pub(crate) helm: Vec<String>,
}

/// How Sluice is built and installed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Sluice {
    /// How packets get from node to node; the chart's default if not given
    #[arg(long, value_enum)]
    pub(crate) routing: Option<Routing>,
    /// How Sluice's programs are built
    #[arg(long, value_enum, default_value_t)]
    pub(crate) profile: Profile,
}

/// A part of the test, on a cluster with Sluice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Part {
    /// Pods of all nodes reach each other and a service over both families
    Talk,
    /// Kubernetes' own tests: network Conformance and those of `NetworkPolicy` at the same time
    Upstream,
    /// A policy cuts off, and its removal opens
    Enforcement,
    /// `sluice connectivity test` finds everything as it should be
    Connectivity,
    /// The same manifests have the same result in the lab and here
    Lab,
    /// Objects that are wrong stop no others
    Invalid,
    /// Everything that can die is killed while traffic is counted
    Kills,
    /// `sluice status` is green
    Status,
}

impl Part {
    pub(crate) const ALL: [Self; 8] = [
        Self::Talk,
        Self::Upstream,
        Self::Enforcement,
        Self::Connectivity,
        Self::Lab,
        Self::Invalid,
        Self::Kills,
        Self::Status,
    ];
}

/// Which parts of the test.
#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The parts; all of them if none is given
    #[arg(value_enum)]
    pub(crate) parts: Vec<Part>,
    /// How often something is killed
    #[arg(long, default_value_t = 20)]
    pub(crate) kills: u16,
    /// How Sluice's programs were built
    #[arg(long, value_enum, default_value_t)]
    pub(crate) profile: Profile,
}

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// The cluster that the others are compared with: one with `--cni bridge`
    #[arg(long, value_name = "NAME")]
    pub(crate) baseline: Name,
    /// Clusters with Sluice
    #[arg(required = true, value_name = "NAME")]
    pub(crate) clusters: Vec<Name>,
    /// How often everything is measured
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: usize,
    /// How long each measurement takes
    #[arg(long, default_value_t = 1000)]
    pub(crate) milliseconds: u64,
    /// Put the table into docs/benchmarks.md
    #[arg(long)]
    pub(crate) write: bool,
}

/// How to test.
#[derive(Args, Debug)]
pub(crate) struct Test {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) sluice: Sluice,
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: u8,
    /// Test the harness itself: the reference bridge plugin in Sluice's place
    #[arg(long)]
    pub(crate) baseline: bool,
    /// Leave the upstream tests out
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often services are killed
    #[arg(long, default_value_t = 20)]
    pub(crate) kills: u16,
    /// Leave the cluster up, to look at what went wrong
    #[arg(long)]
    pub(crate) keep: bool,
}

/// How much to measure.
#[derive(Args, Debug)]
pub(crate) struct Scale {
    #[command(flatten)]
    pub(crate) which: Which,
    /// How many fake nodes, each with an agent
    #[arg(long, default_value_t = 100)]
    pub(crate) fake_nodes: u16,
    /// How many pods
    #[arg(long, default_value_t = 500)]
    pub(crate) pods: usize,
    /// How many policies
    #[arg(long, default_value_t = 1000)]
    pub(crate) policies: usize,
    /// How many changes of each kind are timed
    #[arg(long, default_value_t = 300)]
    pub(crate) changes: usize,
    /// How long the API server is away, in seconds
    #[arg(long, default_value_t = 60)]
    pub(crate) outage: u64,
    /// Put the tables into docs/benchmarks.md
    #[arg(long)]
    pub(crate) write: bool,
    /// Leave the cluster up, to look at what went wrong
    #[arg(long)]
    pub(crate) keep: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_bridge_plugin_brings_what_it_needs() {
        let cli = Cli::try_parse_from(["x", "up", "--cni", "bridge", "--nodes", "2"]).unwrap();
        let Command::Up(up) = cli.command else {
            panic!("not up")
        };
        let options = Options::from(up);
        assert!(options.node_pod_cidrs && options.nodes == 2);
    }
}
