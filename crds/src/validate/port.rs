//! `toPorts` and `icmps`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Findings, Path, each, fqdn, l7, number, optional};
use crate::parsed::{
    Family, IcmpMatch, L7Rules, PortProtocol, PortRange, PortRule, PortSpec, Protocol,
};
use crate::policy;

/// The most entries one `ports` or `fields` list may have.
const MAX_ENTRIES: usize = 40;

/// Which way a rule looks; some fields exist only one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

/// What a rule that needs a proxy is told while there is none.
pub(super) const NOT_SERVED: &str = "parsed and compiled, but nothing serves it yet: traffic that reaches it is dropped, never silently allowed";

/// An entry of `toPorts` under an allow.
pub(super) fn port_rule(
    raw: &policy::PortRule,
    direction: Direction,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<PortRule> {
    let ports = ports(raw.ports.as_deref(), path, findings);
    let terminating_tls = optional(
        raw.terminating_tls.as_ref(),
        &path.field("terminatingTLS"),
        findings,
        l7::tls,
    );
    let originating_tls = optional(
        raw.originating_tls.as_ref(),
        &path.field("originatingTLS"),
        findings,
        l7::tls,
    );
    let server_names = each(
        raw.server_names.as_deref().unwrap_or_default(),
        &path.field("serverNames"),
        findings,
        |name, path, findings| fqdn::server_name(name, path, findings),
    );
    let listener = optional(
        raw.listener.as_ref(),
        &path.field("listener"),
        findings,
        l7::listener,
    );
    let rules = optional(
        raw.rules.as_ref(),
        &path.field("rules"),
        findings,
        l7::rules,
    );
    let rule = PortRule {
        ports: ports?,
        l7: rules?.flatten(),
        terminating_tls: terminating_tls?,
        originating_tls: originating_tls?,
        server_names: server_names?,
        listener: listener?,
    };
    agrees(&rule, direction, path, findings).then_some(rule)
}

/// An entry of `toPorts` under a deny.
pub(super) fn port_deny_rule(
    raw: &policy::PortDenyRule,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Vec<PortProtocol>> {
    ports(raw.ports.as_deref(), path, findings)
}

/// Whether the parts of an entry go together.
fn agrees(rule: &PortRule, direction: Direction, path: &Path<'_>, findings: &mut Findings) -> bool {
    let mut agrees = true;
    let mut refuse = |field: &str, message: String| {
        findings.error(&path.field(field), message);
        agrees = false;
    };
    let is_l7 = rule.l7.is_some();
    if matches!(rule.l7, Some(L7Rules::Dns(_))) && direction == Direction::Ingress {
        refuse(
            "rules",
            "dns rules are for egress only: DNS questions are asked by the subject".to_owned(),
        );
    }
    if is_l7 && rule.ports.iter().any(|port| port.port == PortSpec::All) {
        refuse(
            "ports",
            "L7 rules need their ports named: port 0 stands for all of them".to_owned(),
        );
    }
    for (index, port) in rule.ports.iter().enumerate() {
        let fits = match &rule.l7 {
            None => true,
            Some(L7Rules::Http(_)) => port.protocol == Protocol::Tcp,
            Some(L7Rules::Dns(_)) => {
                matches!(port.protocol, Protocol::Tcp | Protocol::Udp | Protocol::Any)
            }
        };
        if !fits {
            let allowed = if matches!(rule.l7, Some(L7Rules::Http(_))) {
                "http rules need protocol TCP"
            } else {
                "dns rules need protocol UDP, TCP or ANY"
            };
            refuse(
                &format!("ports[{index}].protocol"),
                format!("{allowed}, not {}", port.protocol),
            );
        }
        let is_range = matches!(port.port, PortSpec::Range(range) if range.first() != range.last());
        if is_range && matches!(rule.l7, Some(L7Rules::Dns(_))) {
            refuse(
                &format!("ports[{index}].endPort"),
                "dns rules take no port ranges".to_owned(),
            );
        }
    }
    if !rule.server_names.is_empty() && is_l7 && rule.terminating_tls.is_none() {
        refuse("serverNames", "with L7 rules, serverNames need terminatingTLS: else the proxy can't read the requests".to_owned());
    }
    if rule.listener.is_some() && direction == Direction::Ingress {
        refuse(
            "listener",
            "a custom listener is for egress only".to_owned(),
        );
    }
    if rule.listener.is_some() && is_l7 {
        refuse(
            "listener",
            "a custom listener replaces rules: remove one of the two".to_owned(),
        );
    }
    if agrees && rule.needs_proxy() {
        findings.warning(path, NOT_SERVED);
    }
    agrees
}

fn ports(
    raw: Option<&[policy::PortProtocol]>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Vec<PortProtocol>> {
    let path = path.field("ports");
    let raw = raw.unwrap_or_default();
    if raw.is_empty() {
        findings.error(&path, "no port is named, which leaves open what is meant: write `port: \"0\"` for every port, or remove the toPorts entry");
        return None;
    }
    within_limit(raw.len(), "ports", &path, findings)?;
    each(raw, &path, findings, port_protocol)
}

fn within_limit(length: usize, unit: &str, path: &Path<'_>, findings: &mut Findings) -> Option<()> {
    if length <= MAX_ENTRIES {
        return Some(());
    }
    findings.error(path, format!("{length} {unit}, at most {MAX_ENTRIES} are allowed: split the entry, or write a range with endPort"));
    None
}

fn port_protocol(
    raw: &policy::PortProtocol,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<PortProtocol> {
    let protocol = protocol(
        raw.protocol.as_deref().unwrap_or_default(),
        &path.field("protocol"),
        findings,
    )?;
    let text = raw.port.as_deref().unwrap_or_default();
    let port_path = path.field("port");
    let end_path = path.field("endPort");
    // Written out as 0, endPort counts as absent: the API's Go clients send it so.
    let end_port = raw.end_port.filter(|end| *end != 0);
    if !protocol.has_ports() {
        if !matches!(text, "" | "0") || end_port.is_some() {
            findings.error(
                &port_path,
                format!("{protocol} has no ports: write port \"0\" or none"),
            );
            return None;
        }
        return Some(PortProtocol {
            port: PortSpec::All,
            protocol,
        });
    }
    if text.is_empty() {
        findings.error(
            &port_path,
            "the port is missing: write a number, a container port's name, or \"0\" for every port",
        );
        return None;
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let name = port_name(text, &port_path, findings)?;
        if end_port.is_some() {
            findings.error(&end_path, format!("a range can't begin at the named port {text:?}: write its number, or remove endPort"));
            return None;
        }
        return Some(PortProtocol {
            port: PortSpec::Name(name),
            protocol,
        });
    }
    if text.len() > 1 && text.starts_with('0') {
        findings.error(
            &port_path,
            format!("{text:?} has a leading zero, which other readers take as octal: remove it"),
        );
        return None;
    }
    let first: u16 = number(
        text.parse().unwrap_or(i64::MAX),
        0..=65535,
        &port_path,
        findings,
    )?;
    let last: u16 = match end_port {
        None => first,
        Some(end) => number(end, 0..=65535, &end_path, findings)?,
    };
    let port = match (first, end_port) {
        (0, None) => PortSpec::All,
        (0, Some(_)) => {
            findings.error(
                &end_path,
                "port 0 already is every port: begin the range at 1, or remove endPort",
            );
            return None;
        }
        _ => PortSpec::Range(range(first, last, &end_path, findings)?),
    };
    Some(PortProtocol { port, protocol })
}

/// A range that is the right way up.
pub(super) fn range(
    first: u16,
    last: u16,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<PortRange> {
    let range = PortRange::new(first, last);
    if range.is_none() {
        findings.error(
            path,
            format!("the range {first} to {last} is empty: its end must not be below its start"),
        );
    }
    range
}

fn protocol(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<Protocol> {
    let upper = text.to_ascii_uppercase();
    let found = match upper.as_str() {
        "" => Some(Protocol::Any),
        name => Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == name),
    };
    if found.is_none() {
        let known: Vec<&str> = Protocol::ALL
            .iter()
            .map(|protocol| protocol.as_str())
            .collect();
        let message = match upper.as_str() {
            "ICMP" | "ICMPV6" => {
                format!("{text} has types, not ports: use `icmps` in a rule of its own")
            }
            _ => format!("{text:?} is no protocol: write one of {}", known.join(", ")),
        };
        findings.error(path, message);
    }
    found
}

/// An IANA service name (RFC 6335, section 5.1) with at least one letter, in lower case.
pub(super) fn port_name(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<String> {
    let valid = text.len() <= 15
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    if !valid {
        findings.error(path, format!("{text:?} is neither a port number nor a port name: a name has at most 15 letters, digits and single dashes inside, and a letter"));
        return None;
    }
    Some(text.to_ascii_lowercase())
}

/// An entry of `icmps`.
pub(super) fn icmp_rule(
    raw: &policy::IcmpRule,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Vec<IcmpMatch>> {
    let path = path.field("fields");
    let fields = raw.fields.as_deref().unwrap_or_default();
    within_limit(fields.len(), "ICMP types", &path, findings)?;
    each(fields, &path, findings, icmp_field)
}

fn icmp_field(
    raw: &policy::IcmpField,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<IcmpMatch> {
    let family = match raw.family.as_deref().unwrap_or_default() {
        "" | "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        other => {
            findings.error(
                &path.field("family"),
                format!("{other:?} is no family: write IPv4 or IPv6"),
            );
            return None;
        }
    };
    let path = path.field("type");
    let icmp_type = match &raw.icmp_type {
        IntOrString::Int(value) => number(i64::from(*value), 0..=255, &path, findings)?,
        IntOrString::String(text) => match text.parse::<i64>() {
            Ok(value) => number(value, 0..=255, &path, findings)?,
            Err(_) => icmp_name(family, text, &path, findings)?,
        },
    };
    Some(IcmpMatch { family, icmp_type })
}

fn icmp_name(family: Family, text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<u8> {
    let (names, other, label) = match family {
        Family::V4 => (ICMP_V4.as_slice(), ICMP_V6.as_slice(), "IPv4"),
        Family::V6 => (ICMP_V6.as_slice(), ICMP_V4.as_slice(), "IPv6"),
    };
    let find = |names: &[(&str, u8)]| {
        names
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, number)| *number)
    };
    let found = find(names);
    if found.is_none() {
        let message = if find(other).is_some() {
            format!("{text:?} is no ICMP type of {label}, but of the other family: set `family`")
        } else {
            let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            format!(
                "{text:?} is no ICMP type of {label}: write a number from 0 to 255 or one of {}",
                known.join(", ")
            )
        };
        findings.error(path, message);
    }
    found
}

/// Names of ICMP types (IANA icmp-parameters), as the reference implementation spells them.
const ICMP_V4: [(&str, u8); 14] = [
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

/// Names of `ICMPv6` types (IANA icmpv6-parameters), as the reference implementation spells them.
const ICMP_V6: [(&str, u8); 27] = [
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];
