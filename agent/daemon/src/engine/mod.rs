//! The node's state in the kernel: one thread owns it, takes in what the operator says and what the endpoint manager asks for, in the order
//! they come, and tells everyone else through a board. What is said and asked may not be decided here.
//!
//! ```text
//! stream ──Update──▶ ┐                      ┌─▶ sluice_agent::Node ─▶ kernel
//! manager ─attach──▶ ├ channel ─▶ Engine ───┼─▶ store::Updates        next start
//! timer ───Tick────▶ ┘                      ├─▶ ServiceSink, Routing  what is not policy
//!                                           └─▶ Board ─▶ manager, status, metrics
//! ```

mod board;
mod handle;
mod keep;
mod sinks;
mod thread;

pub use board::{Board, Known, Operator};
pub use handle::{Acknowledge, EngineHandle};
pub use sinks::{Cluster, Routing, ServiceSink};
pub use thread::{Commands, Engine, EngineError, Parts};
