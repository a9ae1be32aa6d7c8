//! Nodes in and out of the index: their numbers, their addresses' identities (as own pods and as everyone else see them), and the
//! prefixes they take pod addresses from.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};
use sluice_world::{Labels, Node, NodeName};

use super::{Index, Staged, owners::Owner};
use crate::{
    delta::Delta,
    identity::IdentityIndex,
    intern::Symbol,
    prefix::Prefix,
    properties::{Kind, Properties},
    selector::AtomId,
};

/// An address of a node with what it stands for: (as host, as remote node).
type NodeAddress = (IpAddr, Option<(IdentityIndex, IdentityIndex)>);

#[derive(Debug)]
struct NodeEntry {
    labels: Labels,
    addresses: Vec<NodeAddress>,
    pod_cidrs: Vec<IpNet>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    numbers: FxHashMap<NodeName, u32>,
    /// The greatest number given out.
    greatest: u32,
    /// Nodes whose numbers no delta has told yet.
    untold: FxHashSet<NodeName>,
    entries: FxHashMap<u32, NodeEntry>,
    dirty: Vec<u32>,
}

impl Nodes {
    /// Of nodes that have their numbers from an index before this one.
    pub(super) fn numbered(known: BTreeMap<NodeName, u32>) -> Self {
        Self {
            greatest: known.values().copied().max().unwrap_or_default(),
            untold: known.keys().cloned().collect(),
            numbers: known.into_iter().collect(),
            ..Self::default()
        }
    }

    /// What an address of a node stands for.
    pub(super) fn identities(
        &self,
        node: u32,
        address: IpAddr,
    ) -> Option<(IdentityIndex, IdentityIndex)> {
        self.entries
            .get(&node)?
            .addresses
            .iter()
            .find(|known| known.0 == address)?
            .1
    }
}

impl Index {
    /// The number of a node; given on first mention and kept.
    pub(super) fn node_number(&mut self, name: &NodeName, delta: &mut Delta) -> u32 {
        if let Some(&number) = self.nodes.numbers.get(name) {
            if self.nodes.untold.remove(name) {
                delta.nodes.push((name.clone(), number));
            }
            return number;
        }
        // Four billion nodes do not fit into memory.
        let number = self.nodes.greatest.saturating_add(1);
        self.nodes.greatest = number;
        self.nodes.numbers.insert(name.clone(), number);
        delta.nodes.push((name.clone(), number));
        number
    }

    pub(super) fn commit_nodes(&mut self, staged: &Staged, delta: &mut Delta) {
        for (name, node) in &staged.nodes {
            let number = self.node_number(name, delta);
            self.clear_node(number);
            if let Some(node) = node {
                self.put_node(number, node);
            }
        }
        if self.vocabulary.take_changed_node_keys() {
            self.nodes.dirty.extend(self.nodes.entries.keys());
        }
    }

    /// Finds anew the identities of nodes that policies may see differently.
    pub(super) fn identify_nodes(&mut self, delta: &mut Delta) {
        let mut dirty = std::mem::take(&mut self.nodes.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for number in dirty {
            self.identify_node(number, delta);
        }
    }

    /// Marks a node whose address blocks may have changed.
    pub(super) fn mark_node(&mut self, number: u32) {
        self.nodes.dirty.push(number);
    }

    fn put_node(&mut self, number: u32, node: &Node) {
        for &net in &node.pod_cidrs {
            self.vocabulary.prefixes.add_pod_cidr(net);
        }
        for &address in &node.addresses {
            self.owners.add(address.into(), Owner::Node(number));
            self.addresses.mark(address.into());
        }
        let entry = NodeEntry {
            labels: node.labels.clone(),
            addresses: node
                .addresses
                .iter()
                .map(|&address| (address, None))
                .collect(),
            pod_cidrs: node.pod_cidrs.clone(),
        };
        self.nodes.entries.insert(number, entry);
        self.nodes.dirty.push(number);
    }

    fn clear_node(&mut self, number: u32) {
        let Some(entry) = self.nodes.entries.remove(&number) else {
            return;
        };
        for net in entry.pod_cidrs {
            self.vocabulary.prefixes.remove_pod_cidr(net);
        }
        for (address, identities) in entry.addresses {
            self.owners.remove(address.into(), Owner::Node(number));
            self.addresses.mark(address.into());
            if let Some((host, remote)) = identities {
                self.identities.release(host);
                self.identities.release(remote);
            }
        }
    }

    fn identify_node(&mut self, number: u32, delta: &mut Delta) {
        let Some(mut entry) = self.nodes.entries.remove(&number) else {
            return;
        };
        let labels = self.visible_node_labels(&entry.labels);
        let addresses: Vec<IpAddr> = entry.addresses.iter().map(|address| address.0).collect();
        let atoms = self.vocabulary.prefixes.holder_memberships(&addresses);
        for ((address, identities), atoms) in entry.addresses.iter_mut().zip(atoms) {
            let mut of = |kind| self.node_identity(kind, &labels, &atoms, delta);
            let new = of(Kind::Host).zip(of(Kind::RemoteNode));
            if let Some((host, remote)) = std::mem::replace(identities, new) {
                self.identities.release(host);
                self.identities.release(remote);
            }
            self.addresses.mark(Prefix::from(*address));
        }
        self.nodes.entries.insert(number, entry);
    }

    fn node_identity(
        &mut self,
        kind: Kind,
        labels: &[(Symbol, Symbol)],
        atoms: &[AtomId],
        delta: &mut Delta,
    ) -> Option<IdentityIndex> {
        let properties = Properties {
            labels: labels.into(),
            atoms: atoms.into(),
            ..Properties::plain(kind)
        };
        match self.identities.acquire(properties, self.vocabulary.names()) {
            Ok(identity) => Some(identity),
            Err(error) => {
                delta.errors.push(error.to_string());
                None
            }
        }
    }

    fn visible_node_labels(&mut self, labels: &Labels) -> Vec<(Symbol, Symbol)> {
        let mut visible = Vec::new();
        for (key, value) in labels {
            let key = self.vocabulary.interner.intern(key);
            if self.vocabulary.sees_node_key(key) {
                visible.push((key, self.vocabulary.interner.intern(value)));
            }
        }
        visible.sort_unstable();
        visible
    }
}
