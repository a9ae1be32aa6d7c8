//! One side of a query: whom it is about, who is on the other side, which packet.

use std::{collections::BTreeSet, net::IpAddr};

use sluice_world::{Labels, Learned, Pod, ServiceRef, World};

use crate::party::Party;

/// What all cases of one evaluator have in common.
#[derive(Clone, Debug)]
pub(crate) struct Setting<'w> {
    pub(crate) world: &'w World,
    pub(crate) learned: &'w Learned,
    /// The endpoints of the service `default/kubernetes`.
    api_server: BTreeSet<IpAddr>,
}

impl<'w> Setting<'w> {
    pub(crate) fn new(world: &'w World, learned: &'w Learned) -> Self {
        let id = ServiceRef {
            namespace: "default".into(),
            name: "kubernetes".into(),
        };
        let api_server = world
            .services
            .get(&id)
            .map(|service| service.endpoints.clone())
            .unwrap_or_default();
        Self {
            world,
            learned,
            api_server,
        }
    }

    /// A pod's or node's label `kube-apiserver` goes by any of its addresses; an outside address stands for itself.
    pub(crate) fn is_api_server(&self, party: Party<'w>) -> bool {
        match party {
            Party::Pod(pod) => pod
                .addresses
                .iter()
                .any(|address| self.api_server.contains(address)),
            Party::Node(node) => node
                .addresses
                .iter()
                .any(|address| self.api_server.contains(address)),
            Party::Outside(address) => self.api_server.contains(&address),
            Party::Unknown => false,
        }
    }

    /// Labels of a namespace; none where it is not known.
    pub(crate) fn namespace_labels(&self, name: &str) -> &'w Labels {
        static NONE: Labels = Labels::new();
        self.world
            .namespaces
            .get(name)
            .map_or(&NONE, |namespace| &namespace.labels)
    }
}

/// Which way the packet goes, seen from the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// One side of a query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'w, 's> {
    pub(crate) setting: &'s Setting<'w>,
    pub(crate) direction: Direction,
    pub(crate) subject: &'w Pod,
    pub(crate) peer: Party<'w>,
    /// The peer's address as the packet has it.
    pub(crate) address: IpAddr,
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Destination port, or ICMP type.
    pub(crate) port: u16,
}

impl<'w> Case<'w, '_> {
    /// The pod whose container ports a port's name is looked up in.
    pub(crate) fn destination_pod(&self) -> Option<&'w Pod> {
        match (self.direction, self.peer) {
            (Direction::Ingress, _) => Some(self.subject),
            (Direction::Egress, Party::Pod(pod)) => Some(pod),
            (Direction::Egress, _) => None,
        }
    }

    /// Whether the peer is the node that the subject runs on.
    pub(crate) fn peer_is_own_node(&self) -> bool {
        matches!(self.peer, Party::Node(node) if node.name == self.subject.node)
    }

    /// Labels of the subject's namespace.
    pub(crate) fn subject_namespace_labels(&self) -> &'w Labels {
        self.setting.namespace_labels(&self.subject.id.namespace)
    }
}
