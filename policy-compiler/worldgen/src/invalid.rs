//! Faults to put into a valid policy, each of which makes it invalid, for tests of validation. Only these make invalid manifests.

use serde_json::{Value, json};

/// One way to spoil a policy.
#[derive(Clone, Copy)]
pub struct Fault {
    /// What is wrong afterwards.
    pub name: &'static str,
    /// The field that a good message names.
    pub field: &'static str,
    apply: fn(&mut Value) -> bool,
}

impl Fault {
    /// Puts the fault into the policy; false where this policy has no place for it, and then it is unchanged.
    pub fn apply(&self, policy: &mut Value) -> bool {
        (self.apply)(policy)
    }
}

/// Every fault.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "an unknown field in the spec",
        field: "colour",
        apply: |policy| {
            edit_specs(policy, |spec| {
                spec["colour"] = json!("red");
                true
            })
        },
    },
    Fault {
        name: "an unknown field in a rule",
        field: "colour",
        apply: |policy| {
            edit_rules(policy, &SECTIONS, |_, rule| {
                rule["colour"] = json!("red");
                true
            })
        },
    },
    Fault {
        name: "two kinds of peer in one rule",
        field: "Entities",
        apply: |policy| {
            edit_cilium_rules(policy, |to, rule| {
                rule[format!("{to}Endpoints")] = json!([{}]);
                rule[format!("{to}Entities")] = json!(["world"]);
                true
            })
        },
    },
    Fault {
        name: "a removed kind of L7 rule",
        field: "rules",
        apply: |policy| {
            edit_cilium_rules(policy, |_, rule| {
                drop_field(rule, "icmps");
                rule["toPorts"] = json!([{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"kafka": [{}]}}]);
                true
            })
        },
    },
    Fault {
        name: "a range that ends before it begins",
        field: "endPort",
        apply: |policy| {
            edit_cilium_rules(policy, |_, rule| {
                drop_field(rule, "icmps");
                rule["toPorts"] =
                    json!([{"ports": [{"port": "90", "endPort": 80, "protocol": "TCP"}]}]);
                true
            })
        },
    },
    Fault {
        name: "an exception outside its prefix",
        field: "except",
        apply: |policy| {
            edit_cilium_rules(policy, |to, rule| {
                *rule = json!({format!("{to}CIDRSet"): [{"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]}]});
                true
            })
        },
    },
    Fault {
        name: "ICMP among the ports",
        field: "protocol",
        apply: |policy| {
            edit_cilium_rules(policy, |_, rule| {
                drop_field(rule, "icmps");
                rule["toPorts"] = json!([{"ports": [{"port": "0", "protocol": "ICMP"}]}]);
                true
            })
        },
    },
    Fault {
        name: "L7 rules under a deny",
        field: "rules",
        apply: |policy| {
            edit_rules(policy, &["ingressDeny", "egressDeny"], |_, rule| {
                drop_field(rule, "icmps");
                rule["toPorts"] = json!([{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{}]}}]);
                true
            })
        },
    },
    Fault {
        name: "no subject",
        field: "endpointSelector",
        apply: |policy| {
            is_cilium(policy)
                && edit_specs(policy, |spec| {
                    drop_field(spec, "endpointSelector");
                    drop_field(spec, "nodeSelector");
                    true
                })
        },
    },
    Fault {
        name: "an operator that does not exist",
        field: "operator",
        apply: |policy| {
            is_cilium(policy)
                && edit_specs(policy, |spec| {
                    drop_field(spec, "nodeSelector");
                    spec["endpointSelector"] = json!({"matchExpressions": [{"key": "app", "operator": "Like", "values": ["a"]}]});
                    true
                })
        },
    },
    Fault {
        name: "a priority beyond the last",
        field: "priority",
        apply: |policy| {
            edit_specs(policy, |spec| {
                let Some(priority) = spec.get_mut("priority") else {
                    return false;
                };
                *priority = json!(1001);
                true
            })
        },
    },
    Fault {
        name: "an action that does not exist",
        field: "action",
        apply: |policy| {
            edit_rules(policy, &["ingress", "egress"], |_, rule| {
                let Some(action) = rule.get_mut("action") else {
                    return false;
                };
                *action = json!("Reject");
                true
            })
        },
    },
    Fault {
        name: "a prefix longer than its addresses",
        field: "cidr",
        apply: |policy| {
            policy["kind"] == "NetworkPolicy"
                && edit_rules(policy, &["ingress", "egress"], |to, rule| {
                    rule[to] = json!([{"ipBlock": {"cidr": "10.0.0.0/33"}}]);
                    true
                })
        },
    },
    Fault {
        name: "a block beside a pod selector",
        field: "ipBlock",
        apply: |policy| {
            policy["kind"] == "NetworkPolicy"
                && edit_rules(policy, &["ingress", "egress"], |to, rule| {
                    rule[to] = json!([{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]);
                    true
                })
        },
    },
];

const SECTIONS: [&str; 4] = ["ingress", "egress", "ingressDeny", "egressDeny"];

fn is_cilium(policy: &Value) -> bool {
    policy["apiVersion"] == "sluice.io/v1" || policy["apiVersion"] == "cilium.io/v2"
}

fn drop_field(value: &mut Value, field: &str) {
    if let Some(fields) = value.as_object_mut() {
        fields.remove(field);
    }
}

/// Edits the first spec that has a place for the fault.
fn edit_specs(policy: &mut Value, mut edit: impl FnMut(&mut Value) -> bool) -> bool {
    if policy["spec"].is_object() && edit(&mut policy["spec"]) {
        return true;
    }
    policy
        .get_mut("specs")
        .and_then(Value::as_array_mut)
        .is_some_and(|specs| specs.iter_mut().any(edit))
}

/// Edits the first rule of these sections that has a place for the fault.
fn edit_rules(
    policy: &mut Value,
    sections: &[&str],
    mut edit: impl FnMut(&str, &mut Value) -> bool,
) -> bool {
    edit_specs(policy, |spec| {
        sections.iter().any(|section| {
            let to = if section.starts_with("egress") {
                "to"
            } else {
                "from"
            };
            spec.get_mut(section)
                .and_then(Value::as_array_mut)
                .and_then(|rules| rules.first_mut())
                .is_some_and(|rule| edit(to, rule))
        })
    })
}

fn edit_cilium_rules(policy: &mut Value, edit: impl FnMut(&str, &mut Value) -> bool) -> bool {
    is_cilium(policy) && edit_rules(policy, &SECTIONS, edit)
}
