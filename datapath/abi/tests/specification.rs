//! What the datapath does with packets, read as a specification and run over ordinary memory. The kernel tests run the same files
//! against the programs in the kernel, and compare.

mod common;
#[path = "specification/headers.rs"]
mod headers;
#[path = "specification/masquerade.rs"]
mod masquerade;
#[path = "specification/overlay.rs"]
mod overlay;
#[path = "specification/policy.rs"]
mod policy;
#[path = "specification/service.rs"]
mod service;
#[path = "specification/source.rs"]
mod source;
#[path = "specification/stack.rs"]
mod stack;
#[path = "specification/stream.rs"]
mod stream;

/// How many cases a property is tried with.
const CASES: u32 = 4000;

/// Memory is all there is here.
fn twin() -> Option<Box<dyn common::Twin>> {
    None
}
