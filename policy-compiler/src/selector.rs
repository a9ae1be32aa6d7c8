//! Peer and subject selectors as the index keeps them, and how they match an identity's properties. Own matching: the reference
//! evaluator's is another. Where a selector's parts come from (API defaults, namespaces) is [`crate::convert`]'s.

use sluice_abi::Identity;

use crate::{
    intern::Symbol,
    properties::{Family, Kind, Properties},
};

/// Number of an interned set of addresses; see [`crate::prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AtomId(pub(crate) u32);

/// Number of an interned list of DNS selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FqdnId(pub(crate) u32);

/// What one requirement looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A pod's label, derived ones (namespace, service account, cluster) included.
    Pod(Symbol),
    /// A label of any source: a pod's, or the reserved one of this name.
    Any(Symbol, Option<Reserved>),
    /// A node's label.
    Node(Symbol),
    /// A node's label, or the reserved one of this name.
    AnyNode(Symbol, Option<Reserved>),
    /// A reserved label. Its value is empty.
    Reserved(Reserved),
    /// Membership in a set of addresses, as a label with an empty value.
    Atom(AtomId),
    /// Learned for one of these DNS selectors, as a label with an empty value.
    Fqdn(FqdnId),
    /// A label that nothing carries.
    Nowhere,
}

/// Labels of source `reserved:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reserved {
    /// `reserved:host`.
    Host,
    /// `reserved:remote-node`.
    RemoteNode,
    /// `reserved:world`.
    World,
    /// `reserved:world-ipv4`, `reserved:world-ipv6`.
    WorldOf(Family),
    /// `reserved:kube-apiserver`; carried by members of this atom.
    ApiServer(AtomId),
    /// `reserved:health` and its like.
    Special(Identity),
}

/// What a requirement asks of its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// The label is there with one of these values, sorted.
    In(Box<[Symbol]>),
    /// The label is absent or has none of these values, sorted.
    NotIn(Box<[Symbol]>),
    /// The label is there.
    Exists,
    /// The label is absent.
    Absent,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// What it looks at.
    pub key: Key,
    /// What it asks.
    pub test: Test,
}

/// Which kinds of peer a label selector may match at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// Pods of this cluster.
    Pods,
    /// Nodes, own and other.
    Nodes,
    /// Nodes other than the subject's own.
    RemoteNodes,
    /// Everything.
    All,
}

/// A selector, by content: equal selectors of different rules are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// By labels: every requirement holds. Sorted.
    Labels(Domain, Box<[Requirement]>),
    /// By address: members of the set. Which kinds of peer those may be is the atom's.
    Atom(AtomId),
    /// By learned name.
    Fqdn(FqdnId),
    /// By reserved label.
    Reserved(Reserved),
    /// Pods with a container port of this name. Matches no peer by itself; it finds those for whom an egress rule by port name
    /// means something.
    PortName(Symbol),
}

impl Domain {
    const fn admits(self, kind: Kind) -> bool {
        match self {
            Self::Pods => matches!(kind, Kind::Pod),
            Self::Nodes => matches!(kind, Kind::Host | Kind::RemoteNode),
            Self::RemoteNodes => matches!(kind, Kind::RemoteNode),
            Self::All => true,
        }
    }
}

impl Selector {
    /// Whether an identity with these properties is selected.
    #[must_use]
    pub fn matches(&self, properties: &Properties, empty: Symbol) -> bool {
        match self {
            Self::Labels(domain, requirements) => {
                domain.admits(properties.kind)
                    && requirements
                        .iter()
                        .all(|requirement| requirement.holds(properties, empty))
            }
            Self::Atom(atom) => properties.atoms.binary_search(atom).is_ok(),
            Self::Fqdn(fqdn) => properties.fqdns.binary_search(fqdn).is_ok(),
            Self::Reserved(label) => properties.carries(*label),
            Self::PortName(name) => properties.ports.iter().any(|port| port.name == *name),
        }
    }
}

impl Requirement {
    fn holds(&self, properties: &Properties, empty: Symbol) -> bool {
        let any = |test: &dyn Fn(Symbol) -> bool| match self.key {
            Key::Pod(key) => {
                properties.kind == Kind::Pod && properties.label(key).is_some_and(test)
            }
            Key::Node(key) => properties.is_node() && properties.label(key).is_some_and(test),
            Key::AnyNode(key, reserved) => {
                (properties.is_node() && properties.label(key).is_some_and(test))
                    || (reserved.is_some_and(|label| properties.carries(label)) && test(empty))
            }
            Key::Any(key, reserved) => {
                (properties.kind == Kind::Pod && properties.label(key).is_some_and(test))
                    || (reserved.is_some_and(|label| properties.carries(label)) && test(empty))
            }
            Key::Reserved(label) => properties.carries(label) && test(empty),
            Key::Atom(atom) => properties.atoms.binary_search(&atom).is_ok() && test(empty),
            Key::Fqdn(fqdn) => properties.fqdns.binary_search(&fqdn).is_ok() && test(empty),
            Key::Nowhere => false,
        };
        match &self.test {
            Test::In(values) => any(&|value| values.binary_search(&value).is_ok()),
            Test::NotIn(values) => !any(&|value| values.binary_search(&value).is_ok()),
            Test::Exists => any(&|_| true),
            Test::Absent => !any(&|_| true),
        }
    }
}
