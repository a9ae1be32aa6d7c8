//! Each machine's own control groups, nested under this process's own, so that what a node does to its groups stays in them
//! and its cgroup programs see its own sockets only.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

const MOUNTS: &str = "/sys/fs/cgroup";
/// Where cgroup v2 is on a machine that has both versions.
const UNIFIED: &str = "unified";
/// What kubelet and runc use; those that this machine has not mounted are left out.
const CONTROLLERS: &[&str] = &[
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls",
    "net_prio", "hugetlb", "systemd",
];

/// The groups made for a machine.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    /// Folders, one per hierarchy.
    pub(crate) folders: Vec<PathBuf>,
    /// The v1 controllers among them, by folder name.
    pub(crate) controllers: Vec<String>,
}

/// Makes a group called `name` in every hierarchy.
pub(crate) fn create(name: &str) -> Result<Groups> {
    let own = fs::read_to_string("/proc/self/cgroup")
        .map_err(Error::at("reading", "/proc/self/cgroup"))?;
    if !Path::new(MOUNTS).join(UNIFIED).is_dir() {
        return Err(Error::Missing {
            what: format!("{MOUNTS}/{UNIFIED}"),
            hint: "nodes need both cgroup versions mounted, v1 for limits and v2 for programs; with systemd, boot with \
                   systemd.unified_cgroup_hierarchy=0"
                .to_owned(),
        });
    }
    let mut groups = Groups {
        folders: Vec::new(),
        controllers: Vec::new(),
    };
    for hierarchy in CONTROLLERS.iter().chain([&UNIFIED]) {
        let Some(parent) = own_group(&own, hierarchy).filter(|parent| parent.is_dir()) else {
            continue;
        };
        let folder = parent.join(name);
        fs::create_dir_all(&folder).map_err(Error::at("creating", &folder))?;
        if *hierarchy == "cpuset" {
            // Empty in a new group, which could hold no process.
            copy(&parent.join("cpuset.cpus"), &folder.join("cpuset.cpus"))?;
            copy(&parent.join("cpuset.mems"), &folder.join("cpuset.mems"))?;
        }
        if *hierarchy != UNIFIED {
            groups.controllers.push((*hierarchy).to_owned());
        }
        groups.folders.push(folder);
    }
    Ok(groups)
}

/// This process's group in a hierarchy, from the text of `/proc/self/cgroup`, `cgroups(7)`.
fn own_group(own: &str, hierarchy: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let named = controllers
            .split(',')
            .any(|name| name.strip_prefix("name=").unwrap_or(name) == hierarchy);
        (named || hierarchy == UNIFIED && id == "0").then_some(path)
    })?;
    Some(
        Path::new(MOUNTS)
            .join(hierarchy)
            .join(path.trim_start_matches('/')),
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let value = fs::read(from).map_err(Error::at("reading", from))?;
    fs::write(to, value).map_err(Error::at("writing", to))
}

/// All groups whose name starts so, wherever they were made.
pub(crate) fn leftovers(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in children(Path::new(MOUNTS)) {
        // Made under the group of whoever started the cluster, which may be this process's or not.
        search(&hierarchy, prefix, 4, &mut found);
    }
    found
}

fn search(folder: &Path, prefix: &str, depth: u8, found: &mut Vec<PathBuf>) {
    for child in children(folder) {
        if child
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        {
            found.push(child);
        } else if depth > 0 {
            search(&child, prefix, depth - 1, found);
        }
    }
}

/// Processes in a group and all below it.
pub(crate) fn processes(folder: &Path) -> Vec<i32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(folder) {
        pids.extend(processes(&child));
    }
    pids
}

/// Removes a group and all below it; says whether it is gone. A group can't go before the last of its processes has.
pub(crate) fn remove(folder: &Path, limit: Duration) -> bool {
    let start = Instant::now();
    loop {
        remove_once(folder);
        if !folder.exists() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn remove_once(folder: &Path) {
    for child in children(folder) {
        remove_once(&child);
    }
    // Whether it is gone is looked at by the caller.
    fs::remove_dir(folder).unwrap_or_default();
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "9:name=systemd:/user\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/unit\n";

    #[test]
    fn a_group_is_found_in_every_kind_of_hierarchy() {
        let path = |hierarchy| own_group(OWN, hierarchy).map(|path| path.display().to_string());
        assert_eq!(path("memory").unwrap(), "/sys/fs/cgroup/memory/a/b");
        assert_eq!(path("systemd").unwrap(), "/sys/fs/cgroup/systemd/user");
        assert_eq!(path("cpuacct").unwrap(), "/sys/fs/cgroup/cpuacct/");
        assert_eq!(path("unified").unwrap(), "/sys/fs/cgroup/unified/unit");
        assert_eq!(path("pids"), None);
    }
}
