//! What can go wrong between a person and a cluster.

use std::io;

/// Why an answer could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kubeconfig, or one that does not lead to a cluster.
    #[error("finding the cluster: {why}")]
    Config {
        /// What is wrong with it.
        why: String,
    },
    /// The API server refused, or can't be reached.
    #[error("{doing}: {source}")]
    Api {
        /// What was asked of it.
        doing: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// A program in a pod could not be run, or failed.
    #[error("running {program} in pod {pod}: {why}")]
    Exec {
        /// `namespace/name`.
        pod: String,
        /// What was run.
        program: String,
        /// What it, or the kubelet, said.
        why: String,
    },
    /// Something answered what this release does not understand.
    #[error("{what} is not understood: {why}")]
    Answer {
        /// Whose answer.
        what: String,
        /// The mistake.
        why: String,
    },
    /// There is none of it.
    #[error("{0}")]
    Missing(String),
    /// It is there, and not usable.
    #[error("{0}")]
    Refused(String),
    /// It did not come in time.
    #[error("{what} after {seconds} s: {last}")]
    Timeout {
        /// What was waited for, as a fact that does not hold.
        what: String,
        /// How long.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
    /// A local file.
    #[error("{doing}: {source}")]
    Io {
        /// What was done with it.
        doing: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what the API server said to this.
    pub(crate) fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        |source| Self::Api {
            doing,
            source: Box::new(source),
        }
    }

    /// For `map_err`: what became of a local file.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }

    /// The status code with which the API server refused, where it did.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => code(source),
            _ => None,
        }
    }
}

/// The status code of a refusal.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
