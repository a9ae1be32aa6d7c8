//! `networking.k8s.io/v1` `NetworkPolicy`.

use serde_json::{Map, Value, json};

use crate::{choices::Choices, generate::Scene, ports, selectors};

/// A `NetworkPolicy`.
pub(crate) fn policy(choices: &mut Choices, scene: &Scene, number: u32) -> Value {
    let mut spec = json!({"podSelector": selectors::pods(choices, scene)});
    let egress = choices.chance(45);
    let ingress = !egress || choices.chance(35);
    if ingress && !choices.chance(scene.parameters.corners) {
        spec["ingress"] = rules(choices, scene, "from");
    }
    if egress {
        spec["egress"] = rules(choices, scene, "to");
    }
    if choices.chance(50) {
        spec["policyTypes"] = policy_types(choices);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": scene.namespace(choices), "name": format!("policy-{number}")},
        "spec": spec,
    })
}

/// Whatever the rules are: a type without rules isolates, rules without their type are not looked at.
fn policy_types(choices: &mut Choices) -> Value {
    choices
        .pick(&[
            json!(["Ingress"]),
            json!(["Ingress", "Egress"]),
            json!(["Egress"]),
        ])
        .clone()
}

fn rules(choices: &mut Choices, scene: &Scene, field: &str) -> Value {
    if choices.chance(scene.parameters.corners) {
        return json!([]);
    }
    let amount = choices.within(&scene.parameters.rules);
    (0..amount)
        .map(|_| {
            let mut rule = Map::new();
            if let Some(peers) = peers(choices, scene) {
                rule.insert(field.into(), peers);
            }
            if let Some(ports) = ports::network(choices, scene) {
                rule.insert("ports".into(), ports);
            }
            Value::Object(rule)
        })
        .collect()
}

fn peers(choices: &mut Choices, scene: &Scene) -> Option<Value> {
    if choices.chance(scene.parameters.corners) {
        return choices.chance(50).then(|| json!([]));
    }
    let amount = choices.within(&scene.parameters.peers);
    Some((0..amount).map(|_| peer(choices, scene)).collect())
}

fn peer(choices: &mut Choices, scene: &Scene) -> Value {
    if choices.chance(scene.parameters.cidr) {
        let cidr = scene.prefix(choices);
        let mut block = json!({"cidr": cidr});
        let except = Scene::inside(choices, cidr);
        if !except.is_empty() {
            block["except"] = json!(except);
        }
        return json!({"ipBlock": block});
    }
    let mut peer = json!({});
    let beyond = choices.chance(scene.parameters.cross_namespace);
    if beyond {
        peer["namespaceSelector"] = selectors::namespaces(choices, scene);
    }
    if !beyond || choices.chance(60) {
        peer["podSelector"] = selectors::pods(choices, scene);
    }
    peer
}
