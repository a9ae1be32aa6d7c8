//! The words of the command line and their help. Doing anything may not enter.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

/// Every developer command of Sluice.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One developer command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the eBPF programs, installing their toolchain where it is missing
    ///
    /// The object goes to bpf/sluice-ebpf.o in the target folder, from where the next build of the loader embeds it.
    #[command(
        after_help = "Examples:\n  cargo xtask ebpf\n  cargo xtask ebpf && cargo build --release"
    )]
    Ebpf,

    /// Run every test: the eBPF build, the native tests, then the tests that need root and a kernel
    #[command(
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --native-only\n  cargo xtask test --kernel-only"
    )]
    Test {
        /// Leave out the eBPF build and the tests that need root
        #[arg(long, conflicts_with = "kernel_only")]
        native_only: bool,
        /// Run only the eBPF build and the tests that need root
        #[arg(long)]
        kernel_only: bool,
    },

    /// Run the fuzz targets for longer than `test` does
    ///
    /// A failure prints its input and a seed; with that seed in the variable named beside it the target begins with that input.
    #[command(
        after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz frame --seconds 600\n  BOLERO_RANDOM_SEED=1234 cargo xtask fuzz any_draft --seconds 1"
    )]
    Fuzz {
        /// Only targets whose names contain this
        target: Option<String>,
        /// How long each target runs; those of one crate run at the same time
        #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..1_000_000))]
        seconds: u64,
    },

    /// Run the randomised tests again and again with fresh seeds, until the time is up or one fails
    ///
    /// First a real cluster, in the routing mode that CI leaves out, on which everything that can die is killed while traffic is counted.
    /// Then rounds, each of the differential tests of both engines, the fuzz targets, labs whose supervisors are killed. Seeds, counts and
    /// times are shown; a failure ends it, with the seed that shows it again. Needs root.
    #[command(
        after_help = "Examples:\n  cargo xtask soak --minutes 480\n  cargo xtask soak --minutes 0 --seed 42 --kills 0\n  cargo xtask soak --native-only"
    )]
    Soak {
        /// Rounds begin until so many minutes are over; 0 for one round
        #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(..100_000))]
        minutes: u64,
        /// The seed of the first round; a fresh one if not given
        #[arg(long, value_name = "SEED")]
        seed: Option<u32>,
        /// How often something is killed on the cluster; 0 for no cluster
        #[arg(long, default_value_t = 200, value_name = "N")]
        kills: u16,
        /// Leave out what needs root
        #[arg(long)]
        native_only: bool,
    },

    /// Check format, lints, documentation, dependencies, generated files and shell scripts
    ///
    /// Every check runs, also after one failed.
    #[command(after_help = "Examples:\n  cargo xtask lint")]
    Lint,

    /// Write the YAML of the custom resources and the tables of docs/crds.md from their Rust types
    #[command(after_help = "Examples:\n  cargo xtask crdgen\n  cargo xtask crdgen --check")]
    Crdgen {
        /// Fail if the checked-in files are stale, and write nothing
        #[arg(long)]
        check: bool,
    },

    /// Build everything and show policies being enforced between the pods of a small shop
    ///
    /// Runs `sluice lab demo` as root, through sudo if need be.
    #[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo -- --help")]
    Demo {
        /// Arguments for `sluice lab demo`
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },

    /// Build the programs that images are made of, for release, into one folder
    ///
    /// They are operator, agent, the CNI plugin and `sluice`; the plugin is static, because it runs on nodes outside of any image. The folder is
    /// `package` in the target folder.
    #[command(
        after_help = "Examples:\n  cargo xtask package\n  docker build --target agent --tag REGISTRY/sluice-agent:TAG ."
    )]
    Package,

    /// Build for release and run benchmarks against this machine's kernel; needs root
    #[command(
        after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench verdict\n  cargo xtask bench -- --help"
    )]
    Bench {
        /// What to measure and the benchmark's own arguments; everything if none is given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },

    /// Build, start, use, test and remove a real Kubernetes of several nodes on this machine; needs root
    ///
    /// Installs what building it takes, then hands everything to the program `sluice-cluster`.
    #[command(
        disable_help_flag = true,
        after_help = "Examples:\n  cargo xtask cluster build\n  cargo xtask cluster up --nodes 3 --cni bridge\n  cargo xtask cluster exec 1 -- ip route\n  cargo xtask cluster kubectl -- get nodes\n  cargo xtask cluster down\n  cargo xtask cluster test"
    )]
    Cluster {
        /// What to do with a cluster: `cargo xtask cluster --help` tells
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound_and_every_command_shows_examples() {
        let mut grammar = Cli::command();
        grammar.build();
        grammar.clone().debug_assert();
        for command in grammar.get_subcommands().filter(|c| c.get_name() != "help") {
            let help = command.get_after_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|h| h.contains("cargo xtask")),
                "{} has no examples",
                command.get_name()
            );
        }
    }

    #[test]
    fn native_only_and_kernel_only_exclude_each_other() {
        assert!(Cli::try_parse_from(["xtask", "test", "--native-only", "--kernel-only"]).is_err());
    }
}
