//! What rules decided and what was dropped: sums over CPUs, over live connections and over those that ended.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use sluice_abi::conntrack::{ConntrackEntry, ConntrackKey};
use sluice_abi::event::{Counter, DropBucket, Hook};
use sluice_abi::reason::REASON_SLOTS;
use sluice_abi::{Cookie, Reason, maps};

use super::connections::count;
use crate::load::CARRIED;
use crate::sys::{Map, PerCpuMap, SysError};

/// Packets dropped at a hook for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCount {
    /// Where.
    pub hook: Hook,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub counter: Counter,
}

/// Events that nobody was told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Drop events held back by the limit per endpoint and reason.
    pub suppressed: u64,
    /// Events that found the ring full.
    pub ring: u64,
}

/// The counters. Nothing is reset by reading.
#[derive(Debug)]
pub struct Counters {
    rules: PerCpuMap<Cookie, Counter>,
    carried: Map<Cookie, Counter>,
    connections: Map<ConntrackKey, ConntrackEntry>,
    drops: PerCpuMap<u32, Counter>,
    buckets: Map<u32, DropBucket>,
    losses: PerCpuMap<u32, u64>,
}

impl Counters {
    pub(crate) fn new(
        mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>,
    ) -> Result<Self, SysError> {
        Ok(Self {
            rules: PerCpuMap::new(maps::RULE_COUNTERS.name, fd(maps::RULE_COUNTERS.name)?)?,
            carried: Map::new(CARRIED, fd(CARRIED)?)?,
            connections: Map::new(maps::CONNTRACK.name, fd(maps::CONNTRACK.name)?)?,
            drops: PerCpuMap::new(maps::DROP_COUNTERS.name, fd(maps::DROP_COUNTERS.name)?)?,
            buckets: Map::new(maps::DROP_BUCKETS.name, fd(maps::DROP_BUCKETS.name)?)?,
            losses: PerCpuMap::new(maps::RING_LOSSES.name, fd(maps::RING_LOSSES.name)?)?,
        })
    }

    /// What each rule and built-in circumstance decided, up to this moment. A connection that ends while this reads may be counted twice
    /// or not at all.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rules(&self) -> Result<HashMap<Cookie, Counter>, SysError> {
        let mut sums: HashMap<Cookie, Counter> = HashMap::new();
        let folded = self
            .rules
            .entries()?
            .into_iter()
            .map(|(cookie, cpus)| (cookie, sum(&cpus)));
        for (cookie, more) in folded.chain(self.carried.entries()?) {
            let counter = sums.entry(cookie).or_default();
            counter.packets += more.packets;
            counter.bytes += more.bytes;
        }
        for (_, entry) in self.connections.entries()? {
            count(&entry, &mut sums);
        }
        Ok(sums)
    }

    /// Every hook and reason that packets were dropped at and for.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn drops(&self) -> Result<Vec<DropCount>, SysError> {
        let mut found = Vec::new();
        for (element, cpus) in self.drops.entries()? {
            let counter = sum(&cpus);
            if counter != Counter::default()
                && let Some((hook, reason)) = place(element)
            {
                found.push(DropCount {
                    hook,
                    reason,
                    counter,
                });
            }
        }
        found.sort_by_key(|drop| (drop.hook, drop.reason));
        Ok(found)
    }

    /// How many events nobody was told of.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn losses(&self) -> Result<Losses, SysError> {
        let suppressed = self
            .buckets
            .entries()?
            .iter()
            .map(|(_, bucket)| bucket.suppressed)
            .sum();
        let ring = self.losses.get(&0)?.unwrap_or_default().iter().sum();
        Ok(Losses { suppressed, ring })
    }
}

fn sum(cpus: &[Counter]) -> Counter {
    cpus.iter().fold(Counter::default(), |sum, one| Counter {
        packets: sum.packets + one.packets,
        bytes: sum.bytes + one.bytes,
    })
}

fn place(element: u32) -> Option<(Hook, Reason)> {
    let slots = u32::try_from(REASON_SLOTS).ok()?;
    let hook = Hook::from_raw(u8::try_from(element / slots).ok()?)?;
    let reason = Reason::from_raw(u8::try_from(element % slots).ok()?)?;
    Some((hook, reason))
}
