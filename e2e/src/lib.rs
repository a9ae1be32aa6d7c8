//! Tests against the real kernel, and the benchmarks. No product crate may need this one.
#![forbid(unsafe_code)]

pub mod stats;
pub mod wire;
