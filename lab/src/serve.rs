//! The responder of one pod as a process in the pod's namespace: starting it, and being it.
//!
//! A process of its own, so that pods go on answering while the supervisor is killed and started again; one for each pod, so that it
//! goes with the pod.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde::{Deserialize, Serialize};
use sluice_datapath::net::{NetNs, in_namespace};

use crate::{LabError, plan::Listens, responder};

/// What one responder says and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What it says: `namespace/name`.
    pub name: String,
    /// Where it listens.
    pub listens: Listens,
}

const READY: &str = "ready";

/// Starts a process that does the job in `namespace`. It outlives its parent and ends with the lab, which finds it by its namespace.
///
/// `program` is the `sluice` binary, or whatever calls [`run`] when started as `program lab serve JOB`.
///
/// # Errors
/// The namespace is gone or the program can't be started.
pub fn start(program: &Path, namespace: &str, job: &Job) -> Result<Child, LabError> {
    let job = serde_json::to_string(job)
        .map_err(|e| LabError::Refused(format!("responder of {}: {e}", job.name)))?;
    let namespace = NetNs::open(namespace)?;
    // A child is in the namespace of the thread that starts it.
    let child = in_namespace(&namespace, || {
        Command::new(program)
            .args(["lab", "serve", &job])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Out of the reach of Ctrl-C in the terminal of `up`, which ends the lab in order.
            .process_group(0)
            .current_dir("/")
            .spawn()
    })?;
    child.map_err(LabError::io(format!(
        "starting {} lab serve",
        program.display()
    )))
}

/// Waits until a started responder listens.
///
/// # Errors
/// It can't listen, and says why.
pub fn wait_ready(child: &mut Child) -> Result<(), LabError> {
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output)
            .read_line(&mut line)
            .map_err(LabError::io("waiting for a responder"))?;
    }
    if line.trim() == READY {
        return Ok(());
    }
    // It has said what is wrong, or nothing at all; nobody needs it any more.
    let _ = child.kill();
    let _ = child.wait();
    Err(LabError::Refused(format!(
        "a responder ended: {}",
        line.trim()
    )))
}

/// Does a job in the namespace this process is in, for ever. Says on standard output that it listens, or why it can't.
///
/// # Errors
/// The job can't be understood or a port is taken.
pub fn run(job: &str) -> Result<(), LabError> {
    let said = |result: Result<(), LabError>| {
        let line = result
            .as_ref()
            .map_or_else(ToString::to_string, |()| READY.to_owned());
        // Nobody may be listening any more; the work goes on.
        let _ = writeln!(io::stdout(), "{line}");
        result
    };
    let job: Job = match serde_json::from_str(job) {
        Ok(job) => job,
        Err(error) => return said(Err(LabError::Refused(format!("what to serve: {error}")))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(LabError::io("starting a responder"))?;
    runtime.block_on(async {
        match responder::listen(&job.listens) {
            Ok(listeners) => {
                said(Ok(()))?;
                responder::serve(job.name, listeners).await;
                Ok(())
            }
            Err(error) => said(Err(LabError::Refused(format!("{}: {error}", job.name)))),
        }
    })
}
