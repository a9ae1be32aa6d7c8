//! What part of the traffic with a peer a rule covers: ports, port-less protocols, ICMP types.

use std::fmt;

use super::{L7Rules, Listener, TlsContext, fqdn::FqdnSelector};

/// A protocol of `toPorts`. ICMP is not among them: it has no ports and is written under `icmps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, UDP and SCTP together; never ICMP or another protocol.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// VRRP (112); no ports.
    Vrrp,
    /// IGMP (2); no ports.
    Igmp,
    /// GRE (47); no ports.
    Gre,
    /// IPv4 in IP (4); no ports.
    Ipip,
    /// IPv6 in IP (41); no ports.
    Ipv6,
    /// `IPsec` ESP (50); no ports.
    Esp,
    /// `IPsec` AH (51); no ports.
    Ah,
}

impl Protocol {
    /// Every protocol, in the order of this enum.
    pub const ALL: [Self; 11] = [
        Self::Any,
        Self::Tcp,
        Self::Udp,
        Self::Sctp,
        Self::Vrrp,
        Self::Igmp,
        Self::Gre,
        Self::Ipip,
        Self::Ipv6,
        Self::Esp,
        Self::Ah,
    ];

    /// The protocol as policies spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "ANY",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Vrrp => "VRRP",
            Self::Igmp => "IGMP",
            Self::Gre => "GRE",
            Self::Ipip => "IPIP",
            Self::Ipv6 => "IPV6",
            Self::Esp => "ESP",
            Self::Ah => "AH",
        }
    }

    /// Whether its packets carry ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Any | Self::Tcp | Self::Udp | Self::Sctp)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A transport of the Kubernetes APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// An inclusive range of port numbers, `1 ≤ first ≤ last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range, unless it is empty or holds port 0.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || last < first {
            None
        } else {
            Some(Self { first, last })
        }
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether the range holds this port.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// Which ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortSpec {
    /// Every port (written `"0"`), port 0 of the wire included.
    All,
    /// Numbers.
    Range(PortRange),
    /// A container port's name, lower case. Resolved per pod: the subject's own at ingress, the destination's at egress.
    Name(String),
}

/// Ports of one protocol. A protocol without ports always comes with [`PortSpec::All`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortProtocol {
    /// Which ports.
    pub port: PortSpec,
    /// Of which protocol.
    pub protocol: Protocol,
}

/// One entry of `toPorts` under an allow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortRule {
    /// Ports, OR'd. Never empty: a missing or empty list could mean everything or nothing, and is refused.
    pub ports: Vec<PortProtocol>,
    /// Rules for what flows over these ports; `None` is a plain L4 rule.
    pub l7: Option<L7Rules>,
    /// TLS towards the client, ended by the proxy.
    pub terminating_tls: Option<TlsContext>,
    /// TLS towards the server, begun by the proxy.
    pub originating_tls: Option<TlsContext>,
    /// Server names (SNI), OR'd; empty is any.
    pub server_names: Vec<FqdnSelector>,
    /// The custom proxy listener that takes this traffic.
    pub listener: Option<Listener>,
}

impl PortRule {
    /// A rule of ports alone.
    #[must_use]
    pub const fn plain(ports: Vec<PortProtocol>) -> Self {
        Self {
            ports,
            l7: None,
            terminating_tls: None,
            originating_tls: None,
            server_names: Vec::new(),
            listener: None,
        }
    }

    /// Whether a proxy has to see the traffic: anything but a plain L4 rule.
    #[must_use]
    pub const fn needs_proxy(&self) -> bool {
        self.l7.is_some()
            || self.terminating_tls.is_some()
            || self.originating_tls.is_some()
            || !self.server_names.is_empty()
            || self.listener.is_some()
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4; its ICMP is protocol 1.
    V4,
    /// IPv6; its `ICMPv6` is protocol 58.
    V6,
}

/// One ICMP type of one family; every code of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IcmpMatch {
    /// IPv4 (ICMP) or IPv6 (`ICMPv6`).
    pub family: Family,
    /// The type number on the wire.
    pub icmp_type: u8,
}

/// The part of the traffic with a peer that a rule covers. `P` is [`PortRule`] under an allow, [`PortProtocol`] under a
/// deny, which carries nothing but ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum L4<P> {
    /// Everything: every protocol, ICMP included.
    All,
    /// These ports, OR'd. Never empty.
    Ports(Vec<P>),
    /// These ICMP types, OR'd. Empty (`icmps: [{fields: []}]`) covers nothing.
    Icmps(Vec<IcmpMatch>),
}
