//! `policy.networking.k8s.io`: `ClusterNetworkPolicy` of both tiers, `AdminNetworkPolicy`, `BaselineAdminNetworkPolicy`.

use serde_json::{Value, json};

use crate::{choices::Choices, generate::Scene, parameters::Kind, ports, selectors};

/// Few priorities, so that several policies share one.
const PRIORITIES: [u32; 4] = [0, 10, 11, 1000];
/// Names as this API takes them: patterns are whole labels only.
const DOMAINS: [&str; 4] = [
    "www.example.com",
    "*.example.com",
    "example.org",
    "*.b.example.com",
];

/// The two generations of the API: how they spell the same things.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Generation {
    Cluster,
    Admin,
}

/// A policy of one of the three kinds.
pub(crate) fn policy(choices: &mut Choices, scene: &Scene, kind: Kind, number: u32) -> Value {
    let subject = subject(choices, scene);
    match kind {
        Kind::BaselineAdminNetworkPolicy => {
            let mut document = json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "BaselineAdminNetworkPolicy",
                "metadata": {"name": "default"}, "spec": {"subject": subject},
            });
            directions(
                choices,
                scene,
                &mut document["spec"],
                Generation::Admin,
                true,
            );
            document
        }
        Kind::AdminNetworkPolicy => {
            let mut document = json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
                "metadata": {"name": format!("policy-{number}")},
                "spec": {"priority": choices.pick(&PRIORITIES), "subject": subject},
            });
            directions(
                choices,
                scene,
                &mut document["spec"],
                Generation::Admin,
                false,
            );
            document
        }
        _ => {
            let baseline = choices.chance(40);
            let tier = if baseline { "Baseline" } else { "Admin" };
            let mut document = json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                "metadata": {"name": format!("policy-{number}")},
                "spec": {"tier": tier, "priority": choices.pick(&PRIORITIES), "subject": subject},
            });
            directions(
                choices,
                scene,
                &mut document["spec"],
                Generation::Cluster,
                baseline,
            );
            document
        }
    }
}

fn subject(choices: &mut Choices, scene: &Scene) -> Value {
    if choices.chance(50) {
        pods(choices, scene)
    } else {
        json!({"namespaces": selectors::namespaces(choices, scene)})
    }
}

fn directions(
    choices: &mut Choices,
    scene: &Scene,
    spec: &mut Value,
    generation: Generation,
    baseline: bool,
) {
    let egress = choices.chance(45);
    if !egress || choices.chance(35) {
        spec["ingress"] = rules(choices, scene, false, generation, baseline);
    }
    if egress {
        spec["egress"] = rules(choices, scene, true, generation, baseline);
    }
}

fn rules(
    choices: &mut Choices,
    scene: &Scene,
    egress: bool,
    generation: Generation,
    baseline: bool,
) -> Value {
    let amount = choices.within(&scene.parameters.rules);
    (0..amount)
        .map(|index| rule(choices, scene, egress, generation, baseline, index))
        .collect()
}

fn rule(
    choices: &mut Choices,
    scene: &Scene,
    egress: bool,
    generation: Generation,
    baseline: bool,
    index: u32,
) -> Value {
    let accept = if generation == Generation::Cluster {
        "Accept"
    } else {
        "Allow"
    };
    let action = if !choices.chance(scene.parameters.deny + 20) {
        accept
    } else if baseline {
        "Deny"
    } else {
        choices.weighted(&[(3, "Deny"), (2, "Pass")])
    };
    let mut rule = json!({"action": action});
    if choices.chance(20) {
        rule["name"] = json!(format!("rule-{index}"));
    }
    let names = egress && action == accept && !baseline && choices.chance(scene.parameters.fqdn);
    let amount = choices.within(&scene.parameters.peers);
    let peers: Vec<Value> = (0..amount)
        .map(|_| {
            if names {
                json!({"domainNames": [choices.pick(&DOMAINS)]})
            } else {
                peer(choices, scene, egress)
            }
        })
        .collect();
    // Only pods have named ports.
    let pods_only = peers.iter().all(|peer| {
        ["nodes", "networks", "domainNames"]
            .iter()
            .all(|field| peer.get(field).is_none())
    });
    rule[if egress { "to" } else { "from" }] = Value::Array(peers);
    let (field, ports) = match generation {
        Generation::Cluster => ("protocols", ports::cluster(choices, scene, pods_only)),
        Generation::Admin => ("ports", ports::admin(choices, scene, pods_only)),
    };
    if let Some(ports) = ports {
        rule[field] = ports;
    }
    rule
}

fn peer(choices: &mut Choices, scene: &Scene, egress: bool) -> Value {
    if egress && choices.chance(scene.parameters.cidr) {
        let amount = choices.within(&scene.parameters.peers);
        let networks: Vec<&str> = (0..amount).map(|_| scene.prefix(choices)).collect();
        return json!({"networks": networks});
    }
    if egress && choices.chance(scene.parameters.node_peers * 2) {
        return json!({"nodes": selectors::nodes(choices, scene)});
    }
    if choices.chance(scene.parameters.corners / 3) {
        // No field that is known: the rule fails closed.
        return choices.pick(&[json!({}), json!({"planets": {}})]).clone();
    }
    if choices.chance(50) {
        pods(choices, scene)
    } else {
        json!({"namespaces": selectors::namespaces(choices, scene)})
    }
}

fn pods(choices: &mut Choices, scene: &Scene) -> Value {
    json!({"pods": {
        "namespaceSelector": selectors::namespaces(choices, scene),
        "podSelector": selectors::pods(choices, scene),
    }})
}
