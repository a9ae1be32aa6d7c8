//! What Cilium-style rules ask a proxy for: HTTP and DNS rules, TLS, server names, listeners, authentication; and DNS selectors.

use serde_json::{Value, json};

use crate::{
    choices::Choices,
    generate::Scene,
    ports,
    vocabulary::{METHODS, NAMES, PATTERNS},
};

/// One `toPorts` entry that a proxy has to see.
pub(crate) fn port_rule(choices: &mut Choices, scene: &Scene, egress: bool) -> Value {
    match choices.weighted(&[
        (5, 0),
        (if egress { 3 } else { 0 }, 1),
        (1, 2),
        (u32::from(egress), 3),
        (1, 4),
    ]) {
        0 => {
            json!({"ports": ports::single(choices, scene, "TCP"), "rules": {"http": http_rules(choices)}})
        }
        1 => {
            let protocol = choices.weighted(&[(2, "UDP"), (1, "TCP"), (2, "ANY")]);
            json!({"ports": [{"port": "53", "protocol": protocol}], "rules": {"dns": selectors(choices)}})
        }
        2 => json!({
            "ports": ports::single(choices, scene, "TCP"),
            "serverNames": [choices.pick(&NAMES[..3])],
        }),
        3 => json!({
            "ports": ports::single(choices, scene, "TCP"),
            "listener": {
                "envoyConfig": {"kind": "CiliumEnvoyConfig", "name": "proxy"},
                "name": choices.pick(&["first", "second"]),
                "priority": choices.pick(&[1, 2]),
            },
        }),
        _ => json!({
            "ports": ports::single(choices, scene, "TCP"),
            "terminatingTLS": {"secret": {"namespace": "ns-0", "name": choices.pick(&["one", "other"])}},
            "rules": {"http": http_rules(choices)},
        }),
    }
}

/// `matchName` and `matchPattern` entries.
pub(crate) fn selectors(choices: &mut Choices) -> Value {
    let amount = choices.below(2) + 1;
    (0..amount)
        .map(|_| {
            if choices.chance(60) {
                json!({"matchPattern": choices.pick(&PATTERNS)})
            } else {
                json!({"matchName": choices.pick(&NAMES)})
            }
        })
        .collect()
}

/// An authentication mode.
pub(crate) fn authentication(choices: &mut Choices) -> Value {
    json!({"mode": choices.pick(&["disabled", "required", "test-always-fail"])})
}

fn http_rules(choices: &mut Choices) -> Value {
    let amount = choices.below(2) + 1;
    (0..amount)
        .map(|_| {
            let mut rule = json!({});
            if choices.chance(60) {
                rule["path"] =
                    json!(choices.pick(&["/public", "/public/.*", "/", "/(public|admin)"]));
            }
            if choices.chance(40) {
                rule["method"] = json!(choices.pick(&[METHODS[0], METHODS[1], "GET|POST"]));
            }
            if choices.chance(20) {
                rule["host"] = json!(choices.pick(&["www\\.example\\.com", "example.com", ".*"]));
            }
            if choices.chance(20) {
                rule["headers"] = json!([choices.pick(&["X-Token: 1", "X-Token"])]);
            }
            if choices.chance(10) {
                rule["headerMatches"] = json!([header_match(choices)]);
            }
            rule
        })
        .collect()
}

fn header_match(choices: &mut Choices) -> Value {
    let mut entry = json!({"name": "X-Token", "value": choices.pick(&["1", "2"])});
    if choices.chance(50) {
        entry["mismatch"] = json!(choices.pick(&["LOG", "ADD", "DELETE", "REPLACE"]));
    }
    entry
}
