//! What the compiler takes for a generated cluster: whole, for one new identity, for one changed policy. No kernel.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use sluice_policy::{Delta, Index, ItemRef, Settings};
use sluice_world::{Labels, Pod, Policy, World, WorldItem};
use sluice_worldgen::{Parameters, generate_seeded};

use super::{Effort, ladder, report::Table};
use crate::{stats::percentile, wire::pin};

/// Measures, and gives the tables.
///
/// # Errors
/// The generated world is refused.
pub fn run(effort: Effort) -> Result<String> {
    pin(1)?;
    let parameters = effort.of(
        Parameters::scale(10_000, 10_000, 100_000),
        Parameters::scale(1000, 1000, 5000),
    );
    eprintln!("compile: generating {parameters}");
    // On a thread of its own, whose memory the allocator keeps apart: what it frees must not be filled by the index, unseen.
    let world = std::thread::scope(|scope| {
        let made = scope.spawn(|| ladder::world(&generate_seeded(&parameters, 1).documents));
        made.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let items = world.items();
    let before = resident();
    let mut index = Index::new(Settings::default());
    eprintln!("compile: {} objects", items.len());
    let start = Instant::now();
    for item in items {
        index.apply(item);
    }
    let delta = index.commit();
    let whole = start.elapsed();
    let size = summary(&delta);
    let held = (resident() - before) >> 20;
    drop(delta);
    let mut table = Table::new(&["", "p50", "p99", "most", "samples", "map operations, mean"]);
    eprintln!("compile: one identity more, again and again");
    new_identities(&mut index, &world, &mut table);
    eprintln!("compile: one policy changed, again and again");
    changed_policies(&mut index, &world, &mut table);
    Ok(format!(
        "Parameters: `{parameters}`\n\nWhole compile, one core: **{:.2} s**, {held} MiB resident for the index with its delta.\nIt makes {size}.\n\n{table}\n",
        whole.as_secs_f64()
    ))
}

/// Times of one kind of change.
#[derive(Default)]
struct Times {
    nanoseconds: Vec<u64>,
    operations: usize,
}

impl Times {
    fn add(&mut self, time: Duration, delta: &Delta) {
        self.nanoseconds
            .push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.operations += operations(delta);
    }

    fn row(mut self, what: &str, table: &mut Table) {
        self.nanoseconds.sort_unstable();
        let all = &self.nanoseconds;
        let at = |percent| percentile(all, percent).map_or_else(|| "none".to_owned(), micros);
        let mean = self.operations.checked_div(all.len()).unwrap_or(0);
        table.row(&[&what, &at(50), &at(99), &at(100), &all.len(), &mean]);
    }
}

/// Microseconds as text.
fn micros(nanoseconds: u64) -> String {
    format!("{}.{} µs", nanoseconds / 1000, nanoseconds % 1000 / 100)
}

/// One pod with labels nobody has yet, many times: each is one new identity.
fn new_identities(index: &mut Index, world: &World, table: &mut Table) {
    let (mut whole, mut per_subject) = (Times::default(), Times::default());
    let model: Vec<&Pod> = world
        .pods
        .values()
        .filter(|pod| !pod.host_network && !pod.external)
        .collect();
    for (number, pod) in model
        .iter()
        .step_by((model.len() / 1000).max(1))
        .enumerate()
    {
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
            whole.add(time, &delta);
            per_subject.add(time / tables, &Delta::default());
        }
        index.delete(ItemRef::Pod(id));
        index.commit();
    }
    whole.row("one new identity", table);
    per_subject.row(
        "the same, divided by the tables that it is written to",
        table,
    );
}

/// One policy deleted, and put again, many times.
fn changed_policies(index: &mut Index, world: &World, table: &mut Table) {
    let (mut one, mut more, mut relabelling) =
        (Times::default(), Times::default(), Times::default());
    let policies: Vec<&Arc<Policy>> = world.policies.values().collect();
    for policy in policies.iter().step_by((policies.len() / 1000).max(1)) {
        for present in [false, true] {
            if present {
                index.apply(WorldItem::Policy(Arc::clone(policy)));
            } else {
                index.delete(ItemRef::Policy(policy.origin().clone()));
            }
            let start = Instant::now();
            let delta = index.commit();
            let time = start.elapsed();
            let same_identities =
                delta.identities.is_empty() && delta.dropped_identities.is_empty();
            let kind = match (same_identities, delta.tables.len()) {
                (false, _) => &mut relabelling,
                (true, 0..=2) => &mut one,
                (true, _) => &mut more,
            };
            kind.add(time, &delta);
        }
    }
    one.row(
        "one policy deleted or put, up to two tables change (one subject)",
        table,
    );
    more.row("the same, more tables change", table);
    relabelling.row("the same, where it relabels identities", table);
}

/// Elements that putting the delta in force writes: a table that changes takes one more, its revision. What goes is not counted.
fn operations(delta: &Delta) -> usize {
    let tables: usize = delta
        .tables
        .iter()
        .map(|table| table.set.len() + table.removed.len() + 1)
        .sum();
    tables
        + delta.programs.len()
        + delta.ranges.len()
        + delta.attributions.len()
        + delta.prefixes.len()
        + delta.addresses.len()
        + delta.endpoints.len()
}

fn summary(delta: &Delta) -> String {
    let entries: usize = delta.tables.iter().map(|table| table.set.len()).sum();
    format!(
        "{} identities, {} tables with {entries} entries, {} programs, {} trie ranges, {} attribution slots, {} addresses, {} prefixes",
        delta.identities.len(),
        delta.tables.len(),
        delta.programs.len(),
        delta.ranges.len(),
        delta.attributions.len(),
        delta.addresses.len(),
        delta.prefixes.len()
    )
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
