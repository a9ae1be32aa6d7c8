//! Label selectors as manifests write them: plain ones of the Kubernetes APIs and ones with label sources.

use serde_json::{Map, Value, json};

use crate::{
    choices::Choices,
    generate::Scene,
    vocabulary::{
        LABEL_KEYS, NAMESPACE_KEYS, NAMESPACE_VALUES, NODE_KEYS, NODE_VALUES, ODD_LABEL_KEYS,
        PREFIXES, SERVICE_ACCOUNTS,
    },
};

/// What requirements are made of: a key and the values that go with it.
struct Requirement {
    key: String,
    values: Vec<String>,
}

/// A selector over pod labels.
pub(crate) fn pods(choices: &mut Choices, scene: &Scene) -> Value {
    let amount = choices.weighted(&[(6, 1), (3, 0), (2, 2)]);
    compose(choices, scene, amount, |choices| pod_label(choices, scene))
}

/// A selector over namespace labels.
pub(crate) fn namespaces(choices: &mut Choices, scene: &Scene) -> Value {
    let amount = choices.weighted(&[(6, 1), (3, 0), (1, 2)]);
    compose(choices, scene, amount, |choices| {
        namespace_label(choices, scene)
    })
}

/// A selector over node labels, keys plain.
pub(crate) fn nodes(choices: &mut Choices, scene: &Scene) -> Value {
    let amount = choices.weighted(&[(5, 1), (3, 0), (1, 2)]);
    compose(choices, scene, amount, node_label)
}

/// A selector over node labels as Cilium-style policies write it: keys with source `node` or none.
pub(crate) fn sourced_nodes(choices: &mut Choices, scene: &Scene) -> Value {
    let amount = choices.weighted(&[(5, 1), (3, 0), (1, 2)]);
    compose(choices, scene, amount, |choices| {
        let plain = node_label(choices);
        let source = *choices.pick(&["", "node:"]);
        Requirement {
            key: format!("{source}{}", plain.key),
            values: plain.values,
        }
    })
}

/// A selector over the labels of services and CIDR groups.
pub(crate) fn sets(choices: &mut Choices, scene: &Scene) -> Value {
    let amount = choices.weighted(&[(5, 1), (1, 0)]);
    compose(choices, scene, amount, |choices| Requirement {
        key: "set".into(),
        values: values(choices, &["x", "y"]),
    })
}

/// A Cilium-style selector of peers, with whatever source of labels.
pub(crate) fn peers(choices: &mut Choices, scene: &Scene) -> Value {
    let amount = choices.weighted(&[(6, 1), (3, 0), (2, 2), (1, 3)]);
    let beyond = choices.chance(scene.parameters.cross_namespace);
    let mut first = true;
    compose(choices, scene, amount, |choices| {
        let reach = std::mem::take(&mut first) && beyond;
        if reach {
            reaching_label(choices, scene)
        } else if choices.chance(scene.parameters.corners) {
            odd_label(choices)
        } else {
            sourced(choices, scene)
        }
    })
}

/// A Cilium-style selector of subjects. Mostly broad, so that policies have subjects.
pub(crate) fn subjects(choices: &mut Choices, scene: &Scene) -> Value {
    let amount = choices.weighted(&[(6, 0), (5, 1), (1, 2)]);
    compose(choices, scene, amount, |choices| {
        if choices.chance(scene.parameters.corners) {
            reaching_label(choices, scene)
        } else {
            sourced(choices, scene)
        }
    })
}

fn compose(
    choices: &mut Choices,
    scene: &Scene,
    amount: u32,
    mut requirement: impl FnMut(&mut Choices) -> Requirement,
) -> Value {
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for _ in 0..amount {
        let Requirement { key, mut values } = requirement(choices);
        if choices.chance(scene.parameters.expressions) {
            let operator = *choices.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
            let mut expression = json!({"key": key, "operator": operator});
            if operator == "In" || operator == "NotIn" {
                values.dedup();
                expression["values"] = json!(values);
            }
            expressions.push(expression);
        } else if !labels.keys().any(|other| same_label(other, &key)) {
            labels.insert(key, json!(values[0]));
        }
    }
    let mut selector = Map::new();
    if !labels.is_empty() {
        selector.insert("matchLabels".into(), Value::Object(labels));
    }
    if !expressions.is_empty() {
        selector.insert("matchExpressions".into(), Value::Array(expressions));
    }
    Value::Object(selector)
}

/// Whether two keys mean one label: without a prefix and with `any:` are the same. One selector can't ask for two values of it.
fn same_label(one: &str, other: &str) -> bool {
    let plain = |key: &str| key.strip_prefix("any:").unwrap_or(key).to_owned();
    plain(one) == plain(other)
}

fn pod_label(choices: &mut Choices, scene: &Scene) -> Requirement {
    let odd = choices.chance(scene.parameters.corners);
    let key = if odd {
        *choices.pick(&ODD_LABEL_KEYS)
    } else {
        *choices.pick(&LABEL_KEYS)
    };
    Requirement {
        key: key.into(),
        values: label_values(choices, scene),
    }
}

fn namespace_label(choices: &mut Choices, scene: &Scene) -> Requirement {
    if choices.chance(25) {
        return Requirement {
            key: "kubernetes.io/metadata.name".into(),
            values: namespace_names(choices, scene),
        };
    }
    Requirement {
        key: (*choices.pick(&NAMESPACE_KEYS)).into(),
        values: values(choices, &NAMESPACE_VALUES),
    }
}

fn node_label(choices: &mut Choices) -> Requirement {
    Requirement {
        key: (*choices.pick(&NODE_KEYS)).into(),
        values: values(choices, &NODE_VALUES),
    }
}

/// A pod label or service account, its source spelt in one of the ways policies do.
fn sourced(choices: &mut Choices, scene: &Scene) -> Requirement {
    if choices.chance(8) {
        return Requirement {
            key: "k8s:io.cilium.k8s.policy.serviceaccount".into(),
            values: values(choices, &SERVICE_ACCOUNTS),
        };
    }
    let plain = pod_label(choices, scene);
    let source = choices.weighted(&[(5, ""), (2, "k8s:"), (1, "any:")]);
    Requirement {
        key: format!("{source}{}", plain.key),
        values: plain.values,
    }
}

/// A label that lifts the namespace default.
fn reaching_label(choices: &mut Choices, scene: &Scene) -> Requirement {
    match choices.below(8) {
        0..=3 => Requirement {
            key: "k8s:io.kubernetes.pod.namespace".into(),
            values: namespace_names(choices, scene),
        },
        4..=5 => {
            let label = namespace_label(choices, scene);
            Requirement {
                key: format!("k8s:io.cilium.k8s.namespace.labels.{}", label.key),
                values: label.values,
            }
        }
        _ => Requirement {
            key: format!(
                "reserved:{}",
                choices.pick(&[
                    "host",
                    "world",
                    "remote-node",
                    "kube-apiserver",
                    "world-ipv4",
                    "world-ipv6",
                    "init",
                ])
            ),
            values: vec![String::new()],
        },
    }
}

/// A label of a source that pods don't carry, or that collides with a reserved one.
fn odd_label(choices: &mut Choices) -> Requirement {
    match choices.below(5) {
        0 => Requirement {
            key: "k8s:io.cilium.k8s.policy.cluster".into(),
            values: values(choices, &["default", "elsewhere"]),
        },
        1 => Requirement {
            key: format!("cidr:{}", choices.pick(&PREFIXES[..4])),
            values: vec![String::new()],
        },
        2 => Requirement {
            key: (*choices.pick(&["any:host", "world", "k8s:host", "remote-node"])).into(),
            values: vec![String::new()],
        },
        3 => Requirement {
            key: format!("node:{}", choices.pick(&NODE_KEYS)),
            values: values(choices, &NODE_VALUES),
        },
        _ => Requirement {
            key: (*choices.pick(&[
                "any:io.kubernetes.pod.namespace",
                "io.kubernetes.pod.namespace",
            ]))
            .into(),
            values: vec!["ns-0".into()],
        },
    }
}

fn label_values(choices: &mut Choices, scene: &Scene) -> Vec<String> {
    let bound = scene.parameters.label_values;
    let amount = choices.weighted(&[(3, 1), (1, 2)]);
    (0..amount)
        .map(|_| format!("v{}", choices.below(bound)))
        .collect()
}

fn namespace_names(choices: &mut Choices, scene: &Scene) -> Vec<String> {
    let amount = choices.weighted(&[(3, 1), (1, 2)]);
    // One more than there are, so that selectors also name a namespace that does not exist.
    (0..amount)
        .map(|_| format!("ns-{}", choices.below(scene.namespaces + 1)))
        .collect()
}

fn values(choices: &mut Choices, options: &[&str]) -> Vec<String> {
    let amount = choices.weighted(&[(3, 1), (1, 2)]);
    (0..amount)
        .map(|_| (*choices.pick(options)).into())
        .collect()
}
