//! The same manifests in the lab and on the cluster: what reached whom in the lab must reach it here, and nothing else, over both
//! families. The lab itself holds its outcomes against the reference evaluator.

mod manifests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use self::manifests::Manifests;
use super::{
    pods::{self, Answering, Attempt},
    sluice::{Sluice, workspace},
};
use crate::commands::say;

/// Stands in for the CRD of sig-network, which tests without a network can't fetch.
const TIERS: &str = include_str!("../../manifests/clusternetworkpolicy-crd.yaml");
/// Folders with pods and policies.
const SETS: [&str; 2] = ["examples/policies", "examples/shop"];
/// How long the cluster may take to follow a set of policies.
const FOLLOWED: Duration = Duration::from_secs(30);

/// What `sluice lab probe -o json` says of one try; of what else it says nothing is needed.
#[derive(Clone, Debug, Deserialize)]
struct Cell {
    from: String,
    to: String,
    transport: String,
    port: u16,
    address: IpAddr,
    reached: bool,
}

/// Every set in turn.
pub(super) fn run(sluice: &Sluice<'_>) -> Result<()> {
    let kubectl = sluice.cluster.kubectl();
    kubectl.apply(TIERS)?;
    kubectl.run(&[
        "wait",
        "--for=condition=Established",
        "crd/clusternetworkpolicies.policy.networking.k8s.io",
        "--timeout=30s",
    ])?;
    for set in SETS {
        one(sluice, set).with_context(|| set.to_owned())?;
    }
    Ok(())
}

fn one(sluice: &Sluice<'_>, set: &str) -> Result<()> {
    let folder = workspace().join(set);
    let manifests = Manifests::read(&folder)?;
    let cells: Vec<Cell> = in_the_lab(sluice, &folder)?
        .into_iter()
        .filter(|cell| manifests.is_inside(&cell.from) && manifests.is_inside(&cell.to))
        .collect();
    let reached = cells.iter().filter(|cell| cell.reached).count();
    ensure!(
        reached > 0 && reached < cells.len(),
        "in the lab {reached} of {} tries came through: that tells nothing",
        cells.len()
    );
    let place = Place::make(sluice, &manifests, &cells)?;
    let outcome = place.compare(sluice, &cells);
    place.remove(sluice)?;
    let took = outcome?;
    say(&format!(
        "{set}: {} tries went as in the lab, {reached} of them came through; {:.1} s after the policies were applied",
        cells.len(),
        took.as_secs_f64()
    ));
    Ok(())
}

/// What came of every try in a lab of these manifests.
fn in_the_lab(sluice: &Sluice<'_>, folder: &Path) -> Result<Vec<Cell>> {
    let name = format!("same{}", std::process::id());
    let folder = folder.display().to_string();
    sluice.on_this_machine(&["lab", "up", "--detach", "--name", &name, "--file", &folder])?;
    // Fails, and says where, if anything went otherwise than the reference evaluator says.
    let probed = sluice.on_this_machine(&["lab", "probe", "--name", &name, "--output=json"]);
    let removed = sluice.on_this_machine(&["lab", "down", "--name", &name]);
    let probed = probed?;
    removed?;
    probed
        .lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("what the lab says: {line}"))
        })
        .collect()
}

/// The pods of a set on the cluster.
struct Place {
    namespaces: BTreeSet<String>,
    /// What is not in a namespace.
    clusterwide: Vec<Value>,
    /// By `namespace/name`.
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

impl Place {
    fn make(sluice: &Sluice<'_>, manifests: &Manifests, cells: &[Cell]) -> Result<Self> {
        let kubectl = sluice.cluster.kubectl();
        let names: BTreeSet<&str> = cells
            .iter()
            .flat_map(|cell| [cell.from.as_str(), &cell.to])
            .collect();
        let nodes = usize::from(sluice.cluster.options().nodes);
        let pods = names
            .iter()
            .enumerate()
            .map(|(index, name)| manifests.pod(name, &format!("node{}", index % nodes + 1)))
            .collect::<Result<Vec<_>>>()?;
        let namespaces: BTreeSet<String> = pods.iter().map(|pod| pod.namespace.clone()).collect();
        let labelled: Vec<_> = namespaces
            .iter()
            .map(|name| (name.as_str(), manifests.namespace_labels(name)))
            .collect();
        pods::namespaces_anew(kubectl, &labelled)?;
        let accounts: BTreeSet<(&str, &str)> = pods
            .iter()
            .filter_map(|pod| Some((pod.namespace.as_str(), pod.service_account.as_deref()?)))
            .collect();
        let account = |(namespace, name): &(&str, &str)| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}});
        pods::apply(kubectl, &accounts.iter().map(account).collect::<Vec<_>>())?;
        pods::apply(kubectl, &manifests.in_force(&namespaces))?;
        pods::apply(
            kubectl,
            &pods.iter().map(Answering::manifest).collect::<Vec<_>>(),
        )?;
        let mut addresses = BTreeMap::new();
        for pod in &pods {
            pods::ready(kubectl, &pod.namespace, &pod.name, Duration::from_mins(1))?;
            let own = pods::addresses(kubectl, &pod.namespace, &pod.name)?;
            addresses.insert(format!("{}/{}", pod.namespace, pod.name), own);
        }
        Ok(Self {
            clusterwide: manifests.clusterwide(),
            namespaces,
            addresses,
        })
    }

    /// Tries until all is as in the lab, twice in a row; how long that took.
    fn compare(&self, sluice: &Sluice<'_>, cells: &[Cell]) -> Result<Duration> {
        let mut by_source: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
        for cell in cells {
            by_source.entry(&cell.from).or_default().push(cell);
        }
        let begin = Instant::now();
        let mut right = None;
        loop {
            let mut other = Vec::new();
            let round = begin.elapsed();
            for (from, cells) in &by_source {
                other.extend(self.differences(sluice, from, cells)?);
            }
            match right {
                Some(since) if other.is_empty() => return Ok(since),
                _ if other.is_empty() => right = Some(round),
                _ if begin.elapsed() > FOLLOWED => {
                    bail!(
                        "{} tries went otherwise than in the lab:\n  {}",
                        other.len(),
                        other.join("\n  ")
                    )
                }
                _ => {
                    right = None;
                    thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }

    fn differences(&self, sluice: &Sluice<'_>, from: &str, cells: &[&Cell]) -> Result<Vec<String>> {
        let attempts = cells
            .iter()
            .map(|cell| {
                let theirs = self.addresses.get(&cell.to).into_iter().flatten();
                let mut same_family = theirs.filter(|own| own.is_ipv4() == cell.address.is_ipv4());
                Ok(Attempt {
                    transport: cell.transport.clone(),
                    address: *same_family
                        .next()
                        .with_context(|| format!("{} has no address", cell.to))?,
                    port: cell.port,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let (namespace, name) = from.split_once('/').context("a pod's name")?;
        let outcomes = pods::probe(sluice.cluster, namespace, name, "main", &attempts)?;
        let pairs = cells.iter().zip(&attempts).zip(outcomes);
        Ok(pairs
            .filter_map(|((cell, attempt), outcome)| {
                let by = outcome.detail.as_deref().unwrap_or_default();
                let reached = match outcome.outcome.as_str() {
                    "answered" => by.is_empty() || by == cell.to,
                    other => other == "refused",
                };
                (reached != cell.reached).then(|| {
                    format!(
                        "{from} to {} ({} {} {}): {} {by}; in the lab it {}",
                        cell.to,
                        attempt.address,
                        attempt.transport,
                        attempt.port,
                        outcome.outcome,
                        if cell.reached {
                            "came through"
                        } else {
                            "did not come through"
                        }
                    )
                })
            })
            .collect())
    }

    fn remove(&self, sluice: &Sluice<'_>) -> Result<()> {
        let kubectl = sluice.cluster.kubectl();
        if !self.clusterwide.is_empty() {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": self.clusterwide});
            kubectl.fed(
                &["delete", "--ignore-not-found", "-f", "-"],
                &list.to_string(),
            )?;
        }
        pods::remove_namespaces(kubectl, self.namespaces.iter().map(String::as_str))
    }
}
