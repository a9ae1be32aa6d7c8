//! The programs in the kernel agree with the reference evaluator on everything the generator can think of.
//!
//! Runs where `SLUICE_KERNEL_TESTS` is set, as `cargo xtask test` does: it needs root and the eBPF programs. `SLUICE_KERNEL_WORLDS`
//! says over how many worlds (1,000 unless set), `SLUICE_SEED` which ones.
#![forbid(unsafe_code)]

mod differential;

use differential::Engine;
use sluice_agent::KernelEngine;
use sluice_world::{Answer, Learned, Mode, Query, World};

/// Worlds where nothing else is asked for.
const WORLDS: u32 = 1_000;

impl Engine for KernelEngine {
    const NAME: &'static str = "kernel";

    fn new(world: &World, learned: &Learned, mode: Mode) -> Self {
        Self::new(world, learned, mode).expect("the world gets into the kernel")
    }

    fn answers(&mut self, queries: &[Query]) -> Vec<Answer> {
        let answers = queries.iter().map(|query| self.answer(query));
        answers
            .collect::<Result<_, _>>()
            .expect("the kernel judges every query")
    }
}

#[test]
fn kernel_agrees_with_reference() {
    if std::env::var_os("SLUICE_KERNEL_TESTS").is_none() {
        println!("not run: SLUICE_KERNEL_TESTS is not set; `cargo xtask test` sets it");
        return;
    }
    let coverage = differential::run::<KernelEngine>("SLUICE_KERNEL_WORLDS", WORLDS);
    println!("{coverage}");
    coverage.expect_corners(WORLDS);
}
