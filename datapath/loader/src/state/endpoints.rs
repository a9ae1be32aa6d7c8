//! The node's endpoints: slots given out, records written, and the two ways to find a slot, by interface and by address.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use sluice_abi::endpoint::Endpoint;
use sluice_abi::ipcache::Address;
use sluice_abi::maps;
use thiserror::Error;

use crate::sys::{GracePeriod, Map, SysError};

/// An endpoint could not be written.
#[derive(Debug, Error)]
pub enum EndpointsFull {
    /// Every slot is taken.
    #[error("map endpoints has room for {0} endpoints and all are taken")]
    Full(u32),
    /// A map call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// An endpoint, told from those that have its slot before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its slot.
    pub slot: u32,
    /// Which of the slot's.
    pub generation: u32,
}

/// The one writer of the endpoints.
#[derive(Debug)]
pub struct Endpoints {
    records: Map<u32, Endpoint>,
    by_ifindex: Map<u32, u32>,
    by_address: Map<Address, u32>,
    grace: GracePeriod,
    known: BTreeMap<u32, Endpoint>,
    /// Slots freed since the last grace period: a program may still be at their records.
    resting: BTreeSet<u32>,
}

impl Endpoints {
    pub(crate) fn new(
        mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>,
    ) -> Result<Self, SysError> {
        let records = Map::<u32, Endpoint>::new(maps::ENDPOINT.name, fd(maps::ENDPOINT.name)?)?;
        let present = |(_, record): &(u32, Endpoint)| record.flags & Endpoint::PRESENT != 0;
        let known: BTreeMap<_, _> = records.entries()?.into_iter().filter(present).collect();
        let mut endpoints = Self {
            // Nobody knows when the process before this one freed a slot.
            resting: (1..records.capacity())
                .filter(|slot| !known.contains_key(slot))
                .collect(),
            known,
            records,
            by_ifindex: Map::new(
                maps::SLOTS_BY_IFINDEX.name,
                fd(maps::SLOTS_BY_IFINDEX.name)?,
            )?,
            by_address: Map::new(
                maps::SLOTS_BY_ADDRESS.name,
                fd(maps::SLOTS_BY_ADDRESS.name)?,
            )?,
            grace: GracePeriod::new()?,
        };
        endpoints.finish_what_was_begun()?;
        Ok(endpoints)
    }

    /// Writes an endpoint, found again by its interface, into its slot or a free one; `generation` is this writer's and ignored. Its
    /// tables should be in force before. Returns the slot.
    ///
    /// A running endpoint's record is overwritten in place, word by word: identity, table ids and addresses each change in one step, and
    /// the two directions may differ for a moment.
    ///
    /// # Errors
    /// Every slot is taken, or the kernel refuses.
    pub fn put(&mut self, endpoint: &Endpoint) -> Result<u32, EndpointsFull> {
        let known = self.slot(endpoint.ifindex);
        let slot = match known {
            Some(slot) => slot,
            None => self.free_slot()?,
        };
        let before = self.records.get(&slot)?.unwrap_or_default();
        let generation = if known.is_some() {
            before.generation
        } else {
            before.generation.wrapping_add(1)
        };
        let record = Endpoint {
            generation,
            flags: endpoint.flags | Endpoint::PRESENT,
            ..*endpoint
        };
        if self.known.get(&slot) == Some(&record) {
            return Ok(slot);
        }
        // The record first: whoever finds the slot finds it filled.
        self.records.put(&slot, &record)?;
        self.known.insert(slot, record);
        let addresses: Vec<Address> = owned(&record).collect();
        for address in owned(&before).filter(|old| known.is_some() && !addresses.contains(old)) {
            self.by_address.remove(&address)?;
        }
        for address in addresses {
            self.by_address.put(&address, &slot)?;
        }
        self.by_ifindex.put(&record.ifindex, &slot)?;
        Ok(slot)
    }

    /// Removes the endpoint of an interface. What comes from the interface drops from then on. `false` if there was none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&mut self, ifindex: u32) -> Result<bool, SysError> {
        let Some(slot) = self.slot(ifindex) else {
            return Ok(false);
        };
        let record = self.known[&slot];
        self.by_ifindex.remove(&ifindex)?;
        for address in owned(&record) {
            self.by_address.remove(&address)?;
        }
        // The generation stays, so that the slot's next pod gets another.
        self.records.put(
            &slot,
            &Endpoint {
                generation: record.generation,
                ..Endpoint::default()
            },
        )?;
        self.known.remove(&slot);
        self.resting.insert(slot);
        Ok(true)
    }

    /// The slot of an interface.
    #[must_use]
    pub fn slot(&self, ifindex: u32) -> Option<u32> {
        self.known
            .iter()
            .find(|(_, record)| record.ifindex == ifindex)
            .map(|(slot, _)| *slot)
    }

    /// Which of the endpoints that have had its slot an interface's is.
    #[must_use]
    pub fn place(&self, ifindex: u32) -> Option<Place> {
        let slot = self.slot(ifindex)?;
        Some(Place {
            slot,
            generation: self.known[&slot].generation,
        })
    }

    /// Every endpoint with its slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Endpoint)> {
        self.known.iter().map(|(slot, record)| (*slot, record))
    }

    /// Brings both indexes in line with the records, which a killed process may have left in the middle of a change.
    fn finish_what_was_begun(&mut self) -> Result<(), SysError> {
        for (ifindex, slot) in self.by_ifindex.entries()? {
            if self
                .known
                .get(&slot)
                .is_none_or(|record| record.ifindex != ifindex)
            {
                self.by_ifindex.remove(&ifindex)?;
            }
        }
        for (address, slot) in self.by_address.entries()? {
            if self
                .known
                .get(&slot)
                .is_none_or(|record| !record.owns(&address))
            {
                self.by_address.remove(&address)?;
            }
        }
        for (slot, record) in &self.known {
            for address in owned(record) {
                self.by_address.put(&address, slot)?;
            }
            self.by_ifindex.put(&record.ifindex, slot)?;
        }
        Ok(())
    }

    fn free_slot(&mut self) -> Result<u32, EndpointsFull> {
        let capacity = self.records.capacity();
        let free = |taken: &Self| {
            (1..capacity)
                .find(|slot| !taken.known.contains_key(slot) && !taken.resting.contains(slot))
        };
        if let Some(slot) = free(self) {
            return Ok(slot);
        }
        self.grace.wait()?;
        self.resting.clear();
        free(self).ok_or(EndpointsFull::Full(capacity - 1))
    }
}

fn owned(record: &Endpoint) -> impl Iterator<Item = Address> + use<> {
    let v4 = (record.flags & Endpoint::IPV4 != 0).then_some(record.ipv4);
    let v6 = (record.flags & Endpoint::IPV6 != 0).then_some(record.ipv6);
    v4.into_iter().chain(v6)
}
