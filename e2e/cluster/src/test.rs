//! `cargo xtask cluster test`: one cluster, from nothing to nothing, stage by stage.

mod kills;
pub(crate) mod scale;
mod sluice;
mod smoke;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sluice_cluster::{Cluster, Options, upstream};

use crate::{
    cli,
    commands::{judge, say},
    stages::Stages,
};

/// Runs the stages; the cluster is removed at the end, however it comes, unless it shall be kept.
pub(crate) fn run(test: &cli::Test) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("build of Kubernetes", || Ok(Cluster::build(&mut say)?))?;
    let options = options(test, &mut stages)?;
    let outcome = stages
        .run("cluster up", || Ok(Cluster::up(options, &mut say)?))
        .and_then(|cluster| {
            if test.baseline {
                checks(test, &mut stages, &cluster)
            } else {
                with_sluice(test, &mut stages, &cluster)
            }
        });
    if test.keep {
        say("the cluster is left up; remove it with `cargo xtask cluster down`");
        return outcome;
    }
    let removed = stages.run("cluster down", || Ok(Cluster::down(&test.which.name)?));
    outcome.and(removed)
}

fn options(test: &cli::Test, stages: &mut Stages) -> Result<Options> {
    let base = if test.baseline {
        Options::bridge()
    } else {
        let images = stages.run("build of Sluice's images", sluice::images)?;
        Options {
            images,
            control_plane_route: Some(1),
            ..Options::default()
        }
    };
    Ok(Options {
        name: test.which.name.clone(),
        nodes: test.nodes,
        ..base
    })
}

fn with_sluice(test: &cli::Test, stages: &mut Stages, cluster: &Cluster) -> Result<()> {
    stages.run("install to Ready", || sluice::install(cluster))?;
    checks(test, stages, cluster)?;
    stages.run("enforcement", || smoke::policy(cluster))?;
    stages.run("uninstall", || sluice::uninstall(cluster))
}

/// What any network must do.
fn checks(test: &cli::Test, stages: &mut Stages, cluster: &Cluster) -> Result<()> {
    stages.run("addresses of both families", || both_families(cluster))?;
    stages.run("pods talk", || smoke::pods_talk(cluster))?;
    if !test.quick {
        stages.run("upstream Conformance, network", || {
            upstream(cluster, upstream::CONFORMANCE)
        })?;
    }
    if !test.quick && !test.baseline {
        stages.run("upstream Netpol", || upstream(cluster, upstream::NETPOL))?;
    }
    stages.run("kills", || kills::run(cluster, test.kills))?;
    stages.run("pods talk after the kills", || smoke::pods_talk(cluster))
}

fn upstream(cluster: &Cluster, focus: &str) -> Result<()> {
    judge(&cluster.run_e2e(&upstream::Selection {
        focus: focus.to_owned(),
        // Probes over SCTP need sockets that a kernel without the protocol has not: their servers would not even start.
        skip: if Path::new("/proc/sys/net/sctp").exists() {
            r"\[Serial\]".to_owned()
        } else {
            r"\[Serial\]|SCTP".to_owned()
        },
        parallel: 6,
    })?)
}

/// Every node has an address of either family.
fn both_families(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.kubectl().json(&["get", "nodes"])?;
    let nodes = nodes["items"].as_array().context("the list of nodes")?;
    ensure!(
        nodes.len() == usize::from(cluster.options().nodes),
        "{} nodes registered",
        nodes.len()
    );
    for node in nodes {
        let addresses = node["status"]["addresses"]
            .as_array()
            .context("a node's addresses")?;
        let own: Vec<_> = addresses
            .iter()
            .filter(|a| a["type"] == "InternalIP")
            .filter_map(|a| a["address"].as_str())
            .collect();
        ensure!(
            own.len() == 2 && own[1].contains(':'),
            "{} has the addresses {own:?}",
            node["metadata"]["name"]
        );
    }
    Ok(())
}
