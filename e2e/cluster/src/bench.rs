//! What pods' traffic costs beside the baseline: clusters that are up at the same time, measured in turn within each round, so that what else
//! the machine does meets all of them alike. Starting clusters may not enter.

pub(crate) mod load;
mod scene;

use std::{fmt::Display, path::Path, time::Duration};

use anyhow::{Result, ensure};
use sluice_figures::{report::Table, report::machine, report::write_section, stats::Median};

use self::scene::{Place, Scene};
use crate::{cli::Bench, commands::say};

/// The markers' name in the document.
const SECTION: &str = "throughput";

/// One kind of traffic.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// The word for it.
    word: &'static str,
    text: &'static str,
    /// What a figure is divided by to be of `unit`.
    divisor: f64,
    unit: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        word: "stream",
        text: "TCP stream",
        divisor: 1e9 / 8.0,
        unit: "Gbit/s",
    },
    Kind {
        word: "ask",
        text: "TCP request and answer",
        divisor: 1e3,
        unit: "thousand/s",
    },
];

/// One row of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    kind: Kind,
    place: Place,
    ipv4: bool,
}

impl Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match self.place {
            Place::SameNode => "one node",
            Place::OtherNode => "two nodes",
        };
        let family = if self.ipv4 { "IPv4" } else { "IPv6" };
        write!(f, "{}, {place}, {family}", self.kind.text)
    }
}

/// Measures, and shows or writes the table.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    ensure!(bench.rounds > 0, "no round is no figure");
    let before = machine();
    let names = [&bench.baseline].into_iter().chain(&bench.clusters);
    let scenes = names.map(Scene::open).collect::<Result<Vec<_>>>()?;
    let time = Duration::from_millis(bench.milliseconds);
    let mut samples = vec![vec![Vec::new(); scenes.len()]; rows().len()];
    for round in 0..bench.rounds {
        say(&format!("round {} of {}", round + 1, bench.rounds));
        for (row, samples) in rows().into_iter().zip(&mut samples) {
            for turn in 0..scenes.len() {
                // Whoever is first in one round is last in the next.
                let at = (turn + round) % scenes.len();
                let figure = scenes[at].measure(row.kind.word, row.place, row.ipv4, time)?;
                samples[at].push(figure / row.kind.divisor);
            }
        }
    }
    let networks: Vec<&str> = scenes.iter().map(|scene| scene.network.as_str()).collect();
    let text = format!(
        "`cargo xtask cluster bench`, {} rounds of {} ms each; {before}.\n\n{}",
        bench.rounds,
        bench.milliseconds,
        table(&networks, &samples)
    );
    println!("{text}");
    if bench.write {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md");
        write_section(&document, SECTION, &text)?;
    }
    Ok(())
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for kind in KINDS {
        for place in [Place::SameNode, Place::OtherNode] {
            for ipv4 in [true, false] {
                rows.push(Row { kind, place, ipv4 });
            }
        }
    }
    rows
}

/// Medians of each network, and of what each is of the first one's in the same round.
fn table(networks: &[&str], samples: &[Vec<Vec<f64>>]) -> Table {
    let mut columns = vec!["traffic".to_owned()];
    columns.extend(networks.iter().map(|network| (*network).to_owned()));
    let others = networks.iter().skip(1);
    columns.extend(others.map(|network| format!("{network} ÷ {}", networks[0])));
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new(&columns);
    for (row, of_networks) in rows().into_iter().zip(samples) {
        let mut cells = vec![row.to_string()];
        for figures in of_networks {
            cells.push(median(figures, &format!(" {}", row.kind.unit), 1));
        }
        for figures in of_networks.iter().skip(1) {
            let pairs = figures.iter().zip(&of_networks[0]);
            let ratios: Vec<f64> = pairs.map(|(own, base)| own / base).collect();
            cells.push(median(&ratios, "×", 2));
        }
        let cells: Vec<&dyn Display> = cells.iter().map(|cell| cell as &dyn Display).collect();
        table.row(&cells);
    }
    table
}

fn median(samples: &[f64], unit: &str, digits: usize) -> String {
    Median::of(samples).map_or_else(
        || "-".to_owned(),
        |Median {
             value, low, high, ..
         }| format!("{value:.digits$}{unit} [{low:.digits$}, {high:.digits$}]"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let mut samples = vec![vec![vec![1.0; 3]; 2]; rows().len()];
        // Twice the baseline in every round, however the rounds differ.
        samples[0] = vec![vec![1.0, 10.0, 100.0], vec![2.0, 20.0, 200.0]];
        let text = table(&["base", "vxlan"], &samples).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| traffic | base | vxlan | vxlan ÷ base |");
        assert_eq!(
            lines[2],
            "| TCP stream, one node, IPv4 | 10.0 Gbit/s [1.0, 100.0] | 20.0 Gbit/s [2.0, 200.0] | 2.00× [2.00, 2.00] |"
        );
        assert_eq!(lines.len(), 2 + 8, "two kinds, two places, two families");
    }
}
