//! Nodes and pods that exist only as objects, for what a real machine is too small for. Nothing runs behind them: the node
//! says that it is Ready, the pod that it is Running, under addresses that are told apart but lead nowhere.
//! Start the cluster with [`Options::fake_nodes`](crate::Options), or the controllers will notice.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    kubectl::Kubectl,
};

/// Objects that one call of kubectl carries.
const BATCH: usize = 250;

/// How often the status of a batch is tried to be set.
const STATUS_TRIES: u8 = 20;

/// How many nodes there can be: each has 254 pods at most.
pub const MAX_NODES: u16 = 4096;

/// A group of pods alike.
#[derive(Clone, Debug)]
pub struct Pods {
    /// Their namespace, which must exist.
    pub namespace: String,
    /// Their names are this, a dash and a number from 0.
    pub prefix: String,
    /// How many.
    pub count: u16,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
    /// The first fake node they are spread over, from 0.
    pub first_node: u16,
    /// How many fake nodes they are spread over.
    pub nodes: u16,
    /// The first place on each node, from 1, for pods of several groups must not share addresses.
    pub first_place: u8,
}

/// The name of fake node `number`, from 0.
#[must_use]
pub fn node_name(number: u16) -> String {
    format!("fake-{number:04}")
}

/// Makes `count` nodes that are Ready, from number `first` on.
///
/// # Errors
///
/// If there would be more than [`MAX_NODES`], or the API server refuses one.
pub fn create_nodes(kubectl: &Kubectl, first: u16, count: u16) -> Result<()> {
    if first.saturating_add(count) > MAX_NODES {
        return Err(Error::Argument {
            what: format!("{count} fake nodes from {first} on"),
            why: format!("{MAX_NODES} is the most"),
        });
    }
    let nodes: Vec<_> = (first..first + count).map(node).collect();
    create(kubectl, &nodes)
}

/// Makes pods that are Running, bound to fake nodes.
///
/// # Errors
///
/// If they don't fit on the nodes, or the API server refuses one.
pub fn create_pods(kubectl: &Kubectl, pods: &Pods) -> Result<()> {
    let places = u32::from(pods.nodes) * u32::from(255 - pods.first_place.max(1));
    if pods.first_place == 0 || u32::from(pods.count) > places {
        return Err(Error::Argument {
            what: format!(
                "{} fake pods {} on {} nodes",
                pods.count, pods.prefix, pods.nodes
            ),
            why: format!(
                "places on a node are 1 to 254, and they start at {}",
                pods.first_place
            ),
        });
    }
    let objects = (0..pods.count)
        .map(|number| pod(pods, number))
        .collect::<Result<Vec<_>>>()?;
    create(kubectl, &objects)
}

/// The object first, then its status, which the API server takes only apart. No server-side apply: for it two addresses of a
/// node are one, both being of the type `InternalIP`.
fn create(kubectl: &Kubectl, objects: &[Value]) -> Result<()> {
    for batch in objects.chunks(BATCH) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": batch}).to_string();
        kubectl.fed(&["create", "-f", "-"], &list)?;
        set_status(kubectl, &list)?;
    }
    Ok(())
}

/// Tries again where a controller changed an object in between, as it does with nodes that are new.
fn set_status(kubectl: &Kubectl, list: &str) -> Result<()> {
    let mut tries = 0;
    loop {
        let replaced = kubectl.fed(&["replace", "--subresource=status", "-f", "-"], list);
        let Err(error) = replaced else {
            return Ok(());
        };
        tries += 1;
        if tries == STATUS_TRIES || !error.to_string().contains("(Conflict)") {
            return Err(error);
        }
    }
}

fn node(number: u16) -> Value {
    let name = node_name(number);
    let addresses = node_addresses(number)
        .map(|address| json!({"type": "InternalIP", "address": address.to_string()}));
    let room = json!({"cpu": "32", "memory": "256Gi", "pods": "254"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "sluice.io/fake": "true",
        }},
        // Nothing real may be scheduled here, nor wait here for ever.
        "spec": {"taints": [{"key": "sluice.io/fake", "value": "true", "effect": "NoSchedule"}]},
        "status": {
            "addresses": addresses,
            "allocatable": room,
            "capacity": room,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Fake", "message": "an object without a machine",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

fn pod(pods: &Pods, number: u16) -> Result<Value> {
    let node = pods.first_node + number % pods.nodes;
    let place = u16::from(pods.first_place) + number / pods.nodes;
    let addresses = pod_addresses(node, place)?.map(|address| json!({"ip": address.to_string()}));
    let name = format!("{}-{number}", pods.prefix);
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": pods.namespace, "labels": pods.labels},
        "spec": {
            "nodeName": node_name(node),
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "sluice.io/fake"}],
            "tolerations": [{"operator": "Exists"}],
        },
        "status": {
            "phase": "Running",
            "podIP": addresses[0]["ip"],
            "podIPs": addresses,
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "containerStatuses": [{
                "name": "main", "image": "sluice.io/fake", "imageID": "", "ready": true, "started": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }],
        },
    }))
}

/// In 172.31.0.0/16 and `fd00:172:31::/112`, which no real node has.
fn node_addresses(number: u16) -> [IpAddr; 2] {
    let [high, low] = (number + 1).to_be_bytes();
    [
        Ipv4Addr::new(172, 31, high, low).into(),
        Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, number + 1).into(),
    ]
}

/// In 10.16.0.0/12 and `fd00:10:fa::/48`, which no real pod has: a /24 and a /64 for each node.
fn pod_addresses(node: u16, place: u16) -> Result<[IpAddr; 2]> {
    let host = u8::try_from(place).map_err(|_| Error::Argument {
        what: format!("place {place} on a fake node"),
        why: "it must be from 1 to 254".to_owned(),
    })?;
    let [high, low] = node.to_be_bytes();
    Ok([
        Ipv4Addr::new(10, 16 + high, low, host).into(),
        Ipv6Addr::new(0xfd00, 0x10, 0xfa, node, 0, 0, 0, place).into(),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn some(count: u16, nodes: u16, first_place: u8) -> Pods {
        Pods {
            namespace: "x".into(),
            prefix: "p".into(),
            count,
            labels: BTreeMap::new(),
            first_node: 0,
            nodes,
            first_place,
        }
    }

    #[test]
    fn no_two_pods_share_an_address() {
        let pods = some(500, 3, 1);
        let all: Vec<_> = (0..pods.count)
            .map(|number| pod(&pods, number).unwrap())
            .collect();
        let addresses: BTreeSet<_> = all
            .iter()
            .map(|pod| pod["status"]["podIPs"].to_string())
            .collect();
        assert_eq!(addresses.len(), 500);
    }

    #[test]
    fn the_last_node_has_addresses_of_its_own_network() {
        let [v4, v6] = pod_addresses(MAX_NODES - 1, 254).unwrap();
        assert_eq!(v4.to_string(), "10.31.255.254");
        assert_eq!(v6.to_string(), "fd00:10:fa:fff::fe");
        assert_eq!(node_addresses(MAX_NODES - 1)[0].to_string(), "172.31.16.0");
    }
}
