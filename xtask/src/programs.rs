//! The test programs of the workspace: built once by cargo, then run one by one, as often as is wanted.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{
    process,
    workspace::{Package, Workspace},
};

/// One built test program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Program {
    /// The name of the test target, which is that of its file or crate.
    pub(crate) name: String,
    folder: PathBuf,
    executable: PathBuf,
}

impl Program {
    /// A command that runs it where cargo would.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// `cargo test` over all tests in one selection: another would unify other features and build the dependencies again.
pub(crate) fn cargo_test(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo("test");
    command.args(["--workspace", "--exclude=sluice-ebpf", "--no-fail-fast"]);
    command
}

/// Builds every test program of the workspace and finds those of some packages.
pub(crate) fn build(workspace: &Workspace, packages: &[&Package]) -> Result<Vec<Program>> {
    let messages = process::output(cargo_test(workspace).args([
        "--quiet",
        "--tests",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    let mut programs = Vec::new();
    for package in packages {
        let found = of_package(&messages, package)?;
        ensure!(
            !found.is_empty(),
            "cargo built no test program of {}",
            package.name
        );
        programs.extend(found);
    }
    Ok(programs)
}

/// The test programs of a package among what `cargo test --message-format=json` tells, one object per line.
fn of_package(messages: &str, package: &Package) -> Result<Vec<Program>> {
    #[derive(Deserialize)]
    struct Message {
        manifest_path: Option<PathBuf>,
        executable: Option<PathBuf>,
        profile: Option<Profile>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Profile {
        test: bool,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let mut found = Vec::new();
    for line in messages.lines() {
        let message: Message =
            serde_json::from_str(line).context("reading what cargo says that it built")?;
        let is_test = message.profile.is_some_and(|profile| profile.test);
        let of_package =
            message.manifest_path.as_deref() == Some(Path::new(&package.manifest_path));
        if let (true, true, Some(executable), Some(target)) =
            (is_test, of_package, message.executable, message.target)
        {
            found.push(Program {
                name: target.name,
                folder: package.folder().to_owned(),
                executable,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_of_the_package_are_found() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"name":"a"},"profile":{"test":true},"executable":"/t/a-1"}
{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"name":"a"},"profile":{"test":false},"executable":"/t/a"}
{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"name":"a"},"profile":{"test":true},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/b/Cargo.toml","target":{"name":"b"},"profile":{"test":true},"executable":"/t/b-1"}
{"reason":"build-finished","success":true}"#;
        let package: Package =
            serde_json::from_str(r#"{"name":"p","manifest_path":"/w/p/Cargo.toml"}"#).unwrap();
        let found = of_package(messages, &package).unwrap();
        let expected = Program {
            name: "a".to_owned(),
            folder: "/w/p".into(),
            executable: "/t/a-1".into(),
        };
        assert_eq!(found, [expected]);
        assert!(of_package("not JSON", &package).is_err());
    }
}
