//! `cargo xtask package`: the programs that container images are made of. What an image is, is the Dockerfile's and the test cluster's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::ebpf;
use crate::{
    process::{self, say},
    workspace::Workspace,
};

/// Packages, each with its program of the name beside it. They are linked as is usual here: images carry the libraries.
const PROGRAMS: &[(&str, &str)] = &[
    ("sluice-operator", "sluice-operator"),
    ("sluice-agentd", "sluice-agent"),
    ("sluice", "sluice"),
];
/// Runs on nodes, whose libraries are whatever they are.
const PLUGIN: &str = "sluice-cni";

/// Builds everything and gives the folder.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    ebpf::build(workspace)?;
    let mut cargo = workspace.cargo("build");
    cargo.arg("--release");
    for (package, _) in PROGRAMS {
        cargo.arg("--package").arg(package);
    }
    process::run(&mut cargo)?;
    build_plugin(workspace)?;
    let folder = workspace.target.join("package");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let built = workspace.target.join("release");
    let programs = PROGRAMS.iter().map(|(_, program)| *program);
    for program in programs.chain([PLUGIN]) {
        put(&built.join(program), &folder.join(program))?;
    }
    say(format!("packaged in {}", folder.display()));
    Ok(folder)
}

/// Builds the plugin for nodes, into the folder of release programs.
pub(super) fn build_plugin(workspace: &Workspace) -> Result<()> {
    process::run(workspace.cargo("rustc").args([
        "--release",
        "--package",
        PLUGIN,
        "--bin",
        PLUGIN,
        "--",
        "-Ctarget-feature=+crt-static",
    ]))
}

/// Copies a program without its debugging information, which is most of it.
fn put(from: &Path, to: &Path) -> Result<()> {
    process::run(
        std::process::Command::new("strip")
            .args(["--strip-debug", "-o"])
            .args([to, from]),
    )
}
