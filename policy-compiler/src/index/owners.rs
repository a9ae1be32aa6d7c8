//! Which pod, node or external host an address belongs to. What it means to belong may not enter.

use std::collections::BTreeMap;

use crate::prefix::Prefix;

/// Who has an address. Where several claim one, the least wins; a pod number follows no order of names, so of several pods the one
/// that was there first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    Node(u32),
    Pod(u32),
    /// A pod that stands for a host outside.
    External(u32),
}

/// All addresses that somebody has.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_address: BTreeMap<Prefix, Vec<Owner>>,
}

impl Owners {
    pub(super) fn add(&mut self, address: Prefix, owner: Owner) {
        let owners = self.by_address.entry(address).or_default();
        owners.push(owner);
        owners.sort_unstable();
    }

    pub(super) fn remove(&mut self, address: Prefix, owner: Owner) {
        if let Some(owners) = self.by_address.get_mut(&address) {
            if let Some(position) = owners.iter().position(|known| *known == owner) {
                owners.remove(position);
            }
            if owners.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    pub(super) fn get(&self, address: Prefix) -> Option<Owner> {
        self.by_address.get(&address)?.first().copied()
    }

    /// All addresses in a region with everyone who claims them.
    pub(super) fn inside(&self, region: Prefix) -> impl Iterator<Item = (Prefix, &[Owner])> {
        self.by_address
            .range(region.range())
            .map(|(address, owners)| (*address, &**owners))
    }
}
