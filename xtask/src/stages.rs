//! A run of named stages with their times, shown as a table at the end.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::process::say;

/// What became of a stage.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    Pass,
    Fail,
    Skip(&'static str),
}

/// The stages run so far.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    rows: Vec<(&'static str, Outcome, Duration)>,
}

impl Stages {
    /// Runs a stage. A failure is shown at once and counted; later stages still run. Says whether it passed.
    pub(crate) fn run(&mut self, name: &'static str, stage: impl FnOnce() -> Result<()>) -> bool {
        say(format!("stage: {name}"));
        let start = Instant::now();
        let outcome = match stage() {
            Ok(()) => Outcome::Pass,
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                Outcome::Fail
            }
        };
        let passed = outcome == Outcome::Pass;
        self.rows.push((name, outcome, start.elapsed()));
        passed
    }

    /// Notes a stage that could not run, and why. It counts as failed.
    pub(crate) fn skip(&mut self, name: &'static str, why: &'static str) {
        self.rows.push((name, Outcome::Skip(why), Duration::ZERO));
    }

    /// Shows the table.
    ///
    /// # Errors
    ///
    /// If a stage failed or could not run.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{self}");
        let bad: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, outcome, _)| *outcome != Outcome::Pass)
            .map(|(name, ..)| *name)
            .collect();
        if bad.is_empty() {
            Ok(())
        } else {
            bail!("not passed: {}", bad.join(", "))
        }
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:>8}  result", "stage", "time")?;
        for (name, outcome, time) in &self.rows {
            write!(f, "{name:<28} {:>7.1}s  ", time.as_secs_f64())?;
            match outcome {
                Outcome::Pass => writeln!(f, "passed")?,
                Outcome::Fail => writeln!(f, "FAILED")?,
                Outcome::Skip(why) => writeln!(f, "NOT RUN: {why}")?,
            }
        }
        let total: Duration = self.rows.iter().map(|(.., time)| *time).sum();
        write!(f, "{:<28} {:>7.1}s", "total", total.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failed_stage_fails_the_run_but_not_the_stages_after_it() {
        let mut stages = Stages::default();
        assert!(!stages.run("first", || Err(anyhow!("broken"))));
        assert!(stages.run("second", || Ok(())));
        let table = stages.to_string();
        assert!(
            table.contains("FAILED") && table.contains("passed") && table.contains("total"),
            "{table}"
        );
        assert_eq!(
            stages.finish().unwrap_err().to_string(),
            "not passed: first"
        );
    }

    #[test]
    fn a_stage_that_could_not_run_is_no_success() {
        let mut stages = Stages::default();
        stages.skip("kernel", "no object");
        assert!(stages.finish().is_err());
    }

    #[test]
    fn all_passed_is_success() {
        let mut stages = Stages::default();
        stages.run("only", || Ok(()));
        assert!(stages.finish().is_ok());
    }
}
