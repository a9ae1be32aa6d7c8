//! The core of the operator without an API server: scenarios, and a large cluster.

mod scale;
mod scenarios;
mod scene;
