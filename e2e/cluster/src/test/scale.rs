//! `cargo xtask cluster scale`: a cluster whose nodes are objects, for `sluice-scale` to measure the operator on.

use std::{ffi::OsString, path::Path};

use anyhow::{Context as _, Result, ensure};
use sluice_cluster::{Cluster, Machine, Options, Proxy, fake, plan::addresses};

use super::sluice;
use crate::{cli, commands::say, stages::Stages};

/// What is measured, and what measures.
const PACKAGES: &[&str] = &["sluice-operator", "sluice-scale"];

/// Runs the stages; the cluster is removed at the end, however it comes, unless it shall be kept.
pub(crate) fn run(scale: &cli::Scale) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("build of Kubernetes", || Ok(Cluster::build(&mut say)?))?;
    let programs = stages.run("build of the operator", || {
        sluice::built(cli::Profile::Release, PACKAGES)
    })?;
    let options = Options {
        name: scale.which.name.clone(),
        // One is the least; it stays without a network, and nothing runs on it.
        nodes: 1,
        proxy: Proxy::None,
        dns: false,
        fake_nodes: true,
        ..Options::default()
    };
    let outcome = stages
        .run("cluster up", || Ok(Cluster::up(options, &mut say)?))
        .and_then(|cluster| stages.run("scale", || measure(scale, &programs, &cluster)));
    if scale.keep {
        say("the cluster is left up; remove it with `cargo xtask cluster down`");
        return outcome;
    }
    let removed = stages.run("cluster down", || Ok(Cluster::down(&scale.which.name)?));
    outcome.and(removed)
}

fn measure(scale: &cli::Scale, programs: &Path, cluster: &Cluster) -> Result<()> {
    fake::create_nodes(cluster.kubectl(), 0, scale.fake_nodes)?;
    let folder = programs.join("scale");
    let own = std::env::current_exe().context("finding this program's own file")?;
    let workspace = sluice::workspace();
    let mut arguments: Vec<OsString> = vec!["cluster".into()];
    let mut give = |name: &str, value: OsString| {
        arguments.push(name.into());
        arguments.push(value);
    };
    give("--name", scale.which.name.to_string().into());
    give("--harness", own.into());
    let address = addresses(Machine::ControlPlane).v4;
    give("--address", address.to_string().into());
    give("--operator", programs.join("sluice-operator").into());
    give("--folder", folder.into());
    give("--chart", workspace.join("charts/sluice").into());
    give("--fake-nodes", scale.fake_nodes.to_string().into());
    give("--pods", scale.pods.to_string().into());
    give("--policies", scale.policies.to_string().into());
    give("--changes", scale.changes.to_string().into());
    give("--outage", scale.outage.to_string().into());
    if scale.write {
        give("--write", workspace.join("docs/benchmarks.md").into());
    }
    let program = programs.join("sluice-scale").display().to_string();
    let status = cluster.kubectl().attended(&program, &arguments)?;
    ensure!(status.success(), "sluice-scale: {status}");
    Ok(())
}
