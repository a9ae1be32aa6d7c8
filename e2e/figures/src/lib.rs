//! Figures of benchmarks: medians, percentiles, markdown tables, and their places in docs/benchmarks.md. Measuring may not enter.
#![forbid(unsafe_code)]

pub mod report;
pub mod stats;
