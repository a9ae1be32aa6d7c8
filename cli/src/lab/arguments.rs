//! The words of `sluice lab` and their help. Nothing is done here.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sluice_lab::LabName;
use sluice_world::Mode;

/// The name where none is given.
const DEFAULT: &str = "lab";

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Make pods of manifests and enforce their policies, until Ctrl-C. A lab whose supervisor was killed is taken over with traffic
    /// flowing.
    #[command(after_help = "Examples:
  sluice lab up -f examples/shop
  sluice lab up -f my-manifests/ --watch
  sluice lab up -f a/ --name a --detach
  sluice lab up --resume --name a")]
    Up(UpArguments),
    /// Show the labs of this machine, or one of them with its pods.
    #[command(after_help = "Examples:\n  sluice lab status\n  sluice lab status --name a -o json")]
    Status(StatusArguments),
    /// Run a command in a pod's network (`node` is the node's).
    #[command(
        after_help = "Examples:\n  sluice lab exec shop/cart-0 -- ping -c1 10.244.0.7\n  sluice lab exec node -- ip route"
    )]
    Exec(ExecArguments),
    /// Try every port of every pod from every other pod, and show who reaches whom and by which rule. Exits 1 where reality is not what
    /// the reference evaluator says.
    #[command(after_help = "Examples:\n  sluice lab probe\n  sluice lab probe --ping -o json")]
    Probe(ProbeArguments),
    /// Add or replace objects of a running lab.
    #[command(after_help = "Examples:\n  sluice lab apply -f policy.yaml")]
    Apply(ApplyArguments),
    /// Delete objects of a running lab, by manifest or by name.
    #[command(
        after_help = "Examples:\n  sluice lab delete -f policy.yaml\n  sluice lab delete NetworkPolicy default-deny -n shop"
    )]
    Delete(DeleteArguments),
    /// Follow what the kernel tells: new connections and drops, with names, rules and reasons.
    #[command(after_help = "Examples:\n  sluice lab flows\n  sluice lab flows --drops -o json")]
    Flows(FlowsArguments),
    /// End a lab and remove all of it, also after it was killed.
    #[command(after_help = "Examples:\n  sluice lab down\n  sluice lab down --all")]
    Down(DownArguments),
    /// Bring a small shop up, show who reaches whom before and after its policies, show live drops, clean up. Exits 1 where reality is
    /// not what the reference evaluator says.
    #[command(after_help = "Examples:\n  sluice lab demo\n  sluice lab demo --shop my-shop/")]
    Demo(DemoArguments),
    /// The responder of a pod. Started by `up`, not by people.
    #[command(hide = true)]
    Serve {
        /// What to say and where to listen, as JSON.
        job: String,
    },
}

/// Which lab.
#[derive(Debug, Args)]
pub(crate) struct NameArguments {
    /// The lab's name.
    #[arg(long, default_value = DEFAULT)]
    pub(crate) name: LabName,
}

#[derive(Debug, Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, and they are independent"
)]
pub(crate) struct UpArguments {
    #[command(flatten)]
    pub(crate) lab: NameArguments,
    /// Files or folders with manifests. Folders are read whole.
    #[arg(short = 'f', long = "file", alias = "filename", value_name = "PATH", num_args = 1.., required_unless_present = "resume")]
    pub(crate) paths: Vec<PathBuf>,
    /// Follow changes of the files.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Go on in the background.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Take over a lab whose supervisor was killed, as it is.
    #[arg(long)]
    pub(crate) resume: bool,
    /// When policy is enforced: once a policy selects a pod, always, or never.
    #[arg(long, value_enum)]
    pub(crate) policy_mode: Option<LabMode>,
    /// Said by `--detach` to the process it starts.
    #[arg(long, hide = true)]
    pub(crate) in_background: bool,
}

/// The enforcement mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LabMode {
    Default,
    Always,
    Never,
}

impl From<LabMode> for Mode {
    fn from(mode: LabMode) -> Self {
        match mode {
            LabMode::Default => Self::Default,
            LabMode::Always => Self::Always,
            LabMode::Never => Self::Never,
        }
    }
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LabFormat {
    /// For people.
    #[default]
    Table,
    /// For programs: one object per line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// The lab; without it all are listed.
    #[arg(long)]
    pub(crate) name: Option<LabName>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: LabFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    #[command(flatten)]
    pub(crate) lab: NameArguments,
    /// The pod: namespace/name, or a name that only one pod has.
    pub(crate) pod: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArguments {
    #[command(flatten)]
    pub(crate) lab: NameArguments,
    /// Ping every pod too.
    #[arg(long)]
    pub(crate) ping: bool,
    /// How long to wait for each answer, in milliseconds.
    #[arg(long, default_value_t = 1000, value_name = "MILLISECONDS")]
    pub(crate) timeout: u64,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: LabFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArguments {
    #[command(flatten)]
    pub(crate) lab: NameArguments,
    /// Files or folders with manifests.
    #[arg(short = 'f', long = "file", alias = "filename", value_name = "PATH", required = true, num_args = 1..)]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArguments {
    #[command(flatten)]
    pub(crate) lab: NameArguments,
    /// Files or folders whose objects are deleted.
    #[arg(short = 'f', long = "file", alias = "filename", value_name = "PATH", num_args = 1..)]
    pub(crate) paths: Vec<PathBuf>,
    /// The object's kind.
    #[arg(
        requires = "object",
        required_unless_present = "paths",
        conflicts_with = "paths"
    )]
    pub(crate) kind: Option<String>,
    /// The object's name.
    pub(crate) object: Option<String>,
    /// The object's namespace.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FlowsArguments {
    #[command(flatten)]
    pub(crate) lab: NameArguments,
    /// Only drops.
    #[arg(long)]
    pub(crate) drops: bool,
    /// End after this many.
    #[arg(long)]
    pub(crate) count: Option<usize>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: LabFormat,
}

#[derive(Debug, Args)]
pub(crate) struct DownArguments {
    #[command(flatten)]
    pub(crate) lab: NameArguments,
    /// Every lab of this machine.
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// A folder of manifests with a folder `policies` in it.
    #[arg(long, default_value = "examples/shop")]
    pub(crate) shop: PathBuf,
}
