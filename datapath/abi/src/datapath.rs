//! What the classification needs around it: maps, clock, ring buffer. The kernel's programs implement it, and so does ordinary memory.
//!
//! Only access; every decision is made by the callers.

use crate::{
    Cookie, Range, Reason,
    atomic::Shared,
    config::Config,
    conntrack::{Connection, ConntrackEntry, ConntrackKey, FragmentKey, FragmentValue},
    endpoint::Endpoint,
    event::{Event, Hook},
    ipcache::{Address, AddressInfo, PrefixKey},
    overlay::NodeRecord,
    policy::PolicyTables,
    service::{Affinity, AffinityKey, Backend, Frontend, Service},
};

/// [`crate::event::DropBucket`] as the programs see it.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Bucket {
    /// See [`crate::event::DropBucket::full_at`].
    pub full_at: Shared<u64>,
    /// See [`crate::event::DropBucket::suppressed`].
    pub suppressed: Shared<u64>,
}

/// The maps, the clock and the ring.
///
/// A map element may be freed and used for another key while a reader looks at it. What is returned by value was copied; whoever keeps
/// a reference checks afterwards what tells the key.
pub trait Datapath: PolicyTables {
    /// Nanoseconds of the monotonic clock, exact to some milliseconds.
    fn now(&self) -> u64;
    /// Nanoseconds of the monotonic clock, for the eyes of people.
    fn precise_now(&self) -> u64;
    /// The node's settings.
    fn config(&self) -> Option<&Config>;
    /// The endpoint whose host-side interface has this index; 0 for none.
    fn slot_by_ifindex(&self, ifindex: u32) -> u32;
    /// The endpoint of this node with this address; 0 for none.
    fn slot_by_address(&self, address: &Address) -> u32;
    /// The record in a slot.
    fn endpoint(&self, slot: u32) -> Option<&Endpoint>;
    /// What exactly this address is.
    fn address(&self, address: &Address) -> Option<AddressInfo>;
    /// What the longest prefix around an address is.
    fn prefix(&self, key: &PrefixKey) -> Option<AddressInfo>;
    /// A node as the overlay knows it; its number is checked.
    fn node(&self, number: u32) -> Option<NodeRecord>;
    /// The number of the node whose pods have addresses of the prefix around this one; 0 for none.
    fn node_of(&self, key: &PrefixKey) -> u32;
    /// The address epoch: [`crate::config::epoch::ADDRESSES`].
    fn epoch(&self) -> u32;
    /// The highest local number of a range that the tables know.
    fn watermark(&self, range: Range) -> u32;
    /// A connection's live entry.
    fn connection(&self, key: &ConntrackKey) -> Option<&Connection>;
    /// Writes an entry under its key; false if there is no room.
    #[must_use]
    fn insert_connection(&self, entry: &ConntrackEntry) -> bool;
    /// As [`Datapath::insert_connection`], and also false if there is an entry under its key.
    #[must_use]
    fn claim_connection(&self, entry: &ConntrackEntry) -> bool;
    /// Whether an address is in a block that is never masqueraded.
    fn excluded(&self, key: &PrefixKey) -> bool;
    /// Deletes an entry.
    fn remove_connection(&self, key: &ConntrackKey);
    /// Hands out the next position of an endpoint's ring, counting from 0.
    fn next_position(&self, slot: u32) -> u64;
    /// Copies the key in an element of the rings; false if there is no such element.
    #[must_use]
    fn ring_key(&self, element: u32, into: &mut ConntrackKey) -> bool;
    /// Writes an element of the rings.
    fn set_ring_key(&self, element: u32, key: &ConntrackKey);
    /// What the first fragment of a packet said.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue>;
    /// Remembers what a first fragment said.
    fn insert_fragment(&self, value: &FragmentValue);
    /// What a frontend leads to. The caller checks the key that it carries.
    fn service(&self, key: &Frontend) -> Option<Service>;
    /// The backend's id in an element of the services' lists.
    fn listed_backend(&self, element: u32) -> Option<u32>;
    /// The backend with this id.
    fn backend(&self, id: u32) -> Option<Backend>;
    /// Where a client went last. The caller checks the key that it carries.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Remembers where a client goes.
    fn set_affinity(&self, value: &Affinity);
    /// Counts a dropped packet.
    fn count_drop(&self, hook: Hook, reason: Reason, bytes: u64);
    /// Adds to what a rule, or a built-in circumstance, decided.
    fn count_rule(&self, cookie: Cookie, packets: u64, bytes: u64);
    /// The bucket that limits the drop events of an endpoint (slot 0: no endpoint) and reason.
    fn bucket(&self, slot: u32, reason: Reason) -> Option<&Bucket>;
    /// Sends an event, or counts it as lost.
    fn emit(&self, event: &Event);
}
