//! `networking.k8s.io/v1` `NetworkPolicy`. The types are Kubernetes' own; this adds what its API server checks.

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as KubeLabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Findings, Path, cidr, each, number, optional, port, selector, word};
use crate::parsed::{
    KubeSelector, NetworkPeer, NetworkPolicy, NetworkPort, NetworkRule, PolicyRef, PortSpec,
    Transport,
};
use crate::policy::{LabelSelector, LabelSelectorRequirement};

/// A `NetworkPolicy`; `origin.namespace` must be set.
pub fn network_policy(
    origin: PolicyRef,
    namespace: &str,
    raw: &NetworkPolicySpec,
    findings: &mut Findings,
) -> Option<NetworkPolicy> {
    let path = Path::Root.field("spec");
    let subject = match &raw.pod_selector {
        Some(raw) => selector(raw, &path.field("podSelector"), findings),
        None => Some(KubeSelector::default()),
    };
    let ingress = each(
        raw.ingress.as_deref().unwrap_or_default(),
        &path.field("ingress"),
        findings,
        |raw, path, findings| {
            rule(
                raw.from.as_deref(),
                "from",
                raw.ports.as_deref(),
                path,
                findings,
            )
        },
    );
    let egress = each(
        raw.egress.as_deref().unwrap_or_default(),
        &path.field("egress"),
        findings,
        |raw, path, findings| {
            rule(
                raw.to.as_deref(),
                "to",
                raw.ports.as_deref(),
                path,
                findings,
            )
        },
    );
    let (governs_ingress, governs_egress) = directions(raw, &path, findings)?;
    let (ingress, egress) = (ingress?, egress?);
    warn_idle(
        governs_ingress,
        &ingress,
        "Ingress",
        &path.field("ingress"),
        findings,
    );
    warn_idle(
        governs_egress,
        &egress,
        "Egress",
        &path.field("egress"),
        findings,
    );
    Some(NetworkPolicy {
        origin,
        namespace: namespace.to_owned(),
        subject: subject?,
        ingress: governs_ingress.then_some(ingress),
        egress: governs_egress.then_some(egress),
    })
}

/// Which directions the policy governs: as listed, else ingress always and egress where it has egress rules.
fn directions(
    raw: &NetworkPolicySpec,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<(bool, bool)> {
    let types = raw.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return Some((
            true,
            raw.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        ));
    }
    let types = each(
        types,
        &path.field("policyTypes"),
        findings,
        |text, path, findings| {
            word(
                text,
                &[("Ingress", true), ("Egress", false)],
                path,
                findings,
            )
        },
    )?;
    Some((types.contains(&true), types.contains(&false)))
}

fn warn_idle(
    governs: bool,
    rules: &[NetworkRule],
    name: &str,
    path: &Path<'_>,
    findings: &mut Findings,
) {
    if !governs && !rules.is_empty() {
        findings.warning(
            path,
            format!("these rules do nothing: policyTypes does not list {name}"),
        );
    }
}

fn rule(
    raw_peers: Option<&[NetworkPolicyPeer]>,
    peers_field: &str,
    raw_ports: Option<&[NetworkPolicyPort]>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<NetworkRule> {
    let peers = each(
        raw_peers.unwrap_or_default(),
        &path.field(peers_field),
        findings,
        peer,
    );
    let ports = each(
        raw_ports.unwrap_or_default(),
        &path.field("ports"),
        findings,
        network_port,
    );
    let (peers, ports) = (peers?, ports?);
    Some(NetworkRule {
        peers: (!peers.is_empty()).then_some(peers),
        ports: (!ports.is_empty()).then_some(ports),
    })
}

fn peer(raw: &NetworkPolicyPeer, path: &Path<'_>, findings: &mut Findings) -> Option<NetworkPeer> {
    let namespaces = optional(
        raw.namespace_selector.as_ref(),
        &path.field("namespaceSelector"),
        findings,
        selector,
    );
    let pods = optional(
        raw.pod_selector.as_ref(),
        &path.field("podSelector"),
        findings,
        selector,
    );
    let block = optional(
        raw.ip_block.as_ref(),
        &path.field("ipBlock"),
        findings,
        ip_block,
    );
    match (namespaces?, pods?, block?) {
        (None, None, Some(block)) => Some(block),
        (None, None, None) => {
            findings.error(path, "the peer is empty: write podSelector, namespaceSelector or ipBlock; an empty list of peers is anyone");
            None
        }
        (namespaces, pods, None) => Some(NetworkPeer::Pods {
            namespaces,
            pods: pods.unwrap_or_default(),
        }),
        (_, _, Some(_)) => {
            findings.error(
                path,
                "ipBlock can't be combined with selectors: write two peers (peers are OR'd)",
            );
            None
        }
    }
}

fn ip_block(raw: &IPBlock, path: &Path<'_>, findings: &mut Findings) -> Option<NetworkPeer> {
    let outer = cidr::prefix(&raw.cidr, &path.field("cidr"), findings);
    let except_path = path.field("except");
    let except = each(
        raw.except.as_deref().unwrap_or_default(),
        &except_path,
        findings,
        |text, path, findings| cidr::prefix(text, path, findings),
    );
    let (cidr, except) = (outer?, except?);
    cidr::inside(&cidr, &except, &except_path, findings)
        .then_some(NetworkPeer::IpBlock { cidr, except })
}

fn network_port(
    raw: &NetworkPolicyPort,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<NetworkPort> {
    let transport = transport(raw.protocol.as_deref(), &path.field("protocol"), findings)?;
    let port_path = path.field("port");
    let end_path = path.field("endPort");
    let port = match (&raw.port, raw.end_port) {
        (None, None) => PortSpec::All,
        (None, Some(_)) => {
            findings.error(
                &end_path,
                "endPort needs port: write the first port of the range",
            );
            return None;
        }
        (Some(IntOrString::Int(first)), end) => {
            let first = number(i64::from(*first), 1..=65535, &port_path, findings)?;
            let last = match end {
                Some(end) => number(i64::from(end), 1..=65535, &end_path, findings)?,
                None => first,
            };
            PortSpec::Range(port::range(first, last, &end_path, findings)?)
        }
        (Some(IntOrString::String(name)), None) => {
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                findings.error(&port_path, format!("{name:?} is a text, so it means a port of that name: write the number without quotes"));
                return None;
            }
            PortSpec::Name(port::port_name(name, &port_path, findings)?)
        }
        (Some(IntOrString::String(name)), Some(_)) => {
            findings.error(&end_path, format!("a range can't begin at the named port {name:?}: write its number, or remove endPort"));
            return None;
        }
    };
    Some(NetworkPort { transport, port })
}

/// TCP, UDP or SCTP; TCP where not written.
pub(super) fn transport(
    text: Option<&str>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Transport> {
    const TRANSPORTS: [(&str, Transport); 3] = [
        ("TCP", Transport::Tcp),
        ("UDP", Transport::Udp),
        ("SCTP", Transport::Sctp),
    ];
    match text {
        None | Some("") => Some(Transport::Tcp),
        Some(text) => word(text, &TRANSPORTS, path, findings),
    }
}

fn selector(
    raw: &KubeLabelSelector,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<KubeSelector> {
    let raw = LabelSelector {
        match_labels: raw.match_labels.clone(),
        match_expressions: raw.match_expressions.as_ref().map(|list| {
            list.iter()
                .map(|raw| LabelSelectorRequirement {
                    key: raw.key.clone(),
                    operator: raw.operator.clone(),
                    values: raw.values.clone(),
                })
                .collect()
        }),
    };
    selector::kube_selector(&raw, path, findings)
}
