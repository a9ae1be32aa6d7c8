//! A node's file system: the machine's own `/usr`, read-only, and everything else new.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root},
};

use super::{CONTROL_INSIDE, Root, Spec};
use crate::{
    command,
    error::{Doing as _, Error, Result},
};

const FOLDERS: &[&str] = &[
    "usr",
    "etc/cni/net.d",
    "etc/kubernetes",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "root",
    "var/lib/containerd",
    "var/lib/kubelet",
    "var/lib/cni",
    "var/log",
    "opt/cni/bin",
    "opt/bin",
    "machine",
    ".old",
];

/// Files of the machine's `/etc` that programs in `/usr` need; those that are absent are left out.
const ETC: &[&str] = &[
    "passwd",
    "group",
    "nsswitch.conf",
    "ssl",
    "alternatives",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld.so.cache",
    "protocols",
    "services",
    "ethertypes",
    "iproute2",
];

/// The reference CNI plugins, which containerd looks for in `/opt/cni/bin`.
const PLUGINS: &[&str] = &["bridge", "host-local", "loopback", "portmap"];

/// Settings that kubelet wants to have this way and would change for the whole machine: it is shown files instead.
const SHOWN: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

const NONE: Option<&str> = None;

/// Makes the file system and makes it `/`.
pub(super) fn enter(root: &Root, spec: &Spec) -> Result<()> {
    let folder = root.folder.as_path();
    files(folder, &spec.hostname)?;
    bind(folder, folder)?;
    bind_read_only(Path::new("/usr"), &folder.join("usr"))?;
    bind_read_only(&root.programs, &folder.join("opt/bin"))?;
    bind(&spec.control, &folder.join("machine"))?;
    kernel_file_systems(folder, &root.controllers)?;
    hide_machine_wide_settings(folder)?;
    pivot(folder)?;
    debug_assert!(
        Path::new(CONTROL_INSIDE).is_dir(),
        "the control folder was bound before"
    );
    Ok(())
}

fn files(folder: &Path, hostname: &str) -> Result<()> {
    for name in FOLDERS {
        make_dir(&folder.join(name))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        link(&format!("usr/{name}"), &folder.join(name))?;
    }
    link("/run", &folder.join("var/run"))?;
    for plugin in PLUGINS {
        link(
            &format!("/opt/bin/{plugin}"),
            &folder.join("opt/cni/bin").join(plugin),
        )?;
    }
    let present = ETC
        .iter()
        .map(|name| Path::new("/etc").join(name))
        .filter(|path| path.exists());
    command::output(
        Command::new("cp")
            .arg("-a")
            .args(present)
            .arg(folder.join("etc")),
    )?;
    write(
        &folder.join("etc/hosts"),
        &format!("127.0.0.1 localhost {hostname}\n::1 localhost {hostname}\n"),
    )?;
    // No resolver: a node reaches nothing outside.
    write(&folder.join("etc/resolv.conf"), "")?;
    write(&folder.join("etc/hostname"), &format!("{hostname}\n"))?;
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(Error::at("reading", "/proc/sys/kernel/random/uuid"))?;
    write(&folder.join("etc/machine-id"), &id.replace('-', ""))
}

fn kernel_file_systems(folder: &Path, controllers: &[String]) -> Result<()> {
    mounted(
        Some("/dev"),
        &folder.join("dev"),
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NONE,
    )?;
    // What this machine mounts later appears; nothing goes the other way.
    mounted(
        NONE,
        &folder.join("dev"),
        NONE,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        NONE,
    )?;
    fresh("proc", &folder.join("proc"), NONE)?;
    fresh("sysfs", &folder.join("sys"), NONE)?;
    fresh("tmpfs", &folder.join("run"), NONE)?;
    fresh("tmpfs", &folder.join("tmp"), NONE)?;
    make_dir(&folder.join("run/lock"))?;
    let cgroups = folder.join("sys/fs/cgroup");
    fresh("tmpfs", &cgroups, NONE)?;
    for controller in controllers {
        let target = cgroups.join(controller);
        make_dir(&target)?;
        let named = format!("none,name={controller}");
        let data = if controller == "systemd" {
            &named
        } else {
            controller
        };
        fresh("cgroup", &target, Some(data))?;
    }
    let unified = cgroups.join("unified");
    make_dir(&unified)?;
    fresh("cgroup2", &unified, NONE)?;
    fresh("bpf", &folder.join("sys/fs/bpf"), NONE)
}

fn hide_machine_wide_settings(folder: &Path) -> Result<()> {
    let shown = folder.join("run/shown-settings");
    make_dir(&shown)?;
    for (name, value) in SHOWN {
        let real = folder.join("proc/sys").join(name);
        if real.exists() {
            let file = shown.join(name.replace('/', "."));
            write(&file, &format!("{value}\n"))?;
            bind(&file, &real)?;
        }
    }
    Ok(())
}

/// `pivot_root(2)`: the old root is reached no more.
fn pivot(folder: &Path) -> Result<()> {
    chdir(folder).doing(|| format!("entering {}", folder.display()))?;
    pivot_root(".", ".old").doing(|| format!("making {} the root", folder.display()))?;
    chdir("/").doing(|| "entering the new root".to_owned())?;
    umount2("/.old", MntFlags::MNT_DETACH).doing(|| "letting go of the old root".to_owned())?;
    // Pods that mount with Bidirectional propagation need a shared root, as on a usual node.
    mounted(
        NONE,
        Path::new("/"),
        NONE,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
        NONE,
    )
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND;
    mount(Some(from), to, NONE, flags, NONE)
        .doing(|| format!("showing {} at {}", from.display(), to.display()))?;
    mounted(NONE, to, NONE, MsFlags::MS_PRIVATE, NONE)
}

fn bind_read_only(from: &Path, to: &Path) -> Result<()> {
    bind(from, to)?;
    mounted(
        NONE,
        to,
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        NONE,
    )
}

fn fresh(kind: &str, target: &Path, data: Option<&str>) -> Result<()> {
    mounted(Some(kind), target, Some(kind), MsFlags::empty(), data)
}

fn mounted(
    source: Option<&str>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<()> {
    mount(source, target, kind, flags, data).doing(|| {
        format!(
            "mounting {} at {} ({flags:?})",
            source.unwrap_or("-"),
            target.display()
        )
    })
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::at("creating", path))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::at("writing", path))
}

fn link(target: &str, at: &Path) -> Result<()> {
    if at.symlink_metadata().is_ok() {
        return Ok(());
    }
    symlink(target, at).map_err(Error::at("linking", at))
}
