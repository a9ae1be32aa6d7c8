//! The maps beside the policy tables: who is where, the node's settings, connections, counters, events. Each has one writer or reader
//! with the order of its steps; policy may not enter.

mod addresses;
mod connections;
mod counters;
mod endpoints;
mod events;
mod masquerade;
mod nodes;
mod services;
mod settings;

pub use addresses::{AddressChange, Addresses};
pub use connections::{Collected, Connections};
pub use counters::{Counters, DropCount, Losses};
pub use endpoints::{Endpoints, EndpointsFull, Place};
pub use events::Events;
pub use masquerade::Excluded;
pub use nodes::{Nodes, OtherNode};
pub use services::{Services, ServicesError, Target, Targets};
pub use settings::Settings;

/// Nanoseconds of the monotonic clock: the one that the programs' times are of.
///
/// # Panics
/// If the kernel has no monotonic clock, which every kernel has.
#[must_use]
pub fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("the monotonic clock is always there");
    u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000
        + u64::try_from(now.tv_nsec()).unwrap_or(0)
}
