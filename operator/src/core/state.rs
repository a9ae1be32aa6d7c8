//! The whole cluster, and the steps it takes: inputs, commits, publications, writes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use sluice_policy::{Delta, Endpoint, Index, ItemRef};
use sluice_stream::{Batch, Overlay, Report, Revision, Settings};
use sluice_world::{Labels, Mode, NodeName, PodRef, WorldItem, builder};

use super::{
    absence::{self, Absence},
    endpoints,
    identities::Identities,
    input::{Input, Kind},
    ipam::Pools,
    nodes::Nodes,
    pods::{Interface, Pods},
    policies::{Item, Policies},
    services::{ItemChange, Services},
    write::{Notice, Write},
};

/// What a cluster is set up with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The operator's own namespace.
    pub namespace: String,
    /// The enforcement mode.
    pub mode: Mode,
    /// Where nodes' prefixes come from.
    pub pools: Pools,
    /// They come from `spec.podCIDRs` of nodes instead.
    pub node_cidrs: bool,
    /// How packets travel between nodes.
    pub overlay: Overlay,
    /// Pods' traffic leaving the cluster takes the node's address.
    pub masquerade: bool,
    /// Destinations that are not masqueraded.
    pub excluded_cidrs: Vec<IpNet>,
    /// Prefixes of services' cluster addresses.
    pub service_cidrs: Vec<IpNet>,
    /// How long an identity that nobody has is kept.
    pub identity_grace: Duration,
}

/// What one commit leads to.
#[derive(Debug, Default)]
pub struct Step {
    /// To be written, and to have succeeded, before the batch is published: numbers that it uses.
    pub first: Vec<Write>,
    /// What agents are told; `None` where nothing changed for them.
    pub batch: Option<Batch>,
    /// What the compiler could not take in.
    pub errors: Vec<String>,
}

/// Agents as the hub knows them.
#[derive(Clone, Debug, Default)]
pub struct AgentView {
    /// Connected agents, with what they acknowledged.
    pub sessions: BTreeMap<NodeName, Option<Revision>>,
}

/// How much of everything there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes.
    pub nodes: usize,
    /// Pods that have a node.
    pub pods: usize,
    /// Services.
    pub services: usize,
    /// Policies and CIDR groups.
    pub policies: usize,
    /// Those of them that are not valid.
    pub invalid_policies: usize,
    /// Policies in force that not all nodes enforce yet.
    pub pending_policies: usize,
    /// Stored identities.
    pub identities: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    /// Only a leader has one.
    index: Option<Index>,
    namespaces: BTreeMap<String, Labels>,
    dirty_namespaces: BTreeSet<String>,
    pods: Pods,
    nodes: Nodes,
    services: Services,
    policies: Policies,
    identities: Identities,
    listing: BTreeSet<Kind>,
    settings: Option<Settings>,
    /// Endpoints of the last commit that wait for its revision.
    moved: Vec<PodRef>,
    /// Whose stored endpoint may have to be written.
    unwritten: BTreeSet<PodRef>,
    /// Nodes with pods and without agent.
    absent: BTreeMap<NodeName, Absence>,
}

impl Cluster {
    /// An empty cluster of a follower. It waits for the lists of `kinds`.
    #[must_use]
    pub fn new(config: Config, kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self {
            nodes: Nodes::new(config.pools.clone(), config.node_cidrs),
            policies: Policies::new(config.namespace.clone()),
            config,
            index: None,
            namespaces: BTreeMap::new(),
            dirty_namespaces: BTreeSet::new(),
            pods: Pods::default(),
            services: Services::default(),
            identities: Identities::default(),
            listing: kinds.into_iter().collect(),
            settings: None,
            moved: Vec::new(),
            unwritten: BTreeSet::new(),
            absent: BTreeMap::new(),
        }
    }

    /// Takes in what happened. Nothing has an effect outside before the next commit.
    pub fn apply(&mut self, input: Input) {
        match input {
            Input::Listing(kind) => drop(self.listing.insert(kind)),
            Input::Listed(kind) => drop(self.listing.remove(&kind)),
            Input::Namespace(name, labels) => self.put_namespace(name, labels),
            Input::Pod(id, Some(pod)) => {
                if let Some(identity) = self.pods.put(id, *pod) {
                    self.identities.count(identity.0, 1);
                }
            }
            Input::Pod(id, None) => self.remove_pod(&id),
            Input::Node(name, node) => self.nodes.put(name, node.map(|node| *node)),
            Input::Service(id, service) => {
                self.services.put(id, service.map(|service| *service));
            }
            Input::Slice(id, name, slice) => {
                self.services.put_slice(id, name, slice.map(|slice| *slice));
            }
            Input::Policy(key, policy) => self.policies.put(key, policy.map(|policy| *policy)),
            Input::Identity(name, identity) => {
                self.identities
                    .put(name, identity.map(|identity| *identity));
            }
            Input::Record(name, record) => {
                self.nodes.put_record(name, record.map(|record| *record));
            }
            Input::Endpoint(id, stored) => self.put_endpoint(id, stored.map(|stored| *stored)),
            Input::LastValid(key, text) => self.policies.put_stored(key, text),
            Input::Report(node, report) => self.report(&node, report),
        }
    }

    /// Kinds whose first list is still to come; a commit before would be of half a world.
    #[must_use]
    pub const fn listing(&self) -> &BTreeSet<Kind> {
        &self.listing
    }

    /// Begins to lead: from now on commits are made, under the numbers that stored objects give. The first is of everything.
    pub fn lead(&mut self, now: Timestamp) {
        let store = self.identities.lead(now);
        self.index = Some(Index::new(sluice_policy::Settings {
            mode: self.config.mode,
            store,
            nodes: self.nodes.numbers(),
        }));
        self.dirty_namespaces
            .extend(self.namespaces.keys().cloned());
        self.pods
            .dirty
            .extend(self.pods.names().cloned().collect::<Vec<_>>());
        self.policies
            .dirty
            .extend(self.policies.names().cloned().collect::<Vec<_>>());
        self.nodes.dirty_all();
        self.services.untell_items();
        self.policies.sweep();
        self.identities.recount();
        self.unwritten.extend(self.pods.orphans().cloned());
        self.settings = None;
        self.absent.clear();
    }

    /// Whether it leads.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.index.is_some()
    }

    /// Whether a commit would find something changed.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        // A leader's first commit tells at least its settings.
        let begins = self.leads() && self.settings.is_none();
        begins
            || !(self.dirty_namespaces.is_empty()
                && self.pods.dirty.is_empty()
                && self.nodes.dirty.is_empty()
                && self.services.dirty.is_empty()
                && self.policies.dirty.is_empty())
    }

    /// Makes all that was applied hold. Nothing on a follower, and nothing while lists are still to come.
    pub fn commit(&mut self, now: Timestamp) -> Step {
        let Some(mut index) = self.index.take() else {
            return Step::default();
        };
        if !self.listing.is_empty() {
            self.index = Some(index);
            return Step::default();
        }
        self.stage_namespaces(&mut index);
        let nodes = self.stage_nodes(&mut index);
        let services = self.stage_services(&mut index);
        let staged = self.stage_pods(&mut index);
        self.stage_policies(&mut index);
        let mut delta = index.commit();
        self.index = Some(index);
        self.tell_uids(&staged, &mut delta);
        self.pods.left.clear();

        let mut step = Step {
            errors: std::mem::take(&mut delta.errors),
            ..Step::default()
        };
        let mut renumbered = nodes;
        for (name, number) in &delta.nodes {
            self.nodes.number(name, *number);
            renumbered.insert(name.clone());
        }
        step.first.extend(self.nodes.writes());
        for (identity, properties) in &delta.identities {
            step.first
                .extend(self.identities.begin(identity.0, properties));
        }
        for identity in &delta.dropped_identities {
            self.identities.end(identity.0, now);
        }
        for (id, warnings) in std::mem::take(&mut delta.warnings) {
            self.policies.warn(id, warnings);
        }
        for (id, endpoint) in &delta.endpoints {
            self.move_endpoint(id, *endpoint);
        }
        let batch = Batch {
            delta,
            settings: self.changed_settings(),
            nodes: self.nodes.changes(&renumbered),
            services: self.services.changes(&services),
        };
        step.batch = (batch != Batch::default()).then_some(batch);
        step
    }

    /// What the last commit changed is published up to this revision, or needed no publication since it is the same as before.
    pub fn published(&mut self, revision: Revision, now: Timestamp) {
        for id in std::mem::take(&mut self.moved) {
            if let Some(pod) = self.pods.get_mut(&id) {
                pod.revision = Some(revision);
            }
            self.unwritten.insert(id);
        }
        self.policies.published(revision, now);
        // What the commit replaced is let go now that nobody waits for it.
        if let Some(index) = &mut self.index {
            index.tidy();
        }
    }

    /// Statuses and stored endpoints that are out of date, at most about `budget` of them, and what users must be told.
    pub fn writes(
        &mut self,
        agents: &AgentView,
        now: Timestamp,
        budget: usize,
    ) -> (Vec<Write>, Vec<Notice>) {
        if !self.leads() {
            // A leader to be hears of all of it again.
            self.nodes.notices();
            return (Vec::new(), Vec::new());
        }
        // Statuses show whole seconds.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        for name in agents.sessions.keys() {
            self.nodes.seen(name);
        }
        let followers = self.nodes.followers(&agents.sessions);
        let (mut writes, mut notices) = self.policies.writes(&followers, now);
        notices.extend(self.nodes.notices());
        while writes.len() < budget {
            let Some(id) = self.unwritten.pop_first() else {
                break;
            };
            writes.extend(endpoints::write(&mut self.pods, &self.absent, &id));
        }
        (writes, notices)
    }

    /// Statuses that may change with every revision or pod, and are told more seldom for it: of nodes and identities; and what is to be
    /// cleaned away.
    pub fn slow_writes(&mut self, agents: &AgentView, now: Timestamp) -> Vec<Write> {
        if !self.leads() {
            return Vec::new();
        }
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let is_there = |name: &NodeName| agents.sessions.contains_key(name);
        for name in absence::note(&mut self.absent, self.pods.nodes(), is_there, now) {
            self.unwritten.extend(self.pods.of_node(&name).cloned());
        }
        let mut writes = self.identities.statuses();
        writes.extend(
            self.nodes
                .statuses(&agents.sessions, self.config.overlay, now),
        );
        writes.extend(self.identities.collect(now, self.config.identity_grace));
        if let Some(prices) = self.identities.prices(&self.policies.named_keys()) {
            self.policies.price(&prices);
        }
        writes
    }

    /// How much of everything there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (policies, invalid_policies) = self.policies.counts();
        Counts {
            nodes: self.nodes.len(),
            pods: self.pods.len(),
            services: self.services.len(),
            policies,
            invalid_policies,
            pending_policies: self.policies.pending(),
            identities: self.identities.len(),
        }
    }

    fn put_namespace(&mut self, name: String, labels: Option<Labels>) {
        let known = self.namespaces.get(&name);
        if known == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.clone(), labels)),
            None => drop(self.namespaces.remove(&name)),
        }
        self.dirty_namespaces.insert(name);
    }

    fn remove_pod(&mut self, id: &PodRef) {
        if let Some(pod) = self.pods.remove(id)
            && let Some(endpoint) = pod.endpoint
        {
            self.identities.count(endpoint.identity.0, -1);
        }
        self.unwritten.insert(id.clone());
    }

    fn put_endpoint(&mut self, id: PodRef, stored: Option<super::input::RememberedEndpoint>) {
        let deleted = stored.is_none();
        self.pods.remember(id.clone(), stored);
        // Deleted under a living pod, or there without one.
        let living = self.pods.get(&id).is_some();
        if deleted == living {
            self.unwritten.insert(id);
        }
    }

    fn report(&mut self, node: &NodeName, report: Report) {
        match report {
            Report::EndpointUp {
                pod,
                uid,
                addresses,
                ..
            } => {
                // An agent gives out its own node's addresses only: another's pod could be spoken for else.
                let own = |address: &IpAddr| {
                    self.nodes
                        .pod_cidrs(node)
                        .iter()
                        .any(|cidr| cidr.contains(address))
                };
                if addresses.iter().all(own) {
                    self.pods.report(node, pod, uid, Interface::Up(addresses));
                } else {
                    tracing::warn!(%node, %pod, ?addresses, "the agent reports addresses outside its node's pod CIDRs: not believed");
                }
            }
            Report::EndpointDown { pod, uid } => {
                self.pods.report(node, pod, uid, Interface::Down);
            }
            Report::Status(status) => self.nodes.report(node, status),
        }
    }

    fn stage_namespaces(&mut self, index: &mut Index) {
        for name in std::mem::take(&mut self.dirty_namespaces) {
            match self.namespaces.get(&name) {
                Some(labels) => {
                    index.apply(WorldItem::Namespace(builder::namespace(
                        name,
                        labels.clone(),
                    )));
                }
                None => index.delete(ItemRef::Namespace(name)),
            }
        }
    }

    fn stage_nodes(&mut self, index: &mut Index) -> BTreeSet<NodeName> {
        let dirty = std::mem::take(&mut self.nodes.dirty);
        for name in &dirty {
            match self.nodes.settle(name) {
                Some(node) => index.apply(WorldItem::Node(node)),
                None => index.delete(ItemRef::Node(name.clone())),
            }
        }
        dirty
    }

    fn stage_services(&mut self, index: &mut Index) -> BTreeSet<sluice_world::ServiceRef> {
        let dirty = std::mem::take(&mut self.services.dirty);
        for id in &dirty {
            match self.services.item(id) {
                ItemChange::Same => {}
                ItemChange::Is(service) => index.apply(WorldItem::Service(service)),
                ItemChange::Gone => index.delete(ItemRef::Service(id.clone())),
            }
        }
        dirty
    }

    fn stage_pods(&mut self, index: &mut Index) -> BTreeSet<PodRef> {
        let staged = std::mem::take(&mut self.pods.dirty);
        for id in staged.iter().cloned() {
            match self.pods.item(&id) {
                Some(pod) => index.apply(WorldItem::Pod(pod)),
                None => index.delete(ItemRef::Pod(id.clone())),
            }
            self.moved.push(id);
        }
        staged
    }

    /// Says which pods are meant, which the index does not know: one that replaces another of its name is told of even where the index
    /// finds both the same.
    fn tell_uids(&self, staged: &BTreeSet<PodRef>, delta: &mut Delta) {
        for (id, endpoint) in &mut delta.endpoints {
            if let Some(endpoint) = endpoint {
                endpoint.uid = self.pods.runtime_uid(id);
            }
        }
        let said: HashSet<&PodRef> = delta.endpoints.iter().map(|(id, _)| id).collect();
        let replaced: Vec<_> = staged
            .iter()
            .filter(|id| !said.contains(id))
            .filter_map(|id| {
                let before = self.pods.get(id)?.endpoint?;
                let uid = self.pods.runtime_uid(id);
                (before.uid != uid).then(|| (id.clone(), Some(Endpoint { uid, ..before })))
            })
            .collect();
        delta.endpoints.extend(replaced);
    }

    fn stage_policies(&mut self, index: &mut Index) {
        if !self.policies.dirty.is_empty() {
            // Policies may name other labels now.
            self.identities.ask_again();
        }
        for key in std::mem::take(&mut self.policies.dirty) {
            match self.policies.item(&key) {
                Item::Policy(policy) => index.apply_prepared(policy),
                Item::Group(group) => index.apply(WorldItem::CidrGroup(group)),
                Item::Gone(id) => index.delete(id),
            }
        }
    }

    fn move_endpoint(&mut self, id: &PodRef, endpoint: Option<Endpoint>) {
        let Some(pod) = self.pods.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut pod.endpoint, endpoint);
        let number = |endpoint: Option<Endpoint>| endpoint.map(|endpoint| endpoint.identity.0);
        if number(before) != number(endpoint) {
            if let Some(number) = number(before) {
                self.identities.count(number, -1);
            }
            if let Some(number) = number(endpoint) {
                self.identities.count(number, 1);
            }
        }
        self.moved.push(id.clone());
    }

    fn changed_settings(&mut self) -> Option<Settings> {
        let settings = Settings {
            overlay: self.config.overlay,
            masquerade: self.config.masquerade,
            cluster_cidrs: self.nodes.all_pod_cidrs(),
            excluded_cidrs: self.config.excluded_cidrs.clone(),
            service_cidrs: self.config.service_cidrs.clone(),
            addresses_matter: self.policies.addresses_matter(),
        };
        let changed = self.settings.as_ref() != Some(&settings);
        self.settings = Some(settings.clone());
        changed.then_some(settings)
    }
}
