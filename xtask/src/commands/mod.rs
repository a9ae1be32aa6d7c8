//! One module per command; this one only tells them apart.

mod bench;
mod cluster;
mod crdgen;
mod demo;
mod ebpf;
mod fuzz;
mod lint;
mod package;
mod scripts;
mod soak;
mod test;

use anyhow::Result;

use crate::{cli::Command, workspace::Workspace};

/// Runs a command.
pub(crate) fn run(command: Command, workspace: &Workspace) -> Result<()> {
    match command {
        Command::Ebpf => ebpf::build(workspace),
        Command::Test {
            native_only,
            kernel_only,
        } => test::run(workspace, test::Parts::of(native_only, kernel_only)),
        Command::Fuzz { target, seconds } => fuzz::run(workspace, target.as_deref(), seconds),
        Command::Soak {
            minutes,
            seed,
            kills,
            native_only,
        } => soak::run(
            workspace,
            soak::Soak {
                minutes,
                seed,
                kills,
                native_only,
            },
        ),
        Command::Lint => lint::run(workspace),
        Command::Crdgen { check } => crdgen::run(workspace, check),
        Command::Demo { arguments } => demo::run(workspace, &arguments),
        Command::Cluster { arguments } => cluster::run(workspace, &arguments),
        Command::Package => package::build(workspace).map(drop),
        Command::Bench { arguments } => bench::run(workspace, &arguments),
    }
}
