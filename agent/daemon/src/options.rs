//! What the program is told by flags and variables of the environment. What it does with them may not enter.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::install::Places;

/// One node's agent.
#[derive(Debug, Parser)]
#[command(name = "sluice-agent", version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be the node's agent.
    Run(Box<RunOptions>),
    /// Copy the CNI plugin to where the container runtime looks for it.
    InstallCni {
        /// Files.
        #[command(flatten)]
        files: Files,
        /// The plugin as it was built; beside this program where not given.
        #[arg(long)]
        plugin: Option<PathBuf>,
    },
    /// End the node's agent and take everything out: programs, maps, links, routes, the plugin, the state.
    Cleanup {
        /// Files.
        #[command(flatten)]
        files: Files,
        /// The datapath.
        #[command(flatten)]
        datapath: DatapathOptions,
        /// Stay, and say at this address that the node is clean, until told to end.
        #[arg(long, value_name = "ADDRESS")]
        wait: Option<SocketAddr>,
    },
    /// Show what the kernel has of what the datapath needs.
    Probe,
    /// Ask the running agent: `status`, `endpoints`, `nodes` or `metrics`.
    Show {
        /// What.
        #[arg(default_value = "status")]
        what: String,
        /// Files.
        #[command(flatten)]
        files: Files,
    },
}

/// Where files are.
#[derive(Clone, Debug, Args)]
pub struct Files {
    /// What outlives the process and the machine's restart.
    #[arg(long, env = "SLUICE_STATE_DIR", default_value = "/var/lib/sluice")]
    pub state_dir: PathBuf,
    /// Sockets, and deletions that wait.
    #[arg(long, env = "SLUICE_RUN_DIR", default_value = "/run/sluice")]
    pub run_dir: PathBuf,
    /// Where the container runtime looks for plugins.
    #[arg(long, env = "SLUICE_CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// Where the container runtime looks for lists of plugins.
    #[arg(long, env = "SLUICE_CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// The version of the CNI specification that the container runtime is to speak; older runtimes know 1.0.0.
    #[arg(long, env = "SLUICE_CNI_VERSION", default_value = "1.1.0", value_parser = sluice_cni::invocation::VERSIONS)]
    pub cni_version: String,
    /// How the container runtime sees the run directory, where that is another path than ours.
    #[arg(long, env = "SLUICE_HOST_RUN_DIR")]
    pub host_run_dir: Option<PathBuf>,
}

impl Files {
    /// The plugin's socket.
    #[must_use]
    pub fn cni_socket(&self) -> PathBuf {
        self.run_dir.join("cni.sock")
    }

    /// The status socket.
    #[must_use]
    pub fn status_socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }

    /// Deletions that wait.
    #[must_use]
    pub fn deletions(&self) -> PathBuf {
        self.run_dir.join("deletions")
    }

    /// Endpoints, as written down.
    #[must_use]
    pub fn endpoints(&self) -> PathBuf {
        self.state_dir.join("endpoints.redb")
    }

    /// What the operator said, as written down.
    #[must_use]
    pub fn updates(&self) -> PathBuf {
        self.state_dir.join("updates.redb")
    }

    /// Where operators were.
    #[must_use]
    pub fn operators(&self) -> PathBuf {
        self.state_dir.join("operators.json")
    }

    /// What the container runtime is to be told.
    #[must_use]
    pub fn places(&self) -> Places {
        let seen = self.host_run_dir.as_ref().unwrap_or(&self.run_dir);
        Places {
            plugins: self.cni_bin_dir.clone(),
            lists: self.cni_conf_dir.clone(),
            version: self.cni_version.clone(),
            socket: seen.join("cni.sock"),
            deletions: seen.join("deletions"),
        }
    }
}

/// The datapath.
#[derive(Clone, Debug, Args)]
pub struct DatapathOptions {
    /// Name of the datapath among others of this machine: its maps are pinned under it.
    #[arg(long, env = "SLUICE_INSTANCE", default_value = "node")]
    pub instance: String,
}

/// How the maps are sized: each takes memory, arrays at once and hashes as they fill.
#[derive(Clone, Debug, Args)]
pub struct SizeOptions {
    /// Pods of this node.
    #[arg(long, env = "SLUICE_MAX_ENDPOINTS", default_value_t = 511)]
    pub max_endpoints: u32,
    /// Connections of one pod; a power of two.
    #[arg(long, env = "SLUICE_CONNECTIONS_PER_ENDPOINT", default_value_t = 4096)]
    pub connections_per_endpoint: u32,
    /// Entries of all policy tables of this node.
    #[arg(long, env = "SLUICE_MAX_TABLE_ENTRIES", default_value_t = sluice_abi::maps::PEERS.entries)]
    pub max_table_entries: u32,
    /// Addresses of the cluster.
    #[arg(long, env = "SLUICE_MAX_ADDRESSES", default_value_t = sluice_abi::maps::IPCACHE.entries)]
    pub max_addresses: u32,
}

/// Being the agent.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// This node, as Kubernetes names it.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// The namespace that Sluice runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system")]
    pub namespace: String,
    /// Files.
    #[command(flatten)]
    pub files: Files,
    /// The datapath.
    #[command(flatten)]
    pub datapath: DatapathOptions,
    /// Sizes of the maps.
    #[command(flatten)]
    pub sizes: SizeOptions,
    /// Operators given by hand; found through the API server where none is given.
    #[arg(long, env = "SLUICE_OPERATORS", value_delimiter = ',')]
    pub operator: Vec<SocketAddr>,
    /// The certificates of the authority of operators given by hand. Without it there is no TLS, which only operators on the loopback
    /// address may be reached by.
    #[arg(long, env = "SLUICE_OPERATOR_CA")]
    pub operator_ca: Option<PathBuf>,
    /// The service behind which operators are.
    #[arg(
        long,
        env = "SLUICE_OPERATOR_SERVICE",
        default_value = "sluice-operator"
    )]
    pub operator_service: String,
    /// The `ConfigMap` that has the certificates of the operators' authority at `ca.crt`.
    #[arg(
        long,
        env = "SLUICE_OPERATOR_CA_CONFIG_MAP",
        default_value = "sluice-ca"
    )]
    pub operator_ca_config_map: String,
    /// The projected token that says which node this is.
    #[arg(
        long,
        env = "SLUICE_TOKEN_FILE",
        default_value = "/var/run/secrets/sluice/token"
    )]
    pub token_file: PathBuf,
    /// Devices that face outward; those with the node's addresses and default routes where none is given.
    #[arg(long, env = "SLUICE_DEVICES", value_delimiter = ',')]
    pub devices: Vec<String>,
    /// Largest packet of a pod in bytes; found from the devices where not given.
    #[arg(long, env = "SLUICE_MTU")]
    pub mtu: Option<u32>,
    /// What leaves for other machines goes through the node's network stack and its netfilter, instead of past them.
    #[arg(long, env = "SLUICE_THROUGH_STACK")]
    pub through_stack: bool,
    /// Leave the node's forwarding as it is, even where it is off.
    #[arg(long, env = "SLUICE_KEEP_SYSCTLS")]
    pub keep_sysctls: bool,
    /// Neither install the CNI plugin nor write the list of plugins.
    #[arg(long, env = "SLUICE_WITHOUT_CNI_FILES")]
    pub without_cni_files: bool,
    /// The plugin as it was built; beside this program where not given.
    #[arg(long, env = "SLUICE_CNI_PLUGIN")]
    pub plugin: Option<PathBuf>,
    /// Where health and metrics are served.
    #[arg(long, env = "SLUICE_HEALTH_ADDRESS", default_value = "127.0.0.1:4248")]
    pub health_address: SocketAddr,
    /// Write logs as JSON.
    #[arg(long, env = "SLUICE_LOG_JSON")]
    pub log_json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn little_has_to_be_given() {
        let arguments = Arguments::try_parse_from(["sluice-agent", "run", "--node-name", "n1"]);
        let Command::Run(run) = arguments.unwrap().command else {
            panic!("another command");
        };
        assert_eq!(run.files.cni_socket(), PathBuf::from(sluice_cni::SOCKET));
        assert_eq!(run.files.deletions(), PathBuf::from(sluice_cni::DELETIONS));
    }
}
