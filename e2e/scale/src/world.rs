//! What the cluster is filled with: which pod is where, which policy selects which. Pure; writing any of it may not enter.
//!
//! Namespaces have apps, apps have pods, spread over the nodes. Each policy selects one app and lets in its neighbour, at a port of its
//! own by which it is recognised in what agents are told.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

/// Apps of each namespace.
const APPS: usize = 10;
/// Pods of each app.
const REPLICAS: usize = 5;
/// The first port that policies open. Every version of a policy has its own.
pub(crate) const FIRST_PORT: u16 = 2000;
/// The label that all pods have.
const FLEET: &str = "fleet";

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) nodes: usize,
    pub(crate) pods: usize,
    pub(crate) policies: usize,
}

/// A pod's place among all.
#[derive(Clone, Copy, Debug)]
struct Place {
    namespace: usize,
    app: usize,
}

impl World {
    /// How many apps there are in all namespaces.
    fn apps(self) -> usize {
        self.pods.div_ceil(REPLICAS)
    }

    pub(crate) fn namespaces(self) -> Vec<String> {
        let count = self.apps().div_ceil(APPS);
        (0..count).map(namespace).collect()
    }

    /// The node of a pod: apps begin one after the other, so that each node has pods of many.
    pub(crate) const fn node_of(self, pod: usize) -> usize {
        pod % self.nodes
    }

    /// The nodes on which policy `policy` selects pods.
    pub(crate) fn nodes_of(self, policy: usize) -> BTreeSet<usize> {
        let app = policy % self.apps();
        (app * REPLICAS..((app + 1) * REPLICAS).min(self.pods))
            .map(|pod| self.node_of(pod))
            .collect()
    }

    pub(crate) fn policy_name(self, policy: usize) -> (String, String) {
        let place = place(policy % self.apps());
        (namespace(place.namespace), format!("p{policy}"))
    }

    /// A policy of one app, that opens this port to its neighbour.
    pub(crate) fn policy(self, policy: usize, port: u16) -> Value {
        let (namespace, name) = self.policy_name(policy);
        let app = place(policy % self.apps()).app;
        json!({
            "apiVersion": "sluice.io/v1",
            "kind": "SluiceNetworkPolicy",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "endpointSelector": { "matchLabels": { "app": format!("app{app}") } },
                "ingress": [{
                    "fromEndpoints": [{ "matchLabels": { "app": format!("app{}", (app + 1) % APPS) } }],
                    "toPorts": ports(port),
                }],
            },
        })
    }
}

/// A pod, on this node.
pub(crate) fn pod(pod: usize, node: &str) -> Value {
    let (namespace, name) = pod_name(pod);
    let app = format!("app{}", place(pod / REPLICAS).app);
    pod_object(
        &namespace,
        &name,
        node,
        &json!({ "app": app, "tier": format!("t{}", pod % 2), FLEET: "yes" }),
    )
}

/// Namespace and name of a pod.
pub(crate) fn pod_name(pod: usize) -> (String, String) {
    let place = place(pod / REPLICAS);
    (
        namespace(place.namespace),
        format!("app{}-{}", place.app, pod % REPLICAS),
    )
}

/// The name of a fake node, as the harness gives it.
pub(crate) fn node_name(node: usize) -> String {
    format!("fake-{node:04}")
}

/// A policy of all pods of all namespaces.
pub(crate) fn fleet_policy(port: u16) -> Value {
    json!({
        "apiVersion": "sluice.io/v1",
        "kind": "SluiceClusterwideNetworkPolicy",
        "metadata": { "name": "fleet" },
        "spec": {
            "endpointSelector": { "matchLabels": { FLEET: "yes" } },
            "ingress": [{ "fromEntities": ["host"], "toPorts": ports(port) }],
        },
    })
}

/// A policy of the first namespace that tells its pods apart by a label that no other policy names, so that their identities divide.
pub(crate) fn dividing_policy(number: usize) -> Value {
    json!({
        "apiVersion": "sluice.io/v1",
        "kind": "SluiceNetworkPolicy",
        "metadata": { "name": format!("divide{number}"), "namespace": namespace(0) },
        "spec": {
            "endpointSelector": { "matchLabels": { "tier": "t1" } },
            "egress": [{ "toEntities": ["cluster"] }],
        },
    })
}

/// A pod of the first namespace whose labels no other has.
pub(crate) fn fresh_pod(number: usize, node: &str) -> (String, Value) {
    let label = fresh_label(number);
    let name = format!("{label}-pod");
    let object = pod_object(
        &namespace(0),
        &name,
        node,
        &json!({ "app": label, FLEET: "yes" }),
    );
    (name, object)
}

/// The label's value of such a pod.
pub(crate) fn fresh_label(number: usize) -> String {
    format!("fresh{number}")
}

/// The pod of an agent, to which its token is bound.
pub(crate) fn agent_pod(agent: usize, node: &str, account: &str) -> Value {
    let mut pod = pod_object(
        "kube-system",
        &format!("agent-{agent}"),
        node,
        &json!({ "app": "simulated-agent" }),
    );
    pod["spec"]["serviceAccountName"] = json!(account);
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

/// What the kubelet says of a pod that runs.
pub(crate) fn running(addresses: &[IpAddr]) -> Value {
    let all: Vec<Value> = addresses
        .iter()
        .map(|address| json!({ "ip": address.to_string() }))
        .collect();
    json!({ "status": {
        "phase": "Running",
        "podIP": addresses.first().map(ToString::to_string),
        "podIPs": all,
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    } })
}

/// The address with this number, from 2 on, of each of a node's blocks.
pub(crate) fn addresses(blocks: &[IpNet], number: usize) -> Vec<IpAddr> {
    let at = |block: &IpNet| match block {
        IpNet::V4(block) => IpAddr::from(
            (u32::from(block.network()) + u32::try_from(number).unwrap_or(u32::MAX)).to_be_bytes(),
        ),
        IpNet::V6(block) => {
            IpAddr::from((u128::from(block.network()) + number as u128).to_be_bytes())
        }
    };
    blocks.iter().map(at).collect()
}

fn pod_object(namespace: &str, name: &str, node: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "containers": [{ "name": "main", "image": "sluice.io/fake" }],
            "tolerations": [{ "operator": "Exists" }],
        },
    })
}

fn ports(port: u16) -> Value {
    json!([{ "ports": [{ "port": port.to_string(), "protocol": "TCP" }] }])
}

fn place(app: usize) -> Place {
    Place {
        namespace: app / APPS,
        app: app % APPS,
    }
}

fn namespace(number: usize) -> String {
    format!("scale-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: World = World {
        nodes: 100,
        pods: 500,
        policies: 1000,
    };

    #[test]
    fn every_policy_selects_pods_and_says_where() {
        assert_eq!(WORLD.namespaces().len(), 10);
        for policy in 0..WORLD.policies {
            let nodes = WORLD.nodes_of(policy);
            let (namespace, _) = WORLD.policy_name(policy);
            let app =
                WORLD.policy(policy, 1)["spec"]["endpointSelector"]["matchLabels"]["app"].clone();
            let selected: BTreeSet<usize> = (0..WORLD.pods)
                .filter(|pod| {
                    let object = super::pod(*pod, "n");
                    object["metadata"]["namespace"] == *namespace
                        && object["metadata"]["labels"]["app"] == app
                })
                .map(|pod| WORLD.node_of(pod))
                .collect();
            assert_eq!(nodes, selected, "policy {policy}");
            assert_eq!(nodes.len(), REPLICAS);
        }
    }

    #[test]
    fn every_policy_is_understood() {
        let policies = [
            WORLD.policy(7, 2000),
            fleet_policy(2000),
            dividing_policy(0),
        ];
        for policy in policies {
            let (objects, problems) = sluice_crds::manifest::read("", &policy.to_string());
            assert!(
                objects.len() == 1 && problems.is_empty(),
                "{policy}: {problems:?}"
            );
        }
    }

    #[test]
    fn addresses_are_of_the_nodes_blocks() {
        let blocks: Vec<IpNet> = vec![
            "10.244.3.0/24".parse().unwrap(),
            "fd00:10:244:3::/64".parse().unwrap(),
        ];
        let found = addresses(&blocks, 5);
        assert_eq!(
            found,
            [
                "10.244.3.5".parse::<IpAddr>().unwrap(),
                "fd00:10:244:3::5".parse().unwrap()
            ]
        );
    }
}
