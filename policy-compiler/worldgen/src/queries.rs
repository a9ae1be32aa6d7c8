//! Questions aimed to hit: pods mostly, ports and addresses at the ends of what rules name, every protocol, both families.

use serde_json::{Map, Value, json};

use crate::{
    choices::Choices,
    generate::Scene,
    interests::Interests,
    vocabulary::{ICMP_TYPES, METHODS, NAMES, PATHS},
    world::{node_name, pod_address_v4, pod_address_v6},
};

/// One question.
pub(crate) fn query(
    choices: &mut Choices,
    scene: &Scene,
    interests: &Interests,
    number: usize,
) -> Value {
    let mut query = Map::new();
    query.insert("id".into(), json!(number.to_string()));
    // One end at least is a pod; others are no policy subjects.
    let (from, to) = match choices.weighted(&[(10, 0), (4, 1), (4, 2)]) {
        0 => two_pods(choices, scene),
        1 => (pod(choices, scene), other(choices, scene, interests)),
        _ => (other(choices, scene, interests), pod(choices, scene)),
    };
    query.insert("from".into(), json!(from));
    query.insert("to".into(), json!(to));
    let family = [from.as_str(), to.as_str()]
        .into_iter()
        .find_map(|end| end.strip_prefix("ip:"))
        .map(|address| {
            if address.contains(':') {
                "IPv6"
            } else {
                "IPv4"
            }
        });
    let family = family.or_else(|| choices.chance(50).then(|| *choices.pick(&["IPv4", "IPv6"])));
    if let Some(family) = family {
        query.insert("family".into(), json!(family));
    }
    traffic(choices, interests, &mut query, family);
    Value::Object(query)
}

/// Two pods, mostly not the same one.
fn two_pods(choices: &mut Choices, scene: &Scene) -> (String, String) {
    let from = pod(choices, scene);
    let to = pod(choices, scene);
    if from == to && !choices.chance(15) {
        return (from, pod(choices, scene));
    }
    (from, to)
}

fn pod(choices: &mut Choices, scene: &Scene) -> String {
    let Ok(count @ 1..) = u32::try_from(scene.pods.len()) else {
        return "ip:203.0.113.7".into();
    };
    let pod = &scene.pods[choices.below(count) as usize];
    if choices.chance(5)
        && let Some(address) = pod.addresses.first()
    {
        return format!("ip:{address}");
    }
    format!("pod:{}/{}", pod.namespace, pod.name)
}

fn other(choices: &mut Choices, scene: &Scene, interests: &Interests) -> String {
    match choices.weighted(&[(6, 0), (3, 1), (1, 2)]) {
        1 if scene.nodes > 0 => format!("node:{}", node_name(choices.below(scene.nodes))),
        // Inside the pods' prefix of a node and most likely of no pod.
        2 if scene.nodes > 0 => {
            let node = choices.below(scene.nodes);
            if choices.chance(50) {
                format!("ip:{}", pod_address_v6(node, 250))
            } else {
                format!("ip:{}", pod_address_v4(node, 250))
            }
        }
        _ => format!("ip:{}", choices.pick(&interests.addresses)),
    }
}

fn traffic(
    choices: &mut Choices,
    interests: &Interests,
    query: &mut Map<String, Value>,
    family: Option<&str>,
) {
    let protocol = choices.weighted(&[
        (10, "TCP"),
        (4, "UDP"),
        (1, "SCTP"),
        (3, "ICMP"),
        (1, "tcp"),
        (2, ""),
    ]);
    match protocol {
        "ICMP" => {
            let name = match family {
                Some("IPv6") => "ICMPv6",
                Some(_) => "ICMP",
                None => {
                    let family = *choices.pick(&["IPv4", "IPv6"]);
                    query.insert("family".into(), json!(family));
                    if family == "IPv6" { "ICMPv6" } else { "ICMP" }
                }
            };
            query.insert("protocol".into(), json!(name));
            query.insert("icmpType".into(), json!(choices.pick(&ICMP_TYPES)));
        }
        "" => {
            let name = choices.pick(&["GRE", "ESP", "AH", "VRRP", "IGMP", "IPIP", "IPV6"]);
            query.insert("protocol".into(), json!(name));
        }
        _ => {
            query.insert("protocol".into(), json!(protocol));
            let ports = if choices.chance(35) {
                &interests.near
            } else {
                &interests.ports
            };
            query.insert("port".into(), json!(choices.pick(ports)));
            requests(choices, query, protocol);
        }
    }
}

/// What flows over the connection, sometimes.
fn requests(choices: &mut Choices, query: &mut Map<String, Value>, protocol: &str) {
    if protocol.eq_ignore_ascii_case("tcp") && choices.chance(20) {
        let mut http = json!({
            "method": choices.pick(&METHODS),
            "path": choices.pick(&PATHS),
            "host": choices.pick(&NAMES[..2]),
        });
        if choices.chance(40) {
            http["headers"] = json!({"x-token": choices.pick(&["1", "2"])});
        }
        query.insert("http".into(), http);
    } else if protocol != "SCTP" && choices.chance(10) {
        query.insert("dns".into(), json!(choices.pick(&NAMES)));
        query.insert("port".into(), json!(53));
    }
}
