//! Services and their endpoint slices, the API server's among them.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::{
    choices::Choices, generate::Scene, selectors, vocabulary::OUTSIDE, world::node_addresses,
};

/// A service and, where it has no selector, its endpoint slices.
pub(crate) fn service(choices: &mut Choices, scene: &Scene, number: u32) -> Vec<Value> {
    let namespace = scene.namespace(choices);
    let name = service_name(number);
    let mut document = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"ports": [{"port": 80}]},
    });
    if choices.chance(60) {
        document["metadata"]["labels"] = json!({"set": choices.pick(&["x", "y"])});
    }
    if choices.chance(50) {
        document["spec"]["clusterIP"] = json!(format!("10.96.0.{}", number + 10));
    }
    if choices.chance(60) {
        // Labels alone: a service's selector knows no expressions.
        let selector = selectors::pods(choices, scene);
        if let Some(labels) = selector.get("matchLabels") {
            document["spec"]["selector"] = labels.clone();
            return vec![document];
        }
    }
    let addresses: Vec<String> = (0..=choices.below(2))
        .map(|_| endpoint_address(choices, scene))
        .collect();
    let mut documents = vec![document];
    documents.extend(endpoint_slices(&namespace, &name, &addresses));
    documents
}

/// `default/kubernetes`, whose endpoints are the API server's addresses: nodes, outside machines, rarely a pod.
pub(crate) fn api_server(choices: &mut Choices, scene: &Scene) -> Vec<Value> {
    let addresses: Vec<String> = (0..=choices.below(2))
        .map(|_| {
            if scene.nodes > 0 && choices.chance(60) {
                let node = choices.below(scene.nodes);
                choices.pick(&node_addresses(node)).to_string()
            } else {
                endpoint_address(choices, scene)
            }
        })
        .collect();
    let mut documents = vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "kubernetes"},
        "spec": {"ports": [{"port": 443}], "clusterIP": "10.96.0.1"},
    })];
    documents.extend(endpoint_slices("default", "kubernetes", &addresses));
    documents
}

/// The name of a service.
pub(crate) fn service_name(number: u32) -> String {
    format!("service-{number}")
}

fn endpoint_address(choices: &mut Choices, scene: &Scene) -> String {
    if choices.chance(20)
        && let Some(address) = scene.pod_address(choices)
    {
        return address;
    }
    (*choices.pick(&OUTSIDE)).into()
}

/// One slice for each family present.
fn endpoint_slices(namespace: &str, service: &str, addresses: &[String]) -> Vec<Value> {
    let mut slices = Vec::new();
    for (family, is_family) in [
        ("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        ("IPv6", IpAddr::is_ipv6),
    ] {
        let mut endpoints: Vec<&String> = addresses
            .iter()
            .filter(|address| address.parse().is_ok_and(|address| is_family(&address)))
            .collect();
        endpoints.dedup();
        if endpoints.is_empty() {
            continue;
        }
        slices.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace,
                "name": format!("{service}-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": family,
            "endpoints": endpoints.iter().map(|address| json!({"addresses": [address]})).collect::<Vec<_>>(),
            "ports": [{"port": 80}],
        }));
    }
    slices
}
