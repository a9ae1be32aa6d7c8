//! A node that was away for some steps and comes back to whatever replica: what it needs, found from what it says it holds and from
//! the steps between. Ids that meant something else in between are why this can fail: then it takes a snapshot.

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_abi::{
    Identity, Range,
    ipcache::{Address, PrefixKey},
    policy::{AttributionKey, PeerKey},
    program::RangeKey,
};
use sluice_policy::{Delta, TableDelta};
use sluice_world::{NodeName, PodRef};

use super::{Catalog, View, attribution};
use crate::types::{Frontend, Revision, Update};

/// What one who comes back holds: the revision, and the ids that are its own and not every node's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// It holds all it needed up to here.
    pub revision: Revision,
    pub(crate) tables: FxHashSet<u32>,
    pub(crate) programs: FxHashSet<u32>,
    pub(crate) attributions: FxHashSet<u32>,
    pub(crate) redirects: FxHashSet<u32>,
    pub(crate) cookies: FxHashSet<u32>,
}

impl Held {
    /// Follows an update that was taken in.
    pub fn note(&mut self, update: &Update) {
        if update.snapshot {
            *self = Self::default();
        }
        self.revision = update.revision;
        let delta = &update.delta;
        let slots = delta.attributions.iter();
        let cookies = delta.cookies.iter();
        self.tables
            .extend(delta.tables.iter().map(|table| table.id));
        self.programs
            .extend(delta.programs.iter().map(|(id, _)| *id));
        self.attributions
            .extend(slots.map(|(key, _)| key.attribution));
        self.redirects
            .extend(delta.redirects.iter().map(|(id, _)| *id));
        self.cookies.extend(cookies.map(|(cookie, _)| cookie.0));
        let slots = delta.dropped_attributions.iter();
        let cookies = delta.dropped_cookies.iter();
        remove(&mut self.tables, delta.dropped_tables.iter().copied());
        remove(&mut self.programs, delta.dropped_programs.iter().copied());
        remove(&mut self.attributions, slots.map(|key| key.attribution));
        remove(&mut self.redirects, delta.dropped_redirects.iter().copied());
        remove(&mut self.cookies, cookies.map(|cookie| cookie.0));
    }
}

fn remove(set: &mut FxHashSet<u32>, ids: impl IntoIterator<Item = u32>) {
    for id in ids {
        set.remove(&id);
    }
}

impl Catalog {
    /// What is held, for coming back later.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            revision: self.revision,
            tables: self.tables.keys().copied().collect(),
            programs: self.programs.keys().copied().collect(),
            attributions: self.attributions.keys().copied().collect(),
            redirects: self.redirects.keys().copied().collect(),
            cookies: self.cookies.keys().map(|cookie| cookie.0).collect(),
        }
    }
}

/// All that a run of steps touched; what it is now is in the catalog.
#[derive(Debug, Default)]
pub struct Span {
    programs: FxHashSet<u32>,
    attributions: FxHashSet<u32>,
    redirects: FxHashSet<u32>,
    new_tables: FxHashSet<u32>,
    tables: FxHashMap<u32, Touched>,
    dropped_ranges: FxHashMap<u32, Vec<RangeKey>>,
    dropped_attributions: FxHashMap<u32, Vec<AttributionKey>>,
    identities: FxHashSet<Identity>,
    watermarks: FxHashSet<Range>,
    numbered: FxHashSet<NodeName>,
    prefixes: FxHashSet<PrefixKey>,
    addresses: FxHashSet<Address>,
    endpoints: FxHashMap<u32, FxHashSet<PodRef>>,
    settings: bool,
    nodes: FxHashSet<NodeName>,
    services: FxHashSet<Frontend>,
}

#[derive(Debug, Default)]
struct Touched {
    identities: FxHashSet<Identity>,
    defaults: bool,
    takes_access_away: bool,
}

impl Span {
    /// Adds a step. `concerned` is which of the update's endpoints concern a node, by its number.
    pub(crate) fn add(&mut self, update: &Update, concerned: &FxHashMap<u32, Vec<usize>>) {
        let delta = &update.delta;
        self.programs
            .extend(delta.programs.iter().map(|(id, _)| *id));
        let slots = delta.attributions.iter();
        self.attributions
            .extend(slots.map(|(key, _)| key.attribution));
        self.redirects
            .extend(delta.redirects.iter().map(|(id, _)| *id));
        for table in &delta.tables {
            if table.new {
                self.new_tables.insert(table.id);
            }
            let touched = self.tables.entry(table.id).or_default();
            let set = table.set.iter().map(|(identity, _)| *identity);
            touched
                .identities
                .extend(set.chain(table.removed.iter().copied()));
            touched.defaults |= table.defaults.is_some();
            touched.takes_access_away |= table.takes_access_away;
        }
        for key in &delta.retired_peers {
            let touched = self.tables.entry(key.table).or_default();
            touched.identities.insert(key.identity);
        }
        for key in &delta.dropped_ranges {
            self.dropped_ranges
                .entry(key.program)
                .or_default()
                .push(*key);
        }
        for key in &delta.dropped_attributions {
            let keys = self
                .dropped_attributions
                .entry(key.attribution)
                .or_default();
            keys.push(*key);
        }
        self.identities
            .extend(delta.identities.iter().map(|(identity, _)| *identity));
        self.identities.extend(&delta.dropped_identities);
        self.watermarks
            .extend(delta.watermarks.iter().map(|(range, _)| *range));
        self.numbered
            .extend(delta.nodes.iter().map(|(name, _)| name.clone()));
        self.prefixes
            .extend(delta.prefixes.iter().map(|(prefix, _)| *prefix));
        self.addresses
            .extend(delta.addresses.iter().map(|(address, _)| *address));
        for (node, places) in concerned {
            let pods = self.endpoints.entry(*node).or_default();
            pods.extend(places.iter().map(|at| delta.endpoints[*at].0.clone()));
        }
        self.settings |= update.settings.is_some();
        self.nodes
            .extend(update.nodes.iter().map(|(name, _)| name.clone()));
        self.services
            .extend(update.services.iter().map(|(frontend, _)| *frontend));
    }

    /// The view of a node that comes back, and the one update that brings it from where it was to where the catalog is. `None`: it
    /// needs a snapshot, since something it holds was replaced by something else under the same number.
    #[must_use]
    pub fn resume(
        &self,
        node: &NodeName,
        catalog: &Catalog,
        held: &Held,
    ) -> Option<(View, Update)> {
        let replaced = |held: &FxHashSet<u32>, new: &FxHashSet<u32>| !held.is_disjoint(new);
        if self.numbered.contains(node)
            || replaced(&held.programs, &self.programs)
            || replaced(&held.attributions, &self.attributions)
            || replaced(&held.redirects, &self.redirects)
            || replaced(&held.tables, &self.new_tables)
        {
            return None;
        }
        let (view, mut need) = View::new(node.clone(), catalog);
        let needed = need.clone();
        need.endpoints.clear();
        for (ids, held) in [
            (&mut need.whole, &held.tables),
            (&mut need.programs, &held.programs),
            (&mut need.attributions, &held.attributions),
            (&mut need.redirects, &held.redirects),
            (&mut need.cookies, &held.cookies),
        ] {
            ids.retain(|id| !held.contains(id));
        }
        need.dropped_tables = unneeded(&held.tables, &needed.whole);
        need.dropped_programs = unneeded(&held.programs, &needed.programs);
        need.dropped_redirects = unneeded(&held.redirects, &needed.redirects);
        need.dropped_cookies = unneeded(&held.cookies, &needed.cookies);
        for id in &need.dropped_programs {
            let known = catalog.programs.get(id);
            let ranges = known.into_iter().flat_map(|entry| &entry.ranges);
            need.dropped_ranges.extend(ranges.map(|(key, _)| *key));
            need.dropped_ranges
                .extend(self.dropped_ranges.get(id).into_iter().flatten());
        }
        for id in unneeded(&held.attributions, &needed.attributions) {
            let slots = catalog.attributions.get(&id).into_iter();
            let keys = slots.flat_map(|slots| attribution(id, slots));
            need.dropped_attributions.extend(keys.map(|(key, _)| key));
            need.dropped_attributions
                .extend(self.dropped_attributions.get(&id).into_iter().flatten());
        }
        let mut update = need.update(catalog, &self.shared(catalog));
        for id in needed.whole.iter().filter(|id| held.tables.contains(id)) {
            self.table(*id, catalog, &mut update.delta);
        }
        let mut pods: Vec<&PodRef> = self
            .endpoints
            .get(&view.number())
            .into_iter()
            .flatten()
            .collect();
        pods.sort_unstable();
        for pod in pods {
            let known = catalog.endpoint(pod).copied();
            let own = known.filter(|endpoint| endpoint.node == view.number());
            update.delta.endpoints.push((pod.clone(), own));
        }
        Some((view, update))
    }

    /// What every node is told: the present meaning of all that was touched.
    #[must_use]
    pub fn shared(&self, catalog: &Catalog) -> Update {
        let mut delta = Delta::default();
        for identity in sorted_set(&self.identities) {
            match catalog.labels(identity) {
                Some(labels) => delta.identities.push((identity, labels.to_vec())),
                None => delta.dropped_identities.push(identity),
            }
        }
        for range in sorted_set(&self.watermarks) {
            let mark = catalog.watermarks.get(&range);
            delta.watermarks.extend(mark.map(|mark| (range, *mark)));
        }
        for name in sorted_set(&self.numbered) {
            let number = catalog.numbers.get(&name).copied();
            delta.nodes.extend(number.map(|number| (name, number)));
        }
        for prefix in sorted_set(&self.prefixes) {
            delta.prefixes.push((prefix, catalog.prefix(&prefix)));
        }
        for address in sorted_set(&self.addresses) {
            delta.addresses.push((address, catalog.address(address)));
        }
        let node = |name: NodeName| (name.clone(), catalog.nodes.get(&name).cloned());
        let service = |frontend| (frontend, catalog.services.get(&frontend).cloned());
        Update {
            revision: catalog.revision,
            snapshot: false,
            delta,
            settings: self.settings.then(|| catalog.settings.clone()).flatten(),
            nodes: sorted_set(&self.nodes).into_iter().map(node).collect(),
            services: sorted_set(&self.services)
                .into_iter()
                .map(service)
                .collect(),
        }
    }

    /// All changes of a held table as one.
    fn table(&self, id: u32, catalog: &Catalog, delta: &mut Delta) {
        let (Some(touched), Some(table)) = (self.tables.get(&id), catalog.tables.get(&id)) else {
            return;
        };
        let mut change = TableDelta {
            id,
            defaults: touched.defaults.then(|| table.defaults()),
            takes_access_away: touched.takes_access_away,
            ..TableDelta::default()
        };
        for identity in sorted_set(&touched.identities) {
            match table.cell(identity) {
                Some(cell) => change.set.push((identity, cell)),
                None if catalog.labels(identity).is_some() => change.removed.push(identity),
                None => delta.retired_peers.push(PeerKey {
                    table: id,
                    identity,
                }),
            }
        }
        if change.changes() {
            delta.tables.push(change);
        }
    }
}

fn unneeded(held: &FxHashSet<u32>, needed: &[u32]) -> Vec<u32> {
    let is_needed = |id: &&u32| needed.binary_search(id).is_err();
    let mut all: Vec<u32> = held.iter().filter(is_needed).copied().collect();
    all.sort_unstable();
    all
}

fn sorted_set<T: Ord + Clone>(set: &FxHashSet<T>) -> Vec<T> {
    let mut all: Vec<T> = set.iter().cloned().collect();
    all.sort_unstable();
    all
}
