//! The cluster's own tools: kubectl and helm as the administrator, and the harness that stops and starts the API server. All are programs
//! in `PATH` or given; what they do is theirs.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Harness {
    /// The program `sluice-cluster`.
    pub(crate) program: PathBuf,
    /// The cluster's name.
    pub(crate) name: String,
}

impl Harness {
    /// Takes the API server away.
    pub(crate) fn stop_api_server(&self) -> Result<()> {
        self.service("stop")
    }

    /// Brings the API server back, and waits until it is ready.
    pub(crate) fn start_api_server(&self) -> Result<()> {
        self.service("start")?;
        let begun = Instant::now();
        while kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"]).is_err() {
            ensure!(
                begun.elapsed() < Duration::from_mins(2),
                "the API server does not become ready"
            );
            sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn service(&self, what: &str) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args([what, "--name", &self.name, "cp", "kube-apiserver"]);
        output(&mut command, None).map(drop)
    }
}

/// What kubectl prints.
pub(crate) fn kubectl(arguments: &[&str]) -> Result<String> {
    output(Command::new("kubectl").args(arguments), None)
}

/// What helm prints.
pub(crate) fn helm(arguments: &[&str]) -> Result<String> {
    output(Command::new("helm").args(arguments), None)
}

/// Applies manifests.
pub(crate) fn apply(manifests: &str) -> Result<()> {
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    output(Command::new("kubectl").args(arguments), Some(manifests)).map(drop)
}

/// What kubectl says of an object or a list of them.
pub(crate) fn json(arguments: &[&str]) -> Result<Value> {
    let text = kubectl(&[arguments, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).context("kubectl's answer")
}

fn output(command: &mut Command, input: Option<&str>) -> Result<String> {
    let shown = format!("{command:?}");
    let stdin = if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes())?;
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output()?;
    ensure!(
        status.success(),
        "{shown}: {status}: {}",
        String::from_utf8_lossy(&stderr).trim()
    );
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
