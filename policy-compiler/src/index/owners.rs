//! Which pod, node or external host an address belongs to. What it means to belong may not enter.

use std::collections::{BTreeMap, btree_map::Entry};

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
    /// Sorted lists, nearly always of one.
    by_address: BTreeMap<Prefix, Claims>,
    /// Not in the map yet: a whole cluster's addresses go in at once, in order.
    pending: Vec<(Prefix, Owner)>,
}

#[derive(Debug)]
enum Claims {
    One(Owner),
    Several(Vec<Owner>),
}

impl Claims {
    fn all(&self) -> &[Owner] {
        match self {
            Self::One(owner) => std::slice::from_ref(owner),
            Self::Several(owners) => owners,
        }
    }
}

impl Owners {
    /// Takes in a claim, which holds from the next [`Self::settle`] on.
    pub(super) fn add(&mut self, address: Prefix, owner: Owner) {
        self.pending.push((address, owner));
    }

    /// Makes all added claims hold.
    pub(super) fn settle(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable();
        if self.by_address.is_empty() {
            let claims = pending
                .chunk_by(|a, b| a.0 == b.0)
                .map(|claims| match claims {
                    [(address, owner)] => (*address, Claims::One(*owner)),
                    several => {
                        let owners = several.iter().map(|claim| claim.1).collect();
                        (several[0].0, Claims::Several(owners))
                    }
                });
            self.by_address = claims.collect();
            return;
        }
        for (address, owner) in pending {
            match self.by_address.entry(address) {
                Entry::Vacant(place) => drop(place.insert(Claims::One(owner))),
                Entry::Occupied(mut place) => {
                    let mut owners = place.get().all().to_vec();
                    owners.push(owner);
                    owners.sort_unstable();
                    place.insert(Claims::Several(owners));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, address: Prefix, owner: Owner) {
        self.settle();
        let Some(claims) = self.by_address.get_mut(&address) else {
            return;
        };
        let mut owners = claims.all().to_vec();
        if let Some(position) = owners.iter().position(|known| *known == owner) {
            owners.remove(position);
        }
        match owners[..] {
            [] => drop(self.by_address.remove(&address)),
            [owner] => *claims = Claims::One(owner),
            _ => *claims = Claims::Several(owners),
        }
    }

    pub(super) fn get(&self, address: Prefix) -> Option<Owner> {
        self.by_address.get(&address)?.all().first().copied()
    }

    /// All addresses in a region with everyone who claims them.
    pub(super) fn inside(&self, region: Prefix) -> impl Iterator<Item = (Prefix, &[Owner])> {
        self.by_address
            .range(region.range())
            .map(|(address, claims)| (*address, claims.all()))
    }
}
