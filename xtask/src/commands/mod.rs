//! One module per command; this one only tells them apart.

mod bench;
mod crdgen;
mod demo;
mod ebpf;
mod lint;
mod scripts;
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
        Command::Lint => lint::run(workspace),
        Command::Crdgen { check } => crdgen::run(workspace, check),
        Command::Demo { arguments } => demo::run(workspace, &arguments),
        Command::Bench { arguments } => bench::run(workspace, &arguments),
    }
}
