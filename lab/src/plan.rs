//! What a world needs on this machine: one network namespace and one interface per pod. Making them may not enter.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sluice_datapath::net::Mac;
use sluice_world::{Pod, PodRef, World};

use crate::name::{LabName, interface};

pub use sluice_datapath::net::pod::{GATEWAY_V4, GATEWAY_V6};

/// Ports of the responder of one pod: (protocol, port).
pub type Listens = BTreeSet<(u8, u16)>;

/// A pod, or a host outside, as namespace and interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlan {
    /// Which pod.
    pub pod: PodRef,
    /// Its network namespace.
    pub namespace: String,
    /// Its interface's end on the node. The other end is `eth0`.
    pub interface: String,
    /// The Ethernet address of the pod's end.
    pub mac: Mac,
    /// The Ethernet address of the node's end.
    pub host_mac: Mac,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// What its responder listens on.
    pub listens: Listens,
    /// Stands for a host outside: no policy of its own.
    pub external: bool,
}

/// The numbers pods were given: they name interfaces and Ethernet addresses, and outlive a change of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(pub BTreeMap<PodRef, u32>);

impl Numbers {
    /// Drops pods that are gone, numbers new ones from 1 with the lowest free number.
    pub fn renew<'a>(&mut self, pods: impl Iterator<Item = &'a PodRef>) {
        let wanted: BTreeSet<&PodRef> = pods.collect();
        self.0.retain(|pod, _| wanted.contains(pod));
        let mut taken: BTreeSet<u32> = self.0.values().copied().collect();
        let mut next = 1;
        for pod in wanted {
            if self.0.contains_key(pod) {
                continue;
            }
            while !taken.insert(next) {
                next += 1;
            }
            self.0.insert(pod.clone(), next);
        }
    }
}

/// The pods of a world that get a namespace, by name, with the numbers brought up to date. Host-network pods are their node.
#[must_use]
pub fn pods(lab: &LabName, world: &World, numbers: &mut Numbers) -> BTreeMap<PodRef, PodPlan> {
    let own: Vec<&Pod> = world
        .pods
        .values()
        .filter(|pod| !pod.host_network)
        .collect();
    numbers.renew(own.iter().map(|pod| &pod.id));
    own.into_iter()
        .filter_map(|pod| {
            let number = *numbers.0.get(&pod.id)?;
            let plan = PodPlan {
                pod: pod.id.clone(),
                namespace: lab.pod_namespace(&pod.id),
                interface: interface(number, &pod.id),
                mac: Mac::local(number << 1),
                host_mac: Mac::local(number << 1 | 1),
                addresses: pod.addresses.clone(),
                listens: pod.listens.clone(),
                external: pod.external,
            };
            Some((pod.id.clone(), plan))
        })
        .collect()
}

/// The node's own addresses: of all nodes of the world, since the lab puts every pod on one.
#[must_use]
pub fn node_addresses(world: &World) -> Vec<IpAddr> {
    world
        .nodes
        .values()
        .flat_map(|node| node.addresses.iter().copied())
        .collect()
}

/// A warning where some of these pods name another node than the one whose datapath the lab runs, which is the first by name.
#[must_use]
pub fn elsewhere(world: &World, pods: &[PodRef]) -> Option<String> {
    let home = world.nodes.keys().next()?;
    let mut nodes = BTreeSet::new();
    let mut count = 0_usize;
    for pod in pods.iter().filter_map(|pod| world.pods.get(pod)) {
        if !pod.external && pod.node != *home {
            nodes.insert(pod.node.to_string());
            count += 1;
        }
    }
    (count > 0).then(|| {
        let nodes: Vec<String> = nodes.into_iter().collect();
        format!(
            "warning: {count} of the pods are on {} by their manifests: all run on this machine's one lab node, {home}",
            nodes.join(", ")
        )
    })
}

/// What the host-network pods listen on, with the names to answer with.
#[must_use]
pub fn node_listens(world: &World) -> BTreeMap<PodRef, Listens> {
    let hosts = world.pods.values().filter(|pod| pod.host_network);
    hosts
        .map(|pod| (pod.id.clone(), pod.listens.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodRef {
        PodRef {
            namespace: "n".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn pods_of_other_nodes_than_the_first_are_told_of() {
        let pod = |name: &str, node: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: n}}\nspec: {{nodeName: {node}, containers: []}}\n---\n"
            )
        };
        let world = |text: &str| {
            let (objects, problems) = sluice_crds::manifest::read("w", text);
            assert!(problems.is_empty(), "{problems:#?}");
            crate::objects::world(objects.iter(), BTreeMap::new()).unwrap()
        };
        let names = ["a", "b", "c"].map(self::pod);
        let one = world(&(pod("a", "x") + &pod("b", "x") + &pod("c", "x")));
        assert_eq!(elsewhere(&one, &names), None);
        let two = world(&(pod("a", "x") + &pod("b", "y") + &pod("c", "y")));
        let warning = elsewhere(&two, &names).unwrap();
        assert!(
            warning.contains("2 of the pods are on y") && warning.ends_with("lab node, x"),
            "{warning}"
        );
        assert_eq!(elsewhere(&two, &names[..1]), None);
    }

    #[test]
    fn a_number_stays_with_its_pod_and_is_used_again_when_it_goes() {
        let (a, b, c) = (pod("a"), pod("b"), pod("c"));
        let mut numbers = Numbers::default();
        numbers.renew([&a, &b].into_iter());
        assert_eq!(numbers.0, [(a.clone(), 1), (b.clone(), 2)].into());
        numbers.renew([&b, &c].into_iter());
        assert_eq!(numbers.0, [(b, 2), (c, 1)].into());
    }
}
