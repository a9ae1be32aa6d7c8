//! Policies and CIDR groups as written: which are valid, which version of each is in force, and what their statuses say. What a policy
//! means is the compiler's.
//!
//! An update that is not valid changes nothing of what is in force. So that this holds over restarts too, the last valid version is
//! stored: in the status of Sluice's own kinds, for others in a `ConfigMap` per policy. (`NetworkPolicy` has none: the API server itself
//! lets no invalid one in.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_crds::{
    manifest::{self, Object as Manifest},
    parsed::{CidrGroupKind, NetworkPeer, PolicyKind, PolicyRef, TierPeer},
    validate::Severity,
};
use sluice_policy::{ItemRef, Warning};
use sluice_stream::Revision;
use sluice_world::{CidrGroup, Policy, WorldItem, builder};

use super::{
    endpoints::fnv,
    input::PolicyInput,
    write::{Change, Notice, Object, Write},
};

/// The label of `ConfigMap`s that hold what was valid last.
pub const LAST_VALID_LABEL: &str = "sluice.io/last-valid";
/// Conditions of statuses are shorter than this by the API's rule (32768 bytes); people read less.
const MAX_MESSAGE: usize = 4096;
/// How long a new leader lets statuses of policies that were enforced everywhere stand.
const QUIET: SignedDuration = SignedDuration::from_secs(15);

/// Names a policy or a CIDR group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKey {
    /// A policy.
    Policy(PolicyRef),
    /// A CIDR group.
    Group(CidrGroupKind, String),
}

impl PolicyKey {
    /// Its kind as manifests spell it.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Policy(id) => id.kind.to_string(),
            Self::Group(kind, _) => kind.to_string(),
        }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Policy(id) => id.namespace.as_deref(),
            Self::Group(..) => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Policy(id) => &id.name,
            Self::Group(_, name) => name,
        }
    }

    /// Whether it is a CIDR group.
    #[must_use]
    pub const fn is_group(&self) -> bool {
        matches!(self, Self::Group(..))
    }

    /// Its object, where its status is written: Sluice's own kinds, and those whose API asks implementations to.
    fn status_object(&self) -> Option<Object> {
        let own = |kind, plural| {
            let namespace = self.namespace().map(str::to_owned);
            Object::own(kind, plural, namespace, self.name().to_owned())
        };
        let tier = |version, kind, plural| Object {
            group: "policy.networking.k8s.io",
            version,
            kind,
            plural,
            namespace: None,
            name: self.name().to_owned(),
        };
        Some(match self {
            Self::Group(CidrGroupKind::Sluice, _) => own("SluiceCIDRGroup", "sluicecidrgroups"),
            Self::Group(CidrGroupKind::Cilium, _) => return None,
            Self::Policy(id) => match id.kind {
                PolicyKind::SluiceNetworkPolicy => {
                    own("SluiceNetworkPolicy", "sluicenetworkpolicies")
                }
                PolicyKind::SluiceClusterwideNetworkPolicy => own(
                    "SluiceClusterwideNetworkPolicy",
                    "sluiceclusterwidenetworkpolicies",
                ),
                PolicyKind::ClusterNetworkPolicy => {
                    tier("v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies")
                }
                PolicyKind::AdminNetworkPolicy => {
                    tier("v1alpha1", "AdminNetworkPolicy", "adminnetworkpolicies")
                }
                PolicyKind::BaselineAdminNetworkPolicy => tier(
                    "v1alpha1",
                    "BaselineAdminNetworkPolicy",
                    "baselineadminnetworkpolicies",
                ),
                PolicyKind::NetworkPolicy
                | PolicyKind::CiliumNetworkPolicy
                | PolicyKind::CiliumClusterwideNetworkPolicy => return None,
            },
        })
    }

    /// Whether the status has room for what was valid last.
    const fn is_own(&self) -> bool {
        match self {
            Self::Group(kind, _) => matches!(kind, CidrGroupKind::Sluice),
            Self::Policy(id) => matches!(
                id.kind,
                PolicyKind::SluiceNetworkPolicy | PolicyKind::SluiceClusterwideNetworkPolicy
            ),
        }
    }

    /// The `ConfigMap` that holds what was valid last, for a kind that needs one.
    fn config_map(&self, namespace: &str) -> Option<Object> {
        let networking = matches!(self, Self::Policy(id) if id.kind == PolicyKind::NetworkPolicy);
        if self.is_own() || networking {
            return None;
        }
        let text = format!(
            "{}/{}/{}",
            self.kind(),
            self.namespace().unwrap_or_default(),
            self.name()
        );
        Some(Object {
            group: "",
            version: "v1",
            kind: "ConfigMap",
            plural: "configmaps",
            namespace: Some(namespace.to_owned()),
            name: format!("sluice-policy-{:016x}", fnv(text.as_bytes())),
        })
    }
}

/// What a policy or group is, read.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Policy(Arc<Policy>),
    Group(CidrGroup),
}

/// Whether something holds, why, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    holds: bool,
    reason: &'static str,
    message: String,
    since: Timestamp,
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
                        Some((strict_read(&value).ok()?, text))
                    });
                    if let Some((manifest, text)) = revived {
                        state.content = content(manifest);
                        state.last_valid = Some(text.into());
                    }
                }
                self.notices
                    .push(notice(key, &state.input, &problem, state.content.is_some()));
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
    pub(super) fn item(&mut self, key: &PolicyKey) -> Result<WorldItem, ItemRef> {
        self.committed.push(key.clone());
        let content = self.all.get(key).and_then(|state| state.content.as_ref());
        match content {
            Some(Content::Policy(policy)) => Ok(WorldItem::Policy(Arc::clone(policy))),
            Some(Content::Group(group)) => Ok(WorldItem::CidrGroup(group.clone())),
            None => Err(match key {
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

    /// Statuses that differ from what was written, and events. `acknowledged` is what each node that counts holds.
    pub(super) fn writes(
        &mut self,
        acknowledged: &[Option<Revision>],
        now: Timestamp,
    ) -> (Vec<Write>, Vec<Notice>) {
        self.recount(acknowledged.len(), now);
        let pending: Vec<PolicyKey> = self.pending.iter().cloned().collect();
        // Policies of one commit share their revision.
        let mut followers: BTreeMap<Revision, usize> = BTreeMap::new();
        for key in pending {
            let Some(state) = self.all.get_mut(&key) else {
                continue;
            };
            let Some(revision) = state.revision else {
                continue;
            };
            let enforced = *followers.entry(revision).or_insert_with(|| {
                acknowledged
                    .iter()
                    .filter(|acked| **acked >= Some(revision))
                    .count()
            });
            let waits = state.quiet_until.is_some_and(|until| now < until);
            if waits && enforced < acknowledged.len() {
                continue;
            }
            let nodes = Some((enforced, acknowledged.len()));
            if state.nodes != nodes {
                state.nodes = nodes;
                self.unwritten.insert(key.clone());
            }
            if enforced == acknowledged.len() && enforced > 0 {
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

/// Reads one policy or CIDR group, strictly: what a webhook refuses and what a reconciler does not put in force are the same.
///
/// # Errors
/// What is wrong, with the path of the field, for the author.
pub fn strict_read(value: &Value) -> Result<Manifest, String> {
    let (mut objects, problems) = manifest::read("", &value.to_string());
    let errors: Vec<String> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| {
            if problem.path.is_empty() {
                problem.message.clone()
            } else {
                format!("{}: {}", problem.path, problem.message)
            }
        })
        .collect();
    match objects.pop() {
        Some(object) if errors.is_empty() => Ok(object),
        _ if errors.is_empty() => Err("the object could not be read".to_owned()),
        _ => Err(errors.join("; ")),
    }
}

fn content(manifest: Manifest) -> Option<Content> {
    Some(match manifest {
        Manifest::NetworkPolicy(policy) => Content::Policy(Arc::new(Policy::Network(policy))),
        Manifest::Policy(policy) => Content::Policy(Arc::new(Policy::Rules(policy))),
        Manifest::TierPolicy(policy) => Content::Policy(Arc::new(Policy::Tier(policy))),
        Manifest::CidrGroup(group) => Content::Group(builder::cidr_group(&group)),
        _ => return None,
    })
}

/// Whether a policy has blocks that may match pods.
fn names_blocks(content: Option<&Content>) -> bool {
    let Some(Content::Policy(policy)) = content else {
        return false;
    };
    match &**policy {
        Policy::Network(policy) => [&policy.ingress, &policy.egress]
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|rule| rule.peers.iter().flatten())
            .any(|peer| matches!(peer, NetworkPeer::IpBlock { .. })),
        Policy::Tier(policy) => policy
            .ingress
            .iter()
            .chain(&policy.egress)
            .flat_map(|rule| &rule.peers)
            .any(|peer| matches!(peer, TierPeer::Networks(_))),
        Policy::Rules(_) => false,
    }
}

/// `spec` and `specs` of an object, as text.
fn spec_text(value: &Value) -> String {
    let kept: serde_json::Map<String, Value> = ["spec", "specs"]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), value.get(field)?.clone())))
        .collect();
    Value::Object(kept).to_string()
}

/// The object with another `spec` and `specs`.
fn with_spec(value: &Value, text: &str) -> Option<Value> {
    let kept: Value = serde_json::from_str(text).ok()?;
    let mut object = value.as_object()?.clone();
    for field in ["spec", "specs"] {
        object.remove(field);
        if let Some(kept) = kept.get(field) {
            object.insert(field.to_owned(), kept.clone());
        }
    }
    Some(Value::Object(object))
}

fn notice(key: &PolicyKey, input: &PolicyInput, problem: &str, in_force: bool) -> Notice {
    let api_version = input.value.get("apiVersion").and_then(Value::as_str);
    Notice {
        api_version: api_version.unwrap_or_default().to_owned(),
        kind: key.kind(),
        namespace: key.namespace().map(str::to_owned),
        name: key.name().to_owned(),
        uid: Some(input.uid.clone()).filter(|uid| !uid.is_empty()),
        reason: "Invalid",
        // The API's limit is 1024 bytes.
        note: shortened(&format!("{problem}; {}", what_holds(in_force)), 1000),
        warning: true,
    }
}

const fn what_holds(in_force: bool) -> &'static str {
    if in_force {
        "the last valid version stays in force"
    } else {
        "nothing of it is in force"
    }
}

fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{} …", &text[..end])
}

/// What a status tells, as found.
#[derive(Default)]
struct Found {
    valid: Option<Condition>,
    enforced: Option<Condition>,
    last_valid: Option<String>,
    digest: Option<u64>,
    /// The generation that was enforced everywhere.
    settled_generation: Option<i64>,
}

impl Found {
    fn of(status: Option<&Value>) -> Self {
        let Some(status) = status else {
            return Self::default();
        };
        let condition = |name: &str| {
            let all = status.get("conditions")?.as_array()?;
            let found = all.iter().find(|condition| condition["type"] == name)?;
            Some(Condition {
                holds: found["status"] == "True",
                reason: "",
                message: String::new(),
                since: found["lastTransitionTime"].as_str()?.parse().ok()?,
            })
        };
        let enforced = condition("Enforced").filter(|enforced| enforced.holds);
        Self {
            settled_generation: enforced.and_then(|_| status.get("observedGeneration")?.as_i64()),
            valid: condition("Valid"),
            enforced: condition("Enforced"),
            last_valid: status
                .get("lastValid")
                .and_then(Value::as_str)
                .map(str::to_owned),
            digest: Some(fnv(status.to_string().as_bytes())),
        }
    }
}

/// Brings a policy's status up to date; nothing where it is, or where its kind has none.
fn status(key: &PolicyKey, state: &mut PolicyState, now: Timestamp) -> Option<Write> {
    let object = key.status_object()?;
    let in_force = state.content.is_some();
    if in_force && state.revision.is_none() && !key.is_group() {
        // Nothing to tell before it is published, which is at once, or has just failed and is tried again.
        return None;
    }
    let (holds, reason, message) = match &state.problem {
        Some(problem) => (
            false,
            "Invalid",
            shortened(&format!("{problem}; {}", what_holds(in_force)), MAX_MESSAGE),
        ),
        None if state.warnings.is_empty() => (true, "Valid", "understood".to_owned()),
        None => {
            let warnings: Vec<String> = state.warnings.iter().map(ToString::to_string).collect();
            (
                true,
                "ValidWithWarnings",
                shortened(&warnings.join("; "), MAX_MESSAGE),
            )
        }
    };
    let valid = turned(state.valid.take(), holds, reason, message, now);
    let mut conditions = vec![condition("Valid", &valid, state.input.generation)];
    state.valid = Some(valid);
    let mut status = json!({});
    if !key.is_group() {
        let (enforced, of) = state.nodes.unwrap_or_default();
        let published = state.revision.is_some() && state.nodes.is_some();
        let (holds, reason, message) = if state.problem.is_some() {
            (false, "Invalid", what_holds(in_force).to_owned())
        } else if !published {
            (false, "Pending", "not published to nodes yet".to_owned())
        } else {
            let all = enforced == of && of > 0;
            let reason = if all { "Enforced" } else { "Pending" };
            (all, reason, format!("enforced on {enforced} of {of} nodes"))
        };
        let enforced_now = turned(state.enforced.take(), holds, reason, message, now);
        conditions.push(condition("Enforced", &enforced_now, state.input.generation));
        state.enforced = Some(enforced_now);
        if key.is_own() && published {
            status["nodes"] = json!({ "enforced": enforced, "desired": of });
        }
    }
    status["conditions"] = Value::Array(conditions);
    if key.is_own() {
        status["observedGeneration"] = json!(state.input.generation);
        if let Some(text) = &state.last_valid {
            status["lastValid"] = json!(**text);
        }
    }
    let digest = fnv(status.to_string().as_bytes());
    if state.written == Some(digest) {
        return None;
    }
    state.written = Some(digest);
    let mut metadata = json!({ "name": object.name });
    if let Some(namespace) = &object.namespace {
        metadata["namespace"] = json!(namespace);
    }
    Some(Write {
        change: Change::ApplyStatus(json!({
            "apiVersion": object.api_version(),
            "kind": object.kind,
            "metadata": metadata,
            "status": status,
        })),
        object,
    })
}

/// A condition as it is now: since when, where it was so before.
fn turned(
    before: Option<Condition>,
    holds: bool,
    reason: &'static str,
    message: String,
    now: Timestamp,
) -> Condition {
    let since = before
        .filter(|before| before.holds == holds)
        .map_or(now, |before| before.since);
    Condition {
        holds,
        reason,
        message,
        since,
    }
}

fn condition(kind: &str, condition: &Condition, generation: i64) -> Value {
    json!({
        "type": kind,
        "status": if condition.holds { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.since.to_string(),
        "observedGeneration": generation,
    })
}
