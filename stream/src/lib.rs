//! What operator and agents say to each other: the messages, the state they add up to and what of it each node needs, the serving side
//! and the subscribing side. No Kubernetes and no kernel here.
//!
//! ```text
//! leader: Index ─▶ Batch ─▶ Hub::publish ─ come, move, go ─▶ sessions (one View each) ─▶ agents: Subscription ─▶ Event::Update
//!                            ▲ acks, reports                    └─▶ followers: Hub::follow ─▶ their own agents
//! ```
#![forbid(unsafe_code)]

pub mod catalog;
pub mod client;
mod error;
pub mod hub;
pub mod server;
#[cfg(test)]
mod tests;
mod types;
pub mod wire;

pub use catalog::{Catalog, Held, View};
pub use client::{Event, Handle, Options, Subscription};
pub use error::{AuthError, DecodeError, ServeError};
pub use hub::Hub;
pub use server::{Authenticate, TlsConfig, serve};
/// For implementing [`Authenticate`].
pub use tonic::async_trait;
pub use types::{
    AgentStatus, Backend, Batch, Condition, Frontend, MapUse, NodeInfo, Overlay, Published, Report,
    Revision, ServiceEntry, SessionInfo, Settings, Update,
};

/// The name under which an operator that follows another subscribes: it gets everything, unfiltered.
pub const EVERY_NODE: &str = "*";
