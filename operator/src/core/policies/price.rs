//! What the labels that a policy names cost: how many identities there are because of them. Each value of a label that some policy names is
//! an identity of its own; a label that has a value of its own on every pod, like a pod's name, makes as many identities as there are pods.

use std::collections::BTreeSet;

use serde_json::Value;

/// An author is told of a label that makes at least so many identities more than there would be without it.
pub(super) const MANY: usize = 100;
/// The key under which identities have their namespace, which no selector adds.
const NAMESPACE_KEY: &str = "io.kubernetes.pod.namespace";

/// Label keys of pods that a policy's selectors name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) keys: BTreeSet<String>,
    /// Selectors choose namespaces: pods of others than the policy's own may be seen.
    pub(super) abroad: bool,
}

/// How many identities carry a label, and how many they would be without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Price {
    pub(in crate::core) with: usize,
    pub(in crate::core) without: usize,
}

impl Price {
    pub(super) const fn more(self) -> usize {
        self.with.saturating_sub(self.without)
    }
}

/// A label that costs an author something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Costly {
    pub(super) key: String,
    pub(super) price: Price,
}

impl Costly {
    /// For people.
    pub(super) fn message(&self) -> String {
        let Price { with, without } = self.price;
        format!(
            "the label `{}`, which this policy names, makes {with} identities of what would be {without} without it: all nodes have \
             each of them in their tables; name a label with fewer values",
            self.key
        )
    }
}

impl Named {
    /// Of a policy as written.
    pub(super) fn of(policy: &Value) -> Self {
        let mut named = Self::default();
        for field in ["spec", "specs"] {
            named.walk(&policy[field]);
        }
        named
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                for (field, value) in fields {
                    self.field(field, value);
                }
            }
            _ => {}
        }
    }

    fn field(&mut self, field: &str, value: &Value) {
        match field {
            // Labels of namespaces tell no two pods of one namespace apart; those of nodes, groups and services are no pods'.
            "namespaceSelector" | "namespaces" => self.abroad = true,
            "nodeSelector" | "nodes" | "fromNodes" | "toNodes" | "cidrGroupSelector"
            | "toServices" => {}
            "matchLabels" => {
                let keys = value
                    .as_object()
                    .into_iter()
                    .flat_map(|labels| labels.keys());
                keys.for_each(|key| self.key(key));
            }
            "matchExpressions" => {
                let expressions = value.as_array().into_iter().flatten();
                let keys = expressions.filter_map(|expression| expression["key"].as_str());
                keys.for_each(|key| self.key(key));
            }
            _ => self.walk(value),
        }
    }

    fn key(&mut self, key: &str) {
        // Keys may say where labels come from.
        let key = match key.split_once(':') {
            None => key,
            Some(("k8s" | "any", key)) => key,
            Some(_) => return,
        };
        if key == NAMESPACE_KEY {
            self.abroad = true;
        } else {
            self.keys.insert(key.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_pods_are_found_wherever_selectors_are() {
        let policy = json!({ "spec": {
            "endpointSelector": { "matchLabels": { "k8s:app": "a" }, "matchExpressions": [{ "key": "tier", "operator": "Exists" }] },
            "ingress": [{ "fromEndpoints": [{ "matchLabels": { "any:role": "x", "reserved:host": "" } }] }],
            "egress": [{ "toNodes": [{ "matchLabels": { "zone": "z" } }] }],
        } });
        let named = Named::of(&policy);
        assert_eq!(
            named.keys,
            ["app", "role", "tier"].map(str::to_owned).into()
        );
        assert!(!named.abroad);
    }

    #[test]
    fn a_policy_that_chooses_namespaces_sees_pods_of_all() {
        let selector = json!({ "matchLabels": { "team": "a" } });
        let peers = json!([{ "namespaceSelector": selector, "podSelector": { "matchLabels": { "app": "b" } } }]);
        let named = Named::of(&json!({ "spec": { "ingress": [{ "from": peers }] } }));
        assert!(named.abroad && named.keys.contains("app") && !named.keys.contains("team"));
        let by_label = json!({ "spec": { "ingress": [{ "fromEndpoints": [{ "matchLabels": { "k8s:io.kubernetes.pod.namespace": "x" } }] }] } });
        assert!(Named::of(&by_label).abroad);
    }
}
