#![forbid(unsafe_code)]
//! The node's core: which endpoints there are, the tables the compiler made for them brought into the kernel, and what the kernel tells
//! brought back into names.
//!
//! What a policy means may not enter (that is `sluice-policy`'s), nor how maps are written (`sluice-datapath`'s).
//!
//! ```text
//! sluice_policy::Delta ─▶ tables (ids, grouping) ─▶ node (order) ─▶ sluice_datapath
//!                          book (names) ◀── events ◀──────────────── ring buffer
//! kernel_engine: a world in a node without interfaces, questions as packets
//! ```

mod book;
mod error;
mod events;
pub mod flow;
mod ids;
mod kernel_engine;
mod node;
mod outgoing;
pub mod packet;
mod tables;

pub use error::AgentError;
pub use events::FlowReader;
pub use flow::{FlowEnd, FlowKind, FlowRecord, Names};
pub use kernel_engine::KernelEngine;
pub use node::{
    Interface, Masquerade, Node, OverlayDevice, config, instances, is_busy, remove_instance,
};
