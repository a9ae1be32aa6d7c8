//! Removing a cluster, or what a killed run left of one: found by names, not by what the run may have written down.

use std::{collections::BTreeSet, fs, io, path::Path, time::Duration};

use crate::{
    cache::Cache,
    cgroups, command,
    error::{Error, Result},
    machine, net,
    plan::{Name, prefix},
};

const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn down(name: &Name) -> Result<()> {
    let groups = cgroups::leftovers(&prefix(name));
    let namespaces = net::namespaces(name)?;
    end_processes(name, &groups, &namespaces)?;
    for namespace in &namespaces {
        net::remove(namespace)?;
    }
    for group in &groups {
        if !cgroups::remove(group, PATIENCE) {
            return Err(left(name, format!("the control group {}", group.display())));
        }
    }
    remove_files(name, &Cache::find()?.cluster(name))
}

/// A process is the cluster's if it is in one of its control groups or network namespaces: kill, and look again, for it may
/// have started another.
fn end_processes(name: &Name, groups: &[std::path::PathBuf], namespaces: &[String]) -> Result<()> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut last = BTreeSet::new();
    let ended = command::wait("the end of the cluster's processes", "", PATIENCE, || {
        let found = processes(groups, namespaces).map(|pids| {
            pids.into_iter()
                .filter(|&pid| pid != own && !is_zombie(pid))
                .collect::<BTreeSet<_>>()
        });
        match found {
            Ok(pids) if pids.is_empty() => Some(Ok(())),
            Ok(pids) => {
                last.clone_from(&pids);
                machine::kill_all(pids).err().map(Err)
            }
            Err(error) => Some(Err(error)),
        }
    });
    match ended {
        Ok(result) => result,
        Err(Error::Late { .. }) => Err(left(name, format!("the processes {last:?}"))),
        Err(error) => Err(error),
    }
}

fn processes(groups: &[std::path::PathBuf], namespaces: &[String]) -> Result<Vec<i32>> {
    let mut pids: Vec<i32> = groups
        .iter()
        .flat_map(|group| cgroups::processes(group))
        .collect();
    for namespace in namespaces {
        pids.extend(net::processes(namespace)?);
    }
    Ok(pids)
}

/// Dead, and waiting for its parent to notice: `proc_pid_stat(5)`. No longer holds anything.
fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(')')
                .map(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
        })
        .unwrap_or(true)
}

fn remove_files(name: &Name, folder: &Path) -> Result<()> {
    // Nodes' mounts went with their mount namespaces; one still to be seen here would be followed to the machine's own files.
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(Error::at("reading", "/proc/self/mounts"))?;
    let shown = folder.display().to_string();
    let under = |line: &&str| {
        line.split(' ')
            .nth(1)
            .is_some_and(|target| Path::new(target).starts_with(&shown))
    };
    if let Some(mount) = mounts.lines().find(under) {
        return Err(left(name, format!("the mount {mount}")));
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::at("removing", folder)(error))
        }
        _ => Ok(()),
    }
}

fn left(name: &Name, what: String) -> Error {
    Error::LeftBehind {
        name: name.to_string(),
        what,
    }
}
