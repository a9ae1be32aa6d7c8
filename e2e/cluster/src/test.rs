//! `cargo xtask cluster test`: one cluster, from nothing to nothing, stage by stage.

mod invalid;
mod kills;
mod pods;
mod same;
pub(crate) mod scale;
pub(crate) mod sluice;
mod smoke;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sluice_cluster::{Cluster, Options, upstream};

use self::sluice::Sluice;
use crate::{
    cli::{self, Part},
    commands::{judge, say},
    stages::Stages,
};

/// Runs the stages; the cluster is removed at the end, however it comes, unless it shall be kept.
pub(crate) fn run(test: &cli::Test) -> Result<()> {
    let mut stages = Stages::default();
    // An aborted run may have left half a cluster, or a whole one.
    stages.run("removal of leftovers", || {
        Ok(Cluster::down(&test.which.name)?)
    })?;
    stages.run("build of Kubernetes", || Ok(Cluster::build(&mut say)?))?;
    let options = options(test, &mut stages)?;
    let outcome = stages
        .run("cluster up", || Ok(Cluster::up(options, &mut say)?))
        .and_then(|cluster| {
            if test.baseline {
                with_the_bridge(test, &mut stages, &cluster)
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
        let build = || sluice::images(test.sluice.profile);
        Options {
            images: stages.run("build of Sluice's images", build)?,
            ..Options::default()
        }
    };
    Ok(Options {
        name: test.which.name.clone(),
        nodes: test.nodes,
        ..base
    })
}

fn with_the_bridge(test: &cli::Test, stages: &mut Stages, cluster: &Cluster) -> Result<()> {
    stages.run("addresses of both families", || both_families(cluster))?;
    stages.run("pods talk", || smoke::pods_talk(cluster))?;
    if !test.quick {
        stages.run("upstream Conformance", || {
            upstream(cluster, &[upstream::CONFORMANCE])
        })?;
    }
    stages.run("kills", || kills::of_the_bridge(cluster, test.kills))?;
    stages.run("pods talk after the kills", || smoke::pods_talk(cluster))
}

fn with_sluice(test: &cli::Test, stages: &mut Stages, cluster: &Cluster) -> Result<()> {
    let sluice = Sluice {
        cluster,
        profile: test.sluice.profile,
    };
    let install = || sluice::install(cluster, test.sluice.routing, &[]);
    let uninstall = || {
        smoke::remove(cluster)?;
        sluice::uninstall(cluster)
    };
    stages.run("install to Ready", install)?;
    stages.run("addresses of both families", || both_families(cluster))?;
    for part in Part::ALL {
        if !(test.quick && part == Part::Upstream) {
            one(part, stages, &sluice, test.kills)?;
        }
    }
    stages.run("uninstall", uninstall)?;
    stages.run("install again to Ready", install)?;
    stages.run("pods talk again", || smoke::pods_talk(cluster))?;
    stages.run("uninstall again", uninstall)
}

/// Runs parts of the test on a cluster that is up and has Sluice.
pub(crate) fn check(check: &cli::Check) -> Result<()> {
    let cluster = Cluster::open(&check.which.name)?;
    let sluice = Sluice {
        cluster: &cluster,
        profile: check.profile,
    };
    let parts = if check.parts.is_empty() {
        &Part::ALL[..]
    } else {
        &check.parts
    };
    let mut stages = Stages::default();
    for &part in parts {
        one(part, &mut stages, &sluice, check.kills)?;
    }
    Ok(())
}

fn one(part: Part, stages: &mut Stages, sluice: &Sluice<'_>, count: u16) -> Result<()> {
    let cluster = sluice.cluster;
    match part {
        Part::Talk => stages.run("pods talk", || smoke::pods_talk(cluster)),
        Part::Upstream => stages.run("upstream Conformance and Netpol", || {
            upstream(cluster, &[upstream::CONFORMANCE, upstream::NETPOL])
        }),
        Part::Enforcement => stages.run("enforcement", || smoke::policy(cluster)),
        Part::Connectivity => stages.run("connectivity test", || sluice.connectivity()),
        Part::Lab => stages.run("as in the lab", || same::run(sluice)),
        Part::Invalid => stages.run("invalid objects", || invalid::run(sluice)),
        Part::Kills => {
            stages.run("kills", || kills::run(sluice, count))?;
            stages.run("pods talk after the kills", || smoke::pods_talk(cluster))
        }
        Part::Status => stages.run("status is green", || sluice.status()),
    }
}

/// Runs upstream tests of several kinds at the same time, network Conformance among them.
fn upstream(cluster: &Cluster, kinds: &[&str]) -> Result<()> {
    let report = cluster.run_e2e(&upstream::Selection {
        focus: kinds.join("|"),
        // Probes over SCTP need sockets that a kernel without the protocol has not: their servers would not even start.
        skip: if Path::new("/proc/sys/net/sctp").exists() {
            r"\[Serial\]".to_owned()
        } else {
            r"\[Serial\]|SCTP".to_owned()
        },
        parallel: 6,
    })?;
    judge(&report)?;
    say(&format!(
        "{} of {} tests of Conformance passed",
        report.conformance(),
        upstream::CONFORMANCE_TESTS
    ));
    ensure!(
        report.conformance() == upstream::CONFORMANCE_TESTS,
        "tests of Conformance were not run"
    );
    Ok(())
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

/// Tries again until it succeeds; what it gave last if it never did in time.
fn until(limit: Duration, mut action: impl FnMut() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    loop {
        match action() {
            Err(error) if begin.elapsed() > limit => {
                return Err(error.context(format!("for {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_millis(200)),
            Ok(()) => return Ok(()),
        }
    }
}
