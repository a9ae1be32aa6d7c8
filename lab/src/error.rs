//! What can go wrong with a lab. Handling it may not enter.

use std::{io, path::PathBuf};

use sluice_datapath::net::NetError;
use thiserror::Error;

use crate::name::LabName;

/// What went wrong with a lab.
#[derive(Debug, Error)]
pub enum LabError {
    /// A namespace, link, address or route.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A file, socket, process or thread.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// There is no such lab.
    #[error("there is no lab `{0}`: `sluice lab up --name {0} -f …` makes one")]
    Absent(LabName),
    /// There is one already, and it is looked after.
    #[error(
        "lab `{name}` is up already (process {pid}): `sluice lab down --name {name}` ends it, `--name` gives this one another name"
    )]
    Present {
        /// Its name.
        name: LabName,
        /// Its supervisor.
        pid: u32,
    },
    /// Nobody looks after the lab.
    #[error(
        "lab `{name}` has no running supervisor (was it killed?): `sluice lab up --name {name} --resume` takes it over, `sluice lab down --name {name}` removes it"
    )]
    Unattended {
        /// Its name.
        name: LabName,
    },
    /// There is no such pod.
    #[error("lab `{name}` has no pod `{pod}`; it has: {known}")]
    NoSuchPod {
        /// The lab.
        name: LabName,
        /// What was asked for.
        pod: String,
        /// What there is.
        known: String,
    },
    /// A record of a lab can't be understood.
    #[error("{path}: {source}; was it written by another version of sluice? `sluice lab down` removes it", path = path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A supervisor refused a request.
    #[error("{0}")]
    Refused(String),
    /// Manifests that make no world, or no lab.
    #[error("{0}")]
    Manifests(String),
    /// The node's tables or programs.
    #[error(transparent)]
    Agent(#[from] sluice_agent::AgentError),
}

impl LabError {
    /// For `map_err`: an I/O error with what was being done.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
