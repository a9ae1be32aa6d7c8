//! `cargo xtask cluster`: the way to the program `sluice-cluster`, with what that program needs installed and built first.

use std::{ffi::OsString, path::Path};

use anyhow::Result;

use super::ebpf;
use crate::{machine, packages, process, workspace::Workspace};

const PROGRAM: &str = "sluice-cluster";

/// A header, which no program tells of.
const SECCOMP: (&str, &str) = ("/usr/include/seccomp.h", "libseccomp-dev");

/// Builds the program and runs it as root.
pub(crate) fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    let is = |command: &str| arguments.first().is_some_and(|word| word == command);
    if is("build") || is("test") || is("scale") {
        install()?;
    }
    if is("test") {
        // The lab, which the cluster is held against.
        machine::mount_bpffs()?;
    }
    let without_sluice = arguments.iter().any(|word| word == "--baseline");
    if is("install") || is("test") && !without_sluice {
        // Sluice's own programs are built with it inside.
        ebpf::build(workspace)?;
    }
    // Also the program whose traffic is counted, which goes into an image from there.
    process::run(
        workspace
            .cargo("build")
            .args(["--quiet", "--package", PROGRAM, "--bins"]),
    )?;
    process::run_interactive(
        machine::as_root(workspace.target.join("debug").join(PROGRAM))?
            .current_dir(&workspace.root)
            .args(arguments),
    )
}

fn install() -> Result<()> {
    packages::ensure(
        packages::CLUSTER,
        "a test cluster is built and run with them",
    )?;
    let (header, package) = SECCOMP;
    if Path::new(header).exists() {
        return Ok(());
    }
    machine::apt_install(
        &[package.to_owned()],
        "runc's system call filter is built with it",
    )
}
