//! `cargo xtask bench`: what the figures in docs/benchmarks.md are made with.

use std::ffi::OsString;

use anyhow::{Result, bail};

use super::ebpf;
use crate::{machine, packages, process, workspace::Workspace};

/// Builds for release and runs the benchmarks.
pub(crate) fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    if !machine::is_root()? {
        bail!("the benchmarks load programs into the kernel, which needs root: run this as root");
    }
    packages::ensure(
        packages::BENCHES,
        "the benchmarks measure Sluice beside them",
    )?;
    ebpf::build(workspace)?;
    machine::mount_bpffs()?;
    process::run_interactive(
        workspace
            .cargo("run")
            .args(["--release", "--package=sluice-e2e", "--bin=bench", "--"])
            .args(arguments),
    )
}
