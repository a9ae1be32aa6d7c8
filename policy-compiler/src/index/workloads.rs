//! Pods and namespaces in and out of the index. Pods with the same namespace, labels, service account and named ports are one workload,
//! so that what concerns labels is done once for all of them.

use std::{net::IpAddr, sync::Arc};

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_world::{Namespace, Pod, PodRef};

use super::{Index, PodChange, Staged, owners::Owner};
use crate::{
    delta::Delta,
    identity::IdentityIndex,
    intern::Symbol,
    prefix::Prefix,
    properties::{Kind, NamedPort, Properties},
    selector::AtomId,
    vocabulary::{
        CLUSTER, CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS, SERVICE_ACCOUNT_KEY, Vocabulary,
    },
};

type Labels = Box<[(Symbol, Symbol)]>;

/// What makes pods one workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct WorkloadKey {
    namespace: Symbol,
    labels: Labels,
    ports: Box<[NamedPort]>,
}

#[derive(Debug)]
struct Workload {
    key: WorkloadKey,
    pods: FxHashSet<u32>,
    /// What policies can see of it.
    labels: Labels,
    ports: Box<[NamedPort]>,
    /// Its identities: one for each set of address blocks that its pods' addresses are in.
    classes: Vec<Class>,
}

#[derive(Debug)]
struct Class {
    atoms: Box<[AtomId]>,
    identity: IdentityIndex,
    users: u32,
    /// Of labels that are no longer what policies see.
    stale: bool,
}

#[derive(Debug)]
pub(super) struct PodEntry {
    pub(super) id: Arc<PodRef>,
    pub(super) node: u32,
    workload: u32,
    /// Each address with its identity; a pod without any has one identity without address.
    pub(super) addresses: Vec<(Option<IpAddr>, Option<IdentityIndex>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    namespaces: FxHashMap<Symbol, Labels>,
    slots: Vec<Option<Workload>>,
    by_key: FxHashMap<WorkloadKey, u32>,
    by_namespace: FxHashMap<Symbol, FxHashSet<u32>>,
    /// By the key of a label of its pods' own.
    by_label: FxHashMap<Symbol, FxHashSet<u32>>,
    free: Vec<u32>,
    pods: Vec<Option<PodEntry>>,
    free_pods: Vec<u32>,
    by_id: FxHashMap<Arc<PodRef>, u32>,
    external: FxHashMap<PodRef, Vec<IpAddr>>,
    external_ids: FxHashMap<PodRef, u32>,
    /// Pods whose addresses' identities are to be found again.
    dirty: Vec<u32>,
    /// Pods whose endpoints may look different; some may be gone.
    pub(super) changed: Vec<u32>,
    /// Pods that are gone.
    pub(super) gone: Vec<PodRef>,
    by_identity: FxHashMap<IdentityIndex, FxHashSet<u32>>,
}

impl Workloads {
    pub(super) fn pod(&self, index: u32) -> Option<&PodEntry> {
        self.pods.get(index as usize)?.as_ref()
    }

    /// Pods of which some address has the identity.
    pub(super) fn pods_of(&self, identity: IdentityIndex) -> Vec<u32> {
        let workloads = self.by_identity.get(&identity).into_iter().flatten();
        workloads
            .filter_map(|index| self.slots[*index as usize].as_ref())
            .flat_map(|workload| workload.pods.iter().copied())
            .collect()
    }

    /// Marks a pod whose address blocks may have changed.
    pub(super) fn mark(&mut self, pod: u32) {
        self.dirty.push(pod);
    }

    fn workload_mut(&mut self, index: u32) -> Option<&mut Workload> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    fn workload(&mut self, key: WorkloadKey, vocabulary: &Vocabulary) -> u32 {
        if let Some(&index) = self.by_key.get(&key) {
            return index;
        }
        let (labels, ports) = visible(&key, self.namespaces.get(&key.namespace), vocabulary);
        let namespace = key.namespace;
        let workload = Workload {
            key: key.clone(),
            pods: FxHashSet::default(),
            labels,
            ports,
            classes: Vec::new(),
        };
        let index = place(&mut self.slots, &mut self.free, workload);
        for (label, _) in &key.labels {
            self.by_label.entry(*label).or_default().insert(index);
        }
        self.by_key.insert(key, index);
        self.by_namespace
            .entry(namespace)
            .or_default()
            .insert(index);
        index
    }

    fn drop_if_empty(&mut self, index: u32) {
        let empty = |workload: &Workload| workload.pods.is_empty() && workload.classes.is_empty();
        if !self.slots[index as usize].as_ref().is_some_and(empty) {
            return;
        }
        if let Some(workload) = self.slots[index as usize].take() {
            self.by_key.remove(&workload.key);
            if let Some(all) = self.by_namespace.get_mut(&workload.key.namespace) {
                all.remove(&index);
            }
            for (label, _) in &workload.key.labels {
                if let Some(all) = self.by_label.get_mut(label) {
                    all.remove(&index);
                }
            }
            self.free.push(index);
        }
    }
}

impl Index {
    pub(super) fn commit_pods(&mut self, staged: &Staged, delta: &mut Delta) {
        let mut dirty: FxHashSet<u32> = FxHashSet::default();
        for (name, namespace) in &staged.namespaces {
            let name = self.vocabulary.interner.intern(name);
            if self.put_namespace(name, namespace.as_ref()) {
                dirty.extend(self.workloads.by_namespace.get(&name).into_iter().flatten());
            }
        }
        self.mark_relabelled(&mut dirty);
        for index in dirty {
            self.relabel(index);
        }
        // Pods of one workload mostly follow each other by name.
        let mut last: Option<(&Pod, u32)> = None;
        for (at, change) in (1..).zip(&staged.pods) {
            let id = change.id();
            if staged.pods.get(at).is_some_and(|later| later.id() == id) {
                continue;
            }
            match change {
                PodChange::Put(pod) if pod.external => {
                    self.remove_pod(id);
                    self.put_external(pod);
                }
                PodChange::Put(pod) if !pod.host_network => {
                    self.remove_external(id);
                    // The pod before is still in its workload, so that is still there.
                    let workload = match last {
                        Some((before, workload)) if alike(before, pod) => workload,
                        _ => {
                            let key = self.workload_key(pod);
                            self.workloads.workload(key, &self.vocabulary)
                        }
                    };
                    self.put_pod(pod, workload, delta);
                    last = Some((pod, workload));
                }
                _ => {
                    self.remove_pod(id);
                    self.remove_external(id);
                }
            }
        }
        self.owners.settle();
        self.mark_moved_blocks();
        let mut dirty = std::mem::take(&mut self.workloads.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for pod in dirty {
            self.identify(pod, delta);
        }
    }

    /// Takes in a namespace's labels; whether they differ.
    fn put_namespace(&mut self, name: Symbol, namespace: Option<&Namespace>) -> bool {
        let labels = namespace.map(|namespace| {
            let interner = &mut self.vocabulary.interner;
            let mut labels: Vec<_> = namespace
                .labels
                .iter()
                .map(|(key, value)| {
                    let key = interner.intern(&format!("{NAMESPACE_LABELS}{key}"));
                    (key, interner.intern(value))
                })
                .collect();
            labels.sort_unstable();
            Labels::from(labels)
        });
        let old = match labels.clone() {
            Some(labels) => self.workloads.namespaces.insert(name, labels),
            None => self.workloads.namespaces.remove(&name),
        };
        old != labels
    }

    /// Finds the workloads that have a label or port whose visibility changed.
    fn mark_relabelled(&mut self, dirty: &mut FxHashSet<u32>) {
        let ports = self.vocabulary.take_changed_port_names();
        let keys = self.vocabulary.take_changed_keys();
        if keys.is_empty() && !ports {
            return;
        }
        let Workloads {
            slots,
            namespaces,
            by_namespace,
            by_label,
            ..
        } = &self.workloads;
        let all_of = |namespace| by_namespace.get(namespace).into_iter().flatten();
        for (key, namespace) in &keys {
            let own = |index: &&u32| {
                let workload = slots[**index as usize].as_ref();
                workload.is_some_and(|known| known.key.labels.iter().any(|label| label.0 == *key))
            };
            match namespace {
                Some(namespace) => dirty.extend(all_of(namespace).filter(own)),
                None => dirty.extend(by_label.get(key).into_iter().flatten()),
            }
            let derived = namespaces.iter().filter(|(name, labels)| {
                namespace.is_none_or(|namespace| namespace == **name)
                    && labels.iter().any(|label| label.0 == *key)
            });
            dirty.extend(derived.flat_map(|(name, _)| all_of(name)));
        }
        // Without its object a namespace still has its name as label.
        let nameless = by_namespace
            .iter()
            .filter(|(name, _)| !namespaces.contains_key(name));
        dirty.extend(nameless.flat_map(|(_, all)| all));
        if ports {
            let named = (0..).zip(slots).filter(|(_, workload)| {
                let workload = workload.as_ref();
                workload.is_some_and(|workload| !workload.key.ports.is_empty())
            });
            dirty.extend(named.map(|(index, _): (u32, _)| index));
        }
    }

    /// Finds anew what policies see of a workload; its pods are marked where that differs.
    fn relabel(&mut self, index: u32) {
        let Self {
            workloads,
            vocabulary,
            ..
        } = self;
        let Workloads {
            slots,
            namespaces,
            dirty,
            ..
        } = workloads;
        let Some(workload) = slots[index as usize].as_mut() else {
            return;
        };
        let namespace = namespaces.get(&workload.key.namespace);
        let (labels, ports) = visible(&workload.key, namespace, vocabulary);
        if labels != workload.labels || ports != workload.ports {
            workload.labels = labels;
            workload.ports = ports;
            for class in &mut workload.classes {
                class.stale = true;
            }
            dirty.extend(&workload.pods);
        }
    }

    fn put_pod(&mut self, pod: &Pod, workload: u32, delta: &mut Delta) {
        let node = self.node_number(&pod.node, delta);
        let addresses: Vec<Option<IpAddr>> = if pod.addresses.is_empty() {
            vec![None]
        } else {
            pod.addresses.iter().copied().map(Some).collect()
        };
        let known = self.workloads.by_id.get(&pod.id).copied();
        if let Some(entry) = known.and_then(|index| self.workloads.pod(index)) {
            let same = entry.workload == workload
                && entry
                    .addresses
                    .iter()
                    .map(|address| address.0)
                    .eq(addresses.iter().copied());
            if same && entry.node == node {
                return;
            }
        }
        // The workload it leaves goes only once the pod is in the one it joins: it may be the same, and nobody else's.
        let left = known.and_then(|index| self.clear_pod(index));
        let id = Arc::new(pod.id.clone());
        let entry = PodEntry {
            id: Arc::clone(&id),
            node,
            workload,
            addresses: addresses.iter().map(|address| (*address, None)).collect(),
        };
        let index = match known {
            Some(index) => {
                self.workloads.pods[index as usize] = Some(entry);
                index
            }
            None => place(
                &mut self.workloads.pods,
                &mut self.workloads.free_pods,
                entry,
            ),
        };
        self.workloads.by_id.insert(id, index);
        if let Some(workload) = self.workloads.workload_mut(workload) {
            workload.pods.insert(index);
        }
        if let Some(left) = left {
            self.workloads.drop_if_empty(left);
        }
        for address in addresses.into_iter().flatten() {
            // Marked when the pod's identity is found.
            self.owners.add(address.into(), Owner::Pod(index));
        }
        self.workloads.dirty.push(index);
    }

    fn remove_pod(&mut self, id: &PodRef) {
        let Some(index) = self.workloads.by_id.remove(id) else {
            return;
        };
        if let Some(left) = self.clear_pod(index) {
            self.workloads.drop_if_empty(left);
        }
        self.workloads.pods[index as usize] = None;
        self.workloads.free_pods.push(index);
        self.workloads.gone.push(id.clone());
    }

    /// Takes back all that a pod holds. The workload it was in, which may be without pods now.
    fn clear_pod(&mut self, index: u32) -> Option<u32> {
        let entry = self.workloads.pods[index as usize].take()?;
        for (address, identity) in entry.addresses {
            if let Some(address) = address {
                self.owners.remove(address.into(), Owner::Pod(index));
                self.addresses.mark(address.into());
            }
            if let Some(identity) = identity {
                self.release_class(entry.workload, identity);
            }
        }
        if let Some(workload) = self.workloads.workload_mut(entry.workload) {
            workload.pods.remove(&index);
        }
        Some(entry.workload)
    }

    fn put_external(&mut self, pod: &Pod) {
        self.remove_external(&pod.id);
        let next = u32::try_from(self.workloads.external_ids.len()).unwrap_or(u32::MAX);
        let index = *self
            .workloads
            .external_ids
            .entry(pod.id.clone())
            .or_insert(next);
        for &address in &pod.addresses {
            self.owners.add(address.into(), Owner::External(index));
            self.addresses.mark(address.into());
        }
        self.workloads
            .external
            .insert(pod.id.clone(), pod.addresses.clone());
    }

    fn remove_external(&mut self, id: &PodRef) {
        let Some(addresses) = self.workloads.external.remove(id) else {
            return;
        };
        let Some(&index) = self.workloads.external_ids.get(id) else {
            return;
        };
        for address in addresses {
            self.owners.remove(address.into(), Owner::External(index));
            self.addresses.mark(address.into());
        }
    }

    /// Gives each of a pod's addresses the identity of its workload and address blocks.
    fn identify(&mut self, pod: u32, delta: &mut Delta) {
        let Some(mut entry) = self.workloads.pods[pod as usize].take() else {
            return;
        };
        let addresses: Vec<IpAddr> = entry
            .addresses
            .iter()
            .filter_map(|address| address.0)
            .collect();
        let mut atoms = self.vocabulary.prefixes.holder_memberships(&addresses);
        // A pod without address has one identity all the same.
        atoms.resize_with(entry.addresses.len(), Vec::new);
        for ((address, identity), atoms) in entry.addresses.iter_mut().zip(atoms) {
            let new = self.acquire_class(entry.workload, &atoms, delta);
            if let Some(old) = std::mem::replace(identity, new) {
                self.release_class(entry.workload, old);
            }
            if let Some(address) = address {
                self.addresses.mark(Prefix::from(*address));
            }
        }
        self.workloads.pods[pod as usize] = Some(entry);
        self.workloads.changed.push(pod);
    }

    fn acquire_class(
        &mut self,
        index: u32,
        atoms: &[AtomId],
        delta: &mut Delta,
    ) -> Option<IdentityIndex> {
        let Self {
            workloads,
            identities,
            vocabulary,
            ..
        } = self;
        let workload = workloads.slots[index as usize].as_mut()?;
        let known = |class: &&mut Class| !class.stale && *class.atoms == *atoms;
        if let Some(class) = workload.classes.iter_mut().find(known) {
            class.users += 1;
            return Some(class.identity);
        }
        let properties = Properties {
            kind: Kind::Pod,
            labels: workload.labels.clone(),
            ports: workload.ports.clone(),
            atoms: atoms.into(),
            fqdns: Box::default(),
        };
        let identity = match identities.acquire(properties, vocabulary.names()) {
            Ok(identity) => identity,
            Err(error) => {
                delta.errors.push(error.to_string());
                return None;
            }
        };
        workload.classes.push(Class {
            atoms: atoms.into(),
            identity,
            users: 1,
            stale: false,
        });
        workloads
            .by_identity
            .entry(identity)
            .or_default()
            .insert(index);
        Some(identity)
    }

    fn release_class(&mut self, index: u32, identity: IdentityIndex) {
        let Self {
            workloads,
            identities,
            ..
        } = self;
        let Some(workload) = workloads.slots[index as usize].as_mut() else {
            return;
        };
        let Some(position) = workload.classes.iter().position(|class| {
            // A relabelled workload may come back to an identity; the stale hold goes first.
            class.identity == identity && class.users > 0
        }) else {
            return;
        };
        let class = &mut workload.classes[position];
        class.users -= 1;
        if class.users == 0 {
            workload.classes.swap_remove(position);
            identities.release(identity);
            if !workload
                .classes
                .iter()
                .any(|class| class.identity == identity)
                && let Some(all) = workloads.by_identity.get_mut(&identity)
            {
                all.remove(&index);
                if all.is_empty() {
                    workloads.by_identity.remove(&identity);
                }
            }
        }
    }

    /// The labels that a pod carries for selectors, and its named ports. What a pod's own labels say of namespace, service account or
    /// cluster does not count: they would speak for another.
    fn workload_key(&mut self, pod: &Pod) -> WorkloadKey {
        let interner = &mut self.vocabulary.interner;
        let namespace = interner.intern(&pod.id.namespace);
        let derived = [
            (interner.intern(NAMESPACE_KEY), namespace),
            (
                interner.intern(SERVICE_ACCOUNT_KEY),
                interner.intern(&pod.service_account),
            ),
            (interner.intern(CLUSTER_KEY), interner.intern(CLUSTER)),
        ];
        let mut labels: Vec<(Symbol, Symbol)> = pod
            .labels
            .iter()
            .filter(|(key, _)| !key.starts_with(NAMESPACE_LABELS))
            .map(|(key, value)| (interner.intern(key), interner.intern(value)))
            .filter(|(key, _)| derived.iter().all(|known| known.0 != *key))
            .collect();
        labels.extend(derived);
        labels.sort_unstable();
        let mut ports: Vec<NamedPort> = pod
            .named_ports
            .iter()
            .map(|port| NamedPort {
                name: interner.intern(&port.name),
                protocol: port.protocol,
                port: port.port,
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        WorkloadKey {
            namespace,
            labels: labels.into(),
            ports: ports.into(),
        }
    }
}

/// Whether two pods are of one workload.
fn alike(a: &Pod, b: &Pod) -> bool {
    a.id.namespace == b.id.namespace
        && a.service_account == b.service_account
        && a.labels == b.labels
        && a.named_ports == b.named_ports
}

/// What policies can see of a workload.
fn visible(
    key: &WorkloadKey,
    namespace: Option<&Labels>,
    vocabulary: &Vocabulary,
) -> (Labels, Box<[NamedPort]>) {
    let nameless = [(vocabulary.namespace_name_key(), key.namespace)];
    let derived = namespace.map_or(&nameless[..], |labels| &**labels);
    let mut labels: Vec<(Symbol, Symbol)> = key
        .labels
        .iter()
        .chain(derived)
        .filter(|(name, _)| vocabulary.sees_pod_key(*name, key.namespace))
        .copied()
        .collect();
    labels.sort_unstable();
    let ports = key
        .ports
        .iter()
        .filter(|port| vocabulary.sees_port_name(port.name))
        .copied();
    (labels.into(), ports.collect())
}

fn place<T>(slots: &mut Vec<Option<T>>, free: &mut Vec<u32>, item: T) -> u32 {
    if let Some(index) = free.pop() {
        slots[index as usize] = Some(item);
        return index;
    }
    slots.push(Some(item));
    // Four billion pods do not fit into memory.
    u32::try_from(slots.len() - 1).unwrap_or(u32::MAX)
}
