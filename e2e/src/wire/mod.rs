//! Traffic on real sockets between network namespaces, and the topologies to compare: a bare veth pair, a bridge, a router with netfilter.
//!
//! Only measures; what is measured is set up by the topologies here or by the caller.

mod load;
mod topology;

pub(crate) use load::pin;
pub use load::{Endpoint, LoadError, connects, request_response, stream};
pub use topology::{Netfilter, Topology};
