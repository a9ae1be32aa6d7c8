//! Network namespaces and what is in them: links, addresses, routes, neighbours, sysctls. Everything here is synchronous and
//! free of `unsafe`; eBPF may not enter.
//!
//! ```text
//! NetNs ──enter──▶ Netlink (a socket bound to that namespace for good)
//!                    ├── link.rs       veth pairs, state, MTU, MAC, index look-ups
//!                    ├── address.rs    addresses, routes, permanent neighbours
//!                    ├── filter.rs     programs at an interface at once
//!                    ├── overlay.rs    the device between nodes
//!                    ├── routing.rs    what is assigned, where the kernel would send, routes marked as ours
//!                    └── pod.rs        a pod's interface out of these
//! ```

mod address;
mod filter;
mod link;
mod mac;
mod namespace;
mod netlink;
pub mod overlay;
pub mod pod;
mod routing;
mod sysctl;

pub use address::Route;
pub use link::{Link, VethEnd};
pub use mac::{BadMac, Mac};
pub use namespace::{NetNs, in_namespace};
pub use netlink::Netlink;
pub use routing::{Hop, MarkedRoute, NextHop};
pub use sysctl::{correct_own_sysctls, correct_sysctls, dual_stack_forwarding, set_sysctls};

use thiserror::Error;

/// What went wrong with a namespace, link, address, route or neighbour.
#[derive(Debug, Error)]
#[error("{action}: {source}")]
pub struct NetError {
    /// What was being done, with the names of what it was done to.
    pub action: String,
    /// What the kernel answered.
    #[source]
    pub source: std::io::Error,
}

impl NetError {
    /// An error of `action`.
    pub(crate) fn new(action: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self {
            action: action.into(),
            source: source.into(),
        }
    }

    /// Whether the kernel said that the thing is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH)
        )
    }
}
