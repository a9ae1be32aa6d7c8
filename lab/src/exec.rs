//! Running a command in a pod's network. Which pods there are may not enter.

use std::process::{Command, ExitStatus};

use sluice_datapath::net::{NetNs, in_namespace};

use crate::LabError;

/// Runs a command in a network namespace, with this process's standard streams, and waits for it.
///
/// Only the network is the pod's: files, users and processes are the machine's.
///
/// # Errors
/// The namespace is gone or there is no such command.
pub fn run(namespace: &str, command: &[String]) -> Result<ExitStatus, LabError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(LabError::Refused(
            "which command? `sluice lab exec POD -- COMMAND …`".to_owned(),
        ));
    };
    let namespace = NetNs::open(namespace)?;
    // A child is in the namespace of the thread that starts it.
    let status = in_namespace(&namespace, || {
        Command::new(program).args(arguments).status()
    })?;
    status.map_err(LabError::io(format!("running {program}")))
}
