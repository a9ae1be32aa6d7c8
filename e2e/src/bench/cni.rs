//! Interfaces for pods: ADD and DEL of the real plugin with the real agent behind it, beside the reference plugin `bridge` with
//! `host-local`, which has no policy. Each is a process started and waited for, as a container runtime does it; all are measured in turn.

mod node;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluice_datapath::net::{NetNs, in_namespace};

use self::node::Node;
use super::{Effort, report::Table};
use crate::stats::{Median, percentile};

/// Between two requests: kubelets start a pod after the other, and what either plugin leaves to the kernel is done by then.
const PAUSE: Duration = Duration::from_millis(100);
/// Pods that come at once.
const TOGETHER: usize = 16;

/// A plugin in its place.
struct Plugin {
    name: &'static str,
    node: NetNs,
    config: Value,
    program: PathBuf,
    /// Where it finds its helpers.
    path: PathBuf,
    /// It is told which pod is meant.
    pods: bool,
    /// Nanoseconds of ADD and DEL, in the order of the rounds.
    took: [Vec<u64>; 2],
    /// Milliseconds until the last of many at once had its interface.
    together: Vec<f64>,
}

/// Measures, and gives the tables.
///
/// # Errors
/// A program is missing, or a plugin fails.
pub fn run(effort: Effort) -> Result<String> {
    let rounds: usize = effort.of(200, 10);
    let bursts: usize = effort.of(9, 2);
    let reference = sluice_cluster::build_plugins(&mut |step| eprintln!("cni: {step}"))?;
    let pods = rounds + bursts * TOGETHER;
    let node = Node::start(pods)?;
    let folder = node.folder().to_owned();
    let bridges = [
        NetNs::create(&node.name("bridge"))?,
        NetNs::create(&node.name("bridge4"))?,
    ];
    let [both, ipv4] = bridges;
    let mut plugins = [
        sluice(&node)?,
        bridge("bridge + host-local", &reference, &folder, both, true),
        bridge(
            "bridge + host-local, IPv4 alone",
            &reference,
            &folder,
            ipv4,
            false,
        ),
    ];
    for round in 0..rounds {
        if round % 20 == 0 {
            eprintln!("cni: round {round} of {rounds}");
        }
        one_by_one(&node, &mut plugins, round)?;
    }
    for burst in 0..bursts {
        eprintln!("cni: burst {burst} of {bursts}");
        at_once(&node, &mut plugins, burst, rounds + burst * TOGETHER)?;
    }
    Ok(format!(
        "{rounds} pods, one after the other with {PAUSE:?} between two requests, the plugins in turn; then {bursts} times {TOGETHER} pods at once. \
         Milliseconds from the start of the plugin's process to its end. Ratios are medians over the rounds with their 95 % interval. All \
         interfaces have IPv4 and IPv6 unless said.\n\n{}\n{}",
        table(&plugins),
        together(&plugins)
    ))
}

fn sluice(node: &Node) -> Result<Plugin> {
    Ok(Plugin {
        name: "**Sluice**",
        node: node.namespace()?,
        config: json!({
            "cniVersion": "1.0.0",
            "name": "sluice",
            "type": "sluice-cni",
            "socket": node.folder().join("run/cni.sock"),
            "deletions": node.folder().join("run/deletions"),
        }),
        program: node.plugin(),
        path: node.folder().join("bin"),
        pods: true,
        took: Default::default(),
        together: Vec::new(),
    })
}

fn bridge(name: &'static str, programs: &Path, folder: &Path, node: NetNs, ipv6: bool) -> Plugin {
    let mut ranges = vec![json!([{"subnet": "10.245.0.0/16"}])];
    let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
    if ipv6 {
        ranges.push(json!([{"subnet": "fd00:245::/64"}]));
        routes.push(json!({"dst": "::/0"}));
    }
    Plugin {
        name,
        config: json!({
            "cniVersion": "1.0.0",
            "name": if ipv6 { "reference" } else { "reference4" },
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("host-local"),
                "ranges": ranges,
                "routes": routes,
            },
        }),
        node,
        program: programs.join("bridge"),
        path: programs.to_owned(),
        pods: false,
        took: Default::default(),
        together: Vec::new(),
    }
}

/// One pod of each plugin comes and goes.
fn one_by_one(node: &Node, plugins: &mut [Plugin; 3], round: usize) -> Result<()> {
    let sandboxes: Vec<NetNs> = (0..plugins.len())
        .map(|at| NetNs::create(&node.name(&format!("p{round}x{at}"))))
        .collect::<Result<_, _>>()?;
    for (what, command) in ["ADD", "DEL"].into_iter().enumerate() {
        for step in 0..plugins.len() {
            // Each goes first, and behind each other one, equally often.
            let at = (step + round) % plugins.len();
            thread::sleep(PAUSE);
            let plugin = &mut plugins[at];
            let took = plugin.call(command, &sandboxes[at], round)?;
            plugin.took[what].push(took);
        }
    }
    for sandbox in &sandboxes {
        NetNs::delete(sandbox.name())?;
    }
    Ok(())
}

/// Many pods of each plugin come at the same time.
fn at_once(node: &Node, plugins: &mut [Plugin; 3], burst: usize, first: usize) -> Result<()> {
    for step in 0..plugins.len() {
        let at = (step + burst) % plugins.len();
        let plugin = &mut plugins[at];
        let sandboxes: Vec<NetNs> = (0..TOGETHER)
            .map(|pod| NetNs::create(&node.name(&format!("b{burst}x{at}x{pod}"))))
            .collect::<Result<_, _>>()?;
        thread::sleep(10 * PAUSE);
        let caller = &*plugin;
        let began = Instant::now();
        thread::scope(|scope| {
            let calls: Vec<_> = sandboxes
                .iter()
                .enumerate()
                .map(|(pod, sandbox)| scope.spawn(move || caller.call("ADD", sandbox, first + pod)))
                .collect();
            calls
                .into_iter()
                .try_for_each(|call| call.join().expect("no panic").map(drop))
        })?;
        let took = began.elapsed();
        thread::sleep(10 * PAUSE);
        for (pod, sandbox) in sandboxes.iter().enumerate() {
            plugin.call("DEL", sandbox, first + pod)?;
            NetNs::delete(sandbox.name())?;
        }
        plugin.together.push(took.as_secs_f64() * 1e3);
    }
    Ok(())
}

impl Plugin {
    /// Runs the plugin for the pod of this number; how long it took, in nanoseconds.
    fn call(&self, command: &str, sandbox: &NetNs, pod: usize) -> Result<u64> {
        let mut run = Command::new(&self.program);
        run.env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("c{pod}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .env("CNI_NETNS", Path::new("/run/netns").join(sandbox.name()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.pods {
            run.env("CNI_ARGS", node::arguments(pod));
        }
        let config = self.config.to_string();
        let (took, output) = in_namespace(&self.node, || timed(run, config.as_bytes()))??;
        ensure!(
            output.status.success(),
            "{command} of {}: {}{}",
            self.name,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(u64::try_from(took.as_nanos())?)
    }

    fn milliseconds(&self, what: usize) -> Vec<f64> {
        let nanoseconds = self.took[what].iter().copied();
        nanoseconds
            .map(|value| Duration::from_nanos(value).as_secs_f64() * 1e3)
            .collect()
    }
}

fn timed(mut run: Command, input: &[u8]) -> Result<(Duration, Output)> {
    use std::io::Write as _;
    let began = Instant::now();
    let mut child = run
        .spawn()
        .with_context(|| format!("starting {}", run.get_program().display()))?;
    child
        .stdin
        .take()
        .context("a pipe to the plugin")?
        .write_all(input)?;
    let output = child.wait_with_output()?;
    Ok((began.elapsed(), output))
}

fn table(plugins: &[Plugin; 3]) -> Table {
    let mut table = Table::new(&[
        "plugin",
        "request",
        "p50 ms",
        "p99 ms",
        "most ms",
        "Sluice takes of it",
    ]);
    for (what, request) in ["ADD", "DEL"].into_iter().enumerate() {
        let own = plugins[0].milliseconds(what);
        for plugin in plugins {
            let all = plugin.milliseconds(what);
            let ratios: Vec<f64> = own.iter().zip(&all).map(|(own, its)| own / its).collect();
            let mut sorted = plugin.took[what].clone();
            sorted.sort_unstable();
            let at = |percent: usize| {
                let value = percentile(&sorted, percent).unwrap_or_default();
                format!("{:.1}", Duration::from_nanos(value).as_secs_f64() * 1e3)
            };
            table.row(&[
                &plugin.name,
                &request,
                &shown(&all),
                &at(99),
                &at(100),
                &shown(&ratios),
            ]);
        }
    }
    table
}

fn together(plugins: &[Plugin; 3]) -> Table {
    let mut table = Table::new(&[
        "plugin",
        "pods at once",
        "ms until the last has its interface",
    ]);
    for plugin in plugins {
        table.row(&[&plugin.name, &TOGETHER, &shown(&plugin.together)]);
    }
    table
}

fn shown(samples: &[f64]) -> String {
    Median::of(samples).map_or_else(String::new, |median| {
        format!(
            "{:.2} [{:.2}, {:.2}]",
            median.value, median.low, median.high
        )
    })
}
