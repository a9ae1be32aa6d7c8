//! The library against an API server in memory.
#![forbid(unsafe_code)]

mod connectivity;
mod objects;
mod policy;
mod support;
mod sysdump;
