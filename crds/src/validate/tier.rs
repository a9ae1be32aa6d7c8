//! `policy.networking.k8s.io`: `ClusterNetworkPolicy` and the two kinds before it, into one form.

use super::port::NOT_SERVED;
use super::{Findings, Path, cidr, each, fqdn, network, number, optional, port, selector, word};
use crate::parsed::{
    Action, PolicyRef, Priority, Tier, TierPeer, TierPolicy, TierPort, TierRule, TierSubject,
    Transport,
};
use crate::policy::{
    self, AdminNetworkPolicySpec, AdminPort, BaselineAdminNetworkPolicySpec,
    ClusterNetworkPolicySpec, ClusterPort, ClusterProtocol, EgressPeer, IngressPeer, NamespacedPod,
};

/// Limits and words that differ between the API's versions.
struct Version {
    actions: &'static [(&'static str, Action)],
    max_rules: usize,
    max_entries: usize,
}

const V1ALPHA2: Version = Version {
    actions: &[
        ("Accept", Action::Accept),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ],
    max_rules: 25,
    max_entries: 25,
};
const V1ALPHA1: Version = Version {
    actions: &[
        ("Allow", Action::Accept),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ],
    max_rules: 100,
    max_entries: 100,
};
const V1ALPHA1_BASELINE: Version = Version {
    actions: &[("Allow", Action::Accept), ("Deny", Action::Deny)],
    max_rules: 100,
    max_entries: 100,
};

/// A `ClusterNetworkPolicy` (v1alpha2).
pub fn cluster_network_policy(
    origin: PolicyRef,
    raw: &ClusterNetworkPolicySpec,
    findings: &mut Findings,
) -> Option<TierPolicy> {
    let path = Path::Root.field("spec");
    let tier = word(
        &raw.tier,
        &[("Admin", Tier::Admin), ("Baseline", Tier::Baseline)],
        &path.field("tier"),
        findings,
    );
    let priority = priority(raw.priority, &path, findings);
    let subject = subject(&raw.subject, &path.field("subject"), findings);
    let ingress = section(
        raw.ingress.as_deref(),
        &path.field("ingress"),
        &V1ALPHA2,
        findings,
        |raw, path, findings| {
            let ports = RawPorts::Cluster(raw.protocols.as_deref());
            rule(
                raw.name.as_ref(),
                &raw.action,
                Peers::From(&raw.from),
                &ports,
                &V1ALPHA2,
                path,
                findings,
            )
        },
    );
    let egress = section(
        raw.egress.as_deref(),
        &path.field("egress"),
        &V1ALPHA2,
        findings,
        |raw, path, findings| {
            let ports = RawPorts::Cluster(raw.protocols.as_deref());
            rule(
                raw.name.as_ref(),
                &raw.action,
                Peers::To(&raw.to),
                &ports,
                &V1ALPHA2,
                path,
                findings,
            )
        },
    );
    Some(TierPolicy {
        origin,
        tier: tier?,
        priority: priority?,
        subject: subject?,
        ingress: ingress?,
        egress: egress?,
    })
}

/// An `AdminNetworkPolicy` (v1alpha1).
pub fn admin_network_policy(
    origin: PolicyRef,
    raw: &AdminNetworkPolicySpec,
    findings: &mut Findings,
) -> Option<TierPolicy> {
    let priority = priority(raw.priority, &Path::Root.field("spec"), findings);
    let sections = (raw.ingress.as_deref(), raw.egress.as_deref());
    admin(
        origin,
        Tier::Admin,
        priority,
        &raw.subject,
        sections,
        &V1ALPHA1,
        findings,
    )
}

/// A `BaselineAdminNetworkPolicy` (v1alpha1).
pub fn baseline_admin_network_policy(
    origin: PolicyRef,
    raw: &BaselineAdminNetworkPolicySpec,
    findings: &mut Findings,
) -> Option<TierPolicy> {
    let name_is_default = origin.name == "default";
    if !name_is_default {
        findings.error(
            &Path::Root.field("metadata").field("name"),
            format!(
                "there is only one BaselineAdminNetworkPolicy, named \"default\", not {:?}",
                origin.name
            ),
        );
    }
    let priority = name_is_default.then_some(Priority::BASELINE_ADMIN);
    let sections = (raw.ingress.as_deref(), raw.egress.as_deref());
    admin(
        origin,
        Tier::Baseline,
        priority,
        &raw.subject,
        sections,
        &V1ALPHA1_BASELINE,
        findings,
    )
}

fn admin(
    origin: PolicyRef,
    tier: Tier,
    priority: Option<Priority>,
    raw_subject: &policy::TierSubject,
    (ingress, egress): (
        Option<&[policy::AdminIngressRule]>,
        Option<&[policy::AdminEgressRule]>,
    ),
    version: &Version,
    findings: &mut Findings,
) -> Option<TierPolicy> {
    let path = Path::Root.field("spec");
    let subject = subject(raw_subject, &path.field("subject"), findings);
    let ingress = section(
        ingress,
        &path.field("ingress"),
        version,
        findings,
        |raw, path, findings| {
            let ports = RawPorts::Admin(raw.ports.as_deref());
            rule(
                raw.name.as_ref(),
                &raw.action,
                Peers::From(&raw.from),
                &ports,
                version,
                path,
                findings,
            )
        },
    );
    let egress = section(
        egress,
        &path.field("egress"),
        version,
        findings,
        |raw, path, findings| {
            let ports = RawPorts::Admin(raw.ports.as_deref());
            rule(
                raw.name.as_ref(),
                &raw.action,
                Peers::To(&raw.to),
                &ports,
                version,
                path,
                findings,
            )
        },
    );
    Some(TierPolicy {
        origin,
        tier,
        priority: priority?,
        subject: subject?,
        ingress: ingress?,
        egress: egress?,
    })
}

fn priority(raw: i64, path: &Path<'_>, findings: &mut Findings) -> Option<Priority> {
    let number: u16 = number(
        raw,
        0..=i64::from(Priority::MAX),
        &path.field("priority"),
        findings,
    )?;
    Priority::new(number)
}

fn subject(
    raw: &policy::TierSubject,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<TierSubject> {
    match (&raw.namespaces, &raw.pods) {
        (Some(namespaces), None) => Some(TierSubject::Namespaces(selector::kube_selector(
            namespaces,
            &path.field("namespaces"),
            findings,
        )?)),
        (None, Some(pods)) => {
            let (namespaces, pods) = namespaced_pod(pods, &path.field("pods"), findings)?;
            Some(TierSubject::Pods { namespaces, pods })
        }
        _ => {
            findings.error(path, "exactly one of namespaces and pods must be set");
            None
        }
    }
}

fn namespaced_pod(
    raw: &NamespacedPod,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<(crate::parsed::KubeSelector, crate::parsed::KubeSelector)> {
    let namespaces = selector::kube_selector(
        &raw.namespace_selector,
        &path.field("namespaceSelector"),
        findings,
    );
    let pods = selector::kube_selector(&raw.pod_selector, &path.field("podSelector"), findings);
    Some((namespaces?, pods?))
}

fn section<R>(
    raw: Option<&[R]>,
    path: &Path<'_>,
    version: &Version,
    findings: &mut Findings,
    parse: impl Fn(&R, &Path<'_>, &mut Findings) -> Option<TierRule>,
) -> Option<Vec<TierRule>> {
    let raw = raw.unwrap_or_default();
    let within = raw.len() <= version.max_rules;
    if !within {
        findings.error(
            path,
            format!(
                "{} rules, at most {} are allowed: split the policy",
                raw.len(),
                version.max_rules
            ),
        );
    }
    let rules = each(raw, path, findings, parse);
    if within { rules } else { None }
}

#[derive(Clone, Copy)]
enum Peers<'a> {
    From(&'a [IngressPeer]),
    To(&'a [EgressPeer]),
}

enum RawPorts<'a> {
    Cluster(Option<&'a [ClusterProtocol]>),
    Admin(Option<&'a [AdminPort]>),
}

fn rule(
    name: Option<&String>,
    raw_action: &str,
    raw_peers: Peers<'_>,
    raw_ports: &RawPorts<'_>,
    version: &Version,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<TierRule> {
    let name = name.filter(|name| !name.is_empty());
    let name_fits = name.is_none_or(|name| name.chars().count() <= 100);
    if !name_fits {
        findings.error(
            &path.field("name"),
            "a rule's name has at most 100 characters",
        );
    }
    let action = word(raw_action, version.actions, &path.field("action"), findings);
    let (field, length) = match raw_peers {
        Peers::From(list) => ("from", list.len()),
        Peers::To(list) => ("to", list.len()),
    };
    let peers_path = path.field(field);
    let peers_fit = entries_fit(length, version, "peers", &peers_path, findings);
    let peers = match raw_peers {
        Peers::From(list) => each(list, &peers_path, findings, ingress_peer),
        Peers::To(list) => each(list, &peers_path, findings, |raw, path, findings| {
            egress_peer(raw, version, path, findings)
        }),
    };
    let ports = match raw_ports {
        RawPorts::Cluster(list) => optional(
            *list,
            &path.field("protocols"),
            findings,
            |list, path, findings| {
                let fit = entries_fit(list.len(), version, "protocols", path, findings);
                each(list, path, findings, protocol).filter(|_| fit)
            },
        ),
        RawPorts::Admin(list) => optional(
            *list,
            &path.field("ports"),
            findings,
            |list, path, findings| {
                let fit = entries_fit(list.len(), version, "ports", path, findings);
                each(list, path, findings, admin_port).filter(|_| fit)
            },
        ),
    };
    let rule = TierRule {
        name: name.cloned(),
        action: action?,
        peers: peers?,
        ports: ports?,
    };
    let agrees = agrees(&rule, &peers_path, path, findings);
    (name_fits && peers_fit && agrees).then_some(rule)
}

fn entries_fit(
    length: usize,
    version: &Version,
    unit: &str,
    path: &Path<'_>,
    findings: &mut Findings,
) -> bool {
    let fits = (1..=version.max_entries).contains(&length);
    if !fits {
        findings.error(
            path,
            format!(
                "{length} {unit}: from 1 to {} are allowed",
                version.max_entries
            ),
        );
    }
    fits
}

/// Whether action, peers and ports go together.
fn agrees(
    rule: &TierRule,
    peers_path: &Path<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> bool {
    let mut agrees = true;
    let names_port = rule
        .ports
        .iter()
        .flatten()
        .any(|port| matches!(port, TierPort::Named(_)));
    for (index, peer) in rule.peers.iter().enumerate() {
        let peer_path = peers_path.index(index);
        match peer {
            TierPeer::DomainNames(_) if rule.action != Action::Accept => {
                findings.error(
                    &peer_path.field("domainNames"),
                    format!("domainNames are for allowing only, not for {}", rule.action),
                );
                agrees = false;
            }
            TierPeer::DomainNames(_) => {
                findings.warning(&peer_path.field("domainNames"), NOT_SERVED);
            }
            TierPeer::Unknown => findings.warning(
                &peer_path,
                format!(
                    "the peer has no field this version knows, so the rule fails closed: {}",
                    if rule.action == Action::Accept {
                        "it matches nothing"
                    } else {
                        "it denies all"
                    }
                ),
            ),
            _ => {}
        }
        if names_port
            && matches!(
                peer,
                TierPeer::Nodes(_) | TierPeer::Networks(_) | TierPeer::DomainNames(_)
            )
        {
            findings.error(
                path,
                "only pods have named ports: nodes, networks and domainNames need port numbers",
            );
            agrees = false;
        }
    }
    agrees
}

fn ingress_peer(raw: &IngressPeer, path: &Path<'_>, findings: &mut Findings) -> Option<TierPeer> {
    let mut candidates = Vec::new();
    pod_peers(
        raw.namespaces.as_ref(),
        raw.pods.as_ref(),
        path,
        findings,
        &mut candidates,
    );
    one_peer(candidates, raw.unknown.keys(), path, findings)
}

fn egress_peer(
    raw: &EgressPeer,
    version: &Version,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<TierPeer> {
    let mut candidates = Vec::new();
    pod_peers(
        raw.namespaces.as_ref(),
        raw.pods.as_ref(),
        path,
        findings,
        &mut candidates,
    );
    if let Some(nodes) = &raw.nodes {
        candidates.push(
            selector::kube_selector(nodes, &path.field("nodes"), findings).map(TierPeer::Nodes),
        );
    }
    if let Some(networks) = &raw.networks {
        let path = path.field("networks");
        let fit = entries_fit(networks.len(), version, "networks", &path, findings);
        let prefixes = each(networks, &path, findings, |text, path, findings| {
            cidr::prefix(text, path, findings)
        });
        candidates.push(prefixes.filter(|_| fit).map(TierPeer::Networks));
    }
    if let Some(names) = &raw.domain_names {
        let path = path.field("domainNames");
        let fit = entries_fit(names.len(), version, "domain names", &path, findings);
        let names = each(names, &path, findings, |text, path, findings| {
            fqdn::domain_name(text, path, findings)
        });
        candidates.push(names.filter(|_| fit).map(TierPeer::DomainNames));
    }
    one_peer(candidates, raw.unknown.keys(), path, findings)
}

fn pod_peers(
    namespaces: Option<&policy::LabelSelector>,
    pods: Option<&NamespacedPod>,
    path: &Path<'_>,
    findings: &mut Findings,
    candidates: &mut Vec<Option<TierPeer>>,
) {
    if let Some(namespaces) = namespaces {
        let selector = selector::kube_selector(namespaces, &path.field("namespaces"), findings);
        candidates.push(selector.map(TierPeer::Namespaces));
    }
    if let Some(pods) = pods {
        let selectors = namespaced_pod(pods, &path.field("pods"), findings);
        candidates.push(selectors.map(|(namespaces, pods)| TierPeer::Pods { namespaces, pods }));
    }
}

/// Exactly one known field is a peer; none is a newer API's peer. A known one beside others is a mistake.
fn one_peer<'a>(
    mut candidates: Vec<Option<TierPeer>>,
    unknown: impl Iterator<Item = &'a String>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<TierPeer> {
    let unknown: Vec<&str> = unknown.map(String::as_str).collect();
    match (candidates.len(), unknown.is_empty()) {
        (0, _) => Some(TierPeer::Unknown),
        (1, true) => candidates.pop().flatten(),
        (1, false) => {
            findings.error(
                path,
                format!("unknown field {} beside a known one: a peer has exactly one field; check its spelling", unknown.join(", ")),
            );
            None
        }
        _ => {
            findings.error(
                path,
                "a peer has exactly one field: write a peer for each (peers are OR'd)",
            );
            None
        }
    }
}

fn protocol(raw: &ClusterProtocol, path: &Path<'_>, findings: &mut Findings) -> Option<TierPort> {
    let given: Vec<(&str, Transport, &policy::ClusterTransport)> = [
        ("tcp", Transport::Tcp, &raw.tcp),
        ("udp", Transport::Udp, &raw.udp),
        ("sctp", Transport::Sctp, &raw.sctp),
    ]
    .into_iter()
    .filter_map(|(field, transport, raw)| raw.as_ref().map(|raw| (field, transport, raw)))
    .collect();
    match (given.as_slice(), &raw.destination_named_port) {
        ([(field, transport, raw)], None) => {
            let path = path.field(field);
            let port_path = path.field("destinationPort");
            let Some(port) = &raw.destination_port else {
                findings.error(&port_path, "destinationPort is missing: leave the whole `protocols` list out to match every port");
                return None;
            };
            cluster_port(*transport, port, &port_path, findings)
        }
        ([], Some(name)) => port::port_name(name, &path.field("destinationNamedPort"), findings)
            .map(TierPort::Named),
        _ => {
            findings.error(
                path,
                "exactly one of tcp, udp, sctp and destinationNamedPort must be set",
            );
            None
        }
    }
}

fn cluster_port(
    transport: Transport,
    raw: &ClusterPort,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<TierPort> {
    match (raw.number, &raw.range) {
        (Some(port), None) => one_port(transport, port, &path.field("number"), findings),
        (None, Some(raw)) => port_range(
            transport,
            raw.start,
            raw.end,
            &path.field("range"),
            findings,
        ),
        _ => {
            findings.error(path, "exactly one of number and range must be set");
            None
        }
    }
}

fn admin_port(raw: &AdminPort, path: &Path<'_>, findings: &mut Findings) -> Option<TierPort> {
    match (&raw.port_number, &raw.named_port, &raw.port_range) {
        (Some(raw), None, None) => {
            let path = path.field("portNumber");
            let transport =
                network::transport(raw.protocol.as_deref(), &path.field("protocol"), findings)?;
            one_port(transport, raw.port, &path.field("port"), findings)
        }
        (None, Some(name), None) => {
            port::port_name(name, &path.field("namedPort"), findings).map(TierPort::Named)
        }
        (None, None, Some(raw)) => {
            let path = path.field("portRange");
            let transport =
                network::transport(raw.protocol.as_deref(), &path.field("protocol"), findings)?;
            port_range(transport, raw.start, raw.end, &path, findings)
        }
        _ => {
            findings.error(
                path,
                "exactly one of portNumber, namedPort and portRange must be set",
            );
            None
        }
    }
}

fn one_port(
    transport: Transport,
    port: i64,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<TierPort> {
    let port: u16 = number(port, 1..=65535, path, findings)?;
    Some(TierPort::Range {
        transport,
        range: port::range(port, port, path, findings)?,
    })
}

fn port_range(
    transport: Transport,
    start: i64,
    end: i64,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<TierPort> {
    let start = number(start, 1..=65535, &path.field("start"), findings);
    let end = number(end, 1..=65535, &path.field("end"), findings);
    Some(TierPort::Range {
        transport,
        range: port::range(start?, end?, &path.field("end"), findings)?,
    })
}
