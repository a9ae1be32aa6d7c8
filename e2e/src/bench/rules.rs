//! New TCP connections as the number of rules grows: Sluice beside iptables, ipset and an nftables set with rules of the same meaning.
//! Each rule admits one peer; the client's comes last.

use std::time::Duration;

use anyhow::Result;

use super::{
    Effort,
    ladder::{self, Ladder, Peers},
    pair::Pair,
    report::Table,
    wire::middle,
};
use crate::{
    stats::Median,
    wire::{Endpoint, Netfilter, Topology, connects},
};

/// What filters.
#[derive(Clone, Copy)]
enum Filter {
    Netfilter(Netfilter),
    Sluice(Peers),
}

const FILTERS: [(&str, Filter); 5] = [
    (
        "iptables-legacy, a rule each",
        Filter::Netfilter(Netfilter::Iptables),
    ),
    (
        "iptables-legacy, one rule and an ipset",
        Filter::Netfilter(Netfilter::Ipset),
    ),
    (
        "nftables, one rule and a set",
        Filter::Netfilter(Netfilter::NftSet),
    ),
    ("**Sluice**, label rules", Filter::Sluice(Peers::Labels)),
    (
        "**Sluice**, CIDR rules (the last by label)",
        Filter::Sluice(Peers::Cidrs),
    ),
];

/// A filter with its rules, in force. What holds it up is dropped with it.
struct Contender {
    client: Endpoint,
    server: Endpoint,
    _held: Held,
    samples: Vec<f64>,
}

#[allow(dead_code, reason = "held for what dropping them ends")]
enum Held {
    Topology(Topology),
    Pair(Box<Pair>),
}

impl Contender {
    fn new(filter: Filter, rules: u32) -> Result<Self> {
        let (client, server, held) = match filter {
            Filter::Netfilter(filter) => {
                let topology = Topology::router(filter, rules)?;
                (
                    topology.client.clone(),
                    topology.server.clone(),
                    Held::Topology(topology),
                )
            }
            Filter::Sluice(peers) => {
                let pair = Pair::new(&ladder::world(&Ladder { rules, peers }.documents())?)?;
                let (client, server) = pair.ends(0);
                (client, server, Held::Pair(Box::new(pair)))
            }
        };
        Ok(Self {
            client,
            server,
            _held: held,
            samples: Vec::new(),
        })
    }
}

/// Measures, and gives the table.
///
/// # Errors
/// A namespace can't be made, or traffic does not pass.
pub fn run(effort: Effort) -> Result<String> {
    let counts = effort.of(vec![10, 1_000, 10_000], vec![10, 100]);
    let (rounds, time) = (effort.of(20, 2), Duration::from_millis(effort.of(60, 30)));
    let mut contenders: Vec<Vec<Contender>> = Vec::new();
    for (name, filter) in FILTERS {
        eprintln!("rules: loading {name}");
        contenders.push(
            counts
                .iter()
                .map(|&rules| Contender::new(filter, rules))
                .collect::<Result<_>>()?,
        );
    }
    for round in 0..rounds {
        eprintln!("rules: round {} of {rounds}", round + 1);
        for contender in contenders.iter_mut().flatten() {
            let times = connects(&contender.client, &contender.server, time)?;
            contender.samples.push(middle(&times));
        }
    }
    let headings: Vec<String> = counts
        .iter()
        .map(|count| format!("{count} rules"))
        .collect();
    let mut columns = vec!["connect p50 µs [95 % interval]"];
    columns.extend(headings.iter().map(String::as_str));
    columns.push("most rules against fewest");
    let mut table = Table::new(&columns);
    for ((name, _), row) in FILTERS.iter().zip(&contenders) {
        let medians: Vec<String> = row.iter().map(|one| text(&one.samples)).collect();
        let growth = growth(row);
        let mut cells: Vec<&dyn std::fmt::Display> = vec![name];
        cells.extend(
            medians
                .iter()
                .map(|median| median as &dyn std::fmt::Display),
        );
        cells.push(&growth);
        table.row(&cells);
    }
    Ok(format!(
        "{rounds} rounds of {time:?} each, in turn.\n\n{table}"
    ))
}

fn text(samples: &[f64]) -> String {
    Median::of(samples).map_or_else(String::new, |m| {
        format!("{:.1} [{:.1}, {:.1}]", m.value, m.low, m.high)
    })
}

fn growth(row: &[Contender]) -> String {
    let (Some(fewest), Some(most)) = (row.first(), row.last()) else {
        return String::new();
    };
    let ratios: Vec<f64> = most
        .samples
        .iter()
        .zip(&fewest.samples)
        .map(|(most, fewest)| most / fewest)
        .collect();
    Median::of(&ratios).map_or_else(String::new, |median| format!("{median}×"))
}
