//! How commands talk to a lab's supervisor: one line of JSON each way over a socket in the lab's directory; a watcher of flows gets a
//! line for each. Doing what is asked may not enter.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use sluice_agent::FlowRecord;

use crate::{LabError, name::LabName, record::Record, store::Manifest};

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Add or replace the objects of these manifests.
    Apply(Vec<Manifest>),
    /// Delete the objects of these manifests.
    DeleteManifests(Vec<Manifest>),
    /// Delete objects by name.
    DeleteNames(Vec<Named>),
    /// How is it?
    Status,
    /// Send a line for every flow from now on.
    Flows,
    /// End in order.
    Down,
}

/// An object by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its kind.
    pub kind: String,
    /// Its namespace, where the kind has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// What a supervisor answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Done: the objects that changed, and how many microseconds it took from reading the request to enforcement.
    Changed {
        /// One line for each object: what happened to it.
        objects: Vec<String>,
        /// From the request to enforcement.
        micros: u64,
        /// What the authors of these objects should know, one line each.
        warnings: Vec<String>,
    },
    /// Done.
    Done,
    /// How the lab is.
    Status(Box<Status>),
    /// Flows follow, one line each.
    Flows,
    /// Not done, and why.
    Error(String),
}

/// How a lab is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What is on disk about it.
    pub record: Record,
    /// Each pod.
    pub pods: Vec<PodStatus>,
    /// How many policies there are.
    pub policies: usize,
    /// How many tables, peers entries and programs the kernel holds for them, by name of the figure.
    pub tables: Vec<(String, u64)>,
}

/// How a pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// `namespace/name`.
    pub pod: String,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Its identity's number; none for a host outside.
    pub identity: Option<u32>,
    /// What it listens on: `8080/TCP`.
    pub listens: Vec<String>,
    /// Stands for a host outside.
    pub external: bool,
}

fn path(lab: &LabName) -> PathBuf {
    lab.directory().join("control.sock")
}

/// Listens for requests. A socket left by a killed supervisor is replaced.
///
/// # Errors
/// The socket can't be made.
pub fn listen(lab: &LabName) -> Result<UnixListener, LabError> {
    let path = path(lab);
    let context = format!("listening on {}", path.display());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(LabError::io(context)(error));
        }
        _ => {}
    }
    UnixListener::bind(&path).map_err(LabError::io(context))
}

/// Asks and waits for the answer.
///
/// # Errors
/// There is no such lab, nobody looks after it, or it refuses.
pub fn ask(lab: &LabName, request: &Request) -> Result<Response, LabError> {
    let mut stream = connect(lab)?;
    send(&mut stream, request)?;
    receive(&mut BufReader::new(stream))
}

/// Asks for flows and gives each to `each`, until that returns false or the lab ends.
///
/// # Errors
/// As [`ask`].
pub fn follow(lab: &LabName, mut each: impl FnMut(FlowRecord) -> bool) -> Result<(), LabError> {
    let mut stream = connect(lab)?;
    send(&mut stream, &Request::Flows)?;
    let mut reader = BufReader::new(stream);
    receive(&mut reader)?;
    let mut line = String::new();
    while reader
        .read_line(&mut line)
        .map_err(LabError::io("reading flows"))?
        > 0
    {
        let flow = serde_json::from_str(&line)
            .map_err(|e| LabError::Refused(format!("a flow that can't be read: {e}")))?;
        if !each(flow) {
            break;
        }
        line.clear();
    }
    Ok(())
}

/// Whether somebody answers.
#[must_use]
pub fn is_attended(lab: &LabName) -> bool {
    UnixStream::connect(path(lab)).is_ok()
}

/// Writes one line.
///
/// # Errors
/// The other side is gone.
pub fn send<T: Serialize>(stream: &mut UnixStream, value: &T) -> Result<(), LabError> {
    let mut line = serde_json::to_vec(value).map_err(|e| LabError::Refused(e.to_string()))?;
    line.push(b'\n');
    stream
        .write_all(&line)
        .map_err(LabError::io("writing to the control socket"))
}

fn connect(lab: &LabName) -> Result<UnixStream, LabError> {
    UnixStream::connect(path(lab)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !lab.directory().exists() => LabError::Absent(lab.clone()),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            LabError::Unattended { name: lab.clone() }
        }
        _ => LabError::io("connecting to the lab")(error),
    })
}

fn receive(reader: &mut BufReader<UnixStream>) -> Result<Response, LabError> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .map_err(LabError::io("waiting for the lab's answer"))?;
    if line.is_empty() {
        return Err(LabError::Refused(
            "the lab ended without an answer".to_owned(),
        ));
    }
    match serde_json::from_str(&line) {
        Ok(Response::Error(error)) => Err(LabError::Refused(error)),
        Ok(response) => Ok(response),
        Err(error) => Err(LabError::Refused(format!(
            "an answer that can't be read: {error}"
        ))),
    }
}
