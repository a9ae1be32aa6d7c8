//! The operator against an API server in memory: its parts, and the whole of it.

mod api;
mod reconcilers;
mod whole;
