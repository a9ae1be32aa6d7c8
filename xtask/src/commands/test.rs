//! `cargo xtask test`: every test there is, with the time each stage took.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::ebpf;
use crate::{
    machine, packages, process,
    stages::Stages,
    workspace::{Package, Workspace},
};

/// While unset, tests that need root and a kernel return early, so that plain `cargo test` works for everyone.
const KERNEL_TESTS: &str = "SLUICE_KERNEL_TESTS";

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

/// Runs the tests and shows the stages' times.
pub(crate) fn run(workspace: &Workspace, parts: Parts) -> Result<()> {
    if parts != Parts::Native && !machine::is_root()? {
        bail!(
            "the kernel tests need root: run this as root, or leave them out with `cargo xtask test --native-only`"
        );
    }
    let mut stages = Stages::default();
    let built = parts == Parts::Native || stages.run("eBPF build", || ebpf::build(workspace));
    let tests = stages.run("build of the tests", || {
        process::run(build(workspace).arg("--no-run"))
    });
    if parts != Parts::Kernel {
        stages.run("native tests", || {
            process::run(build(workspace).env_remove(KERNEL_TESTS))
        });
    }
    if parts != Parts::Native {
        if built && tests {
            stages.run("kernel tests", || kernel(workspace));
        } else {
            stages.skip("kernel tests", "something they need does not build");
        }
    }
    stages.finish()
}

/// All tests in one selection: another would unify other features and build the dependencies again.
fn build(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo("test");
    command.args(["--workspace", "--exclude=sluice-ebpf", "--no-fail-fast"]);
    command
}

fn kernel(workspace: &Workspace) -> Result<()> {
    let packages = with_kernel_tests(workspace)?;
    packages::ensure(
        packages::KERNEL_TESTS,
        "the kernel tests make networks with them",
    )?;
    machine::mount_bpffs()?;
    let messages = process::output(build(workspace).args([
        "--quiet",
        "--tests",
        "--no-run",
        "--message-format=json",
    ]))?;
    let mut failed = 0;
    for package in packages {
        for executable in executables(&messages, &package.manifest_path)? {
            // As cargo would run it.
            let mut test = Command::new(executable);
            test.current_dir(package.folder())
                .env("CARGO_MANIFEST_DIR", package.folder())
                .env(KERNEL_TESTS, "1");
            if let Err(error) = process::run(&mut test) {
                eprintln!("error: {error:#}");
                failed += 1;
            }
        }
    }
    ensure!(failed == 0, "{failed} test programs failed, see above");
    Ok(())
}

/// The test programs of a package among what `cargo test --message-format=json` tells, one object per line.
fn executables(messages: &str, manifest: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Message {
        manifest_path: Option<PathBuf>,
        executable: Option<PathBuf>,
        profile: Option<Profile>,
    }
    #[derive(Deserialize)]
    struct Profile {
        test: bool,
    }
    let mut found = Vec::new();
    for line in messages.lines() {
        let message: Message =
            serde_json::from_str(line).context("reading what cargo says that it built")?;
        let is_test = message.profile.is_some_and(|profile| profile.test);
        if is_test && message.manifest_path.as_deref() == Some(manifest) {
            found.extend(message.executable);
        }
    }
    Ok(found)
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
    fn only_test_programs_of_the_package_are_run() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","profile":{"test":true},"executable":"/t/a-1"}
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","profile":{"test":false},"executable":"/t/a"}
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","profile":{"test":true},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/b/Cargo.toml","profile":{"test":true},"executable":"/t/b-1"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages, Path::new("/w/a/Cargo.toml")).unwrap();
        assert_eq!(found, [Path::new("/t/a-1")]);
        assert!(executables("not JSON", Path::new("/")).is_err());
    }

    #[test]
    fn the_variable_is_found_in_nested_sources() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(any_source_mentions(&here.join("src")).unwrap());
        assert!(!any_source_mentions(&here.join("src/toolchain")).unwrap());
        assert!(!any_source_mentions(&here.join("no such folder")).unwrap());
    }
}
