//! `cargo xtask lint`: every check that needs no test run.

use std::process::Command;

use anyhow::Result;

use super::{crdgen, scripts};
use crate::{
    packages,
    process::{self, say},
    stages::Stages,
    toolchain,
    workspace::Workspace,
};

const CARGO_DENY: &str = "0.20.2";

/// Runs every check, also after one failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("clippy and rustfmt", || rust_tools(workspace));
    stages.run("format", || {
        process::run(workspace.cargo("fmt").args(["--all", "--check"]))
    });
    stages.run("clippy", || clippy(workspace));
    stages.run("documentation", || documentation(workspace));
    stages.run("generated files", || crdgen::run(workspace, true));
    stages.run("dependencies", || dependencies(workspace));
    stages.run("shell scripts", || shell_scripts(workspace));
    stages.finish()
}

/// Both are optional parts of a Rust installation. That rustup's programs exist does not mean that they work.
fn rust_tools(workspace: &Workspace) -> Result<()> {
    let works = |tool: &str| process::output(workspace.cargo(tool).arg("--version")).is_ok();
    if works("clippy") && works("fmt") {
        return Ok(());
    }
    if process::find("rustup").is_some() {
        say("clippy or rustfmt is missing: adding them to rustup's toolchain");
        return process::run(Command::new("rustup").args([
            "component",
            "add",
            "clippy",
            "rustfmt",
        ]));
    }
    packages::ensure(packages::RUST, "to check format and lints")
}

fn clippy(workspace: &Workspace) -> Result<()> {
    process::run(workspace.cargo("clippy").args([
        "--workspace",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))
}

fn documentation(workspace: &Workspace) -> Result<()> {
    process::run(
        workspace
            .cargo("doc")
            .args(["--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )
}

fn dependencies(workspace: &Workspace) -> Result<()> {
    let deny = toolchain::ensure_tool("cargo-deny", CARGO_DENY)?;
    let deny = |subcommand: &str| {
        let mut command = Command::new(&deny);
        command
            .current_dir(&workspace.root)
            .args(["--all-features", subcommand]);
        command
    };
    if let Err(error) = process::output(deny("fetch").arg("db")) {
        say(format!(
            "NOT checked: advisories, for their database can't be fetched: {error:#}"
        ));
        return process::run(deny("check").args(["bans", "licenses", "sources"]));
    }
    process::run(&mut deny("check"))
}

fn shell_scripts(workspace: &Workspace) -> Result<()> {
    let scripts = scripts::find(workspace)?;
    packages::ensure(packages::SHELL, "to check shell scripts")?;
    process::run(
        Command::new("shellcheck")
            .current_dir(&workspace.root)
            .args(&scripts),
    )
}
