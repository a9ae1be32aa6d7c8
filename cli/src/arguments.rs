//! Every command and option, with the help a person reads. Nothing is done here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use sluice_world::Mode;

use crate::cluster::{
    ClusterArguments, ConnectivityCommand, EndpointsArguments, NodesArguments, ScopeArguments,
    StatusArguments, SysdumpArguments, WaitArguments,
};

/// Network policy for Kubernetes: check it, ask it, see it at work.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, arg_required_else_help = true, after_help = TOP_EXAMPLES)]
pub(crate) struct Sluice {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how a cluster's network is: operator, agents, endpoints, policies. Exits 1 unless all is well.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArguments),
    /// Check policies, and ask what they allow.
    #[command(subcommand, arg_required_else_help = true, after_help = POLICY_EXAMPLES)]
    Policy(PolicyCommand),
    /// Pods of ordinary manifests on this machine's kernel, with their policies enforced.
    #[command(subcommand, arg_required_else_help = true)]
    Lab(crate::lab::LabCommand),
    /// List the identities that policies tell pods apart by: of a cluster, or of manifests with -f.
    #[command(after_help = IDENTITIES_EXAMPLES)]
    Identities(IdentitiesArguments),
    /// List the pods of a cluster's network: node, identity, addresses and how far each is.
    #[command(after_help = ENDPOINTS_EXAMPLES)]
    Endpoints(EndpointsArguments),
    /// List the nodes of a cluster's network: number, address blocks, and what their agents acknowledged.
    #[command(after_help = NODES_EXAMPLES)]
    Nodes(NodesArguments),
    /// Try a cluster's network in earnest.
    #[command(subcommand, arg_required_else_help = true)]
    Connectivity(ConnectivityCommand),
    /// Collect what helps to find a fault into one archive: objects, logs, what agents say. No secrets are taken up.
    #[command(after_help = SYSDUMP_EXAMPLES)]
    Sysdump(SysdumpArguments),
    /// Print the completion script of a shell.
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completion {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check manifests; every problem is listed with file, line, object and field. Exits 1 where there is an error.
    #[command(after_help = VALIDATE_EXAMPLES)]
    Validate(ValidateArguments),
    /// Judge queries: may this source send that packet there, and which rule decides? Exits 2 where a query is wrong, 1 on any other
    /// error; a denial is no error.
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(EvalArguments),
    /// Judge one query and say why: the deciding rule, every other rule that matched, the rules that nearly matched.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArguments),
    /// Show who reaches whom: every pair of pods, and the rule that decides.
    #[command(after_help = MATRIX_EXAMPLES)]
    Matrix(MatrixArguments),
    /// Wait until every node of a cluster enforces a policy as it is now. Exits 1 where it is not valid, or time is over.
    #[command(after_help = WAIT_EXAMPLES)]
    Wait(WaitArguments),
}

/// Where manifests come from.
#[derive(Debug, Args)]
pub(crate) struct ManifestArguments {
    /// Files or folders with manifests (YAML or JSON; folders are read whole), or - for standard input.
    #[arg(short = 'f', long = "file", alias = "filename", value_name = "PATH", required = true, num_args = 1..)]
    pub(crate) paths: Vec<PathBuf>,
}

/// What questions are judged by.
#[derive(Debug, Args)]
pub(crate) struct JudgeArguments {
    #[command(flatten)]
    pub(crate) manifests: ManifestArguments,
    /// Addresses that DNS names were learned to have, as a file of JSON.
    #[arg(
        long,
        value_name = "FILE",
        help = "Addresses that DNS names were learned to have: a JSON file {\"www.example.com\": [\"93.184.216.34\"]}"
    )]
    pub(crate) learned: Option<PathBuf>,
    /// When policy is enforced.
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub(crate) policy_mode: PolicyMode,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArguments {
    #[command(flatten)]
    pub(crate) manifests: ManifestArguments,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: TableOrJson,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(flatten)]
    pub(crate) judge: JudgeArguments,
    /// The queries: a JSON array, or one JSON object on each line; - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: PathBuf,
    /// What judges.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) engine: EngineKind,
    /// Leave invalid policies out, list them on a first line, and go on without them.
    #[arg(long)]
    pub(crate) skip_invalid: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: TableOrJson,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    pub(crate) judge: JudgeArguments,
    /// The source.
    #[arg(
        long,
        value_name = "END",
        help = "The source: pod:<namespace>/<name>, ip:<address> or node:<name>"
    )]
    pub(crate) from: String,
    /// The destination, written like the source.
    #[arg(long, value_name = "END")]
    pub(crate) to: String,
    /// The protocol's name, in any case.
    #[arg(
        long,
        default_value = "TCP",
        help = "TCP, UDP, SCTP, ICMP, ICMPv6, VRRP, IGMP, GRE, IPIP, IPV6, ESP or AH"
    )]
    pub(crate) protocol: String,
    /// The destination port.
    #[arg(long, conflicts_with = "icmp_type")]
    pub(crate) port: Option<u16>,
    /// The ICMP type, in place of a port.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) icmp_type: Option<u8>,
    /// IPv4 or IPv6; by default that of the destination's first address.
    #[arg(long)]
    pub(crate) family: Option<String>,
    /// An HTTP request to judge as well.
    #[arg(long, help = "An HTTP request to judge as well: METHOD PATH [HOST]", num_args = 2..=3, value_names = ["METHOD", "PATH", "HOST"], conflicts_with = "dns")]
    pub(crate) http: Option<Vec<String>>,
    /// A DNS question to judge as well: the name asked for.
    #[arg(long, value_name = "NAME")]
    pub(crate) dns: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: TableOrJson,
}

#[derive(Debug, Args)]
pub(crate) struct MatrixArguments {
    #[command(flatten)]
    pub(crate) judge: JudgeArguments,
    /// The port to ask about; by default every container port of the destination, and 80 where it has none.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// TCP, UDP or SCTP.
    #[arg(long, default_value = "TCP")]
    pub(crate) protocol: String,
    /// IPv4 or IPv6; by default that of the destination's first address.
    #[arg(long)]
    pub(crate) family: Option<String>,
    /// Further rows and columns.
    #[arg(
        long = "with",
        value_name = "END",
        help = "Further rows and columns: ip:<address> or node:<name>"
    )]
    pub(crate) ends: Vec<String>,
    /// What judges.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) engine: EngineKind,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: AnyFormat,
}

#[derive(Debug, Args)]
pub(crate) struct IdentitiesArguments {
    /// Files or folders with manifests (YAML or JSON; folders are read whole), or - for standard input, in place of a cluster.
    #[arg(
        short = 'f',
        long = "file",
        alias = "filename",
        value_name = "PATH",
        num_args = 1..,
        conflicts_with_all = ["namespace", "all_namespaces", "kubeconfig", "context", "sluice_namespace"]
    )]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) scope: ScopeArguments,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: AnyFormat,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

/// When policy is enforced.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum PolicyMode {
    /// In each direction in which a policy selects the pod.
    #[default]
    Default,
    /// In both directions of every pod.
    Always,
    /// Nowhere.
    Never,
}

impl From<PolicyMode> for Mode {
    fn from(mode: PolicyMode) -> Self {
        match mode {
            PolicyMode::Default => Self::Default,
            PolicyMode::Always => Self::Always,
            PolicyMode::Never => Self::Never,
        }
    }
}

/// What judges. All give the same answers; that is tested.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum EngineKind {
    /// The compiled tables, looked up as the kernel does.
    #[default]
    Compiled,
    /// The evaluator that reads the rules one by one: slow and obvious.
    Reference,
    /// The programs and maps in this machine's kernel, one real packet for each query. Needs root.
    Kernel,
}

/// Forms of output for lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableOrJson {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Forms of output for documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnyFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For either.
    Yaml,
}

const TOP_EXAMPLES: &str = "\
Examples:
  sluice policy validate -f examples/policies
  sluice policy matrix -f examples/policies
  sluice policy explain -f examples/policies --from pod:shop/web-0 --to pod:shop/db-0 --port 5432
  sluice status --wait

A copy of this program, or a link to it, called kubectl-sluice in a folder of PATH is a plugin of kubectl: `kubectl sluice status`.";
const STATUS_EXAMPLES: &str = "\
Examples:
  sluice status
  sluice status --wait --wait-duration 2m
  sluice status -o json | jq '.findings[] | select(.level == \"problem\")'";
const ENDPOINTS_EXAMPLES: &str = "\
Examples:
  sluice endpoints -A
  sluice endpoints -n shop
  sluice endpoints --node node-1 -o json | jq '.[] | select(.state != \"ready\")'";
const NODES_EXAMPLES: &str = "\
Examples:
  sluice nodes
  sluice nodes -o yaml";
const SYSDUMP_EXAMPLES: &str = "\
Examples:
  sluice sysdump
  sluice sysdump -o /tmp/fault.tar.gz --log-lines 1000";
const WAIT_EXAMPLES: &str = "\
Examples:
  sluice policy wait api -n shop
  sluice policy wait no-way-out --kind cnp --timeout 30s
  kubectl apply -f policy.yaml && sluice policy wait api -n shop

NetworkPolicy and Cilium's kinds have no status that Sluice writes: they can't be waited for.";
const POLICY_EXAMPLES: &str = "\
Examples:
  sluice policy validate -f my-policies/
  sluice policy eval -f my-manifests/ --queries queries.jsonl -o json";
const VALIDATE_EXAMPLES: &str = "\
Examples:
  sluice policy validate -f policy.yaml more-policies/
  kubectl get networkpolicies -A -o yaml | sluice policy validate -f -
  sluice policy validate -f policies/ -o json | jq '.problems[].field'";
const EVAL_EXAMPLES: &str = "\
Examples:
  sluice policy eval -f manifests/ --queries queries.jsonl
  sluice policy eval -f manifests/ --queries queries.jsonl --engine reference -o json
  echo '{\"id\":\"1\",\"from\":\"pod:shop/web-0\",\"to\":\"ip:10.1.2.3\",\"protocol\":\"TCP\",\"port\":80}' |
    sluice policy eval -f manifests/ --queries - -o json

A query's from and to are pod:<namespace>/<name>, ip:<address> or node:<name>. ICMP and ICMPv6 take icmpType in place of port.
Optional: family (IPv4, IPv6), http {method, path, host, headers}, dns (a name).";
const EXPLAIN_EXAMPLES: &str = "\
Examples:
  sluice policy explain -f manifests/ --from pod:shop/web-0 --to pod:shop/db-0 --port 5432
  sluice policy explain -f manifests/ --from ip:203.0.113.7 --to pod:shop/web-0 --protocol ICMP --icmp-type 8
  sluice policy explain -f manifests/ --from pod:shop/web-0 --to pod:shop/api-0 --port 80 --http GET /admin";
const MATRIX_EXAMPLES: &str = "\
Examples:
  sluice policy matrix -f manifests/
  sluice policy matrix -f manifests/ --port 443 --with ip:203.0.113.7 --with node:node-1
  sluice policy matrix -f manifests/ -o json | jq '.cells[] | select(.verdict == \"denied\")'";
const IDENTITIES_EXAMPLES: &str = "\
Examples:
  sluice identities
  sluice identities -n shop -o yaml
  sluice identities -f manifests/
  sluice identities -f manifests/ -o json | jq 'length'";
const COMPLETION_EXAMPLES: &str = "\
Examples:
  sluice completion bash > /etc/bash_completion.d/sluice
  sluice completion zsh > \"${fpath[1]}/_sluice\"";
