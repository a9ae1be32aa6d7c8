//! The benchmarks' command line: `cargo xtask bench` builds and runs it.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use sluice_datapath::net::NetNs;
use sluice_e2e::bench::{Effort, change, cni, compile, report, rules, verdict, wire};

/// Measures Sluice on this machine and prints markdown tables. Needs root.
#[derive(Debug, Parser)]
#[command(
    bin_name = "cargo xtask bench",
    after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench verdict\n  cargo xtask bench all --write\n  cargo xtask bench wire --quick"
)]
struct Cli {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// Put the tables into docs/benchmarks.md
    #[arg(long)]
    write: bool,
    /// Fewer rounds, smaller worlds: to see that everything works
    #[arg(long, conflicts_with = "write")]
    quick: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything below, each in a process of its own: minutes
    All,
    /// Nanoseconds for each packet as rules grow, by BPF test run
    Verdict,
    /// The compiler: a whole cluster, one more identity, one changed policy
    Compile,
    /// A change in a long policy, and the time from a change to the wire
    Change,
    /// TCP between two pods beside a bare veth pair, a bridge and a router
    Wire,
    /// New connections as rules grow, beside iptables, ipset and nftables
    Rules,
    /// A pod's interface, from the plugin's start to its end, beside the reference bridge plugin
    Cni,
}

const EACH: [What; 6] = [
    What::Verdict,
    What::Compile,
    What::Change,
    What::Wire,
    What::Rules,
    What::Cni,
];

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.what {
        What::All => all(&cli),
        what => one(what, &cli),
    }
}

/// Runs each in a process of its own: memory of one must not count for the next, and one that fails must not end the others.
fn all(cli: &Cli) -> Result<()> {
    let program = std::env::current_exe()?;
    let mut failed = Vec::new();
    for what in EACH {
        let flags = [(cli.write, "--write"), (cli.quick, "--quick")];
        let flags = flags
            .into_iter()
            .filter_map(|(set, flag)| set.then_some(flag));
        let mut child = Command::new(&program).arg(name(what)).args(flags).spawn()?;
        let number = child.id();
        let status = child.wait()?;
        if !status.success() {
            failed.push(name(what));
        }
        sweep(number)?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "));
}

/// Removes the namespaces that a process left if it was killed.
fn sweep(process: u32) -> Result<()> {
    for left in NetNs::list(&format!("sluice-bench-{process}-"))? {
        NetNs::delete(&left)?;
    }
    Ok(())
}

fn one(what: What, cli: &Cli) -> Result<()> {
    let effort = Effort { quick: cli.quick };
    let machine = report::machine();
    let start = Instant::now();
    let figures = match what {
        What::All => return all(cli),
        What::Verdict => verdict::run(effort),
        What::Compile => compile::run(effort),
        What::Change => change::run(effort),
        What::Wire => wire::run(effort),
        What::Rules => rules::run(effort),
        What::Cni => cni::run(effort),
    };
    let figures = figures.with_context(|| format!("benchmark {}", name(what)))?;
    let took = start.elapsed().as_secs();
    let text = format!(
        "`cargo xtask bench {}`, {took} s; {machine}.\n\n{figures}",
        name(what)
    );
    println!("## {}\n\n{text}", name(what));
    if cli.write {
        report::write_section(&document()?, name(what), &text)?;
    }
    Ok(())
}

fn document() -> Result<PathBuf> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .context("--write works through `cargo xtask bench` only")?;
    Ok(Path::new(&package).join("../docs/benchmarks.md"))
}

fn name(what: What) -> &'static str {
    match what {
        What::All => "all",
        What::Verdict => "verdict",
        What::Compile => "compile",
        What::Change => "change",
        What::Wire => "wire",
        What::Rules => "rules",
        What::Cni => "cni",
    }
}
