//! The cluster side of Sluice: objects of the API server in, tables for agents out, and everything that has to be written back.
//!
//! ```text
//! watch ─▶ core (pure) ─▶ run: writes before ─▶ hub ─▶ agents
//!            ▲                      └─▶ writer ─▶ API server
//!            └── reports of agents
//! ```
//!
//! One replica leads (a Lease says which) and compiles and writes; every replica serves agents. No kernel is touched here.
#![forbid(unsafe_code)]

pub mod authority;
pub mod ca;
pub mod core;
pub mod events;
pub mod health;
pub mod lease;
pub mod listen;
pub mod metrics;
pub mod options;
mod pause;
pub mod run;
pub mod serving;
pub mod token;
pub mod uninstall;
pub mod watch;
pub mod webhook;
pub mod writer;
