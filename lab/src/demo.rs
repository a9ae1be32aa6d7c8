//! The demonstration: a shop of pods, first without and then with its policies, tried in earnest both times and compared with the
//! reference evaluator. What is printed goes to a closure; terminals may not enter.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sluice_agent::{FlowKind, FlowReader};
use sluice_reference::Evaluator;
use sluice_world::{Learned, Mode, World};

use crate::{
    LabError, LabName,
    control::Response,
    probe::{
        matrix::{self, Style},
        report::{self, Cell, Options as ProbeOptions},
    },
    store::{self, Manifest},
    supervisor::{Options, Supervisor},
};

/// How many live drops are shown of each reason and rule.
const SHOWN_DROPS: usize = 3;
/// How long drops are watched for.
const WATCH: Duration = Duration::from_secs(2);

/// What to show.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// A folder of manifests with a folder `policies` in it.
    pub shop: PathBuf,
    /// The lab's name.
    pub name: LabName,
    /// The `sluice` program, started again for responders.
    pub program: PathBuf,
    /// How to print the matrices.
    pub style: Style,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cells tried in all.
    pub cells: usize,
    /// Cells in which reality was not what the reference evaluator says.
    pub wrong: usize,
    /// Whether something was left on the machine.
    pub leftovers: bool,
}

/// Brings the shop up, shows it, and removes it, also when something fails in between.
///
/// # Errors
/// The lab can't be brought up or tried; it is removed by then.
pub fn run(options: &DemoOptions, say: &dyn Fn(&str)) -> Result<Outcome, LabError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(LabError::io("listening to signals"))?;
    }
    let began = Instant::now();
    let pods = top_level(&options.shop)?;
    say(&format!(
        "== 1. {} becomes pods: network namespaces with veths, addresses, responders; the eBPF programs are loaded",
        options.shop.display()
    ));
    let mut supervisor = Supervisor::up(&Options {
        name: options.name.clone(),
        sources: pods,
        mode: Some(Mode::Default),
        watch: false,
        program: options.program.clone(),
    })?;
    say(&format!(
        "   {} pods after {:.1} s",
        supervisor.world().pods.len(),
        began.elapsed().as_secs_f32()
    ));
    let shown = show(&mut supervisor, options, say, &interrupted);
    say("== 5. Everything is removed");
    let removed = supervisor.down()?;
    let leftovers = !crate::cleanup::remove(&options.name)?.is_empty();
    say(&format!(
        "   {} network namespaces gone; all of it took {:.1} s",
        removed.namespaces,
        began.elapsed().as_secs_f32()
    ));
    Ok(Outcome {
        leftovers,
        ..shown?
    })
}

fn show(
    supervisor: &mut Supervisor,
    options: &DemoOptions,
    say: &dyn Fn(&str),
    interrupted: &AtomicBool,
) -> Result<Outcome, LabError> {
    let mut reader = supervisor.agent().flows()?;
    say(
        "== 2. Who reaches whom without policies: every pod tries every port of every other, over IPv4 and IPv6",
    );
    let mut outcome = Outcome::default();
    try_all(supervisor, options, say, &mut outcome)?;
    stop_if(interrupted)?;
    say("== 3. The policies are applied, and everybody tries again");
    let policies = store::read_paths(&[options.shop.join("policies")])?;
    enforce(supervisor, &policies, say)?;
    drain(&mut reader)?;
    try_all(supervisor, options, say, &mut outcome)?;
    stop_if(interrupted)?;
    say("== 4. What the kernel just dropped, as its events tell it");
    show_drops(&mut reader, say)?;
    stop_if(interrupted)?;
    Ok(outcome)
}

fn try_all(
    supervisor: &Supervisor,
    options: &DemoOptions,
    say: &dyn Fn(&str),
    outcome: &mut Outcome,
) -> Result<(), LabError> {
    let began = Instant::now();
    let cells = probe(
        supervisor.name(),
        supervisor.world(),
        ProbeOptions {
            ping: true,
            ..ProbeOptions::default()
        },
    )?;
    say(&matrix::render(&cells, options.style));
    let wrong: Vec<&Cell> = cells.iter().filter(|cell| !cell.agrees()).collect();
    for cell in &wrong {
        say(&format!(
            "   NOT AS THE REFERENCE EVALUATOR SAYS: {}",
            describe(cell)
        ));
    }
    say(&format!(
        "   {} of {} tries arrived, {} differ from the reference evaluator; {:.1} s",
        cells.iter().filter(|cell| cell.reached).count(),
        cells.len(),
        wrong.len(),
        began.elapsed().as_secs_f32()
    ));
    outcome.cells += cells.len();
    outcome.wrong += wrong.len();
    Ok(())
}

/// Tries everything, beside what the reference evaluator says.
///
/// # Errors
/// A pod's namespace can't be entered.
pub fn probe(lab: &LabName, world: &World, options: ProbeOptions) -> Result<Vec<Cell>, LabError> {
    probe_in_mode(lab, world, Mode::Default, options)
}

/// As [`probe`], in another enforcement mode.
///
/// # Errors
/// A pod's namespace can't be entered.
pub fn probe_in_mode(
    lab: &LabName,
    world: &World,
    mode: Mode,
    options: ProbeOptions,
) -> Result<Vec<Cell>, LabError> {
    let learned = Learned::default();
    let evaluator = Evaluator::new(world, &learned, mode);
    report::probe(lab, world, &|query| evaluator.evaluate(query), options)
}

/// One line about a cell that is not as it should be.
#[must_use]
pub fn describe(cell: &Cell) -> String {
    format!(
        "{} → {} {:?} port {} ({}): {:?}, but {}",
        cell.from,
        cell.to,
        cell.transport,
        cell.port,
        cell.address,
        cell.outcome,
        matrix::explain(&cell.answer)
    )
}

fn enforce(
    supervisor: &mut Supervisor,
    policies: &[Manifest],
    say: &dyn Fn(&str),
) -> Result<(), LabError> {
    if let Response::Changed {
        objects, micros, ..
    } = supervisor.apply(policies)?
    {
        say(&format!(
            "   {} objects compiled, written and in force after {:.1} ms",
            objects.len(),
            Duration::from_micros(micros).as_secs_f64() * 1e3
        ));
    }
    supervisor.settle()
}

fn drain(reader: &mut FlowReader) -> Result<(), LabError> {
    while !reader.read(Duration::ZERO)?.is_empty() {}
    Ok(())
}

fn show_drops(reader: &mut FlowReader, say: &dyn Fn(&str)) -> Result<(), LabError> {
    let began = Instant::now();
    let mut shown: BTreeMap<_, usize> = BTreeMap::new();
    let mut told = 0_usize;
    while began.elapsed() < WATCH {
        let flows = reader.read(Duration::from_millis(100))?;
        if flows.is_empty() {
            break;
        }
        for flow in flows.iter().filter(|flow| flow.kind == FlowKind::Drop) {
            told += 1;
            // A few of each reason and rule are enough to look at.
            let reason = (
                flow.reason.clone(),
                flow.source.rule.clone(),
                flow.destination.rule.clone(),
                flow.source.verdict.clone(),
            );
            let of_reason = shown.entry(reason).or_default();
            *of_reason += 1;
            if *of_reason <= SHOWN_DROPS {
                say(&format!("   {flow}"));
            }
        }
    }
    say(&format!(
        "   … {told} drop events in all (their number is limited per pod and reason)"
    ));
    Ok(())
}

fn stop_if(interrupted: &AtomicBool) -> Result<(), LabError> {
    if interrupted.load(Ordering::Relaxed) {
        Err(LabError::Refused("interrupted".to_owned()))
    } else {
        Ok(())
    }
}

/// The manifests of a folder, not those of folders in it.
fn top_level(shop: &Path) -> Result<Vec<PathBuf>, LabError> {
    let context = format!(
        "reading {} (run from the project's folder, or give --shop)",
        shop.display()
    );
    let mut files = Vec::new();
    for entry in std::fs::read_dir(shop).map_err(LabError::io(context.clone()))? {
        let path = entry.map_err(LabError::io(context.clone()))?.path();
        if path.is_file()
            && path
                .extension()
                .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
