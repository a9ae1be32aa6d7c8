//! The index: objects in, deltas out. It holds the compiled state of a whole world; what changes is staged by `apply` and `delete` and
//! takes effect, all at once and in a fixed order, with `commit`.
//!
//! ```text
//! commit:  policies ─▶ rule sets ─▶ (visible keys, address sets)
//!          namespaces, pods, nodes, prefixes, learned names ─▶ identities
//!          identities × selectors ─▶ subjects' tables ─▶ entries that differ
//! ```

mod addresses;
mod emit;
mod nodes;
mod owners;
mod policies;
mod subjects;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashSet;
use sluice_abi::{Cookie, Identity};
use sluice_crds::parsed::PolicyRef;
use sluice_world::{
    Learned, Mode, Namespace, Node, NodeName, Pod, PodRef, RuleRef, ServiceRef, WorldItem,
};

use crate::{
    convert::{Prepared, Surroundings},
    delta::Delta,
    identity::{IdentityBook, IdentityIndex, Store},
    pool::Pool,
    properties::{Family, Kind, Properties},
    registry::SetId,
    rule::Tier,
    sets::Sets,
    table::Room,
    vocabulary::Vocabulary,
};
use addresses::Addresses;
use nodes::Nodes;
use owners::Owners;
use policies::{InstalledPolicy, Source, Touched};
use subjects::Subjects;
use workloads::Workloads;

/// What an index is made with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The enforcement mode.
    pub mode: Mode,
    /// What the index before it kept, so that numbers stay.
    pub store: Store,
    /// Numbers that nodes have already; other nodes get greater ones.
    pub nodes: BTreeMap<NodeName, u32>,
}

/// Names an item to delete.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemRef {
    /// A namespace.
    Namespace(String),
    /// A pod.
    Pod(PodRef),
    /// A node.
    Node(NodeName),
    /// A service.
    Service(ServiceRef),
    /// A CIDR group, by kind and name.
    CidrGroup(String, String),
    /// A policy.
    Policy(PolicyRef),
}

/// A change of a pod that waits for a commit.
#[derive(Debug)]
enum PodChange {
    // Boxing it would cost every pod of a cluster an allocation more.
    Put(Pod),
    Gone(PodRef),
}

impl PodChange {
    const fn id(&self) -> &PodRef {
        match self {
            Self::Put(pod) => &pod.id,
            Self::Gone(id) => id,
        }
    }
}

/// Changes that wait for a commit. The last change of an item counts.
#[derive(Debug, Default)]
struct Staged {
    namespaces: BTreeMap<String, Option<Namespace>>,
    /// In the order given: a whole cluster of pods comes at once, mostly in order of name.
    pods: Vec<PodChange>,
    nodes: BTreeMap<NodeName, Option<Node>>,
    policies: BTreeMap<PolicyRef, Option<Source>>,
    groups_changed: bool,
    services_changed: bool,
    learned: Option<Learned>,
}

/// See the module.
#[derive(Debug)]
pub struct Index {
    mode: Mode,
    staged: Staged,
    surroundings: Surroundings,
    vocabulary: Vocabulary,
    identities: IdentityBook,
    pool: Pool,
    room: Room,
    policies: BTreeMap<PolicyRef, InstalledPolicy>,
    /// Ordered tiers' places with the policies that stand there.
    priorities: BTreeMap<(Tier, u16), BTreeSet<PolicyRef>>,
    /// Policies that others replaced; see [`Self::tidy`].
    replaced: Vec<Source>,
    sets: Sets,
    /// A tree, which grows without moving: a change must not pay for all rules there are.
    cookies: BTreeMap<Cookie, (SetId, u32)>,
    next_cookie: u32,
    workloads: Workloads,
    nodes: Nodes,
    owners: Owners,
    addresses: Addresses,
    subjects: Subjects,
    hosts: FxHashSet<IdentityIndex>,
    told_watermarks: [Identity; sluice_abi::Range::COUNT],
}

impl Index {
    /// An index of an empty world.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut index = Self {
            mode: settings.mode,
            staged: Staged::default(),
            surroundings: Surroundings::default(),
            vocabulary: Vocabulary::default(),
            identities: IdentityBook::new(settings.store),
            pool: Pool::default(),
            room: Room::default(),
            policies: BTreeMap::new(),
            priorities: BTreeMap::new(),
            replaced: Vec::new(),
            sets: Sets::default(),
            cookies: BTreeMap::new(),
            next_cookie: Cookie::FIRST_RULE,
            workloads: Workloads::default(),
            nodes: Nodes::numbered(settings.nodes),
            owners: Owners::default(),
            addresses: Addresses::default(),
            subjects: Subjects::default(),
            hosts: FxHashSet::default(),
            told_watermarks: Default::default(),
        };
        index.acquire_reserved();
        index
    }

    /// Reserved identities are there from the start and stay: packets may carry them before any object says so.
    fn acquire_reserved(&mut self) {
        let special = [
            Identity::HEALTH,
            Identity::INIT,
            Identity::UNMANAGED,
            Identity::INGRESS,
            Identity::KUBE_APISERVER,
        ];
        let kinds = [
            Kind::Host,
            Kind::RemoteNode,
            Kind::Outside(Family::V4),
            Kind::Outside(Family::V6),
        ];
        for kind in kinds.into_iter().chain(special.map(Kind::Special)) {
            // Reserved numbers need no allocation, which is all that can fail.
            let _ = self
                .identities
                .acquire(Properties::plain(kind), self.vocabulary.names());
        }
    }

    /// Stages an item; one of the same name is replaced.
    pub fn apply(&mut self, item: WorldItem) {
        match item {
            WorldItem::Namespace(item) => {
                self.staged.namespaces.insert(item.name.clone(), Some(item));
            }
            WorldItem::Pod(item) => self.staged.pods.push(PodChange::Put(item)),
            WorldItem::Node(item) => {
                self.staged.nodes.insert(item.name.clone(), Some(item));
            }
            WorldItem::Service(item) => {
                self.staged.services_changed = true;
                self.surroundings.services.insert(item.id.clone(), item);
            }
            WorldItem::CidrGroup(item) => {
                self.staged.groups_changed = true;
                self.surroundings
                    .groups
                    .insert((item.kind.clone(), item.name.clone()), item);
            }
            WorldItem::Policy(item) => {
                self.staged
                    .policies
                    .insert(item.origin().clone(), Some(Source::Plain(item)));
            }
        }
    }

    /// Stages a policy that was prepared where it was read. Where the policy in force was prepared as well and only rules differ, the
    /// commit takes the time that those rules take, however many others there are.
    pub fn apply_prepared(&mut self, policy: Prepared) {
        let id = policy.policy().origin().clone();
        self.staged
            .policies
            .insert(id, Some(Source::Prepared(policy)));
    }

    /// Stages the removal of an item; nothing where there is none of this name.
    pub fn delete(&mut self, item: ItemRef) {
        match item {
            ItemRef::Namespace(name) => drop(self.staged.namespaces.insert(name, None)),
            ItemRef::Pod(id) => self.staged.pods.push(PodChange::Gone(id)),
            ItemRef::Node(name) => drop(self.staged.nodes.insert(name, None)),
            ItemRef::Service(id) => {
                self.staged.services_changed |= self.surroundings.services.remove(&id).is_some();
            }
            ItemRef::CidrGroup(kind, name) => {
                let removed = self.surroundings.groups.remove(&(kind, name));
                self.staged.groups_changed |= removed.is_some();
            }
            ItemRef::Policy(id) => drop(self.staged.policies.insert(id, None)),
        }
    }

    /// Stages what DNS names are known to resolve to; replaces what was known.
    pub fn set_learned(&mut self, learned: Learned) {
        self.staged.learned = Some(learned);
    }

    /// Makes all that is staged hold and tells what changed.
    pub fn commit(&mut self) -> Delta {
        self.tidy();
        let mut delta = Delta::default();
        let mut staged = std::mem::take(&mut self.staged);
        staged.pods.sort_by(|one, other| one.id().cmp(other.id()));
        let mut touched = Touched::default();
        self.commit_policies(&staged, &mut touched, &mut delta);
        self.commit_nodes(&staged, &mut delta);
        self.commit_pods(&staged, &mut delta);
        self.commit_outside(staged.learned, &mut delta);
        self.commit_identities(&mut touched, &mut delta);
        self.commit_subjects(&mut touched, &mut delta);
        self.emit(&mut delta);
        delta
    }

    /// Lets go of what the last commit replaced. The next commit does so too; called once a delta is on its way, this takes the time
    /// that it takes to free a long policy out of that of a change.
    pub fn tidy(&mut self) {
        self.replaced.clear();
        self.sets.rest();
    }

    /// The rule that a cookie stands for; `None` for built-in cookies and rules that are gone.
    #[must_use]
    pub fn rule(&self, cookie: Cookie) -> Option<RuleRef> {
        let (set, rule) = self.cookies.get(&cookie)?;
        Some(policies::rule_ref(self.sets.get(*set)?.set(), *rule))
    }

    /// What has to be kept for the next start, so that numbers stay.
    #[must_use]
    pub const fn store(&self) -> &Store {
        self.identities.store()
    }

    /// Identities in use: number and labels.
    #[must_use]
    pub fn identities(&self) -> BTreeMap<Identity, Vec<String>> {
        self.identities
            .iter()
            .map(|(_, record)| {
                let labels = record.labels().map(str::to_owned).collect();
                (record.number, labels)
            })
            .collect()
    }
}
