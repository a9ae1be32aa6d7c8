//! Sluice itself: its programs built into images, the chart installed and uninstalled.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use serde_json::Value;
use sluice_cluster::{
    Cluster, Machine,
    oci::{self, Image},
    plan::{API_PORT, addresses},
};

use crate::{
    cli::{Profile, Routing},
    commands::say,
};

/// Where images claim to be from: no registry is ever asked.
const REGISTRY: &str = "localhost/sluice";
const TAG: &str = "test";
const RELEASE: &str = "sluice";
/// Where the release is, as a switch of kubectl and helm.
pub(super) const NAMESPACE: &str = "--namespace=kube-system";
/// The image of pods whose traffic is counted; `sluice` in it tries single connections.
const TRAFFIC: &str = "sluice-e2e-traffic";
/// From `helm install` to Ready nodes.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Cargo packages and the programs in them, and the images that these go into.
const PACKAGES: &[&str] = &["sluice-operator", "sluice-agentd", "sluice"];
const PLUGIN: &str = "sluice-cni";
const IMAGES: &[(&str, &[&str])] = &[
    (TRAFFIC, &["sluice-traffic", "sluice"]),
    ("sluice-operator", &["sluice-operator"]),
    // The agent puts the plugin onto its node.
    ("sluice-agent", &["sluice-agent", PLUGIN]),
    // What the connectivity test's pods run.
    ("sluice-cli", &["sluice"]),
];

/// Builds the programs and packs them. The eBPF object must have been built.
pub(crate) fn images(profile: Profile) -> Result<Vec<PathBuf>> {
    let programs = built(profile, PACKAGES)?;
    build_plugin(profile)?;
    let folder = programs.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // <target>/<profile>/sluice-cluster, with sluice-traffic beside it
    let own = std::env::current_exe().context("finding this program's own file")?;
    let find = |program: &str| match program {
        "sluice-traffic" => own.with_file_name(program),
        _ => programs.join(program),
    };
    IMAGES
        .iter()
        .map(|(name, contents)| {
            let files: Vec<_> = contents.iter().map(|program| find(program)).collect();
            image(name, &files, &folder)
        })
        .collect()
}

/// The reference of the image of pods whose traffic is counted.
pub(super) fn traffic_image() -> String {
    reference(TRAFFIC)
}

fn reference(name: &str) -> String {
    format!("{REGISTRY}/{name}:{TAG}")
}

/// Builds the programs of these packages; the folder they are in.
pub(super) fn built(profile: Profile, packages: &[&str]) -> Result<PathBuf> {
    let mut words = vec!["build", "--profile", profile.name()];
    words.extend(packages.iter().flat_map(|package| ["--package", package]));
    cargo(&words)?;
    programs(profile)
}

/// The plugin is static: nodes' libraries are not those of its image.
fn build_plugin(profile: Profile) -> Result<()> {
    let linked = "-Ctarget-feature=+crt-static";
    let mut words = vec!["rustc", "--profile", profile.name()];
    words.extend(["--package", PLUGIN, "--bin", PLUGIN, "--", linked]);
    cargo(&words)
}

fn cargo(words: &[&str]) -> Result<()> {
    let status = sluice_cluster::cargo()
        .current_dir(workspace())
        .args(words)
        .status()
        .context("starting cargo")?;
    ensure!(
        status.success(),
        "cargo {} failed: {status}",
        words.join(" ")
    );
    Ok(())
}

/// The folder with the programs.
fn programs(profile: Profile) -> Result<PathBuf> {
    // <target>/<profile>/sluice-cluster
    let own = std::env::current_exe().context("finding this program's own file")?;
    let target = own
        .ancestors()
        .nth(2)
        .context("this program is not in a target folder of cargo")?;
    Ok(target.join(profile.folder()))
}

/// The first program is what a container runs.
fn image(name: &str, programs: &[PathBuf], folder: &Path) -> Result<PathBuf> {
    let root = folder.join(name);
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    for program in programs {
        oci::add_program(program, &root)?;
    }
    let entrypoint = programs
        .first()
        .and_then(|program| program.file_name())
        .map(|program| format!("/{}", program.display()))
        .unwrap_or_default();
    let file = folder.join(format!("{name}.tar"));
    Image::new(&reference(name), &[&entrypoint]).write(&root, &file)?;
    Ok(file)
}

/// `helm install` on nodes without a network, until they are Ready; `more` goes to helm.
pub(crate) fn install(cluster: &Cluster, routing: Option<Routing>, more: &[String]) -> Result<()> {
    let chart = workspace().join("charts/sluice").display().to_string();
    let api = addresses(Machine::ControlPlane).v4;
    let mut values = format!(
        "image.registry={REGISTRY},image.tag={TAG},image.pullPolicy=Never,k8sServiceHost={api}"
    );
    if let Some(routing) = routing {
        values = format!("{values},routing.mode={}", routing.name());
    }
    let port = format!("k8sServicePort={API_PORT}");
    let mut words = vec!["install", RELEASE, &chart, NAMESPACE];
    words.extend(["--set", &values, "--set-string", &port]);
    words.extend(more.iter().map(String::as_str));
    let begin = Instant::now();
    cluster.kubectl().helm(&words)?;
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
    route_to_pods(cluster)?;
    restart_dns(cluster)
}

/// The control plane reaches each pod by way of its own node, as Sluice gave nodes their addresses.
fn route_to_pods(cluster: &Cluster) -> Result<()> {
    for number in 1..=cluster.options().nodes {
        let node =
            cluster
                .kubectl()
                .json(&["get", "sluicenode", &Machine::Node(number).to_string()])?;
        let ranges = node["spec"]["podCIDRs"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ranges: Vec<IpNet> = ranges
            .iter()
            .filter_map(Value::as_str)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the pod addresses of node{number}: {ranges:?}"))?;
        ensure!(
            ranges.len() == 2,
            "node{number} has the pod addresses {ranges:?}, not one range of either family"
        );
        cluster.route_to_pods(number, &ranges)?;
    }
    Ok(())
}

/// Cluster DNS answers. Its pods may be from before an uninstall, and their links went with that: new ones.
fn restart_dns(cluster: &Cluster) -> Result<()> {
    let dns = "deployment/coredns";
    if cluster.options().dns {
        cluster
            .kubectl()
            .run(&["rollout", "restart", dns, NAMESPACE])?;
        cluster
            .kubectl()
            .run(&["rollout", "status", dns, NAMESPACE, "--timeout=90s"])?;
    }
    Ok(())
}

/// A cluster and how Sluice was built for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sluice<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) profile: Profile,
}

impl Sluice<'_> {
    /// Runs the command `sluice` as the administrator and gives what it prints.
    pub(super) fn cli(&self, words: &[&str]) -> Result<String> {
        let program = programs(self.profile)?.join("sluice");
        Ok(self.cluster.kubectl().program(&program, words)?)
    }

    /// Runs the command `sluice` on this machine, where no cluster is.
    pub(super) fn on_this_machine(&self, words: &[&str]) -> Result<String> {
        let program = programs(self.profile)?.join("sluice");
        let done = Command::new(&program)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", program.display()))?;
        ensure!(
            done.status.success(),
            "sluice {}: {}\n{}",
            words.join(" "),
            done.status,
            String::from_utf8_lossy(&done.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// `sluice connectivity test` comes out as it should.
    pub(super) fn connectivity(&self) -> Result<()> {
        let report = self.cli(&["connectivity", "test"])?;
        println!("{report}");
        Ok(())
    }

    /// `sluice status` finds nothing to complain of, soon.
    pub(super) fn status(&self) -> Result<()> {
        let status = self.cli(&["status", "--wait", "--wait-duration=1m"])?;
        println!("{status}");
        Ok(())
    }
}

/// Waits until every agent and every operator is ready.
pub(super) fn wait_rolled_out(cluster: &Cluster) -> Result<()> {
    for what in ["daemonset/sluice-agent", "deployment/sluice-operator"] {
        cluster
            .kubectl()
            .run(&["rollout", "status", what, NAMESPACE, "--timeout=90s"])
            .with_context(|| pods_of(cluster))?;
    }
    Ok(())
}

/// `helm upgrade` of one value; what was set before stays.
pub(super) fn upgrade(cluster: &Cluster, set: &str) -> Result<()> {
    let chart = workspace().join("charts/sluice").display().to_string();
    let words = ["upgrade", RELEASE, &chart, NAMESPACE, "--reuse-values"];
    cluster
        .kubectl()
        .helm(&[&words[..], &["--set", set]].concat())?;
    Ok(())
}

/// `helm rollback` to what was before the last upgrade.
pub(super) fn roll_back(cluster: &Cluster) -> Result<()> {
    cluster.kubectl().helm(&["rollback", RELEASE, NAMESPACE])?;
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
                  pgrep -l '^sluice-(ag|op|cn)'; true";
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

/// The checkout that this was built from.
pub(super) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
