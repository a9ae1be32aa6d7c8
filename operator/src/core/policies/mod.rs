//! Policies and CIDR groups as written: which are valid, which version of each is in force, and what their statuses say. What a policy
//! means is the compiler's.
//!
//! An update that is not valid changes nothing of what is in force. So that this holds over restarts too, the last valid version is
//! stored: in the status of Sluice's own kinds, for others in a `ConfigMap` per policy. (`NetworkPolicy` has none: the API server itself
//! lets no invalid one in.)

mod key;
mod price;
mod read;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sluice_crds::parsed::PolicyRef;
use sluice_policy::{ItemRef, Prepared, Warning};
use sluice_stream::Revision;
use sluice_world::CidrGroup;

use self::{
    price::{Costly, MANY, Named},
    read::{Content, content, names_blocks, spec_text, with_spec},
    status::{Condition, Found, invalid, multiplies, status},
};
use super::{
    identities::Prices,
    input::PolicyInput,
    nodes::Follower,
    write::{Change, Notice, Write},
};

pub(super) use self::price::Price;
pub use self::{key::PolicyKey, read::strict_read};

/// The label of `ConfigMap`s that hold what was valid last.
pub const LAST_VALID_LABEL: &str = "sluice.io/last-valid";
/// Nodes that a status tells of that they do not follow, and why.
const MAX_FAILURES: usize = 3;
/// How long a new leader lets statuses of policies that were enforced everywhere stand.
const QUIET: SignedDuration = SignedDuration::from_secs(15);

/// What the index is to hold of a policy or group.
#[derive(Debug)]
pub(super) enum Item {
    Policy(Prepared),
    Group(CidrGroup),
    /// Nothing of this name.
    Gone(ItemRef),
}

#[derive(Debug)]
struct PolicyState {
    input: PolicyInput,
    problem: Option<String>,
    content: Option<Content>,
    /// The last valid `spec` and `specs`.
    last_valid: Option<Arc<str>>,
    warnings: Vec<Warning>,
    /// The revision from which on it is in force as it is now.
    revision: Option<Revision>,
    valid: Option<Condition>,
    enforced: Option<Condition>,
    nodes: Option<(usize, usize)>,
    /// Nodes whose agents say why they do not follow, with that.
    failures: Vec<String>,
    /// Labels that the version in force names.
    named: Named,
    /// The costliest of them, where authors are told of it.
    costly: Option<Costly>,
    /// The condition that tells of it.
    multiplied: Option<Condition>,
    /// Digest of the status last written or found.
    written: Option<u64>,
    /// The last leader told that it is enforced everywhere as it is: that stays told while this one's first revision makes its way.
    settled: bool,
    quiet_until: Option<Timestamp>,
}

/// All policies and CIDR groups.
#[derive(Debug)]
pub(super) struct Policies {
    all: BTreeMap<PolicyKey, PolicyState>,
    /// Of policies whose objects have no room for it.
    stored: BTreeMap<PolicyKey, String>,
    namespace: String,
    pub(super) dirty: BTreeSet<PolicyKey>,
    /// Committed, waiting for the revision.
    committed: Vec<PolicyKey>,
    /// In force, not on all nodes yet.
    pending: BTreeSet<PolicyKey>,
    /// Whose status may have to be written.
    unwritten: BTreeSet<PolicyKey>,
    notices: Vec<Notice>,
    writes: Vec<Write>,
    address_blocks: usize,
    /// Nodes that counted when it was last looked.
    nodes: usize,
}

impl Policies {
    /// `namespace`: where `ConfigMap`s go.
    pub(super) fn new(namespace: String) -> Self {
        Self {
            all: BTreeMap::new(),
            stored: BTreeMap::new(),
            namespace,
            dirty: BTreeSet::new(),
            committed: Vec::new(),
            pending: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            notices: Vec::new(),
            writes: Vec::new(),
            address_blocks: 0,
            nodes: 0,
        }
    }

    pub(super) fn put(&mut self, key: PolicyKey, input: Option<PolicyInput>) {
        let Some(input) = input else {
            self.remove(&key);
            return;
        };
        if let Some(known) = self.all.get_mut(&key)
            && known.input.uid == input.uid
            && known.input.value == input.value
        {
            // Only the status, or metadata that means nothing, is different.
            known.input.generation = input.generation;
            return;
        }
        let mut before = self.all.remove(&key);
        if before
            .as_ref()
            .is_some_and(|before| before.input.uid != input.uid)
        {
            // Deleted and made again between two looks: what was valid of the other one does not count.
            self.forget(before.take());
            self.stored.remove(&key);
        }
        let state = self.read(&key, input, before);
        self.all.insert(key.clone(), state);
        self.dirty.insert(key.clone());
        self.unwritten.insert(key);
    }

    /// Takes in what was valid last of a policy without room for it.
    pub(super) fn put_stored(&mut self, key: PolicyKey, text: Option<String>) {
        let Some(text) = text else {
            self.stored.remove(&key);
            return;
        };
        self.stored.insert(key.clone(), text);
        // The policy may have come first, and be without a valid version.
        let lacking = |state: &PolicyState| state.content.is_none();
        if self.all.get(&key).is_some_and(lacking)
            && let Some(state) = self.all.remove(&key)
        {
            let state = self.read(&key, state.input, None);
            self.all.insert(key.clone(), state);
            self.dirty.insert(key.clone());
            self.unwritten.insert(key);
        }
    }

    fn remove(&mut self, key: &PolicyKey) {
        let state = self.all.remove(key);
        if state.is_none() {
            return;
        }
        self.forget(state);
        self.dirty.insert(key.clone());
        self.pending.remove(key);
        self.unwritten.remove(key);
        if let Some(object) = key.config_map(&self.namespace)
            && self.stored.remove(key).is_some()
        {
            self.writes.push(Write {
                object,
                change: Change::Delete,
            });
        }
    }

    fn forget(&mut self, state: Option<PolicyState>) {
        let content = state.and_then(|state| state.content);
        self.address_blocks -= usize::from(names_blocks(content.as_ref()));
    }

    /// Reads what is written; where that is not valid, what was valid before stays.
    fn read(
        &mut self,
        key: &PolicyKey,
        input: PolicyInput,
        before: Option<PolicyState>,
    ) -> PolicyState {
        let status = Found::of(input.status.as_ref());
        let counted = names_blocks(before.as_ref().and_then(|before| before.content.as_ref()));
        let mut state = PolicyState {
            problem: None,
            content: None,
            last_valid: None,
            warnings: Vec::new(),
            revision: None,
            valid: before
                .as_ref()
                .map_or(status.valid, |before| before.valid.clone()),
            enforced: before
                .as_ref()
                .map_or(status.enforced, |before| before.enforced.clone()),
            nodes: None,
            failures: Vec::new(),
            named: before
                .as_ref()
                .map_or_else(Named::default, |before| before.named.clone()),
            costly: before.as_ref().and_then(|before| before.costly.clone()),
            multiplied: before
                .as_ref()
                .map_or(status.multiplied, |before| before.multiplied.clone()),
            written: before
                .as_ref()
                .map_or(status.digest, |before| before.written),
            settled: before.is_none() && status.settled_generation == Some(input.generation),
            quiet_until: None,
            input,
        };
        match strict_read(&state.input.value) {
            Ok(manifest) => {
                state.content = content(manifest);
                state.last_valid = Some(spec_text(&state.input.value).into());
                state.named = Named::of(&state.input.value);
            }
            Err(problem) => {
                if let Some(before) = before.filter(|before| before.content.is_some()) {
                    state.content = before.content;
                    state.last_valid = before.last_valid;
                    state.revision = before.revision;
                    state.warnings = before.warnings;
                } else {
                    let stored = self.stored.get(key).cloned();
                    let text = if key.is_own() {
                        status.last_valid
                    } else {
                        stored
                    };
                    // A version of Sluice that is stricter than the last may refuse what that one took.
                    let revived = text.and_then(|text| {
                        let value = with_spec(&state.input.value, &text)?;
                        Some((strict_read(&value).ok()?, Named::of(&value), text))
                    });
                    if let Some((manifest, named, text)) = revived {
                        state.content = content(manifest);
                        state.named = named;
                        state.last_valid = Some(text.into());
                    }
                }
                let in_force = state.content.is_some();
                self.notices
                    .push(invalid(key, &state.input, &problem, in_force));
                state.problem = Some(problem);
            }
        }
        let counts = names_blocks(state.content.as_ref());
        self.address_blocks = self.address_blocks + usize::from(counts) - usize::from(counted);
        self.store_last_valid(key, &state);
        state
    }

    fn store_last_valid(&mut self, key: &PolicyKey, state: &PolicyState) {
        let (Some(text), Some(object)) = (&state.last_valid, key.config_map(&self.namespace))
        else {
            return;
        };
        if self.stored.get(key).map(String::as_str) == Some(text) {
            return;
        }
        self.stored.insert(key.clone(), text.to_string());
        let mut data = json!({ "kind": key.kind(), "name": key.name(), "policy": **text });
        if let Some(namespace) = key.namespace() {
            data["namespace"] = json!(namespace);
        }
        let labels = json!({ LAST_VALID_LABEL: "true", "app.kubernetes.io/managed-by": "sluice" });
        self.writes.push(Write {
            change: Change::Apply(json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": object.name, "namespace": self.namespace, "labels": labels },
                "data": data,
            })),
            object,
        });
    }

    /// What is stored for policies that are gone.
    pub(super) fn sweep(&mut self) {
        let orphans: Vec<PolicyKey> = self
            .stored
            .keys()
            .filter(|key| !self.all.contains_key(*key))
            .cloned()
            .collect();
        for key in orphans {
            self.stored.remove(&key);
            if let Some(object) = key.config_map(&self.namespace) {
                self.writes.push(Write {
                    object,
                    change: Change::Delete,
                });
            }
        }
    }

    /// Whether a policy in force tells pods apart by their addresses.
    pub(super) const fn addresses_matter(&self) -> bool {
        self.address_blocks > 0
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &PolicyKey> {
        self.all.keys()
    }

    /// How many there are, and how many of them are not valid.
    pub(super) fn counts(&self) -> (usize, usize) {
        let invalid = self
            .all
            .values()
            .filter(|state| state.problem.is_some())
            .count();
        (self.all.len(), invalid)
    }

    /// How many are in force and not on all nodes yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What the index is to hold of a policy or group.
    pub(super) fn item(&mut self, key: &PolicyKey) -> Item {
        self.committed.push(key.clone());
        let content = self.all.get(key).and_then(|state| state.content.as_ref());
        match content {
            Some(Content::Policy(policy)) => Item::Policy(policy.clone()),
            Some(Content::Group(group)) => Item::Group(group.clone()),
            None => Item::Gone(match key {
                PolicyKey::Policy(id) => ItemRef::Policy(id.clone()),
                PolicyKey::Group(kind, name) => ItemRef::CidrGroup(kind.to_string(), name.clone()),
            }),
        }
    }

    /// Takes in what the compiler has to say to authors.
    pub(super) fn warn(&mut self, id: PolicyRef, warnings: Vec<Warning>) {
        let key = PolicyKey::Policy(id);
        if let Some(state) = self.all.get_mut(&key)
            && state.warnings != warnings
        {
            state.warnings = warnings;
            self.unwritten.insert(key);
        }
    }

    /// What was committed is published.
    pub(super) fn published(&mut self, revision: Revision, now: Timestamp) {
        for key in std::mem::take(&mut self.committed) {
            if let Some(state) = self.all.get_mut(&key)
                && state.content.is_some()
            {
                state.revision = Some(revision);
                state.quiet_until = state.settled.then(|| now + QUIET);
                state.settled = false;
                self.pending.insert(key);
            }
        }
    }

    /// Looks at all again when nodes come or go. What is enforced is not said to be un-enforced while a new node takes its snapshot.
    fn recount(&mut self, nodes: usize, now: Timestamp) {
        if std::mem::replace(&mut self.nodes, nodes) == nodes {
            return;
        }
        for (key, state) in &mut self.all {
            if state.revision.is_some() {
                if state
                    .enforced
                    .as_ref()
                    .is_some_and(|enforced| enforced.holds)
                {
                    state.quiet_until = Some(now + QUIET);
                }
                self.pending.insert(key.clone());
            }
        }
    }

    /// Label keys that policies in force name.
    pub(super) fn named_keys(&self) -> BTreeSet<&str> {
        let in_force = self.all.values().filter(|state| state.content.is_some());
        in_force
            .flat_map(|state| state.named.keys.iter().map(String::as_str))
            .collect()
    }

    /// Tells authors whose policies name labels that make many identities.
    pub(super) fn price(&mut self, prices: &Prices) {
        for (key, state) in &mut self.all {
            let costly = costliest(key, state, prices);
            if costly == state.costly {
                continue;
            }
            if let Some(costly) = &costly
                && state.costly.is_none()
                && state.multiplied.is_none()
            {
                self.notices.push(multiplies(key, &state.input, costly));
            }
            state.costly = costly;
            self.unwritten.insert(key.clone());
        }
    }

    /// Statuses that differ from what was written, and events. `followers` are the nodes that count.
    pub(super) fn writes(
        &mut self,
        followers: &[Follower],
        now: Timestamp,
    ) -> (Vec<Write>, Vec<Notice>) {
        self.recount(followers.len(), now);
        let pending: Vec<PolicyKey> = self.pending.iter().cloned().collect();
        // Policies of one commit share their revision.
        let mut progress: BTreeMap<Revision, (usize, Vec<String>)> = BTreeMap::new();
        for key in pending {
            let Some(state) = self.all.get_mut(&key) else {
                continue;
            };
            let Some(revision) = state.revision else {
                continue;
            };
            let (enforced, failures) = &*progress
                .entry(revision)
                .or_insert_with(|| progress_of(revision, followers));
            let waits = state.quiet_until.is_some_and(|until| now < until);
            if waits && *enforced < followers.len() {
                continue;
            }
            let nodes = Some((*enforced, followers.len()));
            if state.nodes != nodes || state.failures != *failures {
                state.nodes = nodes;
                state.failures.clone_from(failures);
                self.unwritten.insert(key.clone());
            }
            if *enforced == followers.len() && *enforced > 0 {
                self.pending.remove(&key);
                self.unwritten.insert(key);
            }
        }
        let mut writes = std::mem::take(&mut self.writes);
        for key in std::mem::take(&mut self.unwritten) {
            let is_pending = self.pending.contains(&key);
            if let Some(state) = self.all.get_mut(&key) {
                let waits = state.quiet_until.is_some_and(|until| now < until);
                if !(waits && is_pending) {
                    writes.extend(status(&key, state, now));
                }
            }
        }
        (writes, std::mem::take(&mut self.notices))
    }
}

/// How many nodes are that far, and why others are not, as far as their agents say; of the first few.
fn progress_of(revision: Revision, followers: &[Follower]) -> (usize, Vec<String>) {
    let (there, behind): (Vec<&Follower>, Vec<&Follower>) = followers
        .iter()
        .partition(|follower| follower.acknowledged >= Some(revision));
    let why = |follower: &&Follower| {
        let failure = follower.failure.as_ref()?;
        Some(format!("{}: {failure}", follower.name.0))
    };
    let failures = behind.iter().filter_map(why).take(MAX_FAILURES).collect();
    (there.len(), failures)
}

/// The label that costs most of those that a policy names, where an author is to be told of it. One that was told of is until it costs
/// half of what it takes to begin.
fn costliest(key: &PolicyKey, state: &PolicyState, prices: &Prices) -> Option<Costly> {
    state.content.as_ref()?;
    let namespace = key.namespace().filter(|_| !state.named.abroad);
    let limit = if state.costly.is_some() {
        MANY / 2
    } else {
        MANY
    };
    let candidates = state.named.keys.iter().map(|key| Costly {
        key: key.clone(),
        price: prices.of(key, namespace),
    });
    candidates
        .filter(|costly| costly.price.more() >= limit)
        .max_by_key(|costly| costly.price.more())
}
