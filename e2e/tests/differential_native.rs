//! The compiled engine agrees with the reference evaluator on everything the generator can think of.
//!
//! `SLUICE_WORLDS` says over how many worlds (10,000 unless set), `SLUICE_SEED` which ones.
#![forbid(unsafe_code)]

mod differential;

use differential::Engine;
use sluice_world::{Answer, Learned, Mode, Query, World};

/// Worlds where nothing else is asked for.
const WORLDS: u32 = 10_000;

/// The compiled tables and the look-up the kernel runs, natively.
struct Compiled(sluice_policy::Engine);

impl Engine for Compiled {
    const NAME: &'static str = "compiled";

    fn new(world: &World, learned: &Learned, mode: Mode) -> Self {
        Self(sluice_policy::Engine::new(world, learned, mode))
    }

    fn answers(&mut self, queries: &[Query]) -> Vec<Answer> {
        queries.iter().map(|query| self.0.answer(query)).collect()
    }
}

#[test]
fn compiled_agrees_with_reference() {
    let coverage = differential::run::<Compiled>("SLUICE_WORLDS", WORLDS);
    println!("{coverage}");
    coverage.expect_corners(WORLDS);
}
