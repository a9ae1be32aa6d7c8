//! The cluster as the operator understands it, and what it wants changed. Pure and synchronous: no clock, no network, no API server;
//! what happens comes in as [`Input`]s, what is to be done goes out as a [`Step`] and as [`Write`]s.
//!
//! ```text
//! Input ─▶ apply ─▶ pods, nodes, services, policies … ─▶ commit ─▶ Index ─▶ Step { first: writes, batch } ─▶ the hub
//!                                                        published(revision), writes(now) ─▶ statuses, endpoints, events
//! ```
//!
//! A follower applies and never commits; becoming the leader, it commits everything at once under the numbers that stored objects give.

mod absence;
mod endpoints;
mod health;
mod identities;
mod input;
mod ipam;
mod nodes;
mod pods;
mod policies;
mod services;
mod state;
mod write;

pub use input::{
    IdentityInput, Input, Kind, NodeInput, PodInput, PolicyInput, RecordInput, RememberedEndpoint,
    ServiceInput, SliceInput, convert,
};
pub use ipam::{IpamError, Pools};
pub use policies::{LAST_VALID_LABEL, PolicyKey, strict_read};
pub use state::{AgentView, Cluster, Config, Counts, Step};
pub use write::{Change, Notice, Object, Write};
