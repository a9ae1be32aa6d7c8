//! `cargo xtask crdgen`: the YAML of the custom resources and the tables of their documentation, from their Rust types.

use anyhow::Result;

use crate::{process, workspace::Workspace};

/// Writes them, or with `check` fails if what is checked in is stale.
pub(crate) fn run(workspace: &Workspace, check: bool) -> Result<()> {
    process::run(workspace.cargo("run").args([
        "--quiet",
        "--package=sluice-crds",
        "--bin=crdgen",
        "--",
        if check { "--check" } else { "--write" },
    ]))
}
