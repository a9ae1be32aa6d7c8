//! `cargo xtask fuzz`: the fuzz targets, for longer than as tests.
//!
//! A target is a test of a test program named `fuzz`. It is run by its library's own random engine, which needs nothing installed; how
//! long, that library reads from a variable.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{self, say},
    programs::{self, Program},
    workspace::{FUZZ, Package, Workspace},
};

/// How long each target runs, in milliseconds.
const TIME: &str = "BOLERO_RANDOM_TEST_TIME_MS";

/// Runs the targets whose names contain the text, all of them where none is given.
pub(crate) fn run(workspace: &Workspace, target: Option<&str>, seconds: u64) -> Result<()> {
    let mut ran = 0;
    for program in build(workspace)? {
        let targets = targets(&program, target)?;
        if !targets.is_empty() {
            ran += targets.len();
            fuzz(&program, &targets, seconds)?;
        }
    }
    if ran == 0 {
        bail!(
            "no fuzz target has {:?} in its name",
            target.unwrap_or_default()
        );
    }
    say(format!("{ran} targets of {seconds} s each found nothing"));
    Ok(())
}

/// The programs with fuzz targets, built.
pub(super) fn build(workspace: &Workspace) -> Result<Vec<Program>> {
    let packages: Vec<&Package> = workspace
        .packages
        .iter()
        .filter(|package| package.has_fuzz_targets())
        .collect();
    if packages.is_empty() {
        bail!("no package has a test program named `{FUZZ}`, which can't be right");
    }
    let mut programs = programs::build(workspace, &packages)?;
    programs.retain(|program| program.name == FUZZ);
    Ok(programs)
}

/// The names of a program's targets that contain the text.
pub(super) fn targets(program: &Program, wanted: Option<&str>) -> Result<Vec<String>> {
    let list = process::output(program.command().args(["--list", "--format=terse"]))
        .context("listing fuzz targets")?;
    Ok(named(&list, wanted.unwrap_or_default()))
}

fn named(list: &str, wanted: &str) -> Vec<String> {
    list.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| name.contains(wanted))
        .map(str::to_owned)
        .collect()
}

/// Runs targets of one program at the same time, as its tests are.
pub(super) fn fuzz(program: &Program, targets: &[String], seconds: u64) -> Result<()> {
    process::run(&mut command(program, targets, seconds)).context(
        "a fuzz target failed; its input and a seed are above: set that variable and run the target again",
    )
}

fn command(program: &Program, targets: &[String], seconds: u64) -> Command {
    let mut command = program.command();
    command
        .args(["--exact", "--nocapture"])
        .args(targets)
        .env(TIME, (seconds * 1000).to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_chosen_by_a_part_of_their_name() {
        let list = "a_frame: test\nany_text: test\n\n2 tests, 0 benchmarks\n";
        assert_eq!(named(list, ""), ["a_frame", "any_text"]);
        assert_eq!(named(list, "frame"), ["a_frame"]);
        assert!(named(list, "nothing").is_empty());
    }
}
