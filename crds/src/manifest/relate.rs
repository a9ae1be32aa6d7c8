//! What is wrong, or worth knowing, between objects that are each valid: two of one name, references to what is not there, equal priorities.
//!
//! What a rule means may not enter. Only what the files say is known: an object may be in the cluster and in no file, so that a
//! reference to nothing is a warning.

use std::collections::{BTreeMap, BTreeSet};

use super::{Object, ObjectRef, Placed, Problem};
use crate::{
    parsed::{
        CidrSource, KubeSelector, LabelSource, NetworkPeer, Operator, Peer, Selector, ServiceRef,
        Spec, Subject, TierPeer, TierSubject,
    },
    validate::Severity,
};

/// The label by which `NetworkPolicy` and tier policies name a namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// The label by which Cilium-style policies do.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";

/// Holds the objects of all files against each other. Those whose name is given twice are taken out, all of them: which one was meant
/// can't be known.
pub fn relate(objects: &mut Vec<Placed>) -> Vec<Problem> {
    let mut problems = take_out_twins(objects);
    let known = Known::of(objects);
    for placed in objects.iter() {
        for (path, message) in known.missing(&placed.object) {
            let path = known_path(placed, &path);
            problems.push(placed.problem(Severity::Warning, &path, message));
        }
    }
    problems.extend(equal_priorities(objects));
    problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    problems
}

fn take_out_twins(objects: &mut Vec<Placed>) -> Vec<Problem> {
    let mut first: BTreeMap<ObjectRef, usize> = BTreeMap::new();
    let mut twins = BTreeSet::new();
    let mut problems = Vec::new();
    for (at, placed) in objects.iter().enumerate() {
        if matches!(placed.object, Object::Unsupported(_)) {
            continue;
        }
        let Some(&before) = first.get(&placed.name) else {
            first.insert(placed.name.clone(), at);
            continue;
        };
        twins.insert(placed.name.clone());
        let other = &objects[before];
        let message = format!(
            "this name is given twice: an object of the same kind and name is at {}:{}",
            other.file,
            other.line()
        );
        problems.push(placed.problem(Severity::Error, "metadata.name", message));
    }
    objects.retain(|placed| {
        matches!(placed.object, Object::Unsupported(_)) || !twins.contains(&placed.name)
    });
    problems
}

/// What is there to be referred to.
struct Known<'o> {
    groups: BTreeSet<&'o str>,
    /// None where the files hold no Namespace: they do not describe a cluster then, and nothing can be said.
    namespaces: Option<BTreeSet<&'o str>>,
}

/// A field path and what is wrong there.
type Findings = Vec<(String, String)>;

impl<'o> Known<'o> {
    fn of(objects: &'o [Placed]) -> Self {
        let groups = objects.iter().filter_map(|placed| match &placed.object {
            Object::CidrGroup(group) => Some(group.name.as_str()),
            _ => None,
        });
        let given = objects
            .iter()
            .any(|placed| matches!(placed.object, Object::Namespace(_)));
        // Those that are only lived in count too.
        let namespaces = objects.iter().filter_map(|placed| match placed.object {
            Object::Namespace(_) => Some(placed.name.name.as_str()),
            Object::NetworkPolicy(_) | Object::Policy(_) | Object::Unsupported(_) => None,
            _ => placed.name.namespace.as_deref(),
        });
        Self {
            groups: groups.collect(),
            namespaces: given.then(|| namespaces.collect()),
        }
    }

    fn missing(&self, object: &Object) -> Findings {
        let mut findings = Findings::new();
        match object {
            Object::NetworkPolicy(policy) => {
                for (section, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
                    let field = if section == "ingress" { "from" } else { "to" };
                    for (at, rule) in rules.iter().flatten().enumerate() {
                        for (peer_at, peer) in rule.peers.iter().flatten().enumerate() {
                            if let NetworkPeer::Pods {
                                namespaces: Some(namespaces),
                                ..
                            } = peer
                            {
                                let path = format!("spec.{section}[{at}].{field}[{peer_at}]");
                                self.plain(namespaces, &path, &mut findings);
                            }
                        }
                    }
                }
            }
            Object::TierPolicy(policy) => {
                let (TierSubject::Namespaces(namespaces) | TierSubject::Pods { namespaces, .. }) =
                    &policy.subject;
                self.plain(namespaces, "spec.subject", &mut findings);
                for (section, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
                    let field = if section == "ingress" { "from" } else { "to" };
                    for (at, rule) in rules.iter().enumerate() {
                        for (peer_at, peer) in rule.peers.iter().enumerate() {
                            if let TierPeer::Namespaces(namespaces)
                            | TierPeer::Pods { namespaces, .. } = peer
                            {
                                let path = format!("spec.{section}[{at}].{field}[{peer_at}]");
                                self.plain(namespaces, &path, &mut findings);
                            }
                        }
                    }
                }
            }
            Object::Policy(policy) => {
                for (at, spec) in policy.specs.iter().enumerate() {
                    self.spec(spec, &format!("specs[{at}]"), &mut findings);
                }
            }
            _ => {}
        }
        findings
    }

    fn spec(&self, spec: &Spec, path: &str, findings: &mut Findings) {
        if let Subject::Endpoints(selector) = &spec.subject {
            self.selector(selector, &format!("{path}.endpointSelector"), findings);
        }
        for (section, prefix, rules) in [
            ("ingress", "from", &spec.ingress),
            ("egress", "to", &spec.egress),
        ] {
            for (at, rule) in rules.iter().flatten().enumerate() {
                self.peer(
                    &rule.peer,
                    &format!("{path}.{section}[{at}].{prefix}"),
                    findings,
                );
            }
        }
        for (section, prefix, rules) in [
            ("ingressDeny", "from", &spec.ingress_deny),
            ("egressDeny", "to", &spec.egress_deny),
        ] {
            for (at, rule) in rules.iter().flatten().enumerate() {
                self.peer(
                    &rule.peer,
                    &format!("{path}.{section}[{at}].{prefix}"),
                    findings,
                );
            }
        }
    }

    fn peer(&self, peer: &Peer, path: &str, findings: &mut Findings) {
        match peer {
            Peer::Endpoints(selectors) => {
                for (at, selector) in selectors.iter().enumerate() {
                    self.selector(selector, &format!("{path}Endpoints[{at}]"), findings);
                }
            }
            Peer::Cidrs(rules) => {
                for (at, rule) in rules.iter().enumerate() {
                    if let CidrSource::Group(name) = &rule.source
                        && !self.groups.contains(name.as_str())
                    {
                        findings.push((
                            format!("{path}CIDRSet[{at}].cidrGroupRef"),
                            format!(
                                "there is no CIDR group {name:?} in these files: where the cluster has none either, this entry selects nothing"
                            ),
                        ));
                    }
                }
            }
            Peer::Services(services) => {
                for (at, service) in services.iter().enumerate() {
                    let (ServiceRef::Named { namespace, .. }
                    | ServiceRef::Selected { namespace, .. }) = service;
                    if let Some(namespace) = namespace {
                        self.namespace(namespace, &format!("{path}Services[{at}]"), findings);
                    }
                }
            }
            _ => {}
        }
    }

    /// A selector of a Cilium-style policy.
    fn selector(&self, selector: &Selector, path: &str, findings: &mut Findings) {
        self.names(
            selector,
            |key| {
                matches!(key.source, LabelSource::Any | LabelSource::K8s)
                    && key.key == POD_NAMESPACE
            },
            path,
            findings,
        );
    }

    /// A selector over namespaces.
    fn plain(&self, selector: &KubeSelector, path: &str, findings: &mut Findings) {
        self.names(selector, |key| key == NAMESPACE_NAME, path, findings);
    }

    /// The namespaces that a selector asks for by name.
    fn names<K: Ord>(
        &self,
        selector: &Selector<K>,
        is_name: impl Fn(&K) -> bool,
        path: &str,
        findings: &mut Findings,
    ) {
        for (key, value) in &selector.match_labels {
            if is_name(key) {
                self.namespace(value, path, findings);
            }
        }
        for expression in &selector.match_expressions {
            if let (true, Operator::In(values)) = (is_name(&expression.key), &expression.operator) {
                for value in values {
                    self.namespace(value, path, findings);
                }
            }
        }
    }

    fn namespace(&self, name: &str, path: &str, findings: &mut Findings) {
        let Some(known) = &self.namespaces else {
            return;
        };
        if !known.contains(name) {
            findings.push((
                path.to_owned(),
                format!("there is no namespace {name:?} in these files: is it spelt right?"),
            ));
        }
    }
}

/// A path of a policy's entry of all its specs, as it is written: the first may be `spec`, not counted among `specs`.
fn known_path(placed: &Placed, path: &str) -> String {
    if placed.node.get("spec").is_none() {
        return path.to_owned();
    }
    let entry = path.strip_prefix("specs[").and_then(|rest| {
        let (at, rest) = rest.split_once(']')?;
        Some((at.parse::<usize>().ok()?, rest))
    });
    match entry {
        Some((0, rest)) => format!("spec{rest}"),
        Some((at, rest)) => format!("specs[{}]{rest}", at - 1),
        None => path.to_owned(),
    }
}

/// Every policy of an ordered tier that stands where an earlier one stands.
fn equal_priorities(objects: &[Placed]) -> Vec<Problem> {
    let mut first = BTreeMap::new();
    let mut problems = Vec::new();
    for placed in objects {
        let Object::TierPolicy(policy) = &placed.object else {
            continue;
        };
        let other = *first
            .entry((policy.tier, policy.priority))
            .or_insert(placed);
        if other.name != placed.name {
            let message = format!(
                "{} at {}:{} has the same tier and priority: they are ordered by kind and name",
                other.name,
                other.file,
                other.line()
            );
            problems.push(placed.problem(Severity::Warning, "spec.priority", message));
        }
    }
    problems
}
