//! What a change costs: in a policy of 10,000 rules, part by part; and from a policy's change to the first packet on the wire that is
//! judged by it, with 10,000 policies loaded.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sluice_agent::Node;
use sluice_datapath::net::{NetNs, in_namespace};
use sluice_policy::{Index, ItemRef, Prepared};
use sluice_world::{Policy, WorldItem};
use sluice_worldgen::{Parameters, generate_seeded};

use super::{
    Effort,
    ladder::{self, Ladder, Peers},
    pair::{Pair, enforced, sizes},
    report::Table,
};
use crate::{
    stats::percentile,
    wire::{Endpoint, pin},
};

/// The port that the toggled policies open.
const PORT: u16 = 4000;
/// A change that has not reached the wire by then never will.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures, and gives the tables.
///
/// # Errors
/// The kernel refuses something, or a change does not reach the wire.
pub fn run(effort: Effort) -> Result<String> {
    Ok(format!(
        "{}\n{}",
        in_a_long_policy(effort)?,
        to_the_wire(effort)?
    ))
}

/// One rule of many changes its port, again and again.
fn in_a_long_policy(effort: Effort) -> Result<String> {
    pin(0)?;
    let mut table = Table::new(&[
        "rules",
        "peers",
        "digest p50",
        "compiler p50",
        "p99",
        "writer p50",
        "p99",
        "map operations p50",
        "changes",
    ]);
    let mut parameters = String::new();
    let rules = effort.of(10_000, 1_000);
    for peers in [Peers::Labels, Peers::Cidrs] {
        let ladder = Ladder { rules, peers };
        eprintln!("change: in one policy: {ladder}");
        writeln!(parameters, "`{ladder}`  ")?;
        let world = ladder::world(&ladder.documents())?;
        let original = policy(&world, "ladder")?;
        let (mut index, mut node) = enforced(&world, &sizes())?;
        index.apply_prepared(Prepared::new(Arc::clone(&original)));
        index.commit();
        let mut figures = [const { Vec::new() }; 4];
        for number in 0..effort.of(50, 5) {
            let rule = number * 37 % (rules - 1);
            let changed = policy(&ladder::world(&[ladder.policy(Some(rule))])?, "ladder")?;
            for version in [changed, Arc::clone(&original)] {
                let sample = one_change(&mut index, &mut node, version)?;
                for (figures, value) in figures.iter_mut().zip(sample) {
                    figures.push(value);
                }
            }
        }
        for all in &mut figures {
            all.sort_unstable();
        }
        let [digest, compiler, writer, operations] = &figures;
        let kind = if peers == Peers::Labels {
            "labels"
        } else {
            "CIDRs"
        };
        let middle = percentile(operations, 50).unwrap_or(0);
        table.row(&[
            &rules,
            &kind,
            &at(digest, 50),
            &at(compiler, 50),
            &at(compiler, 99),
            &at(writer, 50),
            &at(writer, 99),
            &middle,
            &compiler.len(),
        ]);
    }
    Ok(format!(
        "One rule of a long policy changes its port. *Digest* is what whoever reads the policy does once with the text it has read, so that \
         the compiler finds the rules that differ. Parameters:  \n{parameters}\n{table}"
    ))
}

/// Nanoseconds in the digest, in the compiler and in the writer, and map operations.
fn one_change(index: &mut Index, node: &mut Node, policy: Arc<Policy>) -> Result<[u64; 4]> {
    node.settle()?;
    index.tidy();
    let start = Instant::now();
    let prepared = Prepared::new(policy);
    let digested = start.elapsed();
    let start = Instant::now();
    index.apply_prepared(prepared);
    let delta = index.commit();
    let compiled = start.elapsed();
    let before = node.operations();
    let start = Instant::now();
    node.apply(&delta)?;
    let written = start.elapsed();
    Ok([
        nanoseconds(digested),
        nanoseconds(compiled),
        nanoseconds(written),
        node.operations() - before,
    ])
}

fn policy(world: &sluice_world::World, name: &str) -> Result<Arc<Policy>> {
    let found = world
        .policies
        .values()
        .find(|policy| policy.origin().name == name);
    found.cloned().with_context(|| format!("no policy {name}"))
}

/// A policy is put and deleted under traffic.
fn to_the_wire(effort: Effort) -> Result<String> {
    let parameters = effort.of(
        Parameters::scale(10_000, 2_000, 10_000),
        Parameters::scale(200, 100, 300),
    );
    eprintln!("change: to the wire: generating {parameters}");
    let mut documents = generate_seeded(&parameters, 1).documents;
    documents.extend(
        Ladder {
            rules: 10,
            peers: Peers::Labels,
        }
        .documents(),
    );
    // Only labels that some policy names tell identities apart, so that this one splits none, and the other one does.
    let (plain, relabelling) = (
        toggle("plain", "app", "client"),
        toggle("relabelling", "tier", "gold"),
    );
    documents.extend([plain, relabelling]);
    let world = ladder::world(&documents)?;
    let versions = ["plain", "relabelling"].map(|name| policy(&world, name));
    let world = without(world, &["plain", "relabelling"]);
    eprintln!(
        "change: to the wire: loading {} policies",
        world.policies.len()
    );
    let mut pair = Pair::new(&world)?;
    let usage = pair.agent.usage();
    let mut table = Table::new(&[
        "change",
        "p50",
        "p99",
        "most",
        "of it compiler p50",
        "of it writer p50",
        "map operations p50",
        "changes",
    ]);
    for (version, kind) in versions.into_iter().zip([
        "a policy that relabels nothing",
        "a policy that relabels identities",
    ]) {
        eprintln!("change: to the wire: {kind}");
        let figures = toggled(&mut pair, &version?, effort.of(150, 5))?;
        let [whole, compiler, writer, operations] = &figures;
        table.row(&[
            &kind,
            &at(whole, 50),
            &at(whole, 99),
            &at(whole, 100),
            &at(compiler, 50),
            &at(writer, 50),
            &percentile(operations, 50).unwrap_or(0),
            &whole.len(),
        ]);
    }
    Ok(format!(
        "From the change of a policy to the first packet of an open UDP flow that is judged anew, {} policies loaded ({} tables, {} entries).\n\
         Parameters: `{parameters}`\n\n{table}",
        world.policies.len(),
        usage.tables,
        usage.peers
    ))
}

fn without(mut world: sluice_world::World, policies: &[&str]) -> sluice_world::World {
    world
        .policies
        .retain(|_, policy| !policies.contains(&policy.origin().name.as_str()));
    world
}

fn toggle(name: &str, key: &str, value: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "bench"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {key: value}}}], "ports": [{"protocol": "UDP", "port": PORT}]}],
        },
    })
}

/// Puts and deletes a policy `rounds` times; sorted: nanoseconds until enforced, in the compiler, in the writer; map operations.
fn toggled(pair: &mut Pair, policy: &Arc<Policy>, rounds: u32) -> Result<[Vec<u64>; 4]> {
    let (client, server) = pair.ends(0);
    let probe = Probe::between(&client, &server)?;
    let mut figures = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let mut change_all = || -> Result<()> {
        pin(0)?;
        for _ in 0..rounds {
            for present in [true, false] {
                let Some(sample) = one_toggle(pair, policy, present, &probe)? else {
                    continue;
                };
                for (figures, value) in figures.iter_mut().zip(sample) {
                    figures.push(value);
                }
            }
        }
        Ok(())
    };
    let outcome = thread::scope(|scope| {
        let watcher = scope.spawn(|| probe.run());
        let outcome = change_all();
        probe.stop.store(true, Ordering::Release);
        let probed = watcher
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.and(probed)
    });
    outcome?;
    for all in &mut figures {
        all.sort_unstable();
    }
    Ok(figures)
}

/// `None` if a datagram sent before the change was held up and judged after it: the machine was busy elsewhere.
fn one_toggle(
    pair: &mut Pair,
    policy: &Arc<Policy>,
    present: bool,
    probe: &Probe,
) -> Result<Option<[u64; 4]>> {
    pair.agent.settle()?;
    let before = pair.agent.operations();
    let start = Instant::now();
    if present {
        pair.index.apply(WorldItem::Policy(Arc::clone(policy)));
    } else {
        pair.index.delete(ItemRef::Policy(policy.origin().clone()));
    }
    let delta = pair.index.commit();
    let compiled = start.elapsed();
    pair.agent.apply(&delta)?;
    let written = start.elapsed().saturating_sub(compiled);
    let operations = pair.agent.operations() - before;
    let seen = probe.first(present, start)?;
    if seen < start {
        return Ok(None);
    }
    Ok(Some([
        nanoseconds(seen - start),
        nanoseconds(compiled),
        nanoseconds(written),
        operations,
    ]))
}

/// Datagrams from the client to the server, one after another, on a CPU of its own.
struct Probe {
    client: UdpSocket,
    server: UdpSocket,
    target: SocketAddr,
    stop: AtomicBool,
    /// Whether datagrams arrive, and when the first one was sent that told so.
    state: Mutex<(bool, Instant)>,
}

impl Probe {
    /// How long a datagram may take to arrive.
    const FLIGHT: Duration = Duration::from_micros(30);
    /// So many that do not arrive, one after another, are no longer held up but dropped.
    const SILENCE: u64 = 50;
    /// Times of sending that are kept.
    const REMEMBERED: usize = 1000;

    fn between(client: &Endpoint, server: &Endpoint) -> Result<Self> {
        let socket = |end: &Endpoint, port| -> Result<UdpSocket> {
            let namespace = NetNs::open(&end.namespace)?;
            let socket = in_namespace(&namespace, || UdpSocket::bind((end.address, port)))??;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            client: socket(client, 0)?,
            server: socket(server, PORT)?,
            target: SocketAddr::new(server.address, PORT),
            stop: AtomicBool::new(false),
            state: Mutex::new((false, Instant::now())),
        })
    }

    fn run(&self) -> Result<()> {
        pin(1)?;
        let mut sent = VecDeque::new();
        let (mut number, mut last_arrived, mut known) = (0_u64, 0, false);
        while !self.stop.load(Ordering::Acquire) {
            number += 1;
            sent.push_back((number, Instant::now()));
            if sent.len() > Self::REMEMBERED {
                sent.pop_front();
            }
            let newest = self.newest_arrival(number)?;
            let arrived = newest.is_some();
            let first = if known {
                last_arrived + 1
            } else {
                newest.unwrap_or(0)
            };
            last_arrived = newest.unwrap_or(last_arrived).max(last_arrived);
            let changed = if known {
                number - last_arrived > Self::SILENCE
            } else {
                arrived
            };
            let time = sent.iter().find(|(sent, _)| *sent >= first);
            if let (true, Some((_, time))) = (changed, time) {
                known = !known;
                *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (known, *time);
            }
        }
        Ok(())
    }

    /// Sends a datagram and waits a little; the newest that has arrived, which may be an earlier one that was held up.
    fn newest_arrival(&self, number: u64) -> Result<Option<u64>> {
        let sent = Instant::now();
        // A full queue is a datagram that did not arrive.
        let _ = self.client.send_to(&number.to_ne_bytes(), self.target);
        let (mut bytes, mut newest) = ([0; 8], None);
        loop {
            match self.server.recv(&mut bytes) {
                Ok(_) => newest = Some(u64::from_ne_bytes(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if sent.elapsed() > Self::FLIGHT {
                        return Ok(newest);
                    }
                }
                Err(error) => bail!("receiving: {error}"),
            }
            if newest == Some(number) {
                return Ok(newest);
            }
        }
    }

    /// When the first datagram was sent whose fate was `arrived`, after `start`.
    fn first(&self, arrived: bool, start: Instant) -> Result<Instant> {
        while start.elapsed() < PATIENCE {
            let (state, since) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state == arrived {
                return Ok(since);
            }
            thread::sleep(Duration::from_micros(100));
        }
        bail!(
            "datagrams still {} {PATIENCE:?} after the change",
            if arrived { "drop" } else { "arrive" }
        )
    }
}

fn at(sorted: &[u64], percent: usize) -> String {
    let value = percentile(sorted, percent).unwrap_or(0);
    format!("{}.{} µs", value / 1000, value % 1000 / 100)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
