//! Tests against the real kernel, and the benchmarks. No product crate may need this one.
#![forbid(unsafe_code)]

pub mod bench;
pub use sluice_figures::stats;
pub mod wire;
