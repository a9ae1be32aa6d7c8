//! What the operator is started with. What it does with it may not enter.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use sluice_stream::Overlay;
use sluice_world::Mode;

use crate::{
    core::{Config, IpamError, Pools},
    uninstall::Uninstall,
};

/// The cluster side of Sluice: watches the API server, compiles policy, tells agents.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-operator", version)]
pub struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Be one of the operator's replicas
    Run(Box<Options>),
    /// Have every node cleaned up, before Sluice is uninstalled
    Uninstall(Uninstall),
}

/// What a replica is started with.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The namespace that the operator runs in
    #[arg(long, env = "SLUICE_NAMESPACE", default_value = "kube-system")]
    pub namespace: String,

    /// The name of the operator's pod, for the Lease and for Events
    #[arg(long, env = "POD_NAME", default_value = "sluice-operator")]
    pub pod_name: String,

    /// The address at which agents and other replicas reach this one: that of its node
    #[arg(long, env = "HOST_IP")]
    pub address: IpAddr,

    /// Where agents are served
    #[arg(long, env = "SLUICE_STREAM_LISTEN", default_value = "[::]:4245")]
    pub stream_listen: SocketAddr,

    /// Where the webhook is served
    #[arg(long, env = "SLUICE_WEBHOOK_LISTEN", default_value = "[::]:4246")]
    pub webhook_listen: SocketAddr,

    /// Where health and metrics are served
    #[arg(long, env = "SLUICE_HEALTH_LISTEN", default_value = "127.0.0.1:4247")]
    pub health_listen: SocketAddr,

    /// The `ValidatingWebhookConfiguration` to keep the CA of; empty for none
    #[arg(
        long,
        env = "SLUICE_WEBHOOK_CONFIGURATION",
        default_value = "sluice-operator"
    )]
    pub webhook_configuration: String,

    /// The service account of agents
    #[arg(long, env = "SLUICE_AGENT_ACCOUNT", default_value = "sluice-agent")]
    pub agent_account: String,

    /// The service account of operators
    #[arg(
        long,
        env = "SLUICE_OPERATOR_ACCOUNT",
        default_value = "sluice-operator"
    )]
    pub operator_account: String,

    /// A token for the audience `sluice-operator`, with which this replica follows the one that leads
    #[arg(
        long,
        env = "SLUICE_TOKEN_FILE",
        default_value = "/var/run/secrets/sluice/token"
    )]
    pub token_file: PathBuf,

    /// Which pods policy holds for
    #[arg(long, env = "SLUICE_MODE", value_enum, default_value_t)]
    pub mode: PolicyMode,

    /// Where the prefixes of nodes' pods come from
    #[arg(long, env = "SLUICE_IPAM", value_enum, default_value_t)]
    pub ipam: Ipam,

    /// Pools to cut nodes' prefixes out of, `<prefix>+<length of a node's share>`
    #[arg(
        long = "pool",
        env = "SLUICE_POOLS",
        value_delimiter = ',',
        default_value = "10.244.0.0/16+24,fd00:10:244::/48+64"
    )]
    pub pools: Vec<String>,

    /// How packets travel between nodes
    #[arg(long, env = "SLUICE_ROUTING", value_enum, default_value_t)]
    pub routing: Routing,

    /// UDP port of the overlay
    #[arg(long, env = "SLUICE_VXLAN_PORT", default_value_t = 8472, value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,

    /// Whether pods' traffic that leaves the cluster takes the address of its node
    #[arg(long, env = "SLUICE_MASQUERADE", default_value_t = true, action = clap::ArgAction::Set)]
    pub masquerade: bool,

    /// Destinations that are not masqueraded
    #[arg(
        long = "excluded-cidr",
        env = "SLUICE_EXCLUDED_CIDRS",
        value_delimiter = ','
    )]
    pub excluded_cidrs: Vec<IpNet>,

    /// Prefixes of services' cluster addresses
    #[arg(
        long = "service-cidr",
        env = "SLUICE_SERVICE_CIDRS",
        value_delimiter = ','
    )]
    pub service_cidrs: Vec<IpNet>,

    /// How long an identity that no pod has is kept, in seconds
    #[arg(long, env = "SLUICE_IDENTITY_GRACE", default_value_t = 600)]
    pub identity_grace: u64,

    /// How long the leader's lease holds without being renewed, in seconds
    #[arg(long, env = "SLUICE_LEASE_DURATION", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub lease_duration: u64,

    /// A leader that could not renew its lease for so long leads no more, in seconds
    #[arg(long, env = "SLUICE_LEASE_RENEW", default_value_t = 10)]
    pub lease_renew: u64,

    /// The pause between attempts at the lease, in seconds
    #[arg(long, env = "SLUICE_LEASE_RETRY", default_value_t = 2)]
    pub lease_retry: u64,

    /// Statuses and endpoints written in a second, at most
    #[arg(long, env = "SLUICE_WRITE_RATE", default_value_t = 100)]
    pub write_rate: u32,

    /// How long changes are gathered before they are compiled, in milliseconds
    #[arg(long, env = "SLUICE_GATHER", default_value_t = 5)]
    pub gather: u64,

    /// How logs are written
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is logged, as `RUST_LOG` has it
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

/// Which pods policy holds for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PolicyMode {
    /// Those that some policy selects
    #[default]
    Default,
    /// All
    Always,
    /// None
    Never,
}

/// Where the prefixes of nodes' pods come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ipam {
    /// The operator's pools
    #[default]
    ClusterPool,
    /// `spec.podCIDRs` of nodes, as the controller manager gives them out
    Kubernetes,
}

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Routing {
    /// By routes: nodes share a segment
    #[default]
    Direct,
    /// In VXLAN
    Vxlan,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl Options {
    /// What the core is set up with.
    ///
    /// # Errors
    /// A pool makes no sense.
    pub fn config(&self) -> Result<Config, IpamError> {
        let node_cidrs = self.ipam == Ipam::Kubernetes;
        Ok(Config {
            namespace: self.namespace.clone(),
            mode: match self.mode {
                PolicyMode::Default => Mode::Default,
                PolicyMode::Always => Mode::Always,
                PolicyMode::Never => Mode::Never,
            },
            pools: if node_cidrs {
                Pools::default()
            } else {
                Pools::parse(&self.pools)?
            },
            node_cidrs,
            overlay: match self.routing {
                Routing::Direct => Overlay::Direct,
                Routing::Vxlan => Overlay::Vxlan {
                    port: self.vxlan_port,
                },
            },
            masquerade: self.masquerade,
            excluded_cidrs: self.excluded_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
            identity_grace: Duration::from_secs(self.identity_grace),
        })
    }
}
