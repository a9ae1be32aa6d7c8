//! A run of stages, each of which needs those before it, with their times as a table at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::commands::say;

/// The stages run so far.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    rows: Vec<(&'static str, Duration, bool)>,
}

impl Stages {
    /// Runs a stage.
    pub(crate) fn run<T>(
        &mut self,
        name: &'static str,
        stage: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        say(&format!("stage: {name}"));
        let begin = Instant::now();
        let outcome = stage();
        self.rows.push((name, begin.elapsed(), outcome.is_ok()));
        outcome.with_context(|| format!("stage `{name}`"))
    }
}

impl Drop for Stages {
    /// Shown however the run ends.
    fn drop(&mut self) {
        println!("\n{:<32} {:>8}  result", "stage", "time");
        for (name, time, passed) in &self.rows {
            println!(
                "{name:<32} {:>6.1} s  {}",
                time.as_secs_f64(),
                if *passed { "passed" } else { "FAILED" }
            );
        }
        let total: Duration = self.rows.iter().map(|(_, time, _)| *time).sum();
        println!("{:<32} {:>6.1} s", "total", total.as_secs_f64());
    }
}
