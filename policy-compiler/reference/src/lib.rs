//! The slow and obvious evaluator of policy, and [`explain`].
//!
//! It reads rules as the texts of their APIs define them: pod by pod, policy by policy, rule by rule, with nothing precomputed, so that
//! each function can be held against the sentence it stands for. The compiler has to agree with it on everything; for that to mean
//! something no code of the compiler may enter, nor any cleverness.
//!
//! ```text
//! Evaluator ── Case (one side of a query: subject, peer, packet)
//!     │          ├── tier_policy     Admin, Baseline
//!     │          ├── network_policy  ┐
//!     │          └── rules_policy    ┘ namespace tier
//!     └── decide: the tiers' order, modes, local host, L7 ── Side
//! ```
#![forbid(unsafe_code)]

mod addresses;
mod case;
mod considered;
mod decide;
mod evaluator;
pub mod explain;
mod l7;
mod labels;
mod miss;
mod names;
mod network_policy;
mod party;
mod ports;
mod rules_policy;
mod tier_policy;

pub use evaluator::{Evaluator, evaluate};
