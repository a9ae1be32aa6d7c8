//! What a verdict costs, by BPF test run of the real program over real maps, as the number of rules grows.
//!
//! A packet of a known flow can be run over and over: `hot`. A packet that opens a flow can't, so thousands of different ones are run
//! once each and the median is taken, for which the same packets, run once each through an empty program, are the harness to subtract.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use sluice_abi::event::Hook;
use sluice_agent::{FlowReader, Interface, Node};
use sluice_datapath::{net::Mac, sys::EmptyProgram, test_run::Input};

use super::{
    Effort, calico,
    ladder::{self, ACK, CLOSED, Ladder, OPEN, Peers, SERVER, SYN, draw, segment},
    pair::{enforced, node_sizes},
    report::Table,
};
use crate::stats::Median;

/// `TCX_DROP` (include/uapi/linux/bpf.h).
const DROP: u32 = 2;
/// An interface that packets from other nodes come in by; any but the server's.
const UPLINK: u32 = 9;
/// The server's interface: test runs need one that exists, and the loopback one always does.
const PLUG: u32 = 1;
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
/// Events are read this often, so that the ring never fills.
const READ_EVENTS_EVERY: usize = 64;

/// Medians in nanoseconds, nothing subtracted.
struct Figures {
    harness_hot: f64,
    harness_once: f64,
    established_hot: f64,
    denied_hot: f64,
    established_once: f64,
    allowed_once: f64,
    denied_once: f64,
}

/// What was measured of one kind of peers, number of rules and family (0 for IPv4); the harness is subtracted.
pub(super) struct Point {
    pub(super) peers: Peers,
    pub(super) rules: u32,
    pub(super) family: usize,
    pub(super) net: [f64; 5],
}

/// Measures, and gives the tables.
///
/// # Errors
/// The kernel refuses something, or a packet was not judged as it must be.
pub fn run(effort: Effort) -> Result<String> {
    let mut text = String::new();
    let mut points = Vec::new();
    let pods = effort.of(100_000, 1_000);
    for (kind, peers) in [
        (
            "Label rules, the cluster's pods spread over them",
            Peers::Groups { pods },
        ),
        ("Label rules, a pod for each", Peers::Labels),
        ("CIDR rules", Peers::Cidrs),
    ] {
        let table = grow(peers, effort, &mut points)?;
        let parameters = Ladder { rules: 0, peers }
            .to_string()
            .replace("rules=0", "rules=N");
        writeln!(text, "**{kind}** ({parameters}):\n\n{table}")?;
    }
    writeln!(text, "{}", calico::beside(&points))?;
    Ok(text)
}

/// Measures one kind of peers at every number of rules.
fn grow(peers: Peers, effort: Effort, points: &mut Vec<Point>) -> Result<Table> {
    let mut first = [None, None];
    let mut table = Table::new(&[
        "rules",
        "family",
        "established, hot",
        "new and denied, hot",
        "established, once",
        "new and allowed, once",
        "new and denied, once",
        "each against 10 rules",
        "harness hot / once",
    ]);
    for rules in effort.of(vec![10, 1_000, 10_000, 100_000], vec![10, 1_000]) {
        let ladder = Ladder { rules, peers };
        eprintln!("verdict: {ladder}");
        let (_, mut node) = enforced(&ladder::world(&ladder.documents())?, &node_sizes())?;
        plug(&mut node)?;
        for family in [0, 1] {
            let figures = measure(&node, ladder, family, effort)?;
            let net = figures.net();
            let base = *first[family].get_or_insert(net);
            row(&mut table, rules, family, &figures, net, base);
            points.push(Point {
                peers,
                rules,
                family,
                net,
            });
        }
    }
    Ok(table)
}

impl Figures {
    /// Less the harness.
    fn net(&self) -> [f64; 5] {
        let (hot, once) = (self.harness_hot, self.harness_once);
        [
            self.established_hot - hot,
            self.denied_hot - hot,
            self.established_once - once,
            self.allowed_once - once,
            self.denied_once - once,
        ]
    }
}

fn row(
    table: &mut Table,
    rules: u32,
    family: usize,
    figures: &Figures,
    net: [f64; 5],
    base: [f64; 5],
) {
    let raw = [
        figures.established_hot,
        figures.denied_hot,
        figures.established_once,
        figures.allowed_once,
        figures.denied_once,
    ];
    let cell = |at: usize| format!("{:.0} ({:.0})", net[at], raw[at]);
    let ratios: Vec<String> = (0..5)
        .map(|at| format!("{:.2}×", net[at] / base[at]))
        .collect();
    let harness = format!("{:.0} / {:.0}", figures.harness_hot, figures.harness_once);
    let family = if family == 0 { "IPv4" } else { "IPv6" };
    table.row(&[
        &rules,
        &family,
        &cell(0),
        &cell(1),
        &cell(2),
        &cell(3),
        &cell(4),
        &ratios.join(" "),
        &harness,
    ]);
}

fn plug(node: &mut Node) -> Result<()> {
    let interface = Interface {
        index: PLUG,
        mac: Mac(SERVER_MAC),
        host_mac: Mac(HOST_MAC),
        addresses: SERVER.to_vec(),
        uid: None,
    };
    Ok(node.know_interface(&ladder::pod("server"), interface)?)
}

fn measure(node: &Node, ladder: Ladder, family: usize, effort: Effort) -> Result<Figures> {
    let bench = Bench {
        node,
        ladder,
        family,
        empty: EmptyProgram::load()?,
        repeat: effort.of(4000, 200),
        hot: effort.of(256, 16),
        once: effort.of(4000, 300),
    };
    let mut events = node.flows()?;
    let opening = bench.frames(bench.once, 1, OPEN, SYN)?;
    let (allowed_once, harness_once) = bench.once_each(&mut events, &opening, true)?;
    let refused = bench.frames(bench.once, 2, CLOSED, SYN)?;
    let (denied_once, _) = bench.once_each(&mut events, &refused, false)?;
    let going_on = bench.frames(bench.once, 1, OPEN, ACK)?;
    bench.answer()?;
    bench.once_each(&mut events, &going_on, true)?;
    let (established_once, _) = bench.once_each(&mut events, &going_on, true)?;
    let (established_hot, harness_hot) = bench.over_and_over(&going_on, true)?;
    let (denied_hot, _) = bench.over_and_over(&refused, false)?;
    while events.next_event().is_some() {}
    node.datapath()
        .connections()?
        .collect_at(u64::MAX, &BTreeSet::new())?;
    Ok(Figures {
        harness_hot,
        harness_once,
        established_hot,
        denied_hot,
        established_once,
        allowed_once,
        denied_once,
    })
}

struct Bench<'a> {
    node: &'a Node,
    ladder: Ladder,
    family: usize,
    empty: EmptyProgram,
    repeat: u32,
    hot: u32,
    once: u32,
}

impl Bench<'_> {
    /// A packet to the server of each of `amount` flows, drawn uniformly over all rules' peers.
    fn frames(&self, amount: u32, seed: u64, port: u16, flags: u8) -> Result<Vec<Vec<u8>>> {
        let flows = draw(self.ladder, self.family, amount, seed);
        let server = (SERVER[self.family], port, SERVER_MAC);
        flows
            .into_iter()
            .map(|(peer, from)| segment((peer, from, HOST_MAC), server, flags))
            .collect()
    }

    /// The server answers all that asked, so that the connections are established.
    fn answer(&self) -> Result<()> {
        for (peer, port) in draw(self.ladder, self.family, self.once, 1) {
            let server = (SERVER[self.family], OPEN, SERVER_MAC);
            let frame = segment(server, (peer, port, HOST_MAC), SYN | ACK)?;
            let input = Input {
                ifindex: PLUG,
                ingress_ifindex: PLUG,
                ..Input::default()
            };
            let output = self
                .node
                .datapath()
                .test_run(Hook::FromEndpoint, &frame, &input)?;
            ensure!(
                output.code != DROP,
                "the server's answer to {peer} is dropped"
            );
        }
        Ok(())
    }

    /// Runs each packet once; the medians of the program and of the empty one.
    fn once_each(
        &self,
        events: &mut FlowReader,
        frames: &[Vec<u8>],
        pass: bool,
    ) -> Result<(f64, f64)> {
        let (mut program, mut harness) = (Vec::new(), Vec::new());
        for (number, frame) in frames.iter().enumerate() {
            program.push(self.run(frame, 1, pass)?);
            harness.push(nanoseconds(self.empty.run(frame, 1)?));
            if number % READ_EVENTS_EVERY == 0 {
                while events.next_event().is_some() {}
            }
        }
        Ok((median(&program), median(&harness)))
    }

    /// Runs some of the packets many times each; the medians of the program and of the empty one.
    fn over_and_over(&self, frames: &[Vec<u8>], pass: bool) -> Result<(f64, f64)> {
        let (mut program, mut harness) = (Vec::new(), Vec::new());
        for frame in frames.iter().take(self.hot as usize) {
            program.push(self.run(frame, self.repeat, pass)?);
            harness.push(nanoseconds(self.empty.run(frame, self.repeat)?));
        }
        Ok((median(&program), median(&harness)))
    }

    fn run(&self, frame: &[u8], repeat: u32, pass: bool) -> Result<f64> {
        let input = Input {
            ifindex: PLUG,
            ingress_ifindex: UPLINK,
            repeat,
            ..Input::default()
        };
        let output = self
            .node
            .datapath()
            .test_run(Hook::ToEndpoint, frame, &input)?;
        ensure!(
            (output.code != DROP) == pass,
            "{}: a packet that must {} gave code {}",
            self.ladder,
            if pass { "pass" } else { "drop" },
            output.code
        );
        Ok(nanoseconds(output.time))
    }
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

fn median(samples: &[f64]) -> f64 {
    Median::of(samples).map_or(f64::NAN, |median| median.value)
}
