//! The Cilium-style policy as a whole.

use super::peer::{RawPeer, peer};
use super::port::{Direction, NOT_SERVED, icmp_rule, port_deny_rule, port_rule};
use super::{Findings, Path, each, l7, optional, selector};
use crate::parsed::{
    AllowRule, Authentication, DenyRule, L4, LabelSource, Peer, Policy, PolicyRef, RuleLabel,
    Selector, Spec, Subject,
};
use crate::policy::{
    self, EgressDenyRule, EgressRule, IcmpRule, IngressDenyRule, IngressRule, PolicyRule,
    PortDenyRule, PortRule,
};

/// The most characters `log.value` may have.
const MAX_LOG: usize = 32;

/// A policy object of a Cilium-style kind.
pub fn policy(
    origin: PolicyRef,
    spec: Option<&PolicyRule>,
    specs: Option<&[PolicyRule]>,
    findings: &mut Findings,
) -> Option<Policy> {
    let namespace = origin.namespace.clone();
    let namespace = namespace.as_deref();
    let specs_list = specs.unwrap_or_default();
    if spec.is_none() && specs_list.is_empty() {
        findings.error(
            &Path::Root,
            "the policy has no rules: write `spec`, or `specs` with at least one entry",
        );
        return None;
    }
    let first = optional(
        spec,
        &Path::Root.field("spec"),
        findings,
        |raw, path, findings| rule(raw, namespace, path, findings),
    );
    let others = each(
        specs_list,
        &Path::Root.field("specs"),
        findings,
        |raw, path, findings| rule(raw, namespace, path, findings),
    );
    Some(Policy {
        origin,
        specs: first?.into_iter().chain(others?).collect(),
    })
}

fn rule(
    raw: &PolicyRule,
    namespace: Option<&str>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Spec> {
    let subject = subject(raw, namespace, path, findings);
    let ingress = optional(
        raw.ingress.as_deref(),
        &path.field("ingress"),
        findings,
        |list, path, findings| each(list, path, findings, ingress),
    );
    let ingress_deny = optional(
        raw.ingress_deny.as_deref(),
        &path.field("ingressDeny"),
        findings,
        |list, path, findings| each(list, path, findings, ingress_deny),
    );
    let egress = optional(
        raw.egress.as_deref(),
        &path.field("egress"),
        findings,
        |list, path, findings| each(list, path, findings, egress),
    );
    let egress_deny = optional(
        raw.egress_deny.as_deref(),
        &path.field("egressDeny"),
        findings,
        |list, path, findings| each(list, path, findings, egress_deny),
    );
    let log = optional(raw.log.as_ref(), &path.field("log"), findings, log);
    let has_rules = [
        raw.ingress.as_ref().map_or(0, Vec::len),
        raw.ingress_deny.as_ref().map_or(0, Vec::len),
        raw.egress.as_ref().map_or(0, Vec::len),
        raw.egress_deny.as_ref().map_or(0, Vec::len),
    ] != [0; 4];
    if !has_rules {
        findings.error(
            path,
            "there is no rule: write one in ingress, ingressDeny, egress or egressDeny; `ingress: [{}]` denies all \
             ingress by default",
        );
        return None;
    }
    let spec = Spec {
        subject: subject?,
        ingress: ingress?,
        ingress_deny: ingress_deny?,
        egress: egress?,
        egress_deny: egress_deny?,
        enable_default_deny_ingress: raw
            .enable_default_deny
            .as_ref()
            .and_then(|deny| deny.ingress),
        enable_default_deny_egress: raw
            .enable_default_deny
            .as_ref()
            .and_then(|deny| deny.egress),
        log: log?.flatten(),
        labels: raw
            .labels
            .as_deref()
            .unwrap_or_default()
            .iter()
            .map(label)
            .collect(),
        description: raw.description.clone(),
    };
    host_rules_are_l4(&spec, path, findings).then_some(spec)
}

fn subject(
    raw: &PolicyRule,
    namespace: Option<&str>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Subject> {
    match (&raw.endpoint_selector, &raw.node_selector) {
        (Some(pods), None) => {
            let path = path.field("endpointSelector");
            let mut selector = selector::selector(pods, &path, findings)?;
            if let Some(namespace) = namespace {
                confine(&mut selector, namespace, &path, findings);
            }
            Some(Subject::Endpoints(selector))
        }
        (None, Some(nodes)) => {
            let path = path.field("nodeSelector");
            if namespace.is_some() {
                findings.error(&path, "nodes are in no namespace: a nodeSelector needs the cluster-wide kind of policy");
                return None;
            }
            findings.warning(
                &path,
                "host policies are parsed and compiled, but not enforced yet",
            );
            selector::selector(nodes, &path, findings).map(Subject::Nodes)
        }
        (None, None) => {
            findings.error(
                path,
                "no subject: write endpointSelector (`{}` is every pod) or nodeSelector",
            );
            None
        }
        (Some(_), Some(_)) => {
            findings.error(
                path,
                "endpointSelector and nodeSelector exclude each other: write two policies",
            );
            None
        }
    }
}

/// The subject of a namespaced policy is always in the policy's own namespace, whatever its labels ask: a foreign namespace there is set
/// right, as Cilium does, and not left to select nobody, which would leave the pods that the author meant unguarded.
fn confine(selector: &mut Selector, namespace: &str, path: &Path<'_>, findings: &mut Findings) {
    const NAMESPACE: &str = "io.kubernetes.pod.namespace";
    selector.match_labels.retain(|key, value| {
        let names_namespace = key.source == LabelSource::K8s && key.key == NAMESPACE;
        if names_namespace && value != namespace {
            findings.warning(
                &path.field("matchLabels"),
                format!("`{key}: {value}` is read as `{namespace}`: the subject is always in the policy's own namespace; use a cluster-wide policy to select others"),
            );
        }
        !names_namespace
    });
}

fn ingress(raw: &IngressRule, path: &Path<'_>, findings: &mut Findings) -> Option<AllowRule> {
    let peer = RawPeer {
        prefix: "from",
        endpoints: raw.from_endpoints.as_deref(),
        entities: raw.from_entities.as_deref(),
        cidr: raw.from_cidr.as_deref(),
        cidr_set: raw.from_cidr_set.as_deref(),
        nodes: raw.from_nodes.as_deref(),
        groups: raw.from_groups.as_deref(),
        ..RawPeer::default()
    };
    let l4 = RawL4 {
        ports: raw.to_ports.as_deref(),
        icmps: raw.icmps.as_deref(),
    };
    allow(
        &peer,
        &l4,
        raw.authentication.as_ref(),
        Direction::Ingress,
        path,
        findings,
    )
}

fn egress(raw: &EgressRule, path: &Path<'_>, findings: &mut Findings) -> Option<AllowRule> {
    let peer = RawPeer {
        prefix: "to",
        endpoints: raw.to_endpoints.as_deref(),
        entities: raw.to_entities.as_deref(),
        cidr: raw.to_cidr.as_deref(),
        cidr_set: raw.to_cidr_set.as_deref(),
        nodes: raw.to_nodes.as_deref(),
        groups: raw.to_groups.as_deref(),
        services: raw.to_services.as_deref(),
        fqdns: raw.to_fqdns.as_deref(),
    };
    let l4 = RawL4 {
        ports: raw.to_ports.as_deref(),
        icmps: raw.icmps.as_deref(),
    };
    allow(
        &peer,
        &l4,
        raw.authentication.as_ref(),
        Direction::Egress,
        path,
        findings,
    )
}

fn ingress_deny(
    raw: &IngressDenyRule,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<DenyRule> {
    let peer = RawPeer {
        prefix: "from",
        endpoints: raw.from_endpoints.as_deref(),
        entities: raw.from_entities.as_deref(),
        cidr: raw.from_cidr.as_deref(),
        cidr_set: raw.from_cidr_set.as_deref(),
        nodes: raw.from_nodes.as_deref(),
        groups: raw.from_groups.as_deref(),
        ..RawPeer::default()
    };
    deny(
        &peer,
        &RawL4 {
            ports: raw.to_ports.as_deref(),
            icmps: raw.icmps.as_deref(),
        },
        path,
        findings,
    )
}

fn egress_deny(raw: &EgressDenyRule, path: &Path<'_>, findings: &mut Findings) -> Option<DenyRule> {
    let peer = RawPeer {
        prefix: "to",
        endpoints: raw.to_endpoints.as_deref(),
        entities: raw.to_entities.as_deref(),
        cidr: raw.to_cidr.as_deref(),
        cidr_set: raw.to_cidr_set.as_deref(),
        nodes: raw.to_nodes.as_deref(),
        groups: raw.to_groups.as_deref(),
        services: raw.to_services.as_deref(),
        fqdns: None,
    };
    deny(
        &peer,
        &RawL4 {
            ports: raw.to_ports.as_deref(),
            icmps: raw.icmps.as_deref(),
        },
        path,
        findings,
    )
}

/// `toPorts` and `icmps` of a rule; `P` is the entry of `toPorts` there.
struct RawL4<'a, P> {
    ports: Option<&'a [P]>,
    icmps: Option<&'a [IcmpRule]>,
}

impl<P> RawL4<'_, P> {
    /// An empty list counts as none, as in the reference implementation.
    fn is_given(&self) -> bool {
        self.ports.is_some_and(|list| !list.is_empty())
            || self.icmps.is_some_and(|list| !list.is_empty())
    }
}

fn allow(
    raw_peer: &RawPeer<'_>,
    raw_l4: &RawL4<'_, PortRule>,
    raw_authentication: Option<&policy::Authentication>,
    direction: Direction,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<AllowRule> {
    let peer = peer(raw_peer, raw_l4.is_given(), path, findings);
    let authentication = optional(
        raw_authentication,
        &path.field("authentication"),
        findings,
        l7::authentication,
    );
    let l4 = l4(raw_l4, path, findings, |raw, path, findings| {
        port_rule(raw, direction, path, findings)
    });
    let rule = AllowRule {
        peer: peer?,
        l4: l4?,
        authentication: authentication?,
    };
    warn_unserved(&rule.peer, path, findings);
    if !matches!(rule.authentication, None | Some(Authentication::Disabled)) {
        findings.warning(&path.field("authentication"), NOT_SERVED);
    }
    Some(rule)
}

fn deny(
    raw_peer: &RawPeer<'_>,
    raw_l4: &RawL4<'_, PortDenyRule>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<DenyRule> {
    let peer = peer(raw_peer, raw_l4.is_given(), path, findings);
    let l4 = l4(raw_l4, path, findings, port_deny_rule);
    let rule = DenyRule {
        peer: peer?,
        l4: flatten(l4?),
    };
    warn_unserved(&rule.peer, path, findings);
    Some(rule)
}

fn flatten<P>(l4: L4<Vec<P>>) -> L4<P> {
    match l4 {
        L4::All => L4::All,
        L4::Ports(rules) => L4::Ports(rules.into_iter().flatten().collect()),
        L4::Icmps(types) => L4::Icmps(types),
    }
}

fn l4<R, P>(
    raw: &RawL4<'_, R>,
    path: &Path<'_>,
    findings: &mut Findings,
    parse_port: impl Fn(&R, &Path<'_>, &mut Findings) -> Option<P>,
) -> Option<L4<P>> {
    let raw_ports = raw.ports.unwrap_or_default();
    let raw_icmps = raw.icmps.unwrap_or_default();
    let ports = each(raw_ports, &path.field("toPorts"), findings, parse_port);
    let icmps = each(raw_icmps, &path.field("icmps"), findings, icmp_rule);
    match (raw_ports.is_empty(), raw_icmps.is_empty()) {
        (true, true) => Some(L4::All),
        (false, true) => ports.map(L4::Ports),
        (true, false) => icmps.map(|rules| L4::Icmps(rules.into_iter().flatten().collect())),
        (false, false) => {
            findings.error(
                &path.field("icmps"),
                "icmps and toPorts can't be in one rule: write a rule entry for each (entries are OR'd)",
            );
            None
        }
    }
}

fn warn_unserved(peer: &Peer, path: &Path<'_>, findings: &mut Findings) {
    match peer {
        Peer::Fqdns(_) => findings.warning(&path.field("toFQDNs"), NOT_SERVED),
        Peer::Groups(_) => findings.warning(
            path,
            "cloud groups are not supported: no provider resolves them yet, so this rule selects nothing",
        ),
        _ => {}
    }
}

/// Host policies have no proxy in front of them, but DNS questions of the node may be restricted.
fn host_rules_are_l4(spec: &Spec, path: &Path<'_>, findings: &mut Findings) -> bool {
    if !matches!(spec.subject, Subject::Nodes(_)) {
        return true;
    }
    let mut all = true;
    for (section, rules) in [("ingress", &spec.ingress), ("egress", &spec.egress)] {
        for (index, rule) in rules.iter().flatten().enumerate() {
            let L4::Ports(ports) = &rule.l4 else { continue };
            for (port_index, port) in ports.iter().enumerate() {
                if matches!(port.l7, Some(crate::parsed::L7Rules::Http(_))) {
                    findings.error(
                        &path.field(section).index(index).field("toPorts").index(port_index).field("rules"),
                        "a host policy takes no http rules: the node's own traffic does not pass the proxy",
                    );
                    all = false;
                }
            }
        }
    }
    all
}

#[expect(
    clippy::option_option,
    reason = "the outer one is failure, the inner one absence"
)]
fn log(
    raw: &policy::LogConfig,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Option<String>> {
    let Some(value) = raw.value.as_ref().filter(|value| !value.is_empty()) else {
        return Some(None);
    };
    let length = value.chars().count();
    if length > MAX_LOG {
        findings.error(
            &path.field("value"),
            format!("at most {MAX_LOG} characters are shown in flows, this has {length}"),
        );
        return None;
    }
    if let Some(bad) = value.chars().find(|char| char.is_control()) {
        findings.error(
            &path.field("value"),
            format!("the control character {bad:?} can't be shown in a flow"),
        );
        return None;
    }
    Some(Some(value.clone()))
}

fn label(raw: &policy::RuleLabel) -> RuleLabel {
    RuleLabel {
        source: raw
            .source
            .clone()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "unspec".to_owned()),
        key: raw.key.clone(),
        value: raw.value.clone().unwrap_or_default(),
    }
}
