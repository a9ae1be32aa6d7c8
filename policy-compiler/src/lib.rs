#![forbid(unsafe_code)]
//! The compiler: policies of every API and the world they hold in, in; changes of kernel tables, out. Pure and synchronous: no clock,
//! no I/O, no threads.
//!
//! ```text
//! WorldItem ─▶ Index::apply ─ convert ─▶ RuleSet ┐                       ┌─▶ programs, attributions (pool)
//!              (pods, nodes, prefixes) ─▶ identities ─ registry ─▶ tables ┤
//!                                                                        └─▶ ipcache, endpoints ─▶ Delta
//! Delta ─▶ MemTables ─ abi::policy::judge ─▶ Engine::answer
//! ```
//!
//! The reference evaluator is a crate of its own and shares no code with this one.

pub mod convert;
pub mod delta;
pub mod engine;
pub mod fqdn;
mod gather;
pub mod identity;
pub mod index;
pub mod intern;
pub mod memory;
mod pool;
pub mod prefix;
pub mod program;
pub mod properties;
pub mod proxy;
pub mod registry;
pub mod rule;
pub mod selector;
mod sets;
mod table;
pub mod vocabulary;

pub use convert::Prepared;
pub use delta::{Delta, Endpoint, RedirectSet, TableDelta, Warning};
pub use engine::Engine;
pub use identity::Store;
pub use index::{Index, ItemRef, Settings};
pub use memory::MemTables;
