//! `cargo xtask demo`: from a fresh machine to policies at work in its kernel.

use std::ffi::OsString;

use anyhow::Result;

use super::ebpf;
use crate::{
    machine, packages,
    process::{self, say},
    workspace::Workspace,
};

/// Builds everything and runs `sluice lab demo` as root.
pub(crate) fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    packages::ensure(
        packages::KERNEL_TESTS,
        "the lab makes its network with them",
    )?;
    ebpf::build(workspace)?;
    say("building the command line tool `sluice`, with the eBPF programs in it");
    process::run(
        workspace
            .cargo("build")
            .args(["--release", "--package=sluice"]),
    )?;
    machine::mount_bpffs()?;
    let sluice = workspace.target.join("release/sluice");
    process::run_interactive(
        machine::as_root(sluice)?
            .current_dir(&workspace.root)
            .args(["lab", "demo"])
            .args(arguments),
    )
}
