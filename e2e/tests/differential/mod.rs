//! The differential test of any engine against the reference: generated worlds, shrinking, and a report one can paste into a shell.
//!
//! ```text
//! proptest ─> Recording ─> worldgen ─> manifests, queries ─> reader, builder ─> World ─> reference ┐
//!                                                                                     └> engine ───┴─ equal, whole Answers
//! ```

mod case;
mod coverage;
mod report;

use std::thread;

use proptest::{
    collection::vec,
    prelude::{Strategy, any},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use sluice_world::{Answer, Learned, Mode, Query, World};
use sluice_worldgen::{Generated, Parameters, Recording, generate};

use case::Case;
pub(crate) use coverage::Coverage;

/// Threads that test; each has its own worlds.
const THREADS: u32 = 2;
/// Steps proptest may take to shrink; the rest is done on the manifests themselves.
const SHRINK_STEPS: u32 = 3_000;

/// An engine to hold against the reference.
pub(crate) trait Engine {
    /// What the command line calls it.
    const NAME: &'static str;

    /// Makes the engine ready for one world.
    fn new(world: &World, learned: &Learned, mode: Mode) -> Self;

    /// Judges queries, in order.
    fn answers(&mut self, queries: &[Query]) -> Vec<Answer>;
}

/// Holds the engine against the reference over as many worlds as the variable says, or `worlds` where it is not set.
///
/// # Panics
/// Where they differ, with the smallest world found in which they do.
pub(crate) fn run<E: Engine>(variable: &str, worlds: u32) -> Coverage {
    let worlds = number(variable).unwrap_or(worlds);
    let seed = number("SLUICE_SEED").unwrap_or(0);
    println!("{worlds} worlds, seed {seed}");
    for parameters in Parameters::small_worlds() {
        println!("parameters: {parameters}");
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || share::<E>(worlds.div_ceil(THREADS), seed, thread)))
            .collect();
        let mut coverage = Coverage::default();
        let mut failures = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(Ok(share)) => coverage.merge(share),
                Ok(Err(report)) => failures.push(report),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        coverage
    })
}

/// One thread's share of the worlds; `Err` is the report of a difference.
fn share<E: Engine>(worlds: u32, seed: u32, thread: u32) -> Result<Coverage, String> {
    let config = Config {
        cases: worlds,
        max_shrink_iters: SHRINK_STEPS,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    bytes[4..8].copy_from_slice(&thread.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let coverage = std::cell::RefCell::new(Coverage::default());
    let result = runner.run(&(mode(), kind(), recording()), |(mode, kind, recording)| {
        let case = Case::read(&generated(kind, &recording), mode);
        case.compare::<E>(&mut coverage.borrow_mut())
            .map_err(|difference| TestCaseError::fail(difference.to_string()))
    });
    match result {
        Ok(()) => Ok(coverage.into_inner()),
        Err(TestError::Fail(_, (mode, kind, recording))) => {
            Err(report::report::<E>(&generated(kind, &recording), mode))
        }
        Err(TestError::Abort(reason)) => Err(format!("the test was aborted: {reason}")),
    }
}

/// The world of a recording, of one of the kinds of small world.
fn generated(kind: usize, recording: &Recording) -> Generated {
    generate(&Parameters::small_worlds()[kind], recording)
}

/// Which kind of small world; the broad one is the most frequent.
fn kind() -> impl Strategy<Value = usize> {
    proptest::prop_oneof![
        3 => proptest::strategy::Just(0),
        1 => proptest::strategy::Just(1),
        1 => proptest::strategy::Just(2),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    proptest::prop_oneof![
        9 => proptest::strategy::Just(Mode::Default),
        3 => proptest::strategy::Just(Mode::Always),
        1 => proptest::strategy::Just(Mode::Never),
    ]
}

fn recording() -> impl Strategy<Value = Recording> {
    let numbers = |length| vec(any::<u32>(), length);
    (
        numbers(160),
        vec(numbers(90), 0..=6),
        vec(numbers(14), 20..=40),
    )
        .prop_map(|(world, policies, queries)| Recording {
            world,
            policies,
            queries,
        })
}

fn number(variable: &str) -> Option<u32> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} has to be a number, not {text:?}")),
    )
}
