//! Cilium-style policies: ours and `cilium.io/v2`, namespaced and cluster-wide.

use serde_json::{Map, Value, json};

use crate::{
    choices::Choices, generate::Scene, l7, parameters::Kind, ports, selectors,
    services::service_name, world::group_name,
};

const ENTITIES: [&str; 14] = [
    "world",
    "all",
    "cluster",
    "host",
    "remote-node",
    "kube-apiserver",
    "world-ipv4",
    "world-ipv6",
    "none",
    "init",
    "ingress",
    "unmanaged",
    "health",
    "cluster-mesh",
];

/// Where a rule stands.
#[derive(Clone, Copy)]
struct Section {
    egress: bool,
    deny: bool,
    /// Of a host policy, whose traffic no proxy sees.
    host: bool,
}

/// A policy of one of the four kinds.
pub(crate) fn policy(choices: &mut Choices, scene: &Scene, kind: Kind, number: u32) -> Value {
    let (version, name, cluster_wide) = match kind {
        Kind::SluiceClusterwideNetworkPolicy => {
            ("sluice.io/v1", "SluiceClusterwideNetworkPolicy", true)
        }
        Kind::CiliumNetworkPolicy => ("cilium.io/v2", "CiliumNetworkPolicy", false),
        Kind::CiliumClusterwideNetworkPolicy => {
            ("cilium.io/v2", "CiliumClusterwideNetworkPolicy", true)
        }
        _ => ("sluice.io/v1", "SluiceNetworkPolicy", false),
    };
    let mut document = json!({"apiVersion": version, "kind": name, "metadata": {"name": format!("policy-{number}")}});
    if !cluster_wide {
        document["metadata"]["namespace"] = json!(scene.namespace(choices));
    }
    match choices.weighted(&[(10, 0), (1, 1), (1, 2)]) {
        0 => document["spec"] = spec(choices, scene, cluster_wide),
        1 => {
            document["specs"] = json!([
                spec(choices, scene, cluster_wide),
                spec(choices, scene, cluster_wide)
            ]);
        }
        _ => {
            document["spec"] = spec(choices, scene, cluster_wide);
            document["specs"] = json!([spec(choices, scene, cluster_wide)]);
        }
    }
    document
}

fn spec(choices: &mut Choices, scene: &Scene, cluster_wide: bool) -> Value {
    let mut spec = Map::new();
    if cluster_wide && choices.chance(scene.parameters.corners / 2) {
        spec.insert("nodeSelector".into(), selectors::nodes(choices, scene));
    } else {
        spec.insert(
            "endpointSelector".into(),
            selectors::subjects(choices, scene),
        );
    }
    let host = spec.contains_key("nodeSelector");
    sections(choices, scene, &mut spec, host);
    if choices.chance(scene.parameters.default_deny_set) {
        let mut directions = Map::new();
        for direction in ["ingress", "egress"] {
            if choices.chance(70) {
                directions.insert(direction.into(), json!(choices.chance(40)));
            }
        }
        spec.insert("enableDefaultDeny".into(), Value::Object(directions));
    }
    if choices.chance(scene.parameters.corners / 2) {
        spec.insert("description".into(), json!("written by a generator"));
        spec.insert("log".into(), json!({"value": "generated"}));
        spec.insert(
            "labels".into(),
            json!([{"key": "origin", "value": "generator"}]),
        );
    }
    Value::Object(spec)
}

/// One section at least, with one rule at least.
fn sections(choices: &mut Choices, scene: &Scene, spec: &mut Map<String, Value>, host: bool) {
    let egress_first = choices.chance(45);
    let mut directions = vec![egress_first];
    if choices.chance(35) {
        directions.push(!egress_first);
    }
    for egress in directions {
        let (allow, deny) = if egress {
            ("egress", "egressDeny")
        } else {
            ("ingress", "ingressDeny")
        };
        let denies = choices.chance(scene.parameters.deny);
        if denies {
            spec.insert(
                deny.into(),
                rules(
                    choices,
                    scene,
                    Section {
                        egress,
                        deny: true,
                        host,
                    },
                ),
            );
        }
        if !denies || choices.chance(60) {
            spec.insert(
                allow.into(),
                rules(
                    choices,
                    scene,
                    Section {
                        egress,
                        deny: false,
                        host,
                    },
                ),
            );
        } else if choices.chance(scene.parameters.corners) {
            // Present and empty: as if it were missing.
            spec.insert(allow.into(), json!([]));
        }
    }
}

fn rules(choices: &mut Choices, scene: &Scene, section: Section) -> Value {
    let amount = choices.within(&scene.parameters.rules);
    (0..amount).map(|_| rule(choices, scene, section)).collect()
}

fn rule(choices: &mut Choices, scene: &Scene, section: Section) -> Value {
    let mut rule = Map::new();
    let fqdn = peer(choices, scene, &mut rule, section);
    if !choices.chance(scene.parameters.all_ports) {
        if choices.chance(scene.parameters.icmp) && !fqdn {
            rule.insert("icmps".into(), ports::icmps(choices, scene));
        } else {
            rule.insert("toPorts".into(), to_ports(choices, scene, section));
        }
    }
    if !section.deny && choices.chance(scene.parameters.authentication) {
        rule.insert("authentication".into(), l7::authentication(choices));
    }
    Value::Object(rule)
}

fn to_ports(choices: &mut Choices, scene: &Scene, section: Section) -> Value {
    let amount = choices.weighted(&[(4, 1), (1, 2)]);
    (0..amount)
        .map(|_| {
            if !section.deny && !section.host && choices.chance(scene.parameters.l7) {
                l7::port_rule(choices, scene, section.egress)
            } else {
                json!({"ports": ports::cilium(choices, scene)})
            }
        })
        .collect()
}

/// Writes one kind of peer, or none; says whether it is by DNS name.
fn peer(
    choices: &mut Choices,
    scene: &Scene,
    rule: &mut Map<String, Value>,
    section: Section,
) -> bool {
    let parameters = scene.parameters;
    let Section { egress, deny, .. } = section;
    let to = if egress { "to" } else { "from" };
    if choices.chance(parameters.cidr) {
        cidrs(choices, scene, rule, to);
    } else if choices.chance(parameters.entities) {
        let entities = peers(choices, scene, |choices| json!(choices.pick(&ENTITIES)));
        rule.insert(format!("{to}Entities"), entities);
    } else if choices.chance(parameters.node_peers) {
        let nodes = peers(choices, scene, |choices| {
            selectors::sourced_nodes(choices, scene)
        });
        rule.insert(format!("{to}Nodes"), nodes);
    } else if egress && choices.chance(parameters.service_peers) {
        let services = peers(choices, scene, |choices| service_peer(choices, scene));
        rule.insert("toServices".into(), services);
    } else if egress && !deny && choices.chance(parameters.fqdn) {
        rule.insert("toFQDNs".into(), l7::selectors(choices));
        return true;
    } else if choices.chance(parameters.corners) {
        corner_peer(choices, rule, to);
    } else {
        let endpoints = peers(choices, scene, |choices| selectors::peers(choices, scene));
        rule.insert(format!("{to}Endpoints"), endpoints);
    }
    false
}

fn cidrs(choices: &mut Choices, scene: &Scene, rule: &mut Map<String, Value>, to: &str) {
    if choices.chance(40) {
        let list = peers(choices, scene, |choices| json!(scene.prefix(choices)));
        rule.insert(format!("{to}CIDR"), list);
        return;
    }
    let list = peers(choices, scene, |choices| {
        let mut entry = match choices.weighted(&[(6, 0), (2, 1), (2, 2)]) {
            0 => {
                let cidr = scene.prefix(choices);
                let mut entry = json!({"cidr": cidr});
                let except = Scene::inside(choices, cidr);
                if !except.is_empty() {
                    entry["except"] = json!(except);
                }
                return entry;
            }
            // One more name than there are groups.
            1 => {
                json!({"cidrGroupRef": group_name(choices.below(scene.cidr_groups.div_ceil(2) + 1))})
            }
            _ => json!({"cidrGroupSelector": selectors::sets(choices, scene)}),
        };
        if choices.chance(20) {
            entry["except"] = json!([choices.pick(&["203.0.113.64/26", "2001:db8:1:2::/64"])]);
        }
        entry
    });
    rule.insert(format!("{to}CIDRSet"), list);
}

fn service_peer(choices: &mut Choices, scene: &Scene) -> Value {
    if choices.chance(35) {
        let mut by_label = json!({"selector": selectors::sets(choices, scene)});
        if choices.chance(50) {
            by_label["namespace"] = json!(scene.namespace(choices));
        }
        return json!({"k8sServiceSelector": by_label});
    }
    let mut by_name = json!({"serviceName": service_name(choices.below(scene.services + 1))});
    if choices.chance(60) {
        by_name["namespace"] = json!(scene.namespace(choices));
    }
    json!({"k8sService": by_name})
}

/// No peer field at all, or one that selects nothing.
fn corner_peer(choices: &mut Choices, rule: &mut Map<String, Value>, to: &str) {
    match choices.below(5) {
        0 | 1 => {}
        2 => {
            rule.insert(format!("{to}Endpoints"), json!([]));
        }
        3 => {
            rule.insert(
                format!("{to}Groups"),
                json!([{"aws": {"securityGroupsIds": ["sg-1"]}}]),
            );
        }
        _ => {
            let field = *choices.pick(&["Entities", "CIDR", "CIDRSet"]);
            rule.insert(format!("{to}{field}"), json!([]));
        }
    }
}

fn peers(
    choices: &mut Choices,
    scene: &Scene,
    mut entry: impl FnMut(&mut Choices) -> Value,
) -> Value {
    let amount = choices.within(&scene.parameters.peers);
    (0..amount).map(|_| entry(choices)).collect()
}
