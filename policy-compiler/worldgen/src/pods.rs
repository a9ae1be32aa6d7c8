//! Pods, made from workloads: pods of one workload share namespace, labels, service account and ports.

use serde_json::{Map, Value, json};

use crate::{
    choices::Choices,
    parameters::Parameters,
    vocabulary::{LABEL_KEYS, ODD_LABEL_KEYS, PORT_NAMES, PORTS, SERVICE_ACCOUNTS},
    world::{node_name, pod_address_v4, pod_address_v6},
};

/// What pods of one kind share.
pub(crate) struct Workload {
    namespace: String,
    labels: Map<String, Value>,
    service_account: Option<&'static str>,
    containers: Value,
}

/// What queries and services need to know of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodSketch {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
}

/// Draws what the pods of one workload share.
pub(crate) fn workload(
    choices: &mut Choices,
    parameters: &Parameters,
    namespaces: u32,
) -> Workload {
    let mut labels = Map::new();
    for _ in 0..choices.within(&parameters.labels) {
        let odd = choices.chance(parameters.corners);
        let key = if odd {
            *choices.pick(&ODD_LABEL_KEYS)
        } else {
            *choices.pick(&LABEL_KEYS)
        };
        labels.insert(
            key.into(),
            json!(format!("v{}", choices.below(parameters.label_values))),
        );
    }
    Workload {
        namespace: format!("ns-{}", choices.below(namespaces)),
        labels,
        service_account: choices.chance(40).then(|| *choices.pick(&SERVICE_ACCOUNTS)),
        containers: containers(choices),
    }
}

/// One pod's manifest and what others need to know of it. `nodes` is the number of Node objects.
pub(crate) fn pod(
    choices: &mut Choices,
    parameters: &Parameters,
    workload: &Workload,
    number: u32,
    nodes: u32,
) -> (Value, PodSketch) {
    let name = format!("pod-{number}");
    let mut metadata = json!({"namespace": workload.namespace, "name": name});
    if !workload.labels.is_empty() {
        metadata["labels"] = Value::Object(workload.labels.clone());
    }
    let mut spec = json!({"containers": workload.containers});
    if let Some(account) = workload.service_account {
        spec["serviceAccountName"] = json!(account);
    }
    let node = choices.below(nodes);
    if nodes > 0 && choices.chance(80) {
        spec["nodeName"] = json!(node_name(node));
    } else if choices.chance(parameters.corners) {
        // A node that has no Node object.
        spec["nodeName"] = json!("node-unlisted");
    }
    let mut document =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    let addresses = if choices.chance(parameters.host_network) {
        document["spec"]["hostNetwork"] = json!(true);
        vec![]
    } else if choices.chance(parameters.external) {
        let host = number % 100 + 100;
        document["metadata"]["annotations"] =
            json!({"sluice.io/lab-external": format!("203.0.113.{host},2001:db8:1:2::{host}")});
        vec![]
    } else if choices.chance(parameters.given_addresses) {
        given_addresses(choices, parameters, number, node)
    } else {
        vec![]
    };
    if !addresses.is_empty() {
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        document["status"] = json!({"podIP": addresses[0], "podIPs": ips});
    }
    let sketch = PodSketch {
        namespace: workload.namespace.clone(),
        name,
        addresses,
    };
    (document, sketch)
}

fn given_addresses(
    choices: &mut Choices,
    parameters: &Parameters,
    number: u32,
    node: u32,
) -> Vec<String> {
    // Large worlds have about 100 pods for each node, and no more than 253 fit into a node's IPv4 prefix; numbering pods through
    // keeps addresses apart whatever node is drawn.
    let (block, host) = if parameters.given_addresses == 100 {
        (number / 200, number % 200 + 20)
    } else {
        (node, number % 200 + 20)
    };
    let mut v4 = pod_address_v4(block, host).to_string();
    let v6 = pod_address_v6(block, host).to_string();
    if choices.chance(parameters.corners) {
        // Outside of every node's prefixes: still a pod.
        v4 = format!("172.16.0.{host}");
    }
    if choices.chance(parameters.single_stack) {
        return vec![if choices.chance(50) { v6 } else { v4 }];
    }
    if choices.chance(20) {
        return vec![v6, v4];
    }
    vec![v4, v6]
}

fn containers(choices: &mut Choices) -> Value {
    let amount = choices.weighted(&[(8, 1), (1, 2)]);
    let containers: Vec<Value> = (0..amount)
        .map(|number| {
            let mut container = json!({"name": format!("c{number}"), "image": "example.com/shop"});
            let ports: Vec<Value> = (0..choices.below(3))
                .map(|index| container_port(choices, index))
                .collect();
            if !ports.is_empty() {
                container["ports"] = Value::Array(ports);
            }
            container
        })
        .collect();
    Value::Array(containers)
}

fn container_port(choices: &mut Choices, index: u32) -> Value {
    // Within a container names are unique; across pods and containers one name means several numbers and protocols.
    let mut port = json!({"containerPort": choices.pick(&PORTS)});
    if choices.chance(80) {
        port["name"] = json!(PORT_NAMES[index as usize]);
    }
    if choices.chance(40) {
        port["protocol"] = json!(choices.weighted(&[(3, "TCP"), (3, "UDP"), (1, "SCTP")]));
    }
    port
}
