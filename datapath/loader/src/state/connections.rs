//! The connections: listing them, and removing those that are over.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;

use sluice_abi::conntrack::{ConntrackEntry, ConntrackKey};
use sluice_abi::event::Counter;
use sluice_abi::{Cookie, maps};

use super::now;
use crate::load::CARRIED;
use crate::sys::{Map, SysError};

/// What a collection found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Connections that were over and are removed.
    pub removed: usize,
    /// Connections that live.
    pub live: usize,
    /// Live connections by the slot of the endpoint whose quota they take.
    pub by_endpoint: BTreeMap<u32, usize>,
}

/// The connections.
#[derive(Debug)]
pub struct Connections {
    entries: Map<ConntrackKey, ConntrackEntry>,
    carried: Map<Cookie, Counter>,
}

impl Connections {
    pub(crate) fn new(
        mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>,
    ) -> Result<Self, SysError> {
        Ok(Self {
            entries: Map::new(maps::CONNTRACK.name, fd(maps::CONNTRACK.name)?)?,
            carried: Map::new(CARRIED, fd(CARRIED)?)?,
        })
    }

    /// Every connection, those that are over and not yet removed included.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn list(&self) -> Result<Vec<ConntrackEntry>, SysError> {
        Ok(self
            .entries
            .entries()?
            .into_iter()
            .map(|(_, entry)| entry)
            .collect())
    }

    /// Removes the connections that are over. What they had counted and not yet added to their rules is carried over. The programs pass
    /// over such entries by themselves; this gives their memory back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn collect(&self) -> Result<Collected, SysError> {
        self.collect_at(now())
    }

    /// As [`Connections::collect`], at a given time in nanoseconds of the monotonic clock.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn collect_at(&self, now: u64) -> Result<Collected, SysError> {
        let mut collected = Collected::default();
        let mut counted = HashMap::new();
        let listed = self.list()?;
        let live: HashSet<ConntrackKey> = listed
            .iter()
            .filter(|entry| entry.leads_to().is_none() && !entry.expired(now))
            .map(|entry| entry.key)
            .collect();
        // A connection's other names live as long as it does, however seldom they are used.
        let is_over = |entry: &ConntrackEntry| {
            entry.expired(now) && entry.leads_to().is_none_or(|to| !live.contains(&to))
        };
        for entry in &listed {
            if !is_over(entry) || !self.remove_if_over(&entry.key, now, &mut counted)? {
                collected.live += 1;
                *collected.by_endpoint.entry(entry.owner).or_default() += 1;
            } else {
                collected.removed += 1;
            }
        }
        self.carry(counted)?;
        Ok(collected)
    }

    /// Removes every connection of an endpoint that is gone. What they had counted is carried over as by [`Connections::collect`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_of(&self, slot: u32) -> Result<usize, SysError> {
        let of_slot = |entry: &ConntrackEntry| {
            slot != 0 && (entry.source.slot == slot || entry.destination.slot == slot)
        };
        let mut counted = HashMap::new();
        let mut removed = 0;
        for listed in self.list()?.iter().filter(|entry| of_slot(entry)) {
            // Read again at the last moment, for what was counted since the list was made.
            match self.entries.get(&listed.key)? {
                Some(entry) if entry.key == listed.key && of_slot(&entry) => {
                    self.entries.remove(&listed.key)?;
                    count(&entry, &mut counted);
                    removed += 1;
                }
                _ => {}
            }
        }
        self.carry(counted)?;
        Ok(removed)
    }

    /// Adds to what ended connections had counted.
    fn carry(&self, counted: HashMap<Cookie, Counter>) -> Result<(), SysError> {
        for (cookie, more) in counted {
            let before = self.carried.get(&cookie)?.unwrap_or_default();
            let sum = Counter {
                packets: before.packets + more.packets,
                bytes: before.bytes + more.bytes,
            };
            match self.carried.put(&cookie, &sum) {
                // A full map loses counts, as the programs' own does.
                Err(error) if error.is_full() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Looks once more before removing: between listing and removing a packet may have come.
    fn remove_if_over(
        &self,
        key: &ConntrackKey,
        now: u64,
        counted: &mut HashMap<Cookie, Counter>,
    ) -> Result<bool, SysError> {
        match self.entries.get(key)? {
            Some(entry) if entry.key != *key || entry.expired(now) => {
                self.entries.remove(key)?;
                if entry.key == *key {
                    count(&entry, counted);
                }
                Ok(true)
            }
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }
}

/// Adds what an entry carried and had not yet been added to its rules: both ends' cookies, once where they are the same.
pub(super) fn count(entry: &ConntrackEntry, counted: &mut HashMap<Cookie, Counter>) {
    let packets = entry.packets[0] + entry.packets[1];
    let bytes = entry.bytes[0] + entry.bytes[1];
    let (source, destination) = (
        Cookie(entry.source.cookie),
        Cookie(entry.destination.cookie),
    );
    let second = (destination != source).then_some(destination);
    for cookie in [Some(source), second]
        .into_iter()
        .flatten()
        .filter(|cookie| *cookie != Cookie::NONE)
    {
        let sum = counted.entry(cookie).or_default();
        sum.packets += packets;
        sum.bytes += bytes;
    }
}
