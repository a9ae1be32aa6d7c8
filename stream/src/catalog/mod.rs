//! A whole state, gathered from updates, and what of it one node needs. Pure and synchronous; both sides have one: an operator the
//! cluster's, an agent its node's.
//!
//! ```text
//! Update ─▶ Catalog::apply ─▶ Step ─▶ View::step (one per node) ─▶ Need ─▶ Update for the node
//!                  └─▶ snapshot                  View::new      ─▶ Need
//! ```
//! The order of a delta's fields is kept everywhere, as [`sluice_policy::Delta`] demands.

mod resume;
mod step;
mod table;
mod view;

use std::{collections::BTreeMap, sync::Arc};

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_abi::{
    Cookie, Identity, Range,
    ipcache::{Address, AddressInfo, PrefixKey},
    policy::AttributionKey,
    program::{Cell, Program, RangeKey, Verdict},
};
use sluice_policy::{Delta, Endpoint, RedirectSet};
use sluice_world::{NodeName, PodRef, RuleRef};

use crate::types::{Frontend, NodeInfo, Revision, ServiceEntry, Settings, Update};

pub use resume::{Held, Span};
pub use step::Step;
pub(crate) use table::Table;
pub(crate) use view::shared;
pub use view::{Need, View};

/// A program with all that belongs to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProgramEntry {
    pub(crate) program: Program,
    pub(crate) ranges: Vec<(RangeKey, Cell)>,
}

impl ProgramEntry {
    /// The redirects that it names, each once.
    pub(crate) fn redirects(&self) -> Vec<u32> {
        let inline = self.program.ranges[..].iter().map(|range| range.cell);
        let cells = inline
            .chain(self.ranges.iter().map(|(_, cell)| *cell))
            .chain([self.program.other]);
        let mut redirects: Vec<u32> = cells
            .filter(|cell| cell.decision() == Verdict::Redirect)
            .map(|cell| cell.redirect)
            .collect();
        redirects.sort_unstable();
        redirects.dedup();
        redirects
    }
}

/// Slots of an attribution with their rules.
pub(crate) type Slots = BTreeMap<u32, Cookie>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    revision: Revision,
    pub(crate) programs: FxHashMap<u32, ProgramEntry>,
    pub(crate) attributions: FxHashMap<u32, Slots>,
    pub(crate) redirects: FxHashMap<u32, Arc<RedirectSet>>,
    pub(crate) cookies: FxHashMap<Cookie, RuleRef>,
    identities: FxHashMap<Identity, Vec<String>>,
    pub(crate) tables: FxHashMap<u32, Table>,
    watermarks: BTreeMap<Range, Identity>,
    pub(crate) numbers: FxHashMap<NodeName, u32>,
    prefixes: FxHashMap<PrefixKey, AddressInfo>,
    addresses: FxHashMap<Address, AddressInfo>,
    pub(crate) endpoints: FxHashMap<PodRef, Endpoint>,
    by_node: FxHashMap<u32, FxHashSet<PodRef>>,
    settings: Option<Settings>,
    nodes: BTreeMap<NodeName, NodeInfo>,
    services: BTreeMap<Frontend, ServiceEntry>,
}

impl Catalog {
    /// Takes an update in. What it did is told for those who follow with views; an agent can ignore it.
    pub fn apply(&mut self, update: &Update) -> Step {
        if update.snapshot {
            *self = Self::default();
        }
        self.revision = update.revision;
        let mut step = Step::default();
        self.come(&update.delta, &mut step);
        self.shift(&update.delta, &mut step);
        self.go(&update.delta, &mut step);
        if update.settings.is_some() {
            self.settings.clone_from(&update.settings);
        }
        for (name, node) in &update.nodes {
            put(&mut self.nodes, name, node.as_ref());
        }
        for (frontend, service) in &update.services {
            put(&mut self.services, frontend, service.as_ref());
        }
        step
    }

    /// The last update's revision; zero before any.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The settings, once told.
    #[must_use]
    pub const fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// All nodes.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<NodeName, NodeInfo> {
        &self.nodes
    }

    /// All services.
    #[must_use]
    pub const fn services(&self) -> &BTreeMap<Frontend, ServiceEntry> {
        &self.services
    }

    /// A pod as policy subject.
    #[must_use]
    pub fn endpoint(&self, pod: &PodRef) -> Option<&Endpoint> {
        self.endpoints.get(pod)
    }

    /// All subjects.
    pub fn endpoints(&self) -> impl Iterator<Item = (&PodRef, &Endpoint)> {
        self.endpoints.iter()
    }

    /// What is known of an exact address.
    #[must_use]
    pub fn address(&self, address: Address) -> Option<AddressInfo> {
        self.addresses.get(&address).copied()
    }

    /// What is known of a prefix as such.
    #[must_use]
    pub fn prefix(&self, prefix: &PrefixKey) -> Option<AddressInfo> {
        self.prefixes.get(prefix).copied()
    }

    /// The labels of an identity.
    #[must_use]
    pub fn labels(&self, identity: Identity) -> Option<&[String]> {
        self.identities.get(&identity).map(Vec::as_slice)
    }

    /// How many there are of: tables, entries of tables, programs, identities, addresses, prefixes, endpoints, services.
    #[must_use]
    pub fn sizes(&self) -> [usize; 8] {
        [
            self.tables.len(),
            self.tables.values().map(Table::len).sum(),
            self.programs.len(),
            self.identities.len(),
            self.addresses.len(),
            self.prefixes.len(),
            self.endpoints.len(),
            self.services.len(),
        ]
    }

    /// The whole state as one update, in a fixed order.
    #[must_use]
    pub fn snapshot(&self) -> Update {
        let mut update = self.shared();
        let delta = &mut update.delta;
        for (id, entry) in sorted(&self.programs) {
            delta.programs.push((*id, entry.program));
            delta.ranges.extend(&entry.ranges);
        }
        for (id, slots) in sorted(&self.attributions) {
            delta.attributions.extend(attribution(*id, slots));
        }
        let redirects = sorted(&self.redirects).into_iter();
        delta.redirects = redirects.map(|(id, set)| (*id, Arc::clone(set))).collect();
        delta.cookies = cloned(&self.cookies);
        let tables = sorted(&self.tables).into_iter();
        delta.tables = tables.map(|(id, table)| table.whole(*id)).collect();
        let endpoints = sorted(&self.endpoints).into_iter();
        delta.endpoints = endpoints
            .map(|(pod, endpoint)| (pod.clone(), Some(*endpoint)))
            .collect();
        update
    }

    /// The part of a snapshot that every node needs.
    pub(crate) fn shared(&self) -> Update {
        let known = |(key, info): (&_, &AddressInfo)| (*key, Some(*info));
        let delta = Delta {
            identities: cloned(&self.identities),
            watermarks: self.watermarks.iter().map(|(r, i)| (*r, *i)).collect(),
            nodes: cloned(&self.numbers),
            prefixes: sorted(&self.prefixes).into_iter().map(known).collect(),
            addresses: sorted(&self.addresses)
                .into_iter()
                .map(|(key, info)| (*key, Some(*info)))
                .collect(),
            ..Delta::default()
        };
        Update {
            revision: self.revision,
            snapshot: true,
            delta,
            settings: self.settings.clone(),
            nodes: present(&self.nodes),
            services: present(&self.services),
        }
    }

    /// The endpoints of a node, by its number.
    pub(crate) fn endpoints_of(&self, node: u32) -> impl Iterator<Item = (&PodRef, &Endpoint)> {
        let pods = self.by_node.get(&node).into_iter().flatten();
        pods.filter_map(|pod| self.endpoints.get_key_value(pod))
    }

    fn come(&mut self, delta: &Delta, step: &mut Step) {
        for (id, program) in &delta.programs {
            let entry = ProgramEntry {
                program: *program,
                ranges: Vec::new(),
            };
            self.programs.insert(*id, entry);
        }
        for (key, cell) in &delta.ranges {
            let entry = self.programs.entry(key.program).or_default();
            entry.ranges.push((*key, *cell));
        }
        for (key, cookie) in &delta.attributions {
            let slots = self.attributions.entry(key.attribution).or_default();
            slots.insert(key.slot, *cookie);
        }
        self.redirects.extend(delta.redirects.iter().cloned());
        self.cookies.extend(delta.cookies.iter().cloned());
        self.identities.extend(delta.identities.iter().cloned());
        for (at, table) in delta.tables.iter().enumerate() {
            let entry = self.tables.entry(table.id).or_default();
            if table.new {
                *entry = Table::default();
            }
            let change = step.tables.entry(table.id).or_default();
            change.at.push(at);
            entry.change(table, change);
        }
        self.watermarks.extend(delta.watermarks.iter().copied());
        for (name, number) in &delta.nodes {
            self.numbers.insert(name.clone(), *number);
            step.numbered.push(name.clone());
        }
    }

    fn shift(&mut self, delta: &Delta, step: &mut Step) {
        for (prefix, info) in &delta.prefixes {
            put(&mut self.prefixes, prefix, info.as_ref());
        }
        for (address, info) in &delta.addresses {
            put(&mut self.addresses, address, info.as_ref());
        }
        for (at, (pod, endpoint)) in delta.endpoints.iter().enumerate() {
            let old = match endpoint {
                Some(endpoint) => self.endpoints.insert(pod.clone(), *endpoint),
                None => self.endpoints.remove(pod),
            };
            let [from, to] = [old, *endpoint].map(|endpoint| endpoint.map(|known| known.node));
            if let Some(node) = to {
                step.endpoints.entry(node).or_default().push(at);
            }
            if from == to {
                continue;
            }
            if let Some(node) = from {
                step.endpoints.entry(node).or_default().push(at);
                if let Some(pods) = self.by_node.get_mut(&node) {
                    pods.remove(pod);
                    if pods.is_empty() {
                        self.by_node.remove(&node);
                    }
                }
            }
            if let Some(node) = to {
                self.by_node.entry(node).or_default().insert(pod.clone());
            }
        }
    }

    fn go(&mut self, delta: &Delta, step: &mut Step) {
        for (at, key) in delta.retired_peers.iter().enumerate() {
            if let Some(table) = self.tables.get_mut(&key.table) {
                let change = step.tables.entry(key.table).or_default();
                change.retired.push(at);
                table.remove(key.identity, change);
            }
        }
        for id in &delta.dropped_tables {
            if let Some(table) = self.tables.remove(id) {
                step.gone_tables.insert(*id, table);
            }
        }
        for id in &delta.dropped_programs {
            if let Some(entry) = self.programs.remove(id) {
                step.gone_programs.insert(*id, entry);
            }
        }
        for key in &delta.dropped_ranges {
            if let Some(entry) = self.programs.get_mut(&key.program) {
                entry.ranges.retain(|(known, _)| known != key);
            }
        }
        for key in &delta.dropped_attributions {
            let Some(slots) = self.attributions.get_mut(&key.attribution) else {
                continue;
            };
            if let Some(cookie) = slots.remove(&key.slot) {
                let gone = step.gone_attributions.entry(key.attribution).or_default();
                gone.insert(key.slot, cookie);
            }
            if slots.is_empty() {
                self.attributions.remove(&key.attribution);
            }
        }
        for id in &delta.dropped_redirects {
            if let Some(set) = self.redirects.remove(id) {
                step.gone_redirects.insert(*id, set);
            }
        }
        for cookie in &delta.dropped_cookies {
            self.cookies.remove(cookie);
        }
        for identity in &delta.dropped_identities {
            self.identities.remove(identity);
        }
    }
}

/// An attribution as a delta has it.
pub(crate) fn attribution(
    id: u32,
    slots: &Slots,
) -> impl Iterator<Item = (AttributionKey, Cookie)> + '_ {
    slots.iter().map(move |(slot, cookie)| {
        let key = AttributionKey {
            attribution: id,
            slot: *slot,
        };
        (key, *cookie)
    })
}

fn sorted<K: Ord, V>(map: &FxHashMap<K, V>) -> Vec<(&K, &V)> {
    let mut all: Vec<(&K, &V)> = map.iter().collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    all
}

fn cloned<K: Ord + Clone, V: Clone>(map: &FxHashMap<K, V>) -> Vec<(K, V)> {
    let all = sorted(map).into_iter();
    all.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn present<K: Clone, V: Clone>(map: &BTreeMap<K, V>) -> Vec<(K, Option<V>)> {
    map.iter()
        .map(|(key, value)| (key.clone(), Some(value.clone())))
        .collect()
}

/// Puts a value in, or takes the key out.
fn put<M, K: Clone, V: Clone>(map: &mut M, key: &K, value: Option<&V>)
where
    M: Places<K, V>,
{
    match value {
        Some(value) => map.put(key.clone(), value.clone()),
        None => map.take(key),
    }
}

/// Both kinds of map.
trait Places<K, V> {
    fn put(&mut self, key: K, value: V);
    fn take(&mut self, key: &K);
}

impl<K: std::hash::Hash + Eq, V> Places<K, V> for FxHashMap<K, V> {
    fn put(&mut self, key: K, value: V) {
        self.insert(key, value);
    }

    fn take(&mut self, key: &K) {
        self.remove(key);
    }
}

impl<K: Ord, V> Places<K, V> for BTreeMap<K, V> {
    fn put(&mut self, key: K, value: V) {
        self.insert(key, value);
    }

    fn take(&mut self, key: &K) {
        self.remove(key);
    }
}
