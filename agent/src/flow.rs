//! Flow records: what the kernel programs tell in numbers, told in names. Reading the ring may not enter, nor printing beyond one line.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};
use sluice_abi::{
    Cookie, Identity, Reason,
    event::{Event, EventEnd, EventKind, Hook},
    ipcache::Address,
    program::Verdict,
};
use sluice_world::RuleRef;

/// Knows the names behind numbers. The policy index and the endpoints of a node answer it.
pub trait Names {
    /// Who holds an address: `namespace/pod`, a node's name.
    fn holder(&self, address: IpAddr) -> Option<String>;
    /// The labels of an identity.
    fn labels(&self, identity: Identity) -> Vec<String>;
    /// The rule of a cookie.
    fn rule(&self, cookie: Cookie) -> Option<RuleRef>;
    /// What the author of a rule wants flows to say: its rule set's `log.value`.
    fn log_text(&self, rule: &RuleRef) -> Option<String>;
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowKind {
    /// A connection was admitted.
    New,
    /// A packet was dropped.
    Drop,
    /// A policy change took effect.
    PolicyChange,
    /// A packet was judged for a question, not for traffic.
    Trace,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEnd {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 where the protocol has none.
    pub port: u16,
    /// Who holds the address, where that is known.
    pub name: Option<String>,
    /// Its identity's number.
    pub identity: u32,
    /// Its identity's labels.
    pub labels: Vec<String>,
    /// What it decided: allow, deny, redirect; none where it was not judged.
    pub verdict: Option<String>,
    /// The rule that decided, where one did.
    pub rule: Option<RuleRef>,
    /// What the author of that rule wants flows to say: its `log.value`.
    #[serde(default)]
    pub log_text: Option<String>,
    /// What decided in words, where no rule did.
    pub circumstance: Option<String>,
    /// The revision of the table that was read.
    pub revision: u32,
}

/// One event, with names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// What happened.
    pub kind: FlowKind,
    /// Why it was dropped; none where it was not.
    pub reason: Option<String>,
    /// Where it was seen: from-endpoint, to-endpoint, from-outside, trace.
    pub hook: String,
    /// The interface it was seen at, by index.
    pub interface: u32,
    /// The end that opens the flow; it decides on egress.
    pub source: FlowEnd,
    /// The end it is opened to; it decides on ingress.
    pub destination: FlowEnd,
    /// IP protocol: a name, or a number in decimal.
    pub protocol: String,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// The packet travels against the flow's original direction.
    pub reply: bool,
    /// A deciding rule asks for a log line.
    pub log: bool,
    /// Bytes of the frame.
    pub length: u32,
    /// How many drop events of this endpoint and reason were held back so far.
    pub suppressed: u64,
}

impl FlowRecord {
    /// The record of an event.
    #[must_use]
    pub fn of(event: &Event, names: &dyn Names) -> Self {
        let icmp = matches!(event.protocol, 1 | 58);
        Self {
            time: event.time,
            kind: match EventKind::from_raw(event.kind) {
                Some(EventKind::NewConnection) => FlowKind::New,
                Some(EventKind::PolicyChange) => FlowKind::PolicyChange,
                Some(EventKind::Trace) => FlowKind::Trace,
                Some(EventKind::Drop) | None => FlowKind::Drop,
            },
            reason: reason_text(event.reason),
            hook: hook_text(event.hook).to_owned(),
            interface: event.ifindex,
            source: end(&event.source, names),
            destination: end(&event.destination, names),
            protocol: protocol_text(event.protocol),
            icmp: icmp.then_some((event.icmp_type, event.icmp_code)),
            reply: event.flags & Event::REPLY != 0,
            log: event.flags & Event::LOG != 0,
            length: event.length,
            suppressed: event.suppressed,
        }
    }
}

fn end(end: &EventEnd, names: &dyn Names) -> FlowEnd {
    let address = ip(&end.address);
    let judged = end.verdict != EventEnd::NOT_JUDGED;
    let rule = Some(end.cookie)
        .filter(|cookie| cookie.is_rule())
        .and_then(|cookie| names.rule(cookie));
    FlowEnd {
        address,
        port: end.port,
        name: names.holder(address),
        identity: end.identity.0,
        labels: names.labels(end.identity),
        verdict: judged.then(|| verdict_text(Verdict::from_raw(end.verdict)).to_owned()),
        log_text: rule.as_ref().and_then(|rule| names.log_text(rule)),
        rule,
        circumstance: circumstance_text(end.cookie).map(str::to_owned),
        revision: end.revision,
    }
}

/// The address as people write it: IPv4 where it is mapped.
#[must_use]
pub fn ip(address: &Address) -> IpAddr {
    Ipv6Addr::from(address.0).to_canonical()
}

const fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Redirect => "redirect",
        Verdict::Deny => "deny",
        Verdict::DenyConflict => "deny-conflict",
        Verdict::DenyAuthentication => "deny-authentication",
    }
}

fn reason_text(raw: u8) -> Option<String> {
    match Reason::from_raw(raw) {
        Some(Reason::None) => None,
        Some(reason) => Some(reason.label().to_owned()),
        None => Some(format!("reason {raw}, unknown to this version")),
    }
}

const fn hook_text(raw: u8) -> &'static str {
    match Hook::from_raw(raw) {
        Some(Hook::FromEndpoint) => "from-endpoint",
        Some(Hook::ToEndpoint) => "to-endpoint",
        Some(Hook::FromOutside) => "from-outside",
        Some(Hook::Trace) => "trace",
        Some(Hook::ToOutside) => "to-outside",
        Some(Hook::FromOverlay) => "from-overlay",
        Some(Hook::ToOverlay) => "to-overlay",
        None => "unknown",
    }
}

const fn circumstance_text(cookie: Cookie) -> Option<&'static str> {
    match cookie {
        Cookie::DEFAULT_DENY => Some("selected, and no rule allows it"),
        Cookie::DEFAULT_ALLOW => Some("no policy selects it"),
        Cookie::LOCAL_HOST => Some("the node reaches its own pods"),
        Cookie::SELF => Some("a pod reaches itself"),
        Cookie::MODE_NEVER | Cookie::MODE_ALWAYS => Some("the enforcement mode"),
        Cookie::UNKNOWN => Some("unknown address inside the cluster"),
        _ => None,
    }
}

/// Names as IANA assigned them, of the protocols that policy knows.
fn protocol_text(number: u8) -> String {
    sluice_world::protocol_name(number).map_or_else(|| number.to_string(), str::to_owned)
}

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{}", self.address)?,
        }
        if self.port == 0 {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

impl fmt::Display for FlowRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            FlowKind::New => "allowed",
            FlowKind::Drop => "DROPPED",
            FlowKind::PolicyChange => {
                return write!(
                    f,
                    "policy changed: now at revision {}",
                    self.destination.revision
                );
            }
            FlowKind::Trace => "traced",
        };
        let family = if self.destination.address.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        };
        write!(
            f,
            "{word} {} → {} {} {family}",
            self.source, self.destination, self.protocol
        )?;
        if let Some((kind, code)) = self.icmp {
            write!(f, " type {kind} code {code}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, " ({reason})")?;
        }
        for (direction, end) in [("egress", &self.source), ("ingress", &self.destination)] {
            let decided = end
                .rule
                .as_ref()
                .map(ToString::to_string)
                .or_else(|| end.circumstance.clone());
            if let (Some(_), Some(decided)) = (&end.verdict, decided) {
                write!(f, "; {direction}: {decided}")?;
                if let Some(text) = &end.log_text {
                    write!(f, " [{text}]")?;
                }
            }
        }
        if self.suppressed > 0 {
            write!(f, "; {} more not shown so far", self.suppressed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_world::Section;

    struct Book;

    impl Names for Book {
        fn holder(&self, address: IpAddr) -> Option<String> {
            (address == IpAddr::from([10, 0, 0, 1])).then(|| "shop/cart".to_owned())
        }

        fn labels(&self, identity: Identity) -> Vec<String> {
            vec![format!("id={}", identity.0)]
        }

        fn rule(&self, cookie: Cookie) -> Option<RuleRef> {
            (cookie.0 == 1024).then(|| RuleRef {
                kind: "NetworkPolicy".to_owned(),
                namespace: Some("shop".to_owned()),
                name: "front".to_owned(),
                spec: 0,
                section: Section::Egress,
                index: 0,
                tier: "namespace".to_owned(),
                action: "allow".to_owned(),
            })
        }

        fn log_text(&self, rule: &RuleRef) -> Option<String> {
            (rule.name == "front").then(|| "seen by audit".to_owned())
        }
    }

    fn drop_event() -> Event {
        Event {
            kind: EventKind::Drop as u8,
            reason: Reason::PolicyDefaultDeny as u8,
            protocol: 6,
            source: EventEnd {
                address: Address::v4([10, 0, 0, 1]),
                cookie: Cookie(1024),
                verdict: Verdict::Allow as u8,
                port: 40000,
                ..EventEnd::default()
            },
            destination: EventEnd {
                address: Address::v4([10, 0, 0, 2]),
                cookie: Cookie::DEFAULT_DENY,
                verdict: Verdict::Deny as u8,
                port: 80,
                ..EventEnd::default()
            },
            ..Event::default()
        }
    }

    #[test]
    fn a_drop_names_pods_rules_and_reason() {
        let record = FlowRecord::of(&drop_event(), &Book);
        let line = record.to_string();
        assert!(
            line.starts_with("DROPPED shop/cart:40000 → 10.0.0.2:80 TCP IPv4 (no rule allows it)"),
            "{line}"
        );
        assert!(line.contains("egress: NetworkPolicy shop/front"), "{line}");
        assert!(line.contains(" [seen by audit]; ingress"), "{line}");
        assert!(
            line.ends_with("ingress: selected, and no rule allows it"),
            "{line}"
        );
    }

    #[test]
    fn an_end_that_was_not_judged_has_no_verdict() {
        let mut event = drop_event();
        event.destination.verdict = EventEnd::NOT_JUDGED;
        assert_eq!(FlowRecord::of(&event, &Book).destination.verdict, None);
    }

    #[test]
    fn ipv6_stays_itself_and_mapped_addresses_become_ipv4() {
        assert_eq!(ip(&Address::v4([192, 0, 2, 1])).to_string(), "192.0.2.1");
        assert_eq!(
            ip(&Address(Ipv6Addr::LOCALHOST.octets())).to_string(),
            "::1"
        );
    }
}
