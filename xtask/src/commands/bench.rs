//! `cargo xtask bench`: what the figures in docs/benchmarks.md are made with.

use std::ffi::OsString;

use anyhow::{Result, bail};

use super::{ebpf, package};
use crate::{machine, packages, process, workspace::Workspace};

/// Builds for release and runs the benchmarks.
pub(crate) fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    // The operator's needs no kernel.
    if arguments.first().is_some_and(|name| name == "operator") {
        return operator(workspace, &arguments[1..]);
    }
    if !machine::is_root()? {
        bail!("the benchmarks load programs into the kernel, which needs root: run this as root");
    }
    packages::ensure(
        packages::BENCHES,
        "the benchmarks measure Sluice beside them",
    )?;
    ebpf::build(workspace)?;
    machine::mount_bpffs()?;
    if wants_programs(arguments) {
        process::run(
            workspace
                .cargo("build")
                .args(["--release", "--package=sluice-agentd"]),
        )?;
        package::build_plugin(workspace)?;
    }
    process::run_interactive(
        workspace
            .cargo("run")
            .args(["--release", "--package=sluice-e2e", "--bin=bench", "--"])
            .args(arguments)
            .env("SLUICE_PROGRAMS", workspace.target.join("release")),
    )
}

/// The operator's core with a large cluster, in a program without the kernel's half.
fn operator(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    let mut cargo = workspace.cargo("run");
    cargo.args(["--release", "--package=sluice-scale", "--", "operator"]);
    match arguments {
        [] => {}
        [write] if write == "--write" => {
            cargo
                .arg("--write")
                .arg(workspace.root.join("docs/benchmarks.md"));
        }
        _ => bail!("`cargo xtask bench operator` takes `--write` and nothing else"),
    }
    process::run_interactive(&mut cargo)
}

/// Whether agent and plugin are measured as processes: in all, and where that is asked for.
fn wants_programs(arguments: &[OsString]) -> bool {
    let named = arguments
        .iter()
        .find(|argument| !argument.to_string_lossy().starts_with('-'));
    named.is_none_or(|what| what == "all" || what == "cni")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_built_where_they_are_measured() {
        let wants = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            wants_programs(&words)
        };
        assert!(wants("") && wants("--quick") && wants("all --write") && wants("--write cni"));
        assert!(!wants("verdict --quick"));
    }
}
