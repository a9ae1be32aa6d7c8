//! Where things are: the workspace, its packages and cargo's target directory, as cargo itself tells.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

/// The name of test programs whose every test is a fuzz target.
pub(crate) const FUZZ: &str = "fuzz";

/// The workspace this tool was run for.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the root manifest.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, wherever environment and configuration put it.
    pub(crate) target: PathBuf,
    /// The members.
    pub(crate) packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Package {
    /// The package's name.
    pub(crate) name: String,
    /// Its `Cargo.toml`.
    pub(crate) manifest_path: PathBuf,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Clone, Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    sluice: SluiceMetadata,
}

/// `[package.metadata.sluice]` of a member. Unknown keys are errors: a misspelt one would leave tests out unseen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SluiceMetadata {
    #[serde(default)]
    kernel_tests: bool,
}

impl Package {
    /// Whether the package says that it has tests which need root and the kernel:
    /// `[package.metadata.sluice] kernel-tests = true`.
    pub(crate) fn has_kernel_tests(&self) -> bool {
        self.metadata
            .as_ref()
            .is_some_and(|metadata| metadata.sluice.kernel_tests)
    }

    /// Whether the package has fuzz targets: a test program of that name.
    pub(crate) fn has_fuzz_targets(&self) -> bool {
        self.targets
            .iter()
            .any(|target| target.name == FUZZ && target.kind == ["test"])
    }

    /// The package's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("/"))
    }
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Self> {
        // Compiled in, so that the tool works from any folder; cargo rebuilds it when the checkout moves.
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let mut metadata = Command::new(cargo());
        metadata
            .args([
                "metadata",
                "--no-deps",
                "--format-version=1",
                "--manifest-path",
            ])
            .arg(&manifest);
        Self::parse(&process::output(&mut metadata)?)
            .context("reading what `cargo metadata` says of this workspace")
    }

    fn parse(metadata: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Answer {
            workspace_root: PathBuf,
            target_directory: PathBuf,
            packages: Vec<Package>,
        }
        let answer: Answer = serde_json::from_str(metadata)?;
        Ok(Self {
            root: answer.workspace_root,
            target: answer.target_directory,
            packages: answer.packages,
        })
    }

    /// A cargo command in this workspace, with the toolchain that runs this tool, and without what cargo told this tool about its own
    /// package: build scripts that look at it would make half of the dependencies build again, and again when a person calls cargo.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root).arg(subcommand);
        let about_this =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(about_this) {
                command.env_remove(name);
            }
        }
        command
    }
}

/// The cargo that runs this tool.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(of_package: &str) -> String {
        format!(
            r#"{{"workspace_root":"/w","target_directory":"/t","packages":[
                {{"name":"p","manifest_path":"/w/p/Cargo.toml","metadata":{of_package}}}]}}"#
        )
    }

    #[test]
    fn a_package_declares_its_kernel_tests() {
        let declared =
            |metadata: &str| Workspace::parse(metadata).unwrap().packages[0].has_kernel_tests();
        assert!(declared(&metadata(r#"{"sluice":{"kernel-tests":true}}"#)));
        assert!(!declared(&metadata(r#"{"docs.rs":{}}"#)));
        assert!(!declared(&metadata("null")));
    }

    #[test]
    fn a_package_with_a_test_program_named_fuzz_has_fuzz_targets() {
        let has = |name: &str, kind: &str| {
            let package = format!(
                r#"{{"name":"p","manifest_path":"/p","targets":[{{"name":"{name}","kind":["{kind}"]}}]}}"#
            );
            serde_json::from_str::<Package>(&package)
                .unwrap()
                .has_fuzz_targets()
        };
        assert!(has("fuzz", "test"));
        assert!(!has("fuzz", "bin") && !has("reader", "test"));
    }

    #[test]
    fn a_misspelt_declaration_is_refused() {
        assert!(Workspace::parse(&metadata(r#"{"sluice":{"kernel-test":true}}"#)).is_err());
    }
}
