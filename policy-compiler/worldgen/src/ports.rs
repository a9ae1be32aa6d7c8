//! Port lists of the three API families.

use serde_json::{Value, json};

use crate::{
    choices::Choices,
    generate::Scene,
    vocabulary::{ICMP_NAMES, ICMP_TYPES, PORT_NAMES, PORTS},
};

/// An inclusive range drawn from the vocabulary, lower end first.
pub(crate) fn range(choices: &mut Choices) -> (u16, u16) {
    let (one, other) = (*choices.pick(&PORTS), *choices.pick(&PORTS));
    (one.min(other), one.max(other))
}

/// `ports` of a `NetworkPolicy` rule; `None`: the field is missing.
pub(crate) fn network(choices: &mut Choices, scene: &Scene) -> Option<Value> {
    if choices.chance(scene.parameters.all_ports) {
        // Missing and empty mean the same.
        return choices.chance(scene.parameters.corners).then(|| json!([]));
    }
    Some(list(choices, scene, |choices| {
        let mut entry = json!({});
        if choices.chance(scene.parameters.other_protocols) {
            entry["protocol"] = json!(choices.pick(&["TCP", "UDP", "SCTP"]));
        }
        if choices.chance(scene.parameters.named_ports) {
            entry["port"] = json!(choices.pick(&PORT_NAMES));
        } else if choices.chance(scene.parameters.port_ranges) {
            let (first, last) = range(choices);
            entry["port"] = json!(first);
            entry["endPort"] = json!(last);
        } else if !choices.chance(scene.parameters.corners) {
            entry["port"] = json!(choices.pick(&PORTS));
        }
        entry
    }))
}

/// `protocols` of a `ClusterNetworkPolicy` rule.
pub(crate) fn cluster(choices: &mut Choices, scene: &Scene, named: bool) -> Option<Value> {
    if choices.chance(scene.parameters.all_ports) {
        return None;
    }
    Some(list(choices, scene, |choices| {
        if choices.chance(scene.parameters.named_ports) && named {
            return json!({"destinationNamedPort": choices.pick(&PORT_NAMES)});
        }
        let transport = transport(choices, scene).to_lowercase();
        let port = if choices.chance(scene.parameters.port_ranges) {
            let (start, end) = proper_range(choices);
            json!({"range": {"start": start, "end": end}})
        } else {
            json!({"number": choices.pick(&PORTS)})
        };
        json!({transport: {"destinationPort": port}})
    }))
}

/// `ports` of an `AdminNetworkPolicy` or `BaselineAdminNetworkPolicy` rule.
pub(crate) fn admin(choices: &mut Choices, scene: &Scene, named: bool) -> Option<Value> {
    if choices.chance(scene.parameters.all_ports) {
        return None;
    }
    Some(list(choices, scene, |choices| {
        if choices.chance(scene.parameters.named_ports) && named {
            return json!({"namedPort": choices.pick(&PORT_NAMES)});
        }
        let protocol = transport(choices, scene);
        if choices.chance(scene.parameters.port_ranges) {
            let (start, end) = proper_range(choices);
            json!({"portRange": {"protocol": protocol, "start": start, "end": end}})
        } else {
            json!({"portNumber": {"protocol": protocol, "port": choices.pick(&PORTS)}})
        }
    }))
}

/// `toPorts[].ports` of a Cilium-style rule, plain: whatever protocol.
pub(crate) fn cilium(choices: &mut Choices, scene: &Scene) -> Value {
    list(choices, scene, |choices| {
        if choices.chance(scene.parameters.other_protocols / 3) {
            return portless(choices);
        }
        let mut entry = cilium_port(choices, scene);
        if choices.chance(60) {
            let protocol = if choices.chance(scene.parameters.other_protocols) {
                *choices.pick(&["ANY", "UDP", "SCTP", "tcp"])
            } else {
                "TCP"
            };
            entry["protocol"] = json!(protocol);
        }
        entry
    })
}

/// `toPorts[].ports` under L7 rules: single ports of one protocol.
pub(crate) fn single(choices: &mut Choices, scene: &Scene, protocol: &str) -> Value {
    list(choices, scene, |choices| {
        let port = if choices.chance(scene.parameters.named_ports) {
            (*choices.pick(&PORT_NAMES)).to_owned()
        } else {
            choices.pick(&PORTS[..5]).to_string()
        };
        json!({"port": port, "protocol": protocol})
    })
}

/// `icmps` of a Cilium-style rule.
pub(crate) fn icmps(choices: &mut Choices, scene: &Scene) -> Value {
    let fields = list(choices, scene, |choices| {
        if choices.chance(25) {
            let (family, name) = choices.pick(&ICMP_NAMES);
            return json!({"family": family, "type": name});
        }
        let mut field = json!({"type": choices.pick(&ICMP_TYPES)});
        if choices.chance(60) {
            field["family"] = json!(choices.pick(&["IPv4", "IPv6"]));
        }
        field
    });
    if choices.chance(scene.parameters.corners) {
        return json!([{"fields": []}]);
    }
    json!([{"fields": fields}])
}

fn cilium_port(choices: &mut Choices, scene: &Scene) -> Value {
    if choices.chance(scene.parameters.named_ports) {
        return json!({"port": choices.pick(&PORT_NAMES)});
    }
    if choices.chance(scene.parameters.port_ranges) {
        let (first, last) = range(choices);
        return json!({"port": first.to_string(), "endPort": last});
    }
    if choices.chance(10) {
        return json!({"port": "0"});
    }
    json!({"port": choices.pick(&PORTS).to_string()})
}

fn portless(choices: &mut Choices) -> Value {
    let protocol = choices.pick(&["GRE", "ESP", "AH", "VRRP", "IGMP", "IPIP", "IPV6"]);
    if choices.chance(50) {
        json!({"protocol": protocol})
    } else {
        json!({"port": "0", "protocol": protocol})
    }
}

fn transport(choices: &mut Choices, scene: &Scene) -> &'static str {
    if choices.chance(scene.parameters.other_protocols) {
        choices.pick::<&str>(&["UDP", "SCTP"])
    } else {
        "TCP"
    }
}

/// A range whose ends differ, as `policy.networking.k8s.io` asks.
fn proper_range(choices: &mut Choices) -> (u16, u16) {
    let (first, last) = range(choices);
    if first < last {
        (first, last)
    } else if last == u16::MAX {
        (last - 1, last)
    } else {
        (first, last + 1)
    }
}

fn list(
    choices: &mut Choices,
    scene: &Scene,
    mut entry: impl FnMut(&mut Choices) -> Value,
) -> Value {
    let amount = choices.within(&scene.parameters.ports);
    Value::Array((0..amount).map(|_| entry(choices)).collect())
}
