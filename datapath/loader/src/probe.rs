//! What this kernel has and this process may do: asked once at start, shown to people, and refused where it can't be done without.
//! Nothing is changed here except by [`mount_bpffs`], which says so.

use std::fmt;
use std::io;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::{SchedClassifier, TcAttachType};
use aya::sys::is_map_supported;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

use crate::net::Netlink;
use crate::sys::GracePeriod;

/// Where pinned maps and links live.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The oldest kernel with tcx links.
const FLOOR: (u32, u32) = (6, 6);

/// Bits of capability sets (include/uapi/linux/capability.h). `CAP_SYS_ADMIN` contains `CAP_BPF` and `CAP_PERFMON`.
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Present,
    /// It is not, and why that is thought.
    Absent(String),
}

/// A feature of the kernel or of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, for people.
    pub name: &'static str,
    /// Whether it is there.
    pub state: State,
    /// Whether nothing works without it.
    pub required: bool,
    /// What its absence means.
    pub consequence: &'static str,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Present => write!(f, "{}: present", self.name),
            State::Absent(why) => write!(f, "{}: absent ({why}): {}", self.name, self.consequence),
        }
    }
}

/// The datapath can't run here.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The process lacks rights.
    #[error(
        "this process may not use eBPF ({0}): run it as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    Privilege(io::Error),
    /// The kernel lacks something that nothing works without.
    #[error("this kernel ({release}) can't run the datapath: {}", list(.missing))]
    Kernel {
        /// `uname -r`.
        release: String,
        /// What is missing.
        missing: Vec<Feature>,
    },
    /// The bpf file system could not be mounted.
    #[error("mounting a bpf file system at {BPFFS}: {0}")]
    Mount(io::Error),
}

/// Asks for every feature. Those that can't be asked for without rights count as absent.
#[must_use]
pub fn probe() -> Vec<Feature> {
    vec![
        feature(
            "kernel 6.6 or newer",
            version(),
            true,
            "tcx links and the verifier's later abilities are missing",
        ),
        feature(
            "rights to use eBPF",
            rights(),
            true,
            "nothing can be loaded",
        ),
        feature("tcx", tcx(), true, "programs can't be attached"),
        feature(
            "ring buffer",
            supported(MapType::RingBuf),
            true,
            "programs with events can't be loaded",
        ),
        feature(
            "prefix trie",
            supported(MapType::LpmTrie),
            true,
            "address blocks and long port lists can't be looked up",
        ),
        feature(
            "grace period",
            grace(),
            true,
            "tables can't be changed safely",
        ),
        feature("BTF", btf(), false, "bpftool shows maps as bytes"),
        feature(
            "eBPF compiler (JIT)",
            jit(),
            false,
            "programs are interpreted: every packet costs several times as much",
        ),
        feature(
            "VXLAN devices",
            vxlan(),
            false,
            "nodes can't be connected by the overlay, only by direct routing",
        ),
        feature(
            "bpf file system",
            bpffs(),
            false,
            "nothing survives a restart until one is mounted",
        ),
    ]
}

/// Refuses a kernel or process that can't run the datapath.
///
/// # Errors
/// See [`ProbeError`].
pub fn require() -> Result<(), ProbeError> {
    if let Err(error) = supported(MapType::Array).and_then(|()| rights()) {
        return Err(ProbeError::Privilege(io::Error::new(
            io::ErrorKind::PermissionDenied,
            error,
        )));
    }
    let missing: Vec<Feature> = probe()
        .into_iter()
        .filter(|feature| feature.required && feature.state != State::Present)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ProbeError::Kernel {
            release: release(),
            missing,
        })
    }
}

/// Mounts a bpf file system where none is. `true` if it had to.
///
/// # Errors
/// The process may not mount (`CAP_SYS_ADMIN`), or the kernel has no such file system.
pub fn mount_bpffs() -> Result<bool, ProbeError> {
    if bpffs().is_ok() {
        return Ok(false);
    }
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .map_err(|e| ProbeError::Mount(e.into()))?;
    Ok(true)
}

fn feature(
    name: &'static str,
    found: Result<(), String>,
    required: bool,
    consequence: &'static str,
) -> Feature {
    let state = found.map_or_else(State::Absent, |()| State::Present);
    Feature {
        name,
        state,
        required,
        consequence,
    }
}

fn vxlan() -> Result<(), String> {
    let made = Netlink::open()
        .and_then(|mut netlink| netlink.has_vxlan())
        .map_err(|error| error.to_string())?;
    if made {
        Ok(())
    } else {
        Err("the kernel has no driver for them".to_owned())
    }
}

fn version() -> Result<(), String> {
    let release = release();
    match parse(&release) {
        Some(version) if version >= FLOOR => Ok(()),
        _ => Err(format!("it is {release}")),
    }
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Major and minor number of a kernel release such as `6.18.44-cloud`.
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn rights() -> Result<(), String> {
    // Making and attaching programs needs more than making maps, which some kernels grant to everyone.
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or("/proc/self/status does not tell")?;
    let bpf = effective & (SYS_ADMIN | BPF) != 0;
    if bpf && effective & NET_ADMIN != 0 {
        Ok(())
    } else {
        Err("CAP_BPF or CAP_NET_ADMIN is missing".to_owned())
    }
}

fn tcx() -> Result<(), String> {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress)
        .map(drop)
        .map_err(|e| e.to_string())
}

fn supported(kind: MapType) -> Result<(), String> {
    match is_map_supported(kind) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the kernel knows no such map".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn grace() -> Result<(), String> {
    GracePeriod::new().map(drop).map_err(|e| e.to_string())
}

fn btf() -> Result<(), String> {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Ok(())
    } else {
        Err("no /sys/kernel/btf/vmlinux".to_owned())
    }
}

fn jit() -> Result<(), String> {
    match std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(text) if text.trim() == "0" => Err("net.core.bpf_jit_enable is 0".to_owned()),
        Ok(_) => Ok(()),
        // Only the machine's first network namespace shows it; a node in another can't tell, and nearly every kernel compiles.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn bpffs() -> Result<(), String> {
    match statfs(BPFFS) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) => Err(format!("none is mounted at {BPFFS}")),
        Err(error) => Err(error.to_string()),
    }
}

fn list(missing: &[Feature]) -> String {
    let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for (release, version) in [
            ("6.18.44-fc", (6, 18)),
            ("6.6-rc1", (6, 6)),
            ("5.15.0-91-generic", (5, 15)),
        ] {
            assert_eq!(parse(release), Some(version));
        }
        assert_eq!(parse("linux"), None);
        assert!((6, 18) >= FLOOR && (5, 15) < FLOOR && (7, 0) >= FLOOR);
    }

    #[test]
    fn an_absent_feature_says_what_that_means() {
        let absent = feature(
            "tcx",
            Err("EINVAL".to_owned()),
            true,
            "programs can't be attached",
        );
        assert_eq!(
            absent.to_string(),
            "tcx: absent (EINVAL): programs can't be attached"
        );
    }
}
