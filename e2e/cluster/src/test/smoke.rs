//! The least that a network must do: pods of all nodes reach each other and a service over both families; with Sluice, a policy
//! cuts and opens.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sluice_cluster::{Cluster, Kubectl};

use super::until;

const MANIFEST: &str = include_str!("../../manifests/smoke.yaml");
const DENY: &str = include_str!("../../manifests/smoke-deny.yaml");
const NAMESPACE: &str = "--namespace=smoke";

struct Pod {
    name: String,
    addresses: Vec<IpAddr>,
}

/// A kubelet that was restarted a moment ago may take this long to know its pods again.
const PATIENCE: Duration = Duration::from_mins(1);

/// Every pod fetches from every pod and from the service, over both families.
pub(super) fn pods_talk(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let urls = deploy(cluster)?;
    for pod in pods(cluster)? {
        until(PATIENCE, || fetch(kubectl, &pod.name, &urls))
            .with_context(|| format!("pod {} does not reach all others", pod.name))?;
    }
    Ok(())
}

/// A policy that admits nobody cuts every pod off; without it they talk again.
pub(super) fn policy(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let urls = deploy(cluster)?;
    let mut others = pods(cluster)?;
    let pod = others.pop().context("the smoke test has no pods")?;
    kubectl.apply(DENY)?;
    // What a pod sends to itself, by way of the service too, is its own business.
    let others = others.iter().flat_map(|pod| &pod.addresses).map(url);
    for url in &others.collect::<Vec<_>>() {
        until(PATIENCE, || {
            ensure!(
                fetch(kubectl, &pod.name, std::slice::from_ref(url)).is_err(),
                "{url} is reached in spite of the policy"
            );
            Ok(())
        })?;
    }
    kubectl.run(&["delete", "networkpolicy", "deny", NAMESPACE])?;
    until(PATIENCE, || fetch(kubectl, &pod.name, &urls))
        .context("the policy is gone, and pods don't talk")
}

/// Removes what the checks made.
pub(super) fn remove(cluster: &Cluster) -> Result<()> {
    cluster.kubectl().run(&[
        "delete",
        "namespace",
        "smoke",
        "--ignore-not-found",
        "--timeout=120s",
    ])?;
    Ok(())
}

/// Gives what every pod must be able to fetch.
fn deploy(cluster: &Cluster) -> Result<Vec<String>> {
    let kubectl = cluster.kubectl();
    kubectl.apply(MANIFEST)?;
    kubectl.run(&[
        "rollout",
        "status",
        "daemonset/web",
        NAMESPACE,
        "--timeout=120s",
    ])?;
    let service = kubectl.json(&["get", "service", "web", NAMESPACE])?;
    let service = addresses(&service["spec"]["clusterIPs"], |address| address)?;
    let pods = pods(cluster)?;
    ensure!(
        pods.len() == usize::from(cluster.options().nodes),
        "{} pods of the smoke test run",
        pods.len()
    );
    let all = pods.iter().flat_map(|pod| &pod.addresses).chain(&service);
    Ok(all.map(url).collect())
}

fn url(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("http://{address}:8080/hostname"),
        IpAddr::V6(address) => format!("http://[{address}]:8080/hostname"),
    }
}

fn pods(cluster: &Cluster) -> Result<Vec<Pod>> {
    let listed = cluster
        .kubectl()
        .json(&["get", "pods", NAMESPACE, "--selector=app=web"])?;
    let listed = listed["items"].as_array().context("the list of pods")?;
    listed
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| {
            let name = pod["metadata"]["name"]
                .as_str()
                .context("a pod's name")?
                .to_owned();
            let addresses = addresses(&pod["status"]["podIPs"], |entry| &entry["ip"])?;
            Ok(Pod { name, addresses })
        })
        .collect()
}

/// One of either family.
fn addresses<'a>(
    list: &'a serde_json::Value,
    address: impl Fn(&'a serde_json::Value) -> &'a serde_json::Value,
) -> Result<Vec<IpAddr>> {
    let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = entries.iter().filter_map(|entry| address(entry).as_str());
    let found: Vec<IpAddr> = texts.map(str::parse).collect::<Result<_, _>>()?;
    ensure!(
        found.len() == 2 && found[0].is_ipv4() != found[1].is_ipv4(),
        "an address of either family was expected: {found:?}"
    );
    Ok(found)
}

fn fetch(kubectl: &Kubectl, pod: &str, urls: &[String]) -> Result<()> {
    let curl = [
        "exec",
        NAMESPACE,
        pod,
        "--",
        "curl",
        "--fail",
        "--silent",
        "--show-error",
        "--max-time",
        "3",
        "--globoff",
    ];
    // An output for each: curl says nothing of an address that is not asked for its content.
    let urls: Vec<_> = urls
        .iter()
        .flat_map(|url| ["--output", "/dev/null", url])
        .collect();
    kubectl.run(&[&curl[..], &["--fail-early"], &urls].concat())?;
    Ok(())
}
