//! `cargo xtask soak`: the tests that find more the longer they run, again and again with fresh seeds, until the time is up.
//!
//! ```text
//! once:  a cluster, in the routing mode that CI leaves out ─▶ upstream's tests ─▶ kills
//! round: seed ─▶ differential_native ─▶ differential_kernel ─▶ fuzz targets ─▶ lab_life (supervisors killed)
//! ```

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};

use super::{
    cluster, ebpf, fuzz,
    test::{self, KERNEL_TESTS},
};
use crate::{
    machine,
    process::{self, say},
    programs::{self, Program},
    workspace::{Package, Workspace},
};

/// Worlds of one round. A round takes some minutes, so that a failure's seed is soon known.
const NATIVE_WORLDS: u32 = 20_000;
const KERNEL_WORLDS: u32 = 2_000;
/// Seconds of one round for each fuzz target.
const FUZZ_SECONDS: u64 = 30;

/// What to run and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Soak {
    /// Rounds begin until so many minutes are over; there is always one.
    pub(crate) minutes: u64,
    /// The seed of the first round; each next one has the next number.
    pub(crate) seed: Option<u32>,
    /// How often something is killed on a cluster; with 0 there is none.
    pub(crate) kills: u16,
    /// Leave out what needs root.
    pub(crate) native_only: bool,
}

/// What has been done so far.
#[derive(Debug, Default, Eq, PartialEq)]
struct Done {
    rounds: u32,
    native_worlds: u64,
    kernel_worlds: u64,
    fuzzed: u64,
    lives: u32,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds: {} worlds natively, {} through the kernel, {} s of fuzzing, {} runs of killed labs",
            self.rounds, self.native_worlds, self.kernel_worlds, self.fuzzed, self.lives
        )
    }
}

/// The programs of a round.
struct Programs {
    native: Program,
    /// The kernel's differential test and the labs' lives; none without root.
    kernel: Option<(Program, Program)>,
    fuzz: Vec<(Program, Vec<String>)>,
}

/// Runs rounds until the time is up or one fails.
pub(crate) fn run(workspace: &Workspace, soak: Soak) -> Result<()> {
    if !soak.native_only && !machine::is_root()? {
        bail!("half of it needs root: run this as root, or with --native-only");
    }
    if !soak.native_only && soak.kills > 0 {
        let kills = soak.kills.to_string();
        let words = ["test", "--name=soak", "--routing=direct", "--kills", &kills];
        cluster::run(workspace, &words.map(Into::into))?;
    }
    let programs = prepare(workspace, soak.native_only)?;
    let began = Instant::now();
    let end = began + Duration::from_secs(soak.minutes * 60);
    let mut seed = soak.seed.unwrap_or_else(fresh_seed);
    let mut done = Done::default();
    loop {
        say(format!(
            "soak: round {} with seed {seed}, {} of {} minutes over; until now {done}",
            done.rounds + 1,
            began.elapsed().as_secs() / 60,
            soak.minutes
        ));
        round(&programs, seed, &mut done).with_context(|| {
            format!(
                "seed {seed} failed after {} s; {done}. Once more: `cargo xtask soak --minutes 0 --seed {seed}`",
                began.elapsed().as_secs()
            )
        })?;
        seed = seed.wrapping_add(1);
        if Instant::now() >= end {
            break;
        }
    }
    say(format!(
        "soak: nothing failed in {} s; {done}",
        began.elapsed().as_secs()
    ));
    Ok(())
}

fn prepare(workspace: &Workspace, native_only: bool) -> Result<Programs> {
    if !native_only {
        ebpf::build(workspace)?;
        test::prepare(workspace)?;
    }
    let mut fuzzed = Vec::new();
    for program in fuzz::build(workspace)? {
        let targets = fuzz::targets(&program, None)?;
        fuzzed.push((program, targets));
    }
    let packages: Vec<&Package> = workspace
        .packages
        .iter()
        .filter(|package| package.has_kernel_tests())
        .collect();
    let built = programs::build(workspace, &packages)?;
    let named = |name: &str| {
        let found = built.iter().find(|program| program.name == name);
        found
            .cloned()
            .with_context(|| format!("there is no test program {name}"))
    };
    Ok(Programs {
        native: named("differential_native")?,
        kernel: if native_only {
            None
        } else {
            Some((named("differential_kernel")?, named("lab_life")?))
        },
        fuzz: fuzzed,
    })
}

fn round(programs: &Programs, seed: u32, done: &mut Done) -> Result<()> {
    differential(&programs.native, "SLUICE_WORLDS", NATIVE_WORLDS, seed)?;
    done.native_worlds += u64::from(NATIVE_WORLDS);
    if let Some((differential_kernel, _)) = &programs.kernel {
        differential(
            differential_kernel,
            "SLUICE_KERNEL_WORLDS",
            KERNEL_WORLDS,
            seed,
        )?;
        done.kernel_worlds += u64::from(KERNEL_WORLDS);
    }
    for (program, targets) in &programs.fuzz {
        fuzz::fuzz(program, targets, FUZZ_SECONDS)?;
        done.fuzzed += FUZZ_SECONDS * targets.len() as u64;
    }
    if let Some((_, lab_life)) = &programs.kernel {
        process::run(lab_life.command().env(KERNEL_TESTS, "1"))?;
        done.lives += 1;
    }
    done.rounds += 1;
    Ok(())
}

fn differential(program: &Program, variable: &str, worlds: u32, seed: u32) -> Result<()> {
    process::run(
        program
            .command()
            .env(KERNEL_TESTS, "1")
            .env(variable, worlds.to_string())
            .env("SLUICE_SEED", seed.to_string()),
    )
}

/// A seed that another run has hardly had: the seconds since 1970, of which a u32 holds those of this century.
fn fresh_seed() -> u32 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u32::try_from(since.as_secs()).ok())
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_in_full() {
        let done = Done {
            rounds: 2,
            native_worlds: 40_000,
            kernel_worlds: 4_000,
            fuzzed: 420,
            lives: 2,
        };
        assert_eq!(
            done.to_string(),
            "2 rounds: 40000 worlds natively, 4000 through the kernel, 420 s of fuzzing, 2 runs of killed labs"
        );
    }

    #[test]
    fn a_fresh_seed_is_no_seed_of_the_tests() {
        assert!(fresh_seed() > 1_000_000);
    }
}
