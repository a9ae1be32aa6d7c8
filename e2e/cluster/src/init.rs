//! The first process of a machine: makes the machine's file system, then keeps its services running until it is killed.
//! It runs inside the machine's namespaces, as a process of its own; what decides which services run is outside of it and
//! talks to it by files in the control folder, so that either can be restarted.

mod root;
mod services;

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    unistd::sethostname,
};
use serde::{Deserialize, Serialize};

use crate::error::{Doing as _, Error, Result};

/// What the first process is told, in a JSON file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// The host name inside.
    pub(crate) hostname: String,
    /// The control folder, on the machine that runs all this.
    pub(crate) control: PathBuf,
    /// A file system of its own; the control plane has none.
    pub(crate) root: Option<Root>,
}

/// A node's own file system.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    /// The folder that becomes `/`.
    pub(crate) folder: PathBuf,
    /// The folder with the programs that were built, seen as `/opt/bin`.
    pub(crate) programs: PathBuf,
    /// Controllers of cgroup v1 to mount, by folder name under `/sys/fs/cgroup`.
    pub(crate) controllers: Vec<String>,
}

/// Where a node sees its control folder.
pub(crate) const CONTROL_INSIDE: &str = "/machine";

/// Is the first process of a machine. Never returns while all goes well.
///
/// # Errors
///
/// If the file system can't be made; the control folder can't be read.
pub fn run(spec: &Path) -> Result<Infallible> {
    let text = fs::read(spec).map_err(Error::at("reading", spec))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| Error::Unreadable {
        what: spec.display().to_string(),
        why: error.to_string(),
    })?;
    // Mounts made here must not be seen by the rest of the machine, nor the reverse.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .doing(|| "making the mounts private".to_owned())?;
    sethostname(&spec.hostname).doing(|| format!("setting the host name {}", spec.hostname))?;
    let control = if let Some(root) = &spec.root {
        root::enter(root, &spec)?;
        PathBuf::from(CONTROL_INSIDE)
    } else {
        mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            MsFlags::empty(),
            None::<&str>,
        )
        .doing(|| "mounting /proc for the process namespace".to_owned())?;
        spec.control
    };
    services::supervise(&control)
}
