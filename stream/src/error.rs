//! What can go wrong between operator and agent, for people.

use crate::wire;

/// A message that can't be what the other side meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a message at all.
    #[error("{message} is no message of wire version {version}: {reason}", version = wire::VERSION)]
    Malformed {
        /// Which.
        message: &'static str,
        /// What the protobuf decoder said.
        reason: String,
    },
    /// A field is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has a value it can't have.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a token was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It proves nothing, or not what it should.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// Nobody can say at the moment. A session that was let in before goes on.
    #[error("tokens can't be checked now: {0}")]
    Unavailable(String),
}

/// Why the stream can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate or key is not usable.
    #[error("TLS certificate or key: {0}")]
    Tls(String),
    /// The server ended.
    #[error("serving agents: {0}")]
    Transport(#[from] tonic::transport::Error),
}
