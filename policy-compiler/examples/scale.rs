//! Measures the compiler over a generated cluster: `cargo run --release -p sluice-policy --example scale [policies workloads pods]`.
//! The whole compile is timed on the processor (others on the machine don't count), single changes by the clock, since the scheduler's
//! count is coarse; memory is the whole process's. Every parameter is printed beside the figures.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_policy::{Delta, Index, ItemRef, Settings};
use sluice_world::{Inputs, Labels, Mode, Pod, Policy, World, WorldItem, build};
use sluice_worldgen::{Parameters, generate_seeded};

fn main() {
    let numbers: Vec<u32> = std::env::args()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .collect();
    let [policies, workloads, pods] = numbers[..] else {
        return measure(&Parameters::scale(10_000, 10_000, 100_000));
    };
    measure(&Parameters::scale(policies, workloads, pods));
}

fn measure(parameters: &Parameters) {
    println!("{parameters}");
    let world = generated_world(parameters);
    let items = world.items();
    let mut index = Index::new(Settings {
        mode: Mode::Default,
        ..Settings::default()
    });
    let start = Moment::now();
    for item in items {
        index.apply(item);
    }
    let applied = start.elapsed();
    let delta = index.commit();
    let whole = start.elapsed();
    println!(
        "whole compile: {whole:?} (staging {applied:?}); {}",
        summary(&delta)
    );
    drop(delta);
    println!(
        "memory: {} MiB resident (index, and the world it was made from)",
        resident() >> 20
    );
    new_identities(&mut index, &world);
    changed_policies(&mut index, &world);
}

/// One pod with labels nobody has yet, many times: each is one new identity.
fn new_identities(index: &mut Index, world: &World) {
    let mut per_subject = Vec::new();
    let mut times = Vec::new();
    let model: Vec<&Pod> = world
        .pods
        .values()
        .filter(|pod| !pod.host_network && !pod.external)
        .collect();
    for (number, pod) in model.iter().step_by((model.len() / 200).max(1)).enumerate() {
        let mut new = (*pod).clone();
        new.id.name = format!("new-{number}");
        new.addresses = vec![[203, 0, 113, u8::try_from(number % 250).unwrap_or(0)].into()];
        // The union of two pods' labels is a new combination nearly always.
        let other: &Labels = &model[(number * 37 + 11) % model.len()].labels;
        for (key, value) in other {
            new.labels
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
        let id = new.id.clone();
        index.apply(WorldItem::Pod(new));
        let start = Instant::now();
        let delta = index.commit();
        let time = start.elapsed();
        if !delta.identities.is_empty() {
            let tables = u32::try_from(delta.tables.len().max(1)).unwrap_or(1);
            times.push(time);
            per_subject.push(time / tables);
        }
        index.delete(ItemRef::Pod(id));
        index.commit();
    }
    print("one new identity", &mut times);
    print(
        "one new identity, per table it is written to",
        &mut per_subject,
    );
}

/// One policy deleted, and put again, many times: times of policies that relabel no identity.
fn changed_policies(index: &mut Index, world: &World) {
    let (mut times, mut relabelling, mut entries) = (Vec::new(), Vec::new(), 0);
    let policies: Vec<&Arc<Policy>> = world.policies.values().collect();
    for policy in policies.iter().step_by((policies.len() / 500).max(1)) {
        for present in [false, true] {
            if present {
                index.apply(WorldItem::Policy(Arc::clone(policy)));
            } else {
                index.delete(ItemRef::Policy(policy.origin().clone()));
            }
            let start = Instant::now();
            let delta = index.commit();
            let time = start.elapsed();
            if delta.identities.is_empty() && delta.dropped_identities.is_empty() {
                times.push(time);
                entries += delta
                    .tables
                    .iter()
                    .map(|t| t.set.len() + t.removed.len())
                    .sum::<usize>();
            } else {
                relabelling.push(time);
            }
        }
    }
    println!(
        "entries written by {} policy changes: {entries}",
        times.len()
    );
    print("one policy changed", &mut times);
    print(
        "one policy changed that relabels identities",
        &mut relabelling,
    );
}

fn generated_world(parameters: &Parameters) -> World {
    let generated = generate_seeded(parameters, 1);
    let (objects, problems) = sluice_crds::manifest::read("generated", &generated.manifest());
    assert!(!objects.is_empty(), "{problems:?}");
    build(objects.into_iter().collect::<Inputs>()).unwrap_or_else(|error| panic!("{error}"))
}

fn summary(delta: &Delta) -> String {
    let entries: usize = delta.tables.iter().map(|table| table.set.len()).sum();
    format!(
        "{} identities, {} tables, {entries} entries, {} programs, {} trie ranges, {} attribution slots, {} addresses, {} prefixes",
        delta.identities.len(),
        delta.tables.len(),
        delta.programs.len(),
        delta.ranges.len(),
        delta.attributions.len(),
        delta.addresses.len(),
        delta.prefixes.len()
    )
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let Some(last) = times.last() else {
        return println!("{what}: none");
    };
    let at = |percent: usize| times[times.len() * percent / 100];
    println!(
        "{what}: p50 {:?}, p99 {:?}, max {last:?} (n={})",
        at(50),
        at(99),
        times.len()
    );
}

/// A moment of this thread's own time.
#[derive(Clone, Copy)]
struct Moment(u64);

impl Moment {
    /// Nanoseconds this thread has been on a processor, as the scheduler counts them.
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
        let first = text
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok());
        Self(first.expect("a number of nanoseconds"))
    }

    fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0 - self.0)
    }
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| {
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<usize>()
            .ok()
    })
    .map_or(0, |kib| kib << 10)
}
