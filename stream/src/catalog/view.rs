//! What one node needs of a catalog: its endpoints, their tables, and what those use, each counted by its users. A step costs what it
//! touches of the node's, never the whole state.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sluice_abi::{
    Cookie,
    policy::{AttributionKey, PeerCell},
    program::RangeKey,
};
use sluice_policy::{Delta, Endpoint};
use sluice_world::{NodeName, PodRef};

use super::{Catalog, Step, attribution, step::Shift};
use crate::types::Update;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct View {
    node: NodeName,
    /// The node's number; 0 until it has one, which no endpoint has.
    number: u32,
    endpoints: FxHashMap<PodRef, [u32; 2]>,
    tables: Counts,
    programs: Counts,
    attributions: Counts,
    redirects: Counts,
    cookies: Counts,
}

/// What a node has to be told beside what every node is told. Contents are still in the catalog and the update it was found with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Tables the node did not have, to be sent whole.
    pub(crate) whole: Vec<u32>,
    /// Which of the update's table changes it needs.
    pub(crate) changed: Vec<usize>,
    /// Which of its retired peers.
    pub(crate) retired: Vec<usize>,
    pub(crate) endpoints: Vec<(PodRef, Option<Endpoint>)>,
    pub(crate) programs: Vec<u32>,
    pub(crate) attributions: Vec<u32>,
    pub(crate) redirects: Vec<u32>,
    pub(crate) cookies: Vec<u32>,
    pub(crate) dropped_tables: Vec<u32>,
    pub(crate) dropped_programs: Vec<u32>,
    pub(crate) dropped_ranges: Vec<RangeKey>,
    pub(crate) dropped_attributions: Vec<AttributionKey>,
    pub(crate) dropped_redirects: Vec<u32>,
    pub(crate) dropped_cookies: Vec<u32>,
}

impl View {
    /// The view of a node as the catalog is now, and all that the node needs.
    #[must_use]
    pub fn new(node: NodeName, catalog: &Catalog) -> (Self, Need) {
        let mut view = Self {
            node,
            ..Self::default()
        };
        let mut need = Need::default();
        view.renumber(catalog, &mut need);
        view.settle(catalog, &Step::default(), &mut need);
        (view, need)
    }

    /// Follows the catalog by the update that it took in last.
    pub fn step(&mut self, catalog: &Catalog, update: &Update, step: &Step) -> Need {
        let mut need = Need::default();
        let changed = self.change_tables(step);
        if step.numbered.contains(&self.node) {
            self.renumber(catalog, &mut need);
        }
        for at in step.endpoints.get(&self.number).into_iter().flatten() {
            let (pod, endpoint) = &update.delta.endpoints[*at];
            self.put_endpoint(pod, endpoint.as_ref(), &mut need);
        }
        self.settle(catalog, step, &mut need);
        // What comes whole has its changes in it, and of what goes nobody needs them.
        for id in changed.into_iter().filter(|id| self.tables.holds(*id)) {
            need.changed.extend(&step.tables[&id].at);
            need.retired.extend(&step.tables[&id].retired);
        }
        need.changed.sort_unstable();
        need.retired.sort_unstable();
        need
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// The node's number; 0 until it has one.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The tables that the node holds.
    pub fn tables(&self) -> impl Iterator<Item = u32> {
        self.tables.users.keys().copied()
    }

    /// Counts what held tables use and no longer use. Tells which held tables changed.
    fn change_tables(&mut self, step: &Step) -> Vec<u32> {
        let mut changed: Vec<u32> = if self.tables.users.len() < step.tables.len() {
            let held = self.tables.users.keys().copied();
            held.filter(|id| step.tables.contains_key(id)).collect()
        } else {
            let touched = step.tables.keys().copied();
            touched.filter(|id| self.tables.holds(*id)).collect()
        };
        changed.sort_unstable();
        for id in &changed {
            let change = &step.tables[id];
            self.programs.shift(&change.programs);
            self.attributions.shift(&change.attributions);
        }
        changed
    }

    /// Takes the node's number from the catalog, and with it the endpoints.
    fn renumber(&mut self, catalog: &Catalog, need: &mut Need) {
        let number = catalog.numbers.get(&self.node).copied().unwrap_or(0);
        if number == self.number {
            return;
        }
        self.number = number;
        let old: Vec<PodRef> = self.endpoints.keys().cloned().collect();
        for pod in old {
            self.put_endpoint(&pod, None, need);
        }
        let mut new: Vec<_> = catalog.endpoints_of(number).collect();
        new.sort_unstable_by_key(|(pod, _)| *pod);
        for (pod, endpoint) in new {
            self.put_endpoint(pod, Some(endpoint), need);
        }
    }

    fn put_endpoint(&mut self, pod: &PodRef, endpoint: Option<&Endpoint>, need: &mut Need) {
        let own = endpoint.filter(|endpoint| endpoint.node == self.number);
        let old = match own {
            Some(own) => self
                .endpoints
                .insert(pod.clone(), [own.egress, own.ingress]),
            None => self.endpoints.remove(pod),
        };
        if own.is_none() && old.is_none() {
            return;
        }
        for table in own.into_iter().flat_map(|own| [own.egress, own.ingress]) {
            self.tables.add(table);
        }
        for table in old.into_iter().flatten() {
            self.tables.sub(table);
        }
        need.endpoints.push((pod.clone(), own.copied()));
    }

    /// Finds what is needed now and was not, and the reverse, from the tables down to the rules they name.
    fn settle(&mut self, catalog: &Catalog, step: &Step, need: &mut Need) {
        let (new, gone) = self.tables.settle();
        for table in new.iter().filter_map(|id| catalog.tables.get(id)) {
            table.programs().for_each(|id| self.programs.add(id));
            table
                .attributions()
                .for_each(|id| self.attributions.add(id));
        }
        for id in &gone {
            let known = catalog.tables.get(id).or(step.gone_tables.get(id));
            let Some(table) = known else { continue };
            table.programs().for_each(|id| self.programs.sub(id));
            table
                .attributions()
                .for_each(|id| self.attributions.sub(id));
        }
        need.whole = new;
        need.dropped_tables = gone;
        self.settle_programs(catalog, step, need);
        self.settle_attributions(catalog, step, need);
        let (new, gone) = self.redirects.settle();
        for set in new.iter().filter_map(|id| catalog.redirects.get(id)) {
            set.rules.iter().for_each(|rule| self.cookies.add(rule.0.0));
        }
        for id in &gone {
            let known = catalog.redirects.get(id).or(step.gone_redirects.get(id));
            let rules = known.into_iter().flat_map(|set| &set.rules);
            rules.for_each(|rule| self.cookies.sub(rule.0.0));
        }
        (need.redirects, need.dropped_redirects) = (new, gone);
        (need.cookies, need.dropped_cookies) = self.cookies.settle();
        need.dropped_cookies
            .retain(|cookie| Cookie(*cookie).is_rule());
    }

    fn settle_programs(&mut self, catalog: &Catalog, step: &Step, need: &mut Need) {
        let (new, gone) = self.programs.settle();
        for entry in new.iter().filter_map(|id| catalog.programs.get(id)) {
            for redirect in entry.redirects() {
                self.redirects.add(redirect);
            }
        }
        for id in &gone {
            let known = catalog.programs.get(id).or(step.gone_programs.get(id));
            let Some(entry) = known else { continue };
            for redirect in entry.redirects() {
                self.redirects.sub(redirect);
            }
            need.dropped_ranges
                .extend(entry.ranges.iter().map(|(key, _)| *key));
        }
        (need.programs, need.dropped_programs) = (new, gone);
    }

    fn settle_attributions(&mut self, catalog: &Catalog, step: &Step, need: &mut Need) {
        let (new, gone) = self.attributions.settle();
        for id in new.iter().filter(|id| PeerCell::is_direct(**id)) {
            direct(*id).for_each(|cookie| self.cookies.add(cookie.0));
        }
        for id in gone.iter().filter(|id| PeerCell::is_direct(**id)) {
            direct(*id).for_each(|cookie| self.cookies.sub(cookie.0));
        }
        for slots in new.iter().filter_map(|id| catalog.attributions.get(id)) {
            for cookie in slots.values() {
                self.cookies.add(cookie.0);
            }
        }
        for id in &gone {
            let known = catalog.attributions.get(id);
            let Some(slots) = known.or(step.gone_attributions.get(id)) else {
                continue;
            };
            for cookie in slots.values() {
                self.cookies.sub(cookie.0);
            }
            need.dropped_attributions
                .extend(attribution(*id, slots).map(|(key, _)| key));
        }
        need.attributions = new;
    }
}

/// The rules that a cell names by itself.
fn direct(attribution: u32) -> impl Iterator<Item = Cookie> {
    let named = PeerCell::direct_names(attribution).into_iter();
    named.filter(|cookie| *cookie != Cookie::NONE)
}

impl Need {
    /// Whether the node needs nothing beside what every node is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The update as the node gets it, with what every node is told.
    #[must_use]
    pub fn update(&self, catalog: &Catalog, update: &Update) -> Update {
        let mut own = shared(update);
        let tables = &mut own.delta.tables;
        for id in &self.whole {
            tables.extend(catalog.tables.get(id).map(|table| table.whole(*id)));
        }
        let changed = self.changed.iter();
        tables.extend(changed.map(|at| update.delta.tables[*at].clone()));
        let rest = self.rest(catalog, update);
        let Delta {
            identities,
            watermarks,
            nodes,
            prefixes,
            addresses,
            tables,
            dropped_identities,
            ..
        } = own.delta;
        own.delta = Delta {
            identities,
            watermarks,
            nodes,
            prefixes,
            addresses,
            tables,
            dropped_identities,
            ..rest
        };
        own
    }

    /// What the node needs but the tables.
    pub(crate) fn rest(&self, catalog: &Catalog, update: &Update) -> Delta {
        let mut delta = Delta {
            endpoints: self.endpoints.clone(),
            dropped_tables: self.dropped_tables.clone(),
            dropped_programs: self.dropped_programs.clone(),
            dropped_ranges: self.dropped_ranges.clone(),
            dropped_attributions: self.dropped_attributions.clone(),
            dropped_redirects: self.dropped_redirects.clone(),
            dropped_cookies: self.dropped_cookies.iter().copied().map(Cookie).collect(),
            ..Delta::default()
        };
        for id in &self.programs {
            if let Some(entry) = catalog.programs.get(id) {
                delta.programs.push((*id, entry.program));
                delta.ranges.extend(&entry.ranges);
            }
        }
        for id in &self.attributions {
            if let Some(slots) = catalog.attributions.get(id) {
                delta.attributions.extend(attribution(*id, slots));
            }
        }
        for id in &self.redirects {
            if let Some(set) = catalog.redirects.get(id) {
                delta.redirects.push((*id, Arc::clone(set)));
            }
        }
        for cookie in self.cookies.iter().copied().map(Cookie) {
            if let Some(rule) = catalog.cookies.get(&cookie) {
                delta.cookies.push((cookie, rule.clone()));
            }
        }
        let retired = self.retired.iter();
        delta.retired_peers = retired.map(|at| update.delta.retired_peers[*at]).collect();
        delta
    }
}

/// The part of an update that every node is told.
pub(crate) fn shared(update: &Update) -> Update {
    let delta = &update.delta;
    Update {
        revision: update.revision,
        snapshot: update.snapshot,
        delta: Delta {
            identities: delta.identities.clone(),
            watermarks: delta.watermarks.clone(),
            nodes: delta.nodes.clone(),
            prefixes: delta.prefixes.clone(),
            addresses: delta.addresses.clone(),
            dropped_identities: delta.dropped_identities.clone(),
            ..Delta::default()
        },
        settings: update.settings.clone(),
        nodes: update.nodes.clone(),
        services: update.services.clone(),
    }
}

/// Users of ids, and what they were before the step that is going on.
#[derive(Clone, Debug, Default)]
struct Counts {
    users: FxHashMap<u32, u32>,
    before: FxHashMap<u32, bool>,
}

impl Counts {
    fn holds(&self, id: u32) -> bool {
        self.users.contains_key(&id)
    }

    fn add(&mut self, id: u32) {
        let known = self.holds(id);
        self.before.entry(id).or_insert(known);
        *self.users.entry(id).or_default() += 1;
    }

    fn sub(&mut self, id: u32) {
        let Some(users) = self.users.get_mut(&id) else {
            return;
        };
        self.before.entry(id).or_insert(true);
        *users -= 1;
        if *users == 0 {
            self.users.remove(&id);
        }
    }

    fn shift(&mut self, shift: &Shift) {
        shift.begun.iter().for_each(|id| self.add(*id));
        shift.ended.iter().for_each(|id| self.sub(*id));
    }

    /// Ends the step: which ids have users now and had none, and the reverse; both sorted.
    fn settle(&mut self) -> (Vec<u32>, Vec<u32>) {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for (id, before) in std::mem::take(&mut self.before) {
            match (before, self.users.contains_key(&id)) {
                (false, true) => new.push(id),
                (true, false) => gone.push(id),
                _ => {}
            }
        }
        new.sort_unstable();
        gone.sort_unstable();
        (new, gone)
    }
}
