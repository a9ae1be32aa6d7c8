//! Removing all that a lab has on the machine, found by its name alone: it works whoever made it and however that ended.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;
use sluice_datapath::net::NetNs;

use crate::{
    LabError,
    control::{self, Request},
    name::LabName,
    record::{self, Record},
};

/// How long a process gets to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// What was found and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Processes that ran in its namespaces.
    pub processes: usize,
    /// Network namespaces.
    pub namespaces: usize,
    /// Whether it had programs and maps in the kernel.
    pub datapath: bool,
    /// Whether it had a directory.
    pub directory: bool,
}

impl Removed {
    /// Whether there was anything at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.processes == 0 && self.namespaces == 0 && !self.datapath && !self.directory
    }
}

/// Removes everything of this lab: processes in its namespaces, namespaces with their interfaces, pinned programs and maps, and its
/// directory. What is not there is no error, so that it can be repeated. The caller's own process is left alone.
///
/// # Errors
/// Something can't be removed; all else has been tried by then.
pub fn remove(lab: &LabName) -> Result<Removed, LabError> {
    let names = NetNs::list(&lab.namespace_prefix())?;
    let mut removed = Removed {
        processes: end_processes(&names)?,
        ..Removed::default()
    };
    let mut first_error = None;
    for name in &names {
        match NetNs::delete(name) {
            Ok(()) => removed.namespaces += 1,
            Err(error) => first_error = first_error.or(Some(error.into())),
        }
    }
    match sluice_agent::remove_instance(&lab.instance()) {
        Ok(found) => removed.datapath = found,
        Err(error) => first_error = first_error.or(Some(error.into())),
    }
    match fs::remove_dir_all(lab.directory()) {
        Ok(()) => removed.directory = true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            first_error = first_error.or(Some(LabError::io(format!(
                "removing {}",
                lab.directory().display()
            ))(error)));
        }
    }
    first_error.map_or(Ok(removed), Err)
}

/// Ends a lab: through its supervisor where there is one that answers, by force otherwise.
///
/// # Errors
/// Something can't be removed.
pub fn down(lab: &LabName) -> Result<Removed, LabError> {
    let supervisor = Record::read(lab)
        .ok()
        .flatten()
        .map(|record| record.supervisor);
    let ended = control::ask(lab, &Request::Down).is_ok();
    if ended {
        // It answers just before it ends.
        wait_for_end(supervisor);
    }
    if let Some(pid) = supervisor.filter(|pid| is_supervisor(*pid)) {
        // It is there, but does not answer or does not end.
        let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        wait_for_end(supervisor);
    }
    let mut removed = remove(lab)?;
    removed.directory |= ended;
    Ok(removed)
}

/// Every lab that has anything on this machine, by name.
///
/// # Errors
/// The machine can't be looked through.
pub fn everything() -> Result<Vec<LabName>, LabError> {
    let mut found: BTreeSet<LabName> = record::all()?.into_iter().collect();
    let namespaces = NetNs::list("sluice-")?;
    let named = namespaces
        .iter()
        .filter_map(|name| name.strip_prefix("sluice-")?.split_once('-'));
    found.extend(named.filter_map(|(lab, _)| lab.parse().ok()));
    // What is pinned outlives processes and namespaces.
    let pinned = sluice_agent::instances()?;
    found.extend(pinned.iter().filter_map(|name| LabName::of_instance(name)));
    Ok(found.into_iter().collect())
}

fn wait_for_end(supervisor: Option<u32>) {
    let deadline = Instant::now() + GRACE;
    while supervisor.is_some_and(is_supervisor) && Instant::now() < deadline {
        thread::sleep(GRACE / 100);
    }
}

/// Whether the process is a supervisor: its number may have been given to another since.
fn is_supervisor(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1..3) == Some(&[b"lab".as_slice(), b"up".as_slice()])
    })
}

/// Ends every process that has a thread in one of these namespaces, politely first.
fn end_processes(namespaces: &[String]) -> Result<usize, LabError> {
    let wanted: BTreeSet<(u64, u64)> = namespaces
        .iter()
        .filter_map(|name| fs::metadata(Path::new("/run/netns").join(name)).ok())
        .map(|meta| (meta.dev(), meta.ino()))
        .collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let found = processes_in(&wanted)?;
    for pid in &found {
        // One that has just ended by itself is fine too.
        let _ = kill(*pid, Signal::SIGTERM);
    }
    let deadline = Instant::now() + GRACE;
    let mut rest = found.clone();
    while !rest.is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
        rest = processes_in(&wanted)?;
    }
    for pid in rest {
        let _ = kill(pid, Signal::SIGKILL);
    }
    Ok(found.len())
}

fn processes_in(wanted: &BTreeSet<(u64, u64)>) -> Result<Vec<Pid>, LabError> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(LabError::io("reading /proc"))? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let pid = Pid::from_raw(pid);
        if pid != Pid::this() && has_thread_in(&entry.path(), wanted) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether some thread of the process is in one of the namespaces. A process that ends meanwhile is in none.
fn has_thread_in(process: &Path, wanted: &BTreeSet<(u64, u64)>) -> bool {
    let Ok(threads) = fs::read_dir(process.join("task")) else {
        return false;
    };
    threads.flatten().any(|thread| {
        fs::metadata(thread.path().join("ns/net"))
            .is_ok_and(|meta| wanted.contains(&(meta.dev(), meta.ino())))
    })
}
