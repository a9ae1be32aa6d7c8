//! How things travel: protobuf messages around packed records. Encoding can't fail; decoding is strict and names the field.

pub mod proto {
    //! The messages as compiled from `proto/stream.proto`, which documents them.
    #![allow(missing_docs, unused_qualifications, clippy::pedantic)]
    tonic::include_proto!("sluice.stream.v1");
}

mod decode;
pub(crate) mod encode;
mod pack;
mod proxy;

pub(crate) use decode::Gathered;

/// The wire version that this crate speaks; it speaks no other yet.
pub const VERSION: u32 = 1;
