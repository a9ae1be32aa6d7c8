//! Label selectors of the APIs as requirements over what identities carry: sources, implicit namespaces, derived keys.

use sluice_abi::Identity;
use sluice_crds::parsed::{self, KubeSelector, LabelKey, LabelSource, Operator};

use super::Converter;
use crate::{
    fqdn::NamePattern,
    intern::Symbol,
    prefix::{AddressSet, PrefixBook},
    properties::Family,
    selector::{Domain, Key, Requirement, Reserved, Selector, Test},
    vocabulary::{NAMESPACE_KEY, NAMESPACE_LABELS},
};

/// What precedes a CIDR group's name in the key of the label that its members carry.
const GROUP_NAME: &str = "io.cilium.policy.cidrgroupname/";

impl Converter<'_> {
    /// A selector of `fromEndpoints`, `toEndpoints` or `endpointSelector`.
    ///
    /// In a namespaced policy it reaches the policy's own namespace unless it names a namespace key or a reserved one. A selector that
    /// names no reserved, CIDR or DNS key selects pods only, so that a requirement of absence can't let the world in.
    pub(super) fn endpoints(&mut self, selector: &parsed::Selector) -> Selector {
        let names_namespace = selector.keys().any(is_namespace_key);
        let names_reserved = selector
            .keys()
            .any(|key| key.source == LabelSource::Reserved);
        let beyond_pods = selector.keys().any(|key| {
            matches!(
                key.source,
                LabelSource::Reserved
                    | LabelSource::Cidr
                    | LabelSource::CidrGroup
                    | LabelSource::Fqdn
            )
        });
        let mut requirements = self.requirements(selector, Self::on_endpoint);
        if let Some(namespace) = self.namespace.clone()
            && !names_namespace
            && !names_reserved
        {
            requirements.push(self.in_namespace(&namespace));
        }
        let domain = if beyond_pods {
            Domain::All
        } else {
            Domain::Pods
        };
        finish(domain, requirements)
    }

    /// A subject's `endpointSelector`: always in the policy's namespace, and always pods.
    pub(super) fn subject(&mut self, selector: &parsed::Selector) -> Selector {
        let mut requirements = self.requirements(selector, Self::on_endpoint);
        if let Some(namespace) = self.namespace.clone() {
            requirements.push(self.in_namespace(&namespace));
        }
        finish(Domain::Pods, requirements)
    }

    /// A selector of node labels with sources.
    pub(super) fn nodes(&mut self, selector: &parsed::Selector, domain: Domain) -> Selector {
        let requirements = self.requirements(selector, Self::on_node);
        finish(domain, requirements)
    }

    /// A selector of node labels of the Kubernetes APIs.
    pub(super) fn kube_nodes(&mut self, selector: &KubeSelector) -> Selector {
        let requirements =
            self.requirements(selector, |this, key: &String, operator| Requirement {
                key: Key::Node(this.symbol(key)),
                test: this.test(operator),
            });
        finish(Domain::Nodes, requirements)
    }

    /// Pods by their own labels and those of their namespace; `None` is the policy's own namespace.
    pub(super) fn kube_pods(
        &mut self,
        namespaces: Option<&KubeSelector>,
        pods: &KubeSelector,
    ) -> Selector {
        let mut requirements = self.requirements(pods, |this, key: &String, operator| {
            this.on_pod(key, operator)
        });
        if let Some(selector) = namespaces {
            requirements.extend(self.requirements(selector, |this, key: &String, operator| {
                this.on_pod(&format!("{NAMESPACE_LABELS}{key}"), operator)
            }));
        } else {
            let namespace = self.namespace.clone().unwrap_or_default();
            requirements.push(self.in_namespace(&namespace));
        }
        finish(Domain::Pods, requirements)
    }

    /// Pods of one namespace that have all of these labels.
    pub(super) fn service_pods<'b>(
        &mut self,
        namespace: &str,
        labels: impl IntoIterator<Item = (&'b String, &'b String)>,
    ) -> Selector {
        let mut requirements = vec![self.in_namespace(namespace)];
        for (key, value) in labels {
            let (key, value) = (self.symbol(key), self.symbol(value));
            requirements.push(Requirement {
                key: Key::Pod(key),
                test: Test::In([value].into()),
            });
        }
        finish(Domain::Pods, requirements)
    }

    fn requirements<K: Ord>(
        &mut self,
        selector: &parsed::Selector<K>,
        requirement: impl Fn(&mut Self, &K, &Operator) -> Requirement,
    ) -> Vec<Requirement> {
        let mut requirements = Vec::new();
        for (key, value) in &selector.match_labels {
            let operator = Operator::In(vec![value.clone()]);
            requirements.push(requirement(self, key, &operator));
        }
        for expression in &selector.match_expressions {
            requirements.push(requirement(self, &expression.key, &expression.operator));
        }
        requirements
    }

    fn test(&mut self, operator: &Operator) -> Test {
        match operator {
            Operator::In(values) => Test::In(self.symbols(values)),
            Operator::NotIn(values) => Test::NotIn(self.symbols(values)),
            Operator::Exists => Test::Exists,
            Operator::DoesNotExist => Test::Absent,
        }
    }

    fn on_endpoint(&mut self, key: &LabelKey, operator: &Operator) -> Requirement {
        if key.source == LabelSource::CidrGroup && !key.key.starts_with(GROUP_NAME) {
            return self.on_group_label(&key.key, operator);
        }
        Requirement {
            key: self.endpoint_key(key),
            test: self.test(operator),
        }
    }

    /// A label of CIDR groups. An address carries those of all groups that hold it, so what is asked of the values is asked of the groups.
    fn on_group_label(&mut self, key: &str, operator: &Operator) -> Requirement {
        self.dependencies.groups = true;
        let with = |value: &String| match operator {
            Operator::In(values) | Operator::NotIn(values) => values.contains(value),
            Operator::Exists | Operator::DoesNotExist => true,
        };
        let groups = self.world.groups.values();
        let entries = groups
            .filter(|group| group.labels.get(key).is_some_and(with))
            .flat_map(|group| group.cidrs.iter().map(|net| (*net, Vec::new())))
            .collect();
        let atom = self
            .vocabulary
            .prefixes
            .acquire(AddressSet::new(false, entries));
        let test = match operator {
            Operator::In(_) | Operator::Exists => Test::Exists,
            Operator::NotIn(_) | Operator::DoesNotExist => Test::Absent,
        };
        Requirement {
            key: Key::Atom(atom),
            test,
        }
    }

    fn on_node(&mut self, key: &LabelKey, operator: &Operator) -> Requirement {
        Requirement {
            key: self.node_key(key),
            test: self.test(operator),
        }
    }

    fn on_pod(&mut self, key: &str, operator: &Operator) -> Requirement {
        Requirement {
            key: Key::Pod(self.symbol(key)),
            test: self.test(operator),
        }
    }

    fn endpoint_key(&mut self, key: &LabelKey) -> Key {
        match key.source {
            LabelSource::K8s => Key::Pod(self.symbol(&key.key)),
            LabelSource::Any => Key::Any(self.symbol(&key.key), reserved(&key.key)),
            LabelSource::Reserved => reserved(&key.key).map_or(Key::Nowhere, Key::Reserved),
            LabelSource::Cidr => key.key.parse().map_or(Key::Nowhere, |net| {
                let set = AddressSet::new(false, vec![(net, Vec::new())]);
                Key::Atom(self.vocabulary.prefixes.acquire(set))
            }),
            LabelSource::CidrGroup => {
                let name = key.key.strip_prefix(GROUP_NAME).unwrap_or(&key.key);
                let entries = self.group(name, &[]);
                Key::Atom(
                    self.vocabulary
                        .prefixes
                        .acquire(AddressSet::new(false, entries)),
                )
            }
            LabelSource::Fqdn => {
                let text = key.key.trim_end_matches('.').to_ascii_lowercase();
                let pattern = if text.contains('*') {
                    NamePattern::Pattern(text)
                } else {
                    NamePattern::Name(text)
                };
                Key::Fqdn(self.vocabulary.fqdns.acquire(vec![pattern]))
            }
            // Only node selectors read labels of nodes.
            LabelSource::Node => Key::Nowhere,
        }
    }

    fn node_key(&mut self, key: &LabelKey) -> Key {
        match key.source {
            LabelSource::Any => Key::AnyNode(self.symbol(&key.key), reserved(&key.key)),
            LabelSource::Node => Key::Node(self.symbol(&key.key)),
            LabelSource::Reserved => reserved(&key.key).map_or(Key::Nowhere, Key::Reserved),
            _ => Key::Nowhere,
        }
    }

    fn in_namespace(&mut self, namespace: &str) -> Requirement {
        let key = Key::Pod(self.symbol(NAMESPACE_KEY));
        Requirement {
            key,
            test: Test::In([self.symbol(namespace)].into()),
        }
    }

    fn symbols(&mut self, values: &[String]) -> Box<[Symbol]> {
        let mut symbols: Vec<Symbol> = values.iter().map(|value| self.symbol(value)).collect();
        symbols.sort_unstable();
        symbols.dedup();
        symbols.into()
    }

    pub(super) fn symbol(&mut self, text: &str) -> Symbol {
        self.vocabulary.interner.intern(text)
    }
}

fn is_namespace_key(key: &LabelKey) -> bool {
    matches!(key.source, LabelSource::K8s | LabelSource::Any)
        && (key.key == NAMESPACE_KEY || key.key.starts_with(NAMESPACE_LABELS))
}

/// The reserved label of this name.
fn reserved(name: &str) -> Option<Reserved> {
    Some(match name {
        "host" => Reserved::Host,
        "remote-node" => Reserved::RemoteNode,
        "world" => Reserved::World,
        "world-ipv4" => Reserved::WorldOf(Family::V4),
        "world-ipv6" => Reserved::WorldOf(Family::V6),
        "kube-apiserver" => Reserved::ApiServer(PrefixBook::API_SERVER),
        "health" => Reserved::Special(Identity::HEALTH),
        "init" => Reserved::Special(Identity::INIT),
        "ingress" => Reserved::Special(Identity::INGRESS),
        "unmanaged" => Reserved::Special(Identity::UNMANAGED),
        _ => return None,
    })
}

/// Sorted, so that equal selectors are one. Duplicate requirements are kept: an address set named twice is held twice.
fn finish(domain: Domain, mut requirements: Vec<Requirement>) -> Selector {
    requirements.sort_unstable();
    Selector::Labels(domain, requirements.into())
}
