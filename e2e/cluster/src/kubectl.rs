//! kubectl and helm, run as the cluster's administrator from the control plane's network.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command,
    error::{Error, Result},
    plan::{Machine, Name, namespace},
};

/// The administrator's way to the API server.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// Where the commands run.
    pub(crate) name: Name,
    /// The folder of the built programs.
    pub(crate) programs: PathBuf,
    /// The administrator's kubeconfig.
    pub(crate) config: PathBuf,
}

impl Kubectl {
    /// Runs kubectl and gives what it prints.
    ///
    /// # Errors
    ///
    /// If kubectl fails: the error has what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        command::output(self.command("kubectl").args(arguments))
    }

    /// As [`Self::run`], with something to read: use `-f -`.
    ///
    /// # Errors
    ///
    /// If kubectl fails: the error has what it said.
    pub fn fed(&self, arguments: &[&str], input: &str) -> Result<String> {
        command::fed(self.command("kubectl").args(arguments), input.as_bytes())
    }

    /// Applies manifests, YAML or JSON.
    ///
    /// # Errors
    ///
    /// If the API server refuses one.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.fed(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            manifests,
        )
        .map(drop)
    }

    /// What kubectl says of an object or a list of them, read as JSON.
    ///
    /// # Errors
    ///
    /// If kubectl fails, or its answer is no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).map_err(|error| Error::Unreadable {
            what: format!("kubectl {}", arguments.join(" ")),
            why: error.to_string(),
        })
    }

    /// Whether the API server says that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.run(&["get", "--raw", "/readyz", "--request-timeout=5s"])
            .is_ok_and(|answer| answer == "ok")
    }

    /// Runs helm and gives what it prints.
    ///
    /// # Errors
    ///
    /// If helm fails: the error has what it said.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        command::output(self.command("helm").args(arguments))
    }

    /// Runs another program as [`Self::run`] does kubectl, and gives what it prints.
    ///
    /// # Errors
    ///
    /// If it fails: the error has what it said.
    pub fn program(&self, program: &Path, arguments: &[&str]) -> Result<String> {
        command::output(self.command(&program.display().to_string()).args(arguments))
    }

    /// A program with this process's terminal, in the control plane's network, with the administrator's kubeconfig.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn attended(
        &self,
        program: &str,
        arguments: &[OsString],
    ) -> Result<std::process::ExitStatus> {
        command::attended(self.command(program).args(arguments))
    }

    /// A program in the control plane's network, with the administrator's kubeconfig and the built programs in `PATH`.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!(
                "--net=/run/netns/{}",
                namespace(&self.name, Machine::ControlPlane)
            ))
            .args([
                "--",
                "env",
                &format!("PATH={}:{}", self.programs.display(), crate::machine::PATH),
                program,
            ])
            .env("KUBECONFIG", &self.config);
        command
    }
}
