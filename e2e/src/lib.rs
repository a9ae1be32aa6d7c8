//! Tests against the real kernel, and the benchmarks. No product crate may need this one.
#![forbid(unsafe_code)]

pub mod bench;
pub mod stats;
pub mod wire;
