//! One generator of worlds, policies and queries for everything: differential tests, which shrink, and benchmarks, which scale.
//!
//! ```text
//! Recording (u32s that proptest shrinks) ─┐
//!                                         ├─> Choices ─> Generated { documents, queries, learned }
//! seed (benchmarks) ──────────────────────┘                 │ JSON, so that the manifest reader is tested as well
//! Parameters (all printed beside each figure) ─> generate   └─> reduce() makes a failing world small
//! ```
//!
//! The generator writes manifests and knows their syntax; it never says what they mean, or a fault of meaning here would hide
//! the same fault in an evaluator. What it writes is valid unless a mutation of [`invalid`] is asked for.
#![forbid(unsafe_code)]

mod choices;
mod cilium;
mod generate;
mod interests;
pub mod invalid;
mod l7;
mod network;
mod parameters;
mod pods;
mod ports;
mod queries;
pub mod reduce;
mod selectors;
mod services;
mod tiers;
mod vocabulary;
mod world;

pub use choices::{Choices, Recording};
pub use generate::{Generated, generate, generate_seeded, manifest};
pub use parameters::{Kind, Parameters, Percent};
