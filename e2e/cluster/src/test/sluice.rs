//! Sluice itself: its programs built into images, the chart installed and uninstalled.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use sluice_cluster::{
    Cluster, Machine,
    oci::{self, Image},
    plan::{API_PORT, addresses},
};

use crate::commands::say;

/// Where images claim to be from: no registry is ever asked.
const REGISTRY: &str = "localhost/sluice";
const TAG: &str = "test";
const RELEASE: &str = "sluice";
const NAMESPACE: &str = "--namespace=kube-system";
/// From `helm install` to Ready nodes.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Cargo packages and the programs in them, and the images that these go into.
const PACKAGES: &[&str] = &["sluice-operator", "sluice-agentd", "sluice-cni", "sluice"];
const IMAGES: &[(&str, &[&str])] = &[
    ("sluice-operator", &["sluice-operator"]),
    // The agent puts the plugin onto its node.
    ("sluice-agent", &["sluice-agent", "sluice-cni"]),
    // What the connectivity test's pods run.
    ("sluice-cli", &["sluice"]),
];

/// Builds the programs and packs them. The eBPF object must have been built.
pub(super) fn images() -> Result<Vec<PathBuf>> {
    let programs = programs(PACKAGES)?;
    let folder = programs.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    IMAGES
        .iter()
        .map(|(name, contents)| image(name, contents, &programs, &folder))
        .collect()
}

/// Builds the programs of these packages; the folder they are in.
pub(super) fn programs(packages: &[&str]) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(["build", "--release"]);
    for package in packages {
        cargo.arg("--package").arg(package);
    }
    let status = cargo.status().context("starting cargo")?;
    ensure!(
        status.success(),
        "building {} failed: {status}",
        packages.join(", ")
    );
    // <target>/<profile>/sluice-cluster
    let own = std::env::current_exe().context("finding this program's own file")?;
    let target = own
        .ancestors()
        .nth(2)
        .context("this program is not in a target folder of cargo")?;
    Ok(target.join("release"))
}

fn image(name: &str, contents: &[&str], programs: &Path, folder: &Path) -> Result<PathBuf> {
    let root = folder.join(name);
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    for program in contents {
        oci::add_program(&programs.join(program), &root)?;
    }
    let entrypoint = contents
        .first()
        .map(|program| format!("/{program}"))
        .unwrap_or_default();
    let file = folder.join(format!("{name}.tar"));
    Image::new(&format!("{REGISTRY}/{name}:{TAG}"), &[&entrypoint]).write(&root, &file)?;
    Ok(file)
}

/// `helm install` on nodes without a network, until they are Ready.
pub(super) fn install(cluster: &Cluster) -> Result<()> {
    let chart = workspace().join("charts/sluice").display().to_string();
    let api = addresses(Machine::ControlPlane).v4;
    let begin = Instant::now();
    cluster.kubectl().helm(&[
        "install",
        RELEASE,
        &chart,
        NAMESPACE,
        "--set",
        &format!("image.registry={REGISTRY},image.tag={TAG},image.pullPolicy=Never"),
        "--set",
        &format!("k8sServiceHost={api}"),
        "--set-string",
        &format!("k8sServicePort={API_PORT}"),
    ])?;
    cluster
        .wait_ready(Duration::from_mins(2))
        .with_context(|| pods_of(cluster))?;
    let took = begin.elapsed();
    say(&format!(
        "nodes Ready {:.1} s after `helm install`",
        took.as_secs_f64()
    ));
    ensure!(
        took <= READY_WITHIN,
        "nodes were Ready only after {:.1} s, not within 30 s",
        took.as_secs_f64()
    );
    cluster.kubectl().run(&[
        "rollout",
        "status",
        "deployment/coredns",
        NAMESPACE,
        "--timeout=60s",
    ])?;
    Ok(())
}

/// `helm uninstall`, after which no node has anything of Sluice.
pub(super) fn uninstall(cluster: &Cluster) -> Result<()> {
    cluster
        .kubectl()
        .helm(&["uninstall", RELEASE, NAMESPACE, "--wait", "--timeout=120s"])?;
    for number in 1..=cluster.options().nodes {
        let left = left_on(cluster, number)?;
        if !left.is_empty() {
            bail!(
                "after the uninstall node{number} still has: {}",
                left.join(", ")
            );
        }
    }
    Ok(())
}

/// Links, pinned objects, files, routes (Sluice's have the protocol number 83) and processes of Sluice on a node. Empty folders that the
/// kubelet made to mount them are nobody's.
fn left_on(cluster: &Cluster, number: u8) -> Result<Vec<String>> {
    let script = "ip -o link show | grep -o 'sluice[^:@]*'; \
                  find /sys/fs/bpf /etc/cni/net.d /opt/cni/bin /run /var/lib/sluice -xdev -path '*sluice*' ! -type d 2>/dev/null; \
                  ip -4 route show table all proto 83; ip -6 route show table all proto 83; \
                  pgrep -l 'sluice-(agent|operator|cni)'; true";
    let found = cluster.node_exec(number, &["sh", "-c", script])?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// For an error's context: what became of Sluice's pods.
fn pods_of(cluster: &Cluster) -> String {
    let listed = cluster
        .kubectl()
        .json(&["get", "pods", NAMESPACE])
        .unwrap_or_default();
    let line = |pod: &Value| {
        let state = pod["status"]["containerStatuses"][0]["state"].to_string();
        format!(
            "{} {} {state}",
            pod["metadata"]["name"], pod["status"]["phase"]
        )
    };
    let pods = listed["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    format!(
        "the pods of kube-system: {}",
        pods.iter().map(line).collect::<Vec<_>>().join("; ")
    )
}

pub(super) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
