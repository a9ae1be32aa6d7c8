//! What the kernel programs, their writers and the tests share: the layout of every map key and value, packet parsing, and the
//! classification itself over traits that the kernel's maps and ordinary memory both implement.
//!
//! Nothing here allocates, needs `std`, performs I/O or knows Kubernetes. Everything the kernel does is in this crate, so that it
//! can be tested, fuzzed and benchmarked on the host.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
// The verifier follows values through straight code far better than through calls, and a call costs the kernel's machine its registers:
// what is small is always inlined, and what is a stage never.
#![allow(clippy::inline_always)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod atomic;
pub mod balance;
pub mod classify;
pub mod config;
pub mod conntrack;
pub mod context;
pub mod cookie;
pub mod datapath;
pub mod endpoint;
pub mod event;
pub mod identity;
pub mod ipcache;
pub mod judge;
pub mod maps;
pub mod masquerade;
#[cfg(any(test, feature = "std"))]
pub mod memory;
pub mod neighbour;
pub mod overlay;
pub mod packet;
pub mod parse;
pub mod policy;
pub mod program;
pub mod reason;
pub mod refuse;
pub mod report;
pub mod service;
pub mod track;
pub mod translate;

pub use cookie::Cookie;
pub use identity::{Identity, Range, Scope};
pub use reason::Reason;

/// Marks a type that may be written to and read from a map byte by byte.
///
/// # Safety
/// The type must be `repr(C)` or `repr(transparent)`, have no padding bytes, and every bit pattern must be a valid value.
pub unsafe trait MapData: Copy + 'static {}

/// Declares the listed types to be [`MapData`].
///
/// The types' fields are integers and arrays of integers, and each has a test of its size that shows there is no padding.
macro_rules! map_data {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` over integers and arrays of integers with explicit padding; the module's size test shows no hidden byte.
            unsafe impl crate::MapData for $name {}
        )+
    };
}
pub(crate) use map_data;

// Array indexes and the words of mmapable arrays.
map_data!(u32, u64);
