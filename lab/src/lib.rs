#![forbid(unsafe_code)]
//! The lab: pods as network namespaces on this machine's kernel, a folder of ordinary manifests in place of the API server.
//!
//! It runs the compiler and the agent's core as a cluster would; only where objects come from and who makes interfaces differ. What
//! a verdict means, and how tables are written, may not enter here.
//!
//! ```text
//! files ── store ── objects ── world ──▶ sluice-policy ──▶ sluice-agent ──▶ kernel
//!                               └─ plan ── network (namespaces, veths) ── serve (responders)
//! supervisor: holds all of that, answers control requests, follows files and flows
//! probe: tries who reaches whom, beside what an evaluator says
//! ```

pub mod cleanup;
pub mod control;
pub mod demo;
mod difference;
mod error;
pub mod exec;
pub mod name;
pub mod network;
pub mod objects;
pub mod plan;
mod pods;
pub mod probe;
pub mod record;
pub mod responder;
pub mod serve;
pub mod store;
pub mod supervisor;

pub use error::LabError;
pub use name::LabName;
pub use supervisor::{Options, Supervisor};
