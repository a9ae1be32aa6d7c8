//! `cargo xtask test`: every test there is, with the time each stage took.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use super::ebpf;
use crate::{
    machine, packages, process, programs,
    stages::Stages,
    workspace::{Package, Workspace},
};

/// While unset, tests that need root and a kernel return early, so that plain `cargo test` works for everyone.
pub(super) const KERNEL_TESTS: &str = "SLUICE_KERNEL_TESTS";

/// Which tests to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Parts {
    /// Every test.
    All,
    /// Those that any user can run.
    Native,
    /// Those that need root.
    Kernel,
}

impl Parts {
    /// From the command line's switches, of which at most one is set.
    pub(crate) fn of(native_only: bool, kernel_only: bool) -> Self {
        match (native_only, kernel_only) {
            (true, _) => Self::Native,
            (_, true) => Self::Kernel,
            _ => Self::All,
        }
    }
}

/// Runs the tests and shows the stages' times. Each test program runs once.
pub(crate) fn run(workspace: &Workspace, parts: Parts) -> Result<()> {
    if parts != Parts::Native && !machine::is_root()? {
        bail!(
            "the kernel tests need root: run this as root, or leave them out with `cargo xtask test --native-only`"
        );
    }
    let mut stages = Stages::default();
    let mut ready = parts == Parts::Native || stages.run("eBPF build", || ebpf::build(workspace));
    ready &= stages.run("build of the tests", || {
        process::run(programs::cargo_test(workspace).arg("--no-run"))
    });
    if parts != Parts::Native && ready {
        ready = stages.run("what kernel tests need", || prepare(workspace).map(drop));
    }
    match parts {
        Parts::All if ready => {
            stages.run("native and kernel tests", || {
                process::run(programs::cargo_test(workspace).env(KERNEL_TESTS, "1"))
            });
        }
        Parts::Kernel if ready => {
            stages.run("kernel tests", || kernel(workspace));
        }
        Parts::All | Parts::Native => {
            stages.run("native tests", || {
                process::run(programs::cargo_test(workspace).env_remove(KERNEL_TESTS))
            });
        }
        Parts::Kernel => {}
    }
    if parts != Parts::Native && !ready {
        stages.skip("kernel tests", "something they need is missing");
    }
    stages.finish()
}

/// Sees to all that kernel tests need of the machine; the packages that have any.
pub(super) fn prepare(workspace: &Workspace) -> Result<Vec<&Package>> {
    let packages = with_kernel_tests(workspace)?;
    packages::ensure(
        packages::KERNEL_TESTS,
        "the kernel tests make networks with them",
    )?;
    machine::mount_bpffs()?;
    Ok(packages)
}

/// The programs of the packages with kernel tests, and no others.
fn kernel(workspace: &Workspace) -> Result<()> {
    let mut failed = 0;
    for program in programs::build(workspace, &with_kernel_tests(workspace)?)? {
        if let Err(error) = process::run(program.command().env(KERNEL_TESTS, "1")) {
            eprintln!("error: {error:#}");
            failed += 1;
        }
    }
    ensure!(failed == 0, "{failed} test programs failed, see above");
    Ok(())
}

/// The packages that declare kernel tests. One that has them and doesn't say so would never run them: an error.
fn with_kernel_tests(workspace: &Workspace) -> Result<Vec<&Package>> {
    for package in &workspace.packages {
        if !package.has_kernel_tests() && package.name != "xtask" && mentions_variable(package)? {
            bail!(
                "{} has tests that wait for {KERNEL_TESTS}, but its Cargo.toml lacks `[package.metadata.sluice]` with \
                 `kernel-tests = true`, so they would never run",
                package.name
            );
        }
    }
    let declared: Vec<_> = workspace
        .packages
        .iter()
        .filter(|package| package.has_kernel_tests())
        .collect();
    if declared.is_empty() {
        bail!("no package declares kernel tests, which can't be right");
    }
    Ok(declared)
}

fn mentions_variable(package: &Package) -> Result<bool> {
    for folder in ["src", "tests"] {
        if any_source_mentions(&package.folder().join(folder))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn any_source_mentions(folder: &Path) -> Result<bool> {
    if !folder.is_dir() {
        return Ok(false);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let found = if path.is_dir() {
            any_source_mentions(&path)?
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?
                    .contains(KERNEL_TESTS)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_switch_every_test_runs() {
        assert_eq!(Parts::of(false, false), Parts::All);
        assert_eq!(Parts::of(true, false), Parts::Native);
        assert_eq!(Parts::of(false, true), Parts::Kernel);
    }

    #[test]
    fn the_variable_is_found_in_nested_sources() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(any_source_mentions(&here.join("src")).unwrap());
        assert!(!any_source_mentions(&here.join("src/toolchain")).unwrap());
        assert!(!any_source_mentions(&here.join("no such folder")).unwrap());
    }
}
