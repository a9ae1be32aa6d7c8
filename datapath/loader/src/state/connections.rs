//! The connections: listing them, and removing those that are over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;

use sluice_abi::conntrack::{ConntrackEntry, ConntrackKey};
use sluice_abi::event::Counter;
use sluice_abi::{Cookie, maps};

use super::{Place, now};
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

    /// Removes the connections that are over, and those of endpoints that are gone. What they had counted and not yet added to their rules
    /// is carried over. The programs pass over such entries by themselves; this gives their memory back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn collect(&self, gone: &BTreeSet<Place>) -> Result<Collected, SysError> {
        self.collect_at(now(), gone)
    }

    /// As [`Connections::collect`], at a given time in nanoseconds of the monotonic clock.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn collect_at(&self, now: u64, gone: &BTreeSet<Place>) -> Result<Collected, SysError> {
        let mut collected = Collected::default();
        let mut counted = HashMap::new();
        let is_over = |entry: &ConntrackEntry| entry.expired(now) || is_of(entry, gone);
        let listed = self.list()?;
        let live: HashSet<ConntrackKey> = listed
            .iter()
            .filter(|entry| entry.leads_to().is_none() && !is_over(entry))
            .map(|entry| entry.key)
            .collect();
        // A connection's other names live as long as it does, however seldom they are used.
        let goes = |entry: &ConntrackEntry| {
            is_over(entry) && entry.leads_to().is_none_or(|to| !live.contains(&to))
        };
        for entry in &listed {
            if !goes(entry) || !self.remove_if(&entry.key, is_over, &mut counted)? {
                collected.live += 1;
                *collected.by_endpoint.entry(entry.owner).or_default() += 1;
            } else {
                collected.removed += 1;
            }
        }
        self.carry(counted)?;
        Ok(collected)
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
    fn remove_if(
        &self,
        key: &ConntrackKey,
        is_over: impl Fn(&ConntrackEntry) -> bool,
        counted: &mut HashMap<Cookie, Counter>,
    ) -> Result<bool, SysError> {
        match self.entries.get(key)? {
            Some(entry) if entry.key != *key || is_over(&entry) => {
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

/// Whether one of an entry's ends is among these.
fn is_of(entry: &ConntrackEntry, places: &BTreeSet<Place>) -> bool {
    !places.is_empty()
        && [&entry.source, &entry.destination].into_iter().any(|end| {
            places.contains(&Place {
                slot: end.slot,
                generation: end.generation,
            })
        })
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
