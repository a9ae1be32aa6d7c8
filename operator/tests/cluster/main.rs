//! The core of the operator without an API server.

mod scenarios;
mod scene;
