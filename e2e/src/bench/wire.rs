//! TCP between two pods whose both directions are under policy, beside a bare veth pair, a bridge and a router with netfilter. All are
//! measured in turn, round after round, and compared within each round.

use std::time::Duration;

use anyhow::Result;

use super::{
    Effort,
    ladder::{self, Ladder, Peers},
    pair::Pair,
    report::Table,
};
use crate::{
    stats::{Median, percentile},
    wire::{Endpoint, Netfilter, Topology, connects, request_response, stream},
};

/// Rules of every kind that filters.
const RULES: u32 = 10;

/// One path and what was measured on it: gigabits per second, and microseconds of request/response and connect, by round.
struct Path {
    name: &'static str,
    client: Endpoint,
    server: Endpoint,
    /// The path that this one is compared with.
    base: usize,
    rounds: [Vec<f64>; 3],
}

impl Path {
    fn new(name: &'static str, ends: (Endpoint, Endpoint), base: usize) -> Self {
        let (client, server) = ends;
        Self {
            name,
            client,
            server,
            base,
            rounds: Default::default(),
        }
    }

    fn of(name: &'static str, topology: &Topology, base: usize) -> Self {
        Self::new(
            name,
            (topology.client.clone(), topology.server.clone()),
            base,
        )
    }

    fn round(&mut self, time: Duration) -> Result<()> {
        let (client, server) = (&self.client, &self.server);
        self.rounds[0].push(stream(client, server, 2 * time)?);
        self.rounds[1].push(middle(&request_response(client, server, time)?));
        self.rounds[2].push(middle(&connects(client, server, time)?));
        Ok(())
    }
}

/// Measures, and gives the tables.
///
/// # Errors
/// A namespace can't be made, or traffic does not pass.
pub fn run(effort: Effort) -> Result<String> {
    let ladder = Ladder {
        rules: RULES,
        peers: Peers::Labels,
    };
    let pair = Pair::new(&ladder::world(&ladder.documents())?)?;
    let (bare, bare_v6) = (Topology::bare(0)?, Topology::bare(1)?);
    let (bridge, tracked) = (
        Topology::bridge()?,
        Topology::router(Netfilter::Conntrack, 1)?,
    );
    let filtered = Topology::router(Netfilter::Iptables, RULES)?;
    let mut paths = [
        Path::of("bare veth pair", &bare, 0),
        Path::of("bridge", &bridge, 0),
        Path::of("router, conntrack", &tracked, 0),
        Path::of("router, conntrack, 10 iptables rules", &filtered, 0),
        Path::new("**Sluice**, both pods under policy", pair.ends(0), 0),
        Path::of("bare veth pair, IPv6", &bare_v6, 5),
        Path::new("**Sluice**, IPv6", pair.ends(1), 5),
    ];
    let (rounds, time) = (effort.of(25, 2), Duration::from_millis(effort.of(100, 50)));
    for round in 0..rounds {
        eprintln!("wire: round {} of {rounds}", round + 1);
        // Every other round backwards, so that no path always follows the same one.
        for step in 0..paths.len() {
            let at = if round % 2 == 0 {
                step
            } else {
                paths.len() - 1 - step
            };
            paths[at].round(time)?;
        }
    }
    Ok(format!(
        "{rounds} rounds of {:?} each; policy: `{ladder}`. Ratios are medians over the rounds with their 95 % interval; more is better.\n\n{}",
        4 * time,
        table(&paths)
    ))
}

fn table(paths: &[Path]) -> Table {
    let mut table = Table::new(&[
        "path",
        "stream Gbit/s",
        "of bare",
        "request/response p50 µs",
        "rate of bare",
        "connect p50 µs",
        "rate of bare",
    ]);
    for path in paths {
        let base = &paths[path.base].rounds;
        let ratio = |what: usize, higher_is_better: bool| {
            let pairs = path.rounds[what].iter().zip(&base[what]);
            let ratios: Vec<f64> = pairs
                .map(|(own, base)| {
                    if higher_is_better {
                        own / base
                    } else {
                        base / own
                    }
                })
                .collect();
            Median::of(&ratios).map_or_else(String::new, |median| median.to_string())
        };
        let value =
            |what: usize| Median::of(&path.rounds[what]).map_or(f64::NAN, |median| median.value);
        let [gigabits, response, connect] = [0, 1, 2].map(|what| format!("{:.1}", value(what)));
        table.row(&[
            &path.name,
            &gigabits,
            &ratio(0, true),
            &response,
            &ratio(1, false),
            &connect,
            &ratio(2, false),
        ]);
    }
    table
}

/// The median of ascending nanoseconds, in microseconds.
pub(super) fn middle(sorted: &[u64]) -> f64 {
    percentile(sorted, 50).map_or(f64::NAN, |value| {
        Duration::from_nanos(value).as_secs_f64() * 1e6
    })
}
