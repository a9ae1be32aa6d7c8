//! A whole world: its items by name. Plain data, the same for every order in which items were put in.

use std::{collections::BTreeMap, sync::Arc};

use sluice_crds::parsed::PolicyRef;

use crate::model::{
    CidrGroup, Namespace, Node, NodeName, Pod, PodRef, Policy, Service, ServiceRef, WorldItem,
};

/// Everything policy is judged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// By name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// By name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// By namespace and name. Terminated pods are not among them.
    pub pods: BTreeMap<PodRef, Pod>,
    /// By namespace and name.
    pub services: BTreeMap<ServiceRef, Service>,
    /// By kind and name.
    pub cidr_groups: BTreeMap<(String, String), CidrGroup>,
    /// By kind, namespace and name.
    pub policies: BTreeMap<PolicyRef, Arc<Policy>>,
}

impl World {
    /// Puts an item in; one of the same name is replaced.
    pub fn insert(&mut self, item: WorldItem) {
        match item {
            WorldItem::Namespace(item) => {
                self.namespaces.insert(item.name.clone(), item);
            }
            WorldItem::Node(item) => {
                self.nodes.insert(item.name.clone(), item);
            }
            WorldItem::Pod(item) => {
                self.pods.insert(item.id.clone(), item);
            }
            WorldItem::Service(item) => {
                self.services.insert(item.id.clone(), item);
            }
            WorldItem::CidrGroup(item) => {
                self.cidr_groups
                    .insert((item.kind.clone(), item.name.clone()), item);
            }
            WorldItem::Policy(item) => {
                self.policies.insert(item.origin().clone(), item);
            }
        }
    }

    /// Every item, those first that others refer to: namespaces, nodes, CIDR groups, services, pods, policies.
    #[must_use]
    pub fn items(&self) -> Vec<WorldItem> {
        let namespaces = self.namespaces.values().cloned().map(WorldItem::Namespace);
        let nodes = self.nodes.values().cloned().map(WorldItem::Node);
        let groups = self.cidr_groups.values().cloned().map(WorldItem::CidrGroup);
        let services = self.services.values().cloned().map(WorldItem::Service);
        let pods = self.pods.values().cloned().map(WorldItem::Pod);
        let policies = self.policies.values().cloned().map(WorldItem::Policy);
        namespaces
            .chain(nodes)
            .chain(groups)
            .chain(services)
            .chain(pods)
            .chain(policies)
            .collect()
    }
}

impl FromIterator<WorldItem> for World {
    fn from_iter<I: IntoIterator<Item = WorldItem>>(items: I) -> Self {
        let mut world = Self::default();
        for item in items {
            world.insert(item);
        }
        world
    }
}
