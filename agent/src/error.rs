//! What can go wrong on a node. Handling it may not enter.

use std::io;

use sluice_datapath::{
    load::{BadName, LoadError},
    state::{EndpointsFull, ServicesError},
    sys::SysError,
    writer::WriteError,
};
use thiserror::Error;

/// What went wrong on a node.
#[derive(Debug, Error)]
pub enum AgentError {
    /// Programs or links.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Tables.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Another map.
    #[error(transparent)]
    Map(#[from] SysError),
    /// Endpoints.
    #[error(transparent)]
    Endpoints(#[from] EndpointsFull),
    /// Services.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The name of an instance.
    #[error(transparent)]
    Instance(#[from] BadName),
    /// A file or descriptor.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A question that makes no packet.
    #[error("query {0}: source and destination are of different families")]
    MixedFamilies(String),
    /// The program ran and told nothing.
    #[error("query {id}: the kernel program gave no event ({reason})")]
    NoEvent {
        /// The query.
        id: String,
        /// What is known of why.
        reason: String,
    },
}
