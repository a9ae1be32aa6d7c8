//! The core of the operator without an API server.

mod replaced;
mod scenarios;
mod scene;
