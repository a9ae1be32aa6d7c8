//! Services as the kernel programs see them: from a frontend to the list of its backends, and who goes to the same backend again.
//!
//! Only layouts; which backend a packet goes to is `balance`'s, and what becomes of the packet `translate`'s.

use crate::ipcache::Address;

/// Key of the services map: what clients talk to. Port and protocol 0 stand for the address itself, whose other ports serve nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The service's address.
    pub address: Address,
    /// Port, host byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

impl Frontend {
    /// The mark of an address that belongs to services.
    #[must_use]
    #[inline(always)]
    pub const fn mark(address: Address) -> Self {
        Self {
            address,
            port: 0,
            protocol: 0,
            reserved: 0,
        }
    }

    /// Whether both are the same; what `==` does, without a call to `memcmp`.
    #[must_use]
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && self.address.same(&other.address)
    }
}

/// Value of the services map. Replaced whole, so that a list is never seen half changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// The entry's own key: an element reused under a reader shows by it.
    pub frontend: Frontend,
    /// Names the frontend in backends and affinities; never 0 but for marks.
    pub number: u32,
    /// Where its list begins in the lists array.
    pub first: u32,
    /// How many backends the list has.
    pub count: u32,
    /// For how many seconds a client stays with its backend; 0 for no time.
    pub affinity: u32,
    /// [`Service::SILENT`], [`Service::NOT_READY`].
    pub flags: u32,
}

impl Service {
    /// Flag: without backends packets are dropped and not refused: there are some, but none that this node may use.
    pub const SILENT: u32 = 1;
    /// Flag: the backends could not be written. Everything drops.
    pub const NOT_READY: u32 = 2;
}

/// A backend of one frontend, by id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Its address, of the frontend's family.
    pub address: Address,
    /// [`Service::number`] of the frontend, or 0 for an id not in use.
    pub service: u32,
    /// Port, host byte order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// Key of the affinities map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// Address of the client.
    pub client: Address,
    /// [`Service::number`].
    pub service: u32,
}

/// Value of the affinities map: where the client went last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affinity {
    /// The entry's own key: an element reused under a reader shows by it.
    pub key: AffinityKey,
    /// Id of the backend.
    pub backend: u32,
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
}

crate::map_data!(Frontend, Service, Backend, AffinityKey, Affinity);

const _: () = assert!(size_of::<Frontend>() == 20 && size_of::<Service>() == 40);
const _: () = assert!(size_of::<Backend>() == 24);
const _: () = assert!(size_of::<AffinityKey>() == 20 && size_of::<Affinity>() == 32);
