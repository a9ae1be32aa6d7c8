//! What an identity is: the properties that selectors look at, and nothing else. Who has them (pods, nodes, prefixes) is the index's.

use sluice_abi::{Identity, Scope};

use crate::{
    intern::Symbol,
    selector::{AtomId, FqdnId, Reserved},
};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What kind of peer an identity stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Pods of this cluster.
    Pod,
    /// A node as its own pods see it.
    Host,
    /// A node as everyone else sees it.
    RemoteNode,
    /// Addresses outside the cluster.
    Outside(Family),
    /// Health, init and their like.
    Special(Identity),
}

/// A container port whose name some policy uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Its name.
    pub name: Symbol,
    /// IP protocol number.
    pub protocol: u8,
    /// Port number.
    pub port: u16,
}

/// The key of an identity: equal properties are one identity. All lists are sorted and hold each element once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Properties {
    /// The kind of peer.
    pub kind: Kind,
    /// Labels that some selector can see, a pod's or a node's by `kind`.
    pub labels: Box<[(Symbol, Symbol)]>,
    /// Container ports whose names some policy uses.
    pub ports: Box<[NamedPort]>,
    /// The address sets that hold the address.
    pub atoms: Box<[AtomId]>,
    /// The DNS selectors that the address was learned for.
    pub fqdns: Box<[FqdnId]>,
}

impl Properties {
    /// Properties of a kind without any distinction.
    #[must_use]
    pub fn plain(kind: Kind) -> Self {
        Self {
            kind,
            labels: Box::default(),
            ports: Box::default(),
            atoms: Box::default(),
            fqdns: Box::default(),
        }
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: Symbol) -> Option<Symbol> {
        let index = self
            .labels
            .binary_search_by_key(&key, |label| label.0)
            .ok()?;
        Some(self.labels[index].1)
    }

    /// Whether this is a node.
    #[must_use]
    pub const fn is_node(&self) -> bool {
        matches!(self.kind, Kind::Host | Kind::RemoteNode)
    }

    /// Whether this carries a reserved label.
    #[must_use]
    pub fn carries(&self, label: Reserved) -> bool {
        match label {
            Reserved::Host => self.kind == Kind::Host,
            Reserved::RemoteNode => self.kind == Kind::RemoteNode,
            Reserved::World => matches!(self.kind, Kind::Outside(_)),
            Reserved::WorldOf(family) => self.kind == Kind::Outside(family),
            Reserved::ApiServer(atom) => {
                self.kind == Kind::Special(Identity::KUBE_APISERVER)
                    || self.atoms.binary_search(&atom).is_ok()
            }
            Reserved::Special(identity) => self.kind == Kind::Special(identity),
        }
    }

    /// The scope whose default a table uses for such an identity.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        match self.kind {
            Kind::Pod => Scope::Pods,
            Kind::Host | Kind::RemoteNode => Scope::Nodes,
            Kind::Outside(_) => Scope::World,
            Kind::Special(_) => Scope::Special,
        }
    }

    /// The reserved number of these properties, where they are no more than a reserved identity's.
    #[must_use]
    pub fn reserved(&self) -> Option<Identity> {
        let plain = self.labels.is_empty()
            && self.ports.is_empty()
            && self.atoms.is_empty()
            && self.fqdns.is_empty();
        if !plain {
            return None;
        }
        match self.kind {
            Kind::Pod => None,
            Kind::Host => Some(Identity::HOST),
            Kind::RemoteNode => Some(Identity::REMOTE_NODE),
            Kind::Outside(Family::V4) => Some(Identity::WORLD_IPV4),
            Kind::Outside(Family::V6) => Some(Identity::WORLD_IPV6),
            Kind::Special(identity) => Some(identity),
        }
    }
}
