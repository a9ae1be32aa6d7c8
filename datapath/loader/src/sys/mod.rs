//! A small shim over bpf(2) for what the eBPF library lacks: batch map calls, replacing the program of a link, mapping an array into
//! memory, reading back a map's layout, waiting for a grace period. Together with the drop of privileges to raw pointers it is the only
//! room of this crate with `unsafe`; what is stored and why may not enter.

mod bytes;
mod call;
mod empty;
mod grace;
mod map;
mod mapped;
mod object;

pub use empty::EmptyProgram;
pub use grace::GracePeriod;
pub use map::{Map, PerCpuMap};
pub use mapped::MappedWords;
pub use object::{
    LinkInfo, MapInfo, create_hash, create_tcx_link, link_info, map_info, open_pinned, pin,
    update_link,
};

pub(crate) use bytes::read;

use thiserror::Error;

/// A bpf(2) call that failed.
#[derive(Debug, Error)]
#[error("{call} on {object}: {source}{}", hint(.source))]
pub struct SysError {
    /// The command.
    pub call: &'static str,
    /// The map, link or path it was about.
    pub object: String,
    /// What the kernel answered.
    #[source]
    pub source: std::io::Error,
}

impl SysError {
    /// Whether the map takes no further entry. The kernel says so with `E2BIG` (hash), `ENOSPC` (trie) or `ENOMEM`.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM)
        )
    }

    /// Whether the thing is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.raw_os_error() == Some(libc::ENOENT)
    }
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => " (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or root, are needed)",
        _ => "",
    }
}
