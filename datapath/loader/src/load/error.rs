//! How loading, attaching and removing can fail.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::BadName;
use crate::object::Missing;
use crate::probe::ProbeError;
use crate::sys::SysError;

/// The datapath could not be loaded, attached or removed.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel or the rights do not suffice.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// This binary has no programs in it.
    #[error(transparent)]
    Object(#[from] Box<aya::EbpfError>),
    /// This binary was built without the programs.
    #[error(transparent)]
    NotBuilt(#[from] Missing),
    /// The object lacks a program.
    #[error("the eBPF object has no program `{0}`: build it anew with `cargo xtask ebpf`")]
    Missing(&'static str),
    /// The kernel refuses a program.
    #[error("program {name}: {source}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why, with the verifier's last words.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A pinned map is not what this version wants.
    #[error(
        "the pinned map {path} has {field} {found}, and {wanted} is wanted: something else was put there; remove the instance"
    )]
    Layout {
        /// Where it is pinned.
        path: PathBuf,
        /// Which property.
        field: &'static str,
        /// What it is.
        found: u32,
        /// What it should be.
        wanted: u32,
    },
    /// Sizes that can't be.
    #[error("{0}")]
    Sizes(String),
    /// Another process has the instance.
    #[error("instance {0} is in use by another process")]
    InUse(String),
    /// The name is no instance's.
    #[error(transparent)]
    Name(#[from] BadName),
    /// A call of bpf(2) failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The ring of events can't be mapped.
    #[error("mapping the ring of events: {0}")]
    Ring(#[from] aya::maps::MapError),
    /// Running a program on a test packet failed.
    #[error("running {0} on a test packet: {1}")]
    TestRun(&'static str, aya::programs::ProgramError),
    /// A file or directory.
    #[error("{path}: {source}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A namespace could not be entered.
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
}

impl LoadError {
    pub(super) fn path(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Path {
            path: path.into(),
            source,
        }
    }
}
