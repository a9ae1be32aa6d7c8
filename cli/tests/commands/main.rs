//! The built program as a person or a script runs it: exit codes, and the shape of what is printed.
#![forbid(unsafe_code)]

mod cluster;
mod policy;
mod support;
