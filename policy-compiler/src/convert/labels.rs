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
        let mut requirements = self.requirements(selector, Self::endpoint_key);
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
        let mut requirements = self.requirements(selector, Self::endpoint_key);
        if let Some(namespace) = self.namespace.clone() {
            requirements.push(self.in_namespace(&namespace));
        }
        finish(Domain::Pods, requirements)
    }

    /// A selector of node labels with sources.
    pub(super) fn nodes(&mut self, selector: &parsed::Selector, domain: Domain) -> Selector {
        let requirements = self.requirements(selector, Self::node_key);
        finish(domain, requirements)
    }

    /// A selector of node labels of the Kubernetes APIs.
    pub(super) fn kube_nodes(&mut self, selector: &KubeSelector) -> Selector {
        let requirements =
            self.requirements(selector, |this, key: &String| Key::Node(this.symbol(key)));
        finish(Domain::Nodes, requirements)
    }

    /// Pods by their own labels and those of their namespace; `None` is the policy's own namespace.
    pub(super) fn kube_pods(
        &mut self,
        namespaces: Option<&KubeSelector>,
        pods: &KubeSelector,
    ) -> Selector {
        let mut requirements =
            self.requirements(pods, |this, key: &String| Key::Pod(this.symbol(key)));
        match namespaces {
            Some(selector) => {
                requirements.extend(self.requirements(selector, |this, key: &String| {
                    Key::Pod(this.symbol(&format!("{NAMESPACE_LABELS}{key}")))
                }));
            }
            None => {
                let namespace = self.namespace.clone().unwrap_or_default();
                requirements.push(self.in_namespace(&namespace));
            }
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
        key: impl Fn(&mut Self, &K) -> Key,
    ) -> Vec<Requirement> {
        let mut requirements = Vec::new();
        for (name, value) in &selector.match_labels {
            let key = key(self, name);
            requirements.push(Requirement {
                key,
                test: Test::In([self.symbol(value)].into()),
            });
        }
        for expression in &selector.match_expressions {
            let key = key(self, &expression.key);
            let test = match &expression.operator {
                Operator::In(values) => Test::In(self.symbols(values)),
                Operator::NotIn(values) => Test::NotIn(self.symbols(values)),
                Operator::Exists => Test::Exists,
                Operator::DoesNotExist => Test::Absent,
            };
            requirements.push(Requirement { key, test });
        }
        requirements
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
                let entries = self.group(&key.key, &[]);
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
            LabelSource::Any | LabelSource::Node => Key::Node(self.symbol(&key.key)),
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
