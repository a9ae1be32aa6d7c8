//! A thousand agents on one operator. The agents live in a process of their own, so that the operator's memory and processor time are
//! its own. Prints what it measured.

mod common;

use std::{
    fmt::Write,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    Authority, Operator, change_entry, cluster, constant, new_address, node, options, relabel,
    within,
};
use sluice_abi::Identity;
use sluice_stream::{Batch, Hub, Published};

/// Where the agents' process finds the operator: its address, how many they are, and a file with its CA.
const TO: &str = "SLUICE_STREAM_AGENTS";

#[derive(Clone, Copy)]
struct Size {
    agents: usize,
    pods_each: usize,
    tables: u32,
    identities: u32,
    /// Changes of each kind that are measured.
    changes: usize,
    /// The slowest that every agent has a change.
    at_most: Duration,
    /// How long they may take to connect.
    patience: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_agents() {
    measure(Size {
        agents: 1_000,
        pods_each: 10,
        tables: 200,
        identities: 200,
        changes: 20,
        at_most: Duration::from_secs(5),
        patience: Duration::from_mins(1),
    })
    .await;
}

/// For `cargo test --release -- --ignored`: 110,000 pods and 10,000 identities.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: for the soak"]
async fn a_thousand_agents_of_a_large_cluster() {
    measure(Size {
        agents: 1_000,
        pods_each: 110,
        tables: 1_000,
        identities: 10_000,
        changes: 50,
        at_most: Duration::from_secs(10),
        patience: Duration::from_mins(5),
    })
    .await;
}

/// The agents' process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other half of the tests here, which start it"]
async fn agents() {
    let Ok(given) = std::env::var(TO) else {
        return;
    };
    let parts: Vec<&str> = given.splitn(3, ' ').collect();
    let [address, count, ca] = parts[..] else {
        panic!("{TO}={given}")
    };
    let known = std::sync::Arc::new(std::sync::Mutex::new(vec![
        address.parse().expect("an address"),
    ]));
    let ca = std::fs::read_to_string(ca).expect("the CA");
    for number in 0..count.parse().expect("a number") {
        let mut options = options(&node(number), &known);
        options.ca = Some(constant(ca.clone()));
        Light::start(options);
    }
    // Until the parent closes the pipe, or kills.
    let closed = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    let _ = closed.await;
}

/// An agent that keeps nothing, so that thousands fit: what an agent's own memory is, is the agent's to measure.
struct Light;

impl Light {
    fn start(options: sluice_stream::Options) {
        tokio::spawn(async move {
            let mut subscription = sluice_stream::Subscription::start(options);
            loop {
                if let sluice_stream::Event::Update(update) = subscription.next().await {
                    subscription.ack(update.revision);
                }
            }
        });
    }
}

async fn measure(size: Size) {
    let authority = Authority::new();
    let operator = Operator::start(Hub::new(1), Some(authority.tls.clone())).await;
    let hub = &operator.hub;
    let first = hub
        .publish(cluster(
            size.agents,
            size.pods_each,
            size.tables,
            size.identities,
        ))
        .await;
    let (idle, begun, processor) = (memory(), Instant::now(), processor_time());
    let mut agents = Agents::start(&operator, size.agents, &authority.ca);
    let all = (size.agents, size.agents);
    within(size.patience, hub, "everyone has everything", |hub| {
        hub.enforced(first.revision) == all
    })
    .await;
    let connected = begun.elapsed();
    let mut text = String::new();
    let per = |bytes: u64| bytes.saturating_sub(idle) / 1024 / size.agents as u64;
    let spent = processor_time().saturating_sub(processor);
    let _ = writeln!(
        text,
        "{} agents, {} pods, {} tables, {} identities: all connected and in step after {connected:.1?}; \
         operator: {} MiB before, +{} KiB per agent, {:.2} ms of processor per agent",
        size.agents,
        size.agents * size.pods_each,
        size.tables,
        size.identities,
        idle >> 20,
        per(memory()),
        spent.as_secs_f64() * 1e3 / f64::from(u32::try_from(size.agents).expect("some")),
    );
    let last = Identity::FIRST_ALLOCATED + size.identities;
    for kind in ["one table", "one address", "a relabelled pod"] {
        let processor = processor_time();
        let mut took = Vec::new();
        for at in 0..size.changes {
            let number = u32::try_from(at).expect("few");
            let batch = match kind {
                "one table" => change_entry(
                    1 + number % size.tables,
                    Identity::FIRST_ALLOCATED,
                    number % 2,
                ),
                "one address" => new_address(1_000_000 + at, Identity::FIRST_ALLOCATED),
                _ => relabel(0, last + number - 1, last + number),
            };
            took.push(publish(hub, batch, all).await);
        }
        took.sort_unstable();
        let slowest = took[took.len() - 1];
        let spent =
            processor_time().saturating_sub(processor) / u32::try_from(size.changes).expect("few");
        let _ = writeln!(
            text,
            "{kind}: published to last acknowledgement p50 {:.1?}, p99 {:.1?}, most {slowest:.1?}; {spent:.1?} of the operator's processor each",
            took[took.len() / 2],
            took[took.len() * 99 / 100],
        );
        assert!(slowest < size.at_most, "{text}");
    }
    let quiet = processor_time();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let quiet = processor_time().saturating_sub(quiet).as_secs_f64() / 3.0;
    let _ = writeln!(
        text,
        "nothing happening: {:.1} % of a processor, +{} KiB per agent",
        quiet * 100.0,
        per(memory()),
    );
    println!("{text}");
    assert_eq!(hub.enforced(hub.revision()), all);
    agents.stop();
}

/// Publishes, and waits until all hold it.
async fn publish(hub: &Hub, batch: Batch, all: (usize, usize)) -> Duration {
    let begun = Instant::now();
    let Published { revision, .. } = hub.publish(batch).await;
    let mut changes = hub.changes();
    while hub.enforced(revision) != all {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?} of {all:?}",
            hub.enforced(revision)
        );
        let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
    }
    begun.elapsed()
}

/// The agents' process and its file.
struct Agents(Child, std::path::PathBuf);

impl Agents {
    fn start(operator: &Operator, count: usize, ca: &str) -> Self {
        let file =
            std::env::temp_dir().join(format!("sluice-stream-ca-{}.pem", std::process::id()));
        std::fs::write(&file, ca).expect("a file for the CA");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "agents", "--ignored", "--nocapture"])
            .env(
                TO,
                format!("{} {count} {}", operator.address, file.display()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the agents' process");
        Self(child, file)
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Resident memory of this process, in bytes.
fn memory() -> u64 {
    let file = std::fs::File::open("/proc/self/status").expect("procfs");
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let line = lines
        .into_iter()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    let kilobytes = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse::<u64>().ok());
    kilobytes.expect("a number") * 1024
}

/// Processor time of this process.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    // Fields 14 and 15, counting from 1; the second, in parentheses, may hold spaces. A tick is 10 ms.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .filter_map(|text| text.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}
