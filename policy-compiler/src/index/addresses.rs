//! What every address and prefix means: the owner's identity where somebody has the address; inside a pod CIDR unknown; else the outside
//! identity of the address sets and DNS names it belongs to.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use sluice_abi::{Identity, ipcache::AddressInfo};
use sluice_world::Learned;

use super::{Index, owners::Owner};
use crate::{
    delta::Delta,
    identity::IdentityIndex,
    prefix::Prefix,
    properties::{Kind, Properties},
    selector::FqdnId,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Outside prefixes and addresses with their identities; `None` inside pod CIDRs.
    outside: BTreeMap<Prefix, Option<IdentityIndex>>,
    learned: Learned,
    /// Learned addresses with the DNS lists they were learned for.
    named: FxHashMap<Prefix, Box<[FqdnId]>>,
    /// Addresses and prefixes that may mean something else now.
    dirty: Vec<Prefix>,
    /// What the deltas so far have told.
    told: FxHashMap<Prefix, AddressInfo>,
}

impl Addresses {
    /// Marks an address or prefix that may mean something else now.
    pub(super) fn mark(&mut self, prefix: Prefix) {
        self.dirty.push(prefix);
    }
}

impl Index {
    /// Marks whatever lies in regions whose address sets changed: pods and nodes for their identities, all else for its meaning.
    pub(super) fn mark_moved_blocks(&mut self) {
        for (region, with_owners) in self.vocabulary.prefixes.take_dirty() {
            self.addresses.dirty.push(region);
            self.addresses
                .dirty
                .extend(self.vocabulary.prefixes.inside(region));
            let known = self.addresses.outside.range(region.range());
            self.addresses
                .dirty
                .extend(known.map(|(prefix, _)| *prefix));
            if !with_owners {
                continue;
            }
            let owners: Vec<Owner> = self
                .owners
                .inside(region)
                .flat_map(|(_, owners)| owners)
                .copied()
                .collect();
            for owner in owners {
                match owner {
                    Owner::Pod(pod) => self.workloads.mark(pod),
                    Owner::Node(node) => self.mark_node(node),
                    Owner::External(_) => {}
                }
            }
        }
    }

    pub(super) fn commit_outside(&mut self, learned: Option<Learned>, delta: &mut Delta) {
        self.identify_nodes(delta);
        let new_names = learned.is_some();
        if let Some(learned) = learned {
            self.addresses.learned = learned;
        }
        if self.vocabulary.fqdns.take_changed() || new_names {
            self.name_addresses();
        }
        let mut dirty = std::mem::take(&mut self.addresses.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for &prefix in &dirty {
            let new = self.outside(prefix, delta);
            let old = match new {
                Some(place) => self.addresses.outside.insert(prefix, place),
                None => self.addresses.outside.remove(&prefix),
            };
            if let Some(Some(identity)) = old {
                self.identities.release(identity);
            }
        }
        self.addresses.dirty = dirty;
    }

    /// Finds which DNS lists each learned address was learned for.
    fn name_addresses(&mut self) {
        let mut named: FxHashMap<Prefix, Vec<FqdnId>> = FxHashMap::default();
        for (name, addresses) in self.addresses.learned.iter() {
            let lists = self.vocabulary.fqdns.matching(name);
            if lists.is_empty() {
                continue;
            }
            for &address in addresses {
                named.entry(address.into()).or_default().extend(&lists);
            }
        }
        let named: FxHashMap<Prefix, Box<[FqdnId]>> = named
            .into_iter()
            .map(|(prefix, mut lists)| {
                lists.sort_unstable();
                lists.dedup();
                (prefix, lists.into())
            })
            .collect();
        let old = std::mem::replace(&mut self.addresses.named, named);
        let Addresses { named, dirty, .. } = &mut self.addresses;
        let changed = |prefix: &&Prefix| old.get(*prefix) != named.get(*prefix);
        dirty.extend(old.keys().chain(named.keys()).filter(changed));
    }

    /// What an address or prefix is as part of the outside: nothing where it needs no entry, no identity inside a pod CIDR. Acquires.
    #[expect(
        clippy::option_option,
        reason = "no entry, an entry for unknown addresses, an entry with identity"
    )]
    fn outside(&mut self, prefix: Prefix, delta: &mut Delta) -> Option<Option<IdentityIndex>> {
        let owner = self.owners.get(prefix);
        if matches!(owner, Some(Owner::Pod(_) | Owner::Node(_))) {
            return None;
        }
        let external = owner.is_some();
        let mentioned = self.vocabulary.prefixes.mentions(prefix);
        let fqdns = self
            .addresses
            .named
            .get(&prefix)
            .cloned()
            .unwrap_or_default();
        if !external && !mentioned && fqdns.is_empty() {
            return None;
        }
        let membership = self.vocabulary.prefixes.membership(prefix, false);
        if membership.pod_cidr && !external {
            return mentioned.then_some(None);
        }
        let properties = Properties {
            atoms: membership.atoms.into(),
            fqdns,
            ..Properties::plain(Kind::Outside(prefix.family()))
        };
        match self.identities.acquire(properties, self.vocabulary.names()) {
            Ok(identity) => Some(Some(identity)),
            Err(error) => {
                delta.errors.push(error.to_string());
                Some(None)
            }
        }
    }

    /// Tells what marked addresses and prefixes mean now.
    pub(super) fn emit_addresses(&mut self, delta: &mut Delta) {
        // Nothing was marked since they were sorted.
        let dirty = std::mem::take(&mut self.addresses.dirty);
        let (told, addresses) = (&mut self.addresses.told, &mut delta.addresses);
        told.reserve(dirty.len().saturating_sub(told.len()));
        addresses.reserve(dirty.iter().filter(|prefix| prefix.is_address()).count());
        for prefix in dirty {
            let info = self.info(prefix);
            let old = match info {
                Some(info) => self.addresses.told.insert(prefix, info),
                None => self.addresses.told.remove(&prefix),
            };
            if old == info {
                continue;
            }
            if prefix.is_address() {
                delta.addresses.push((prefix.address().into(), info));
            } else {
                delta.prefixes.push((prefix.key(), info));
            }
        }
    }

    fn info(&self, prefix: Prefix) -> Option<AddressInfo> {
        let number = |index: IdentityIndex| {
            self.identities
                .get(index)
                .map_or(Identity::UNKNOWN, |record| record.number)
        };
        let plain = |identity, node, flags| AddressInfo {
            identity,
            host_identity: identity,
            node,
            flags,
        };
        match self.owners.get(prefix) {
            Some(Owner::Pod(pod)) => {
                let entry = self.workloads.pod(pod)?;
                let address = Some(prefix.address());
                let own = entry.addresses.iter().find(|known| known.0 == address)?;
                let identity = own.1.map_or(Identity::UNKNOWN, number);
                Some(plain(identity, entry.node, AddressInfo::POD))
            }
            Some(Owner::Node(node)) => {
                let identities = self.nodes.identities(node, prefix.address());
                let (host, remote) = identities
                    .map_or((Identity::UNKNOWN, Identity::UNKNOWN), |(host, remote)| {
                        (number(host), number(remote))
                    });
                Some(AddressInfo {
                    identity: remote,
                    host_identity: host,
                    node,
                    flags: AddressInfo::NODE,
                })
            }
            Some(Owner::External(_)) | None => {
                let place = self.addresses.outside.get(&prefix)?;
                Some(plain(place.map_or(Identity::UNKNOWN, number), 0, 0))
            }
        }
    }
}
