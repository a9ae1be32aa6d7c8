//! Services as agents translate them: each cluster address and port with the backends that answer there now. Which backend a
//! connection gets is the datapath's.

use std::collections::{BTreeMap, BTreeSet};

use sluice_stream::{Backend, Frontend, ServiceEntry};
use sluice_world::{Service, ServiceRef};

use super::input::{ServiceInput, ServicePort, SliceEndpoint, SliceInput};

#[derive(Debug, Default)]
struct ServiceState {
    service: Option<ServiceInput>,
    slices: BTreeMap<String, SliceInput>,
    told: BTreeSet<Frontend>,
    /// As the index has it.
    item: Option<Service>,
}

/// All services.
#[derive(Debug, Default)]
pub(super) struct Services {
    all: BTreeMap<ServiceRef, ServiceState>,
    told: BTreeMap<Frontend, ServiceEntry>,
    pub(super) dirty: BTreeSet<ServiceRef>,
}

/// What the index is to be told of a service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ItemChange {
    Same,
    Is(Service),
    Gone,
}

impl Services {
    pub(super) fn put(&mut self, id: ServiceRef, input: Option<ServiceInput>) {
        if input.is_none() && !self.all.contains_key(&id) {
            return;
        }
        let state = self.all.entry(id.clone()).or_default();
        if state.service != input {
            state.service = input;
            self.dirty.insert(id);
        }
    }

    pub(super) fn put_slice(&mut self, id: ServiceRef, name: String, input: Option<SliceInput>) {
        let state = self.all.entry(id.clone()).or_default();
        let changed = match input {
            Some(input) => {
                state.slices.get(&name) != Some(&input) && {
                    state.slices.insert(name, input);
                    true
                }
            }
            None => state.slices.remove(&name).is_some(),
        };
        if changed {
            self.dirty.insert(id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all
            .values()
            .filter(|state| state.service.is_some())
            .count()
    }

    /// What the index is to be told. Endpoints count only for services without selector: policies read the others' selectors, and would
    /// otherwise be looked at again with every pod that comes or goes.
    pub(super) fn item(&mut self, id: &ServiceRef) -> ItemChange {
        let Some(state) = self.all.get_mut(id) else {
            return ItemChange::Same;
        };
        let item = state.service.as_ref().map(|input| {
            let mut service = input.service.clone();
            if service.selector.is_none() {
                service.endpoints = state
                    .slices
                    .values()
                    .flat_map(|slice| slice.addresses.iter().copied())
                    .collect();
            }
            service
        });
        if state.item == item {
            return ItemChange::Same;
        }
        state.item.clone_from(&item);
        item.map_or(ItemChange::Gone, ItemChange::Is)
    }

    /// Forgets what the index was told: it is another index.
    pub(super) fn untell_items(&mut self) {
        for (id, state) in &mut self.all {
            state.item = None;
            self.dirty.insert(id.clone());
        }
    }

    /// What agents are to be told of these services.
    pub(super) fn changes(
        &mut self,
        dirty: &BTreeSet<ServiceRef>,
    ) -> Vec<(Frontend, Option<ServiceEntry>)> {
        // An address may pass from one service to another in one go: what is taken away first is overwritten by what comes.
        let mut gone = BTreeSet::new();
        let mut come = BTreeMap::new();
        for id in dirty {
            let Some(state) = self.all.get_mut(id) else {
                continue;
            };
            let entries = state.entries();
            let frontends: BTreeSet<Frontend> =
                entries.iter().map(|entry| entry.frontend).collect();
            gone.extend(state.told.difference(&frontends).copied());
            state.told = frontends;
            come.extend(entries.into_iter().map(|entry| (entry.frontend, entry)));
            if state.service.is_none() && state.slices.is_empty() {
                self.all.remove(id);
            }
        }
        let mut changes = Vec::new();
        for frontend in gone {
            if !come.contains_key(&frontend) && self.told.remove(&frontend).is_some() {
                changes.push((frontend, None));
            }
        }
        for (frontend, entry) in come {
            if self.told.get(&frontend) != Some(&entry) {
                self.told.insert(frontend, entry.clone());
                changes.push((frontend, Some(entry)));
            }
        }
        changes
    }
}

impl ServiceState {
    /// One entry for each cluster address and port. A headless service has no address, and so none.
    fn entries(&self) -> Vec<ServiceEntry> {
        let Some(input) = &self.service else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        for &address in &input.service.cluster_ips {
            for port in &input.ports {
                entries.push(ServiceEntry {
                    name: input.service.id.clone(),
                    frontend: Frontend {
                        address,
                        protocol: port.protocol,
                        port: port.port,
                    },
                    backends: self.backends(input, port, address.is_ipv4()),
                    affinity_seconds: input.affinity_seconds,
                    internal_local: input.internal_local,
                });
            }
        }
        entries
    }

    /// Who answers at a port: those that are ready; where none is, those that still serve while they shut down, as kube-proxy does.
    fn backends(&self, input: &ServiceInput, port: &ServicePort, v4: bool) -> Vec<Backend> {
        let ready = |endpoint: &SliceEndpoint| endpoint.ready || input.publish_not_ready;
        let backends = self.backends_if(port, v4, ready);
        if backends.is_empty() {
            return self.backends_if(port, v4, |endpoint| endpoint.serving);
        }
        backends
    }

    fn backends_if(
        &self,
        port: &ServicePort,
        v4: bool,
        counts: impl Fn(&SliceEndpoint) -> bool,
    ) -> Vec<Backend> {
        let mut backends = BTreeSet::new();
        for slice in self.slices.values() {
            // A slice's ports are those of its pods: a target port given by name is resolved there already.
            let target = slice
                .ports
                .iter()
                .find(|known| known.name == port.name && known.protocol == port.protocol);
            let Some(target) = target else { continue };
            for endpoint in slice.endpoints.iter().filter(|endpoint| counts(endpoint)) {
                // Any address of an endpoint serves as well as any other; the API's text says to take the first.
                let address = endpoint
                    .addresses
                    .iter()
                    .find(|address| address.is_ipv4() == v4);
                backends.extend(address.map(|&address| Backend {
                    address,
                    port: target.port,
                    node: endpoint.node.clone(),
                }));
            }
        }
        backends.into_iter().collect()
    }
}
