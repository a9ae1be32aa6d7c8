//! Ports, port-less protocols and ICMP types as spans of points.

use std::sync::Arc;

use sluice_crds::parsed::{
    Family, IcmpMatch, L4, NetworkPort, PortProtocol, PortRule, PortSpec, Protocol, TierPort,
    Transport,
};

use super::Converter;
use crate::{
    delta::Warning,
    program::Span,
    rule::{ProxyRule, Traffic},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

impl Converter<'_> {
    /// Traffic of a Cilium-style allow.
    pub(super) fn allowed(&mut self, l4: &L4<PortRule>) -> Vec<Traffic> {
        match l4 {
            L4::All => everything(),
            L4::Icmps(types) => icmp(types),
            L4::Ports(rules) => rules
                .iter()
                .map(|rule| {
                    let mut traffic = self.ports(&rule.ports);
                    traffic.proxy = self.proxy(rule);
                    traffic
                })
                .collect(),
        }
    }

    /// Traffic of a Cilium-style deny.
    pub(super) fn denied(&mut self, l4: &L4<PortProtocol>) -> Vec<Traffic> {
        match l4 {
            L4::All => everything(),
            L4::Icmps(types) => icmp(types),
            L4::Ports(ports) => vec![self.ports(ports)],
        }
    }

    /// Traffic of a `NetworkPolicy` rule.
    pub(super) fn network_ports(&mut self, ports: Option<&[NetworkPort]>) -> Vec<Traffic> {
        let Some(ports) = ports else {
            return everything();
        };
        let mut traffic = Traffic {
            spans: Vec::new(),
            names: Vec::new(),
            proxy: None,
        };
        for port in ports {
            self.port(&mut traffic, &port.port, &[transport(port.transport)]);
        }
        vec![traffic]
    }

    /// Traffic of a tier policy's rule.
    pub(super) fn tier_ports(&mut self, ports: Option<&[TierPort]>) -> Vec<Traffic> {
        let Some(ports) = ports else {
            return everything();
        };
        let mut traffic = Traffic {
            spans: Vec::new(),
            names: Vec::new(),
            proxy: None,
        };
        for port in ports {
            match port {
                TierPort::Range {
                    transport: of,
                    range,
                } => {
                    traffic
                        .spans
                        .push(Span::ports(transport(*of), range.first(), range.last()));
                }
                TierPort::Named(name) => traffic.names.push((self.symbol(name), None)),
            }
        }
        vec![traffic]
    }

    fn ports(&mut self, ports: &[PortProtocol]) -> Traffic {
        let mut traffic = Traffic {
            spans: Vec::new(),
            names: Vec::new(),
            proxy: None,
        };
        for port in ports {
            self.port(&mut traffic, &port.port, protocols(port.protocol));
        }
        traffic
    }

    fn port(&mut self, traffic: &mut Traffic, port: &PortSpec, protocols: &[u8]) {
        if let PortSpec::Name(name) = port {
            let name = self.symbol(name);
            let protocol = if let [one] = protocols {
                Some(*one)
            } else {
                None
            };
            traffic.names.push((name, protocol));
            return;
        }
        for &protocol in protocols {
            traffic.spans.push(match port {
                PortSpec::Range(range) => Span::ports(protocol, range.first(), range.last()),
                _ => Span::protocol(protocol),
            });
        }
    }

    fn proxy(&mut self, rule: &PortRule) -> Option<Arc<ProxyRule>> {
        if !rule.needs_proxy() {
            return None;
        }
        self.warnings.push(Warning::ProxyNotServed);
        Some(Arc::new(ProxyRule {
            l7: rule.l7.clone(),
            terminating_tls: rule.terminating_tls.clone(),
            originating_tls: rule.originating_tls.clone(),
            server_names: rule.server_names.clone(),
            listener: rule.listener.clone(),
        }))
    }
}

/// Everything, every protocol.
pub(super) fn everything() -> Vec<Traffic> {
    vec![Traffic {
        spans: vec![Span::ALL],
        names: Vec::new(),
        proxy: None,
    }]
}

fn icmp(types: &[IcmpMatch]) -> Vec<Traffic> {
    let spans = types
        .iter()
        .map(|of| {
            let protocol = match of.family {
                Family::V4 => 1,
                Family::V6 => 58,
            };
            Span::ports(protocol, of.icmp_type.into(), of.icmp_type.into())
        })
        .collect();
    vec![Traffic {
        spans,
        names: Vec::new(),
        proxy: None,
    }]
}

const fn transport(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
        Transport::Sctp => SCTP,
    }
}

/// Protocol numbers, after the IANA registry.
const fn protocols(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Any => &[TCP, UDP, SCTP],
        Protocol::Tcp => &[TCP],
        Protocol::Udp => &[UDP],
        Protocol::Sctp => &[SCTP],
        Protocol::Vrrp => &[112],
        Protocol::Igmp => &[2],
        Protocol::Gre => &[47],
        Protocol::Ipip => &[4],
        Protocol::Ipv6 => &[41],
        Protocol::Esp => &[50],
        Protocol::Ah => &[51],
    }
}
