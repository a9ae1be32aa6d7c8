#![forbid(unsafe_code)]
//! One node's agent as a process: pods' interfaces for the container runtime, the operator's word brought into the kernel, the node's routes.
//!
//! What a verdict is may not enter (that is `sluice-policy`'s), nor how maps are written (`sluice-datapath`'s).
//!
//! ```text
//! container runtime ─▶ endpoint (socket, Manager) ─┐
//! operator ─▶ cluster (stream) ────────────────────┼─▶ engine (one thread) ─▶ sluice_agent::Node ─▶ kernel
//!                                                  │      └─▶ node (routes, devices)
//! people, Prometheus ─▶ http ◀── board, metrics ◀──┘
//! store: what outlives the process       install, cleanup: files and what else is on the machine
//! ```

pub mod cleanup;
pub mod cluster;
pub mod endpoint;
pub mod engine;
pub mod http;
pub mod install;
pub mod metrics;
pub mod node;
pub mod options;
pub mod run;
pub mod store;
