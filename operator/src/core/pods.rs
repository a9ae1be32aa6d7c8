//! Pods: what their objects, their agents and the last leader say of them. Pods with the same labels, service account and ports share
//! those. Which identity a pod has is the index's.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use sluice_abi::Identity;
use sluice_policy::delta::Endpoint;
use sluice_stream::Revision;
use sluice_world::{ContainerPort, Labels, NodeName, Pod, PodRef, PodUid};

use super::input::{PodInput, RememberedEndpoint};

/// What pods of one workload have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shape {
    labels: Labels,
    service_account: String,
    named_ports: BTreeSet<ContainerPort>,
    host_network: bool,
}

/// What an agent said of a pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interface {
    /// It is there, with these addresses.
    Up(Vec<IpAddr>),
    /// It is gone: whatever addresses the pod's status names may be another's.
    Down,
}

/// A pod.
#[derive(Debug)]
pub(super) struct PodState {
    pub(super) uid: String,
    /// As [`PodInput::runtime_uid`].
    runtime_uid: String,
    pub(super) node: NodeName,
    shape: Arc<Shape>,
    status: Vec<IpAddr>,
    pub(super) interface: Option<Interface>,
    /// What the index made of it, with the revision that said so.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) revision: Option<Revision>,
    /// Digest of the stored endpoint.
    pub(super) written: Option<u64>,
}

/// All pods that have a node.
#[derive(Debug, Default)]
pub(super) struct Pods {
    all: HashMap<PodRef, PodState>,
    by_node: HashMap<NodeName, HashSet<PodRef>>,
    shapes: HashSet<Arc<Shape>>,
    /// Reports of pods whose objects are not here yet: by pod, with node and UID.
    early: HashMap<PodRef, (NodeName, String, Interface)>,
    remembered: HashMap<PodRef, RememberedEndpoint>,
    /// What the index said last of pods that have gone since the last commit: it says nothing anew of one that comes back the same.
    pub(super) left: HashMap<PodRef, Endpoint>,
    /// Who has an address by an agent's word, which goes before any status.
    holders: HashMap<IpAddr, PodRef>,
    pub(super) dirty: BTreeSet<PodRef>,
}

impl Pods {
    pub(super) fn get(&self, id: &PodRef) -> Option<&PodState> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &PodRef) -> Option<&mut PodState> {
        self.all.get_mut(id)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &PodRef> {
        self.all.keys()
    }

    /// Nodes that have pods.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.by_node.keys()
    }

    /// The pods of a node.
    pub(super) fn of_node(&self, node: &NodeName) -> impl Iterator<Item = &PodRef> {
        self.by_node.get(node).into_iter().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes in an object. A pod of another UID is another pod: nothing said of the one before holds. Returns the identity that the index
    /// has for one of this name which had gone.
    pub(super) fn put(&mut self, id: PodRef, input: PodInput) -> Option<Identity> {
        let PodInput {
            uid,
            runtime_uid,
            pod,
        } = input;
        let shape = self.share(Shape {
            labels: pod.labels,
            service_account: pod.service_account,
            named_ports: pod.named_ports,
            host_network: pod.host_network,
        });
        if let Some(known) = self.all.get_mut(&id)
            && known.uid == uid
        {
            let same = known.shape == shape && known.node == pod.node;
            if same && known.status == pod.addresses {
                return None;
            }
            known.shape = shape;
            if known.node != pod.node {
                leave(&mut self.by_node, &known.node, &id);
                self.by_node
                    .entry(pod.node.clone())
                    .or_default()
                    .insert(id.clone());
            }
            known.node = pod.node;
            known.status = pod.addresses;
            self.dirty.insert(id);
            return None;
        }
        // What the index said last is of the name: it may have nothing to say of a pod that is as the one before it was.
        let back = self.left.remove(&id);
        let before = self.remove_entry(&id);
        let endpoint = before.and_then(|before| before.endpoint).or(back);
        self.by_node
            .entry(pod.node.clone())
            .or_default()
            .insert(id.clone());
        let early = self
            .early
            .remove(&id)
            .filter(|(node, of, _)| *of == runtime_uid && *node == pod.node);
        let interface = early.map(|(_, _, interface)| interface);
        self.hold(&id, interface.as_ref());
        let written = self.remembered.get(&id).map(|remembered| remembered.digest);
        let state = PodState {
            uid,
            runtime_uid,
            node: pod.node,
            shape,
            status: pod.addresses,
            interface,
            endpoint,
            revision: None,
            written,
        };
        self.all.insert(id.clone(), state);
        self.dirty.insert(id);
        back.map(|endpoint| endpoint.identity)
    }

    /// Takes a pod out; the one that was there.
    pub(super) fn remove(&mut self, id: &PodRef) -> Option<PodState> {
        self.early.remove(id);
        let state = self.remove_entry(id)?;
        if let Some(endpoint) = state.endpoint {
            self.left.insert(id.clone(), endpoint);
        }
        self.dirty.insert(id.clone());
        Some(state)
    }

    fn remove_entry(&mut self, id: &PodRef) -> Option<PodState> {
        self.forget_interface(id);
        let state = self.all.remove(id)?;
        leave(&mut self.by_node, &state.node, id);
        let shape = Arc::clone(&state.shape);
        // The set's, the pod's, and this one.
        if Arc::strong_count(&shape) == 3 {
            self.shapes.remove(&shape);
        }
        Some(state)
    }

    /// Takes in what a pod's agent says. Kept for later where the pod's object is still on its way.
    pub(super) fn report(&mut self, node: &NodeName, id: PodRef, uid: String, said: Interface) {
        let known = self.all.get(&id).filter(|known| known.runtime_uid == uid);
        let Some(known) = known else {
            if said == Interface::Down {
                self.early.remove(&id);
            } else {
                self.early.insert(id, (node.clone(), uid, said));
            }
            return;
        };
        // An agent speaks for its own pods only.
        if known.node != *node || known.interface.as_ref() == Some(&said) {
            return;
        }
        self.forget_interface(&id);
        self.hold(&id, Some(&said));
        if let Some(known) = self.all.get_mut(&id) {
            known.interface = Some(said);
        }
        self.dirty.insert(id);
    }

    /// Takes in a stored endpoint.
    pub(super) fn remember(&mut self, id: PodRef, stored: Option<RememberedEndpoint>) {
        if let Some(known) = self.all.get_mut(&id) {
            known.written = stored.as_ref().map(|stored| stored.digest);
        }
        let before = match stored {
            Some(stored) => self.remembered.insert(id.clone(), stored),
            None => self.remembered.remove(&id),
        };
        let addresses =
            |stored: Option<&RememberedEndpoint>| stored.map(|stored| stored.addresses.clone());
        let changed = addresses(before.as_ref()) != addresses(self.remembered.get(&id));
        let counts = |known: &PodState| known.interface.is_none() && known.status.is_empty();
        if changed && self.all.get(&id).is_some_and(counts) {
            self.dirty.insert(id);
        }
    }

    /// Whether an endpoint is stored of it.
    pub(super) fn is_remembered(&self, id: &PodRef) -> bool {
        self.remembered.contains_key(id)
    }

    /// Stored endpoints without a pod, to be cleaned away.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &PodRef> {
        self.remembered
            .keys()
            .filter(|id| !self.all.contains_key(*id))
    }

    /// A pod as the index takes it.
    pub(super) fn item(&self, id: &PodRef) -> Option<Pod> {
        let state = self.all.get(id)?;
        Some(Pod {
            id: id.clone(),
            labels: state.shape.labels.clone(),
            service_account: state.shape.service_account.clone(),
            node: state.node.clone(),
            host_network: state.shape.host_network,
            addresses: self.addresses(id),
            named_ports: state.shape.named_ports.clone(),
            listens: BTreeSet::new(),
            external: false,
        })
    }

    /// Which of the pods of its name a pod is, as its node knows it.
    pub(super) fn runtime_uid(&self, id: &PodRef) -> Option<PodUid> {
        PodUid::of(&self.all.get(id)?.runtime_uid)
    }

    /// Whether a pod shares its node's network: then it is the node, and no endpoint.
    pub(super) fn is_host(&self, id: &PodRef) -> bool {
        self.all
            .get(id)
            .is_some_and(|state| state.shape.host_network)
    }

    /// A pod's addresses: by its agent's word, else by its status, else those it had last; never one that an agent gave another pod.
    pub(super) fn addresses(&self, id: &PodRef) -> Vec<IpAddr> {
        let Some(state) = self.all.get(id) else {
            return Vec::new();
        };
        let said = match &state.interface {
            Some(Interface::Up(addresses)) => return addresses.clone(),
            Some(Interface::Down) => return Vec::new(),
            None if !state.status.is_empty() => &state.status,
            None => match self
                .remembered
                .get(id)
                .filter(|stored| stored.uid == state.uid)
            {
                Some(stored) => &stored.addresses,
                None => return Vec::new(),
            },
        };
        let others =
            |address: &&IpAddr| self.holders.get(*address).is_none_or(|holder| holder == id);
        said.iter().filter(others).copied().collect()
    }

    fn share(&mut self, shape: Shape) -> Arc<Shape> {
        if let Some(known) = self.shapes.get(&shape) {
            return Arc::clone(known);
        }
        let shape = Arc::new(shape);
        self.shapes.insert(Arc::clone(&shape));
        shape
    }

    /// Makes a pod the holder of its addresses; whoever else claims one looks again.
    fn hold(&mut self, id: &PodRef, interface: Option<&Interface>) {
        let Some(Interface::Up(addresses)) = interface else {
            return;
        };
        for &address in addresses {
            let before = self.holders.insert(address, id.clone());
            // The agent that gave the address again knows better than the one that had it before.
            if let Some(before) = before.filter(|before| before != id) {
                if let Some(other) = self.all.get_mut(&before) {
                    other.interface = Some(Interface::Down);
                }
                self.dirty.insert(before);
            } else {
                self.yield_status(address, id);
            }
        }
    }

    /// Has pods whose status claims an address look again.
    fn yield_status(&mut self, address: IpAddr, holder: &PodRef) {
        // Addresses stay on their node, whose prefix they are from.
        let node = self.all.get(holder).map(|state| &state.node);
        let neighbours = node
            .and_then(|node| self.by_node.get(node))
            .into_iter()
            .flatten();
        let claims = |id: &&PodRef| {
            *id != holder
                && self.all.get(*id).is_some_and(|state| {
                    state.interface.is_none() && state.status.contains(&address)
                })
        };
        self.dirty.extend(neighbours.filter(claims).cloned());
    }

    fn forget_interface(&mut self, id: &PodRef) {
        let Some(Interface::Up(addresses)) =
            self.all.get(id).and_then(|state| state.interface.clone())
        else {
            return;
        };
        for address in addresses {
            if self.holders.get(&address) == Some(id) {
                self.holders.remove(&address);
            }
        }
    }
}

fn leave(by_node: &mut HashMap<NodeName, HashSet<PodRef>>, node: &NodeName, id: &PodRef) {
    if let Some(pods) = by_node.get_mut(node) {
        pods.remove(id);
        if pods.is_empty() {
            by_node.remove(node);
        }
    }
}
