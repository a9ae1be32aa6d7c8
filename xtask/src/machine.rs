//! What this tool may do to the machine: become root, install Debian packages, mount the BPF file system. Each says so.

use std::{ffi::OsStr, fs, io::IsTerminal as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, say};

const BPFFS: &str = "/sys/fs/bpf";

/// Whether this process is root.
pub(crate) fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")
        .context("reading /proc/self/status, to see whether this is root; is this Linux?")?;
    Ok(effective_uid(&status).context("/proc/self/status has no effective user id")? == 0)
}

/// The second number of the `Uid:` line, `proc_pid_status(5)`.
fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A command that runs as root: directly, or through sudo, which may ask only where somebody can answer.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    if process::find("sudo").is_none() {
        bail!(
            "`{}` needs root, and there is no sudo: run this command as root",
            program.as_ref().to_string_lossy()
        );
    }
    let mut sudo = Command::new("sudo");
    if !std::io::stdin().is_terminal() {
        sudo.arg("--non-interactive");
    }
    sudo.arg(program);
    Ok(sudo)
}

/// Installs Debian packages, refreshing the package lists only if they don't know one.
pub(crate) fn apt_install(packages: &[String], why: &str) -> Result<()> {
    say(format!(
        "installing the Debian packages {}: {why}",
        packages.join(" ")
    ));
    if apt_get_install(packages).is_ok() {
        return Ok(());
    }
    say("that failed, perhaps for stale package lists: refreshing them and trying once more");
    process::run_interactive(as_root("apt-get")?.args(["update", "--quiet"]))?;
    apt_get_install(packages)
}

fn apt_get_install(packages: &[String]) -> Result<()> {
    // `env`, for sudo hands no variables on.
    process::run_interactive(
        as_root("env")?
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install"])
            .args(["--yes", "--quiet", "--no-install-recommends"])
            .args(packages),
    )
}

/// Mounts the BPF file system where it isn't; pinned maps and links live there.
pub(crate) fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    if has_bpffs(&mounts) {
        return Ok(());
    }
    if !Path::new(BPFFS).is_dir() {
        bail!("{BPFFS} does not exist: this kernel lacks BPF, or /sys is not mounted");
    }
    say(format!(
        "mounting the BPF file system at {BPFFS}, for pinned maps and links"
    ));
    process::run_interactive(as_root("mount")?.args(["-t", "bpf", "bpf", BPFFS]))
}

fn has_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_counts_and_not_the_real_one() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        assert_eq!(effective_uid("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn only_a_bpf_mount_at_the_usual_place_counts() {
        assert!(has_bpffs(
            "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n"
        ));
        assert!(!has_bpffs("bpf /run/other bpf rw 0 0\n"));
        assert!(!has_bpffs("none /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
