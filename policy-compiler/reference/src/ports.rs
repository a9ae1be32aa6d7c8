//! Ports, protocols and ICMP types: whether a rule covers the packet.

use sluice_crds::parsed::{
    Family, IcmpMatch, NetworkPort, PortProtocol, PortRange, PortSpec, Protocol, TierPort,
    Transport,
};

use crate::{
    case::Case,
    miss::{Miss, PortWanted},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// One entry of `toPorts[].ports`.
pub(crate) fn cilium_miss<'w>(case: &Case<'w, '_>, entry: &'w PortProtocol) -> Option<Miss<'w>> {
    let covered = match entry.protocol {
        // Ports of any protocol that has ports; never ICMP.
        Protocol::Any => matches!(case.protocol, TCP | UDP | SCTP),
        other => number(other) == Some(case.protocol),
    };
    if !covered {
        return Some(Miss::Protocol {
            wanted: entry.protocol.as_str(),
            found: case.protocol,
        });
    }
    spec_miss(case, &entry.port)
}

/// One entry of `ports` of a `NetworkPolicy`.
pub(crate) fn network_miss<'w>(case: &Case<'w, '_>, entry: &'w NetworkPort) -> Option<Miss<'w>> {
    transport_miss(case, entry.transport).or_else(|| spec_miss(case, &entry.port))
}

/// One entry of `protocols` or `ports` of a tier policy.
pub(crate) fn tier_miss<'w>(case: &Case<'w, '_>, entry: &'w TierPort) -> Option<Miss<'w>> {
    match entry {
        TierPort::Range { transport, range } => {
            transport_miss(case, *transport).or_else(|| range_miss(case, *range))
        }
        TierPort::Named(name) => name_miss(case, name),
    }
}

/// One entry of `icmps[].fields`: the type counts, the code does not.
pub(crate) fn icmp_miss<'w>(case: &Case<'w, '_>, entry: IcmpMatch) -> Option<Miss<'w>> {
    let (protocol, wanted) = match entry.family {
        Family::V4 => (ICMP, "ICMP"),
        Family::V6 => (ICMPV6, "ICMPv6"),
    };
    if case.protocol != protocol {
        return Some(Miss::Protocol {
            wanted,
            found: case.protocol,
        });
    }
    let found = case.port;
    (found != u16::from(entry.icmp_type)).then_some(Miss::IcmpType {
        wanted: entry.icmp_type,
        found,
    })
}

fn transport_miss<'w>(case: &Case<'w, '_>, transport: Transport) -> Option<Miss<'w>> {
    let (protocol, wanted) = match transport {
        Transport::Tcp => (TCP, "TCP"),
        Transport::Udp => (UDP, "UDP"),
        Transport::Sctp => (SCTP, "SCTP"),
    };
    (case.protocol != protocol).then_some(Miss::Protocol {
        wanted,
        found: case.protocol,
    })
}

fn spec_miss<'w>(case: &Case<'w, '_>, spec: &'w PortSpec) -> Option<Miss<'w>> {
    match spec {
        PortSpec::All => None,
        PortSpec::Range(range) => range_miss(case, *range),
        PortSpec::Name(name) => name_miss(case, name),
    }
}

fn range_miss<'w>(case: &Case<'w, '_>, range: PortRange) -> Option<Miss<'w>> {
    (!range.contains(case.port)).then_some(Miss::Port {
        wanted: PortWanted::Range(range),
        found: case.port,
    })
}

/// A name stands for the destination pod's own container ports of that name, each with its own protocol.
fn name_miss<'w>(case: &Case<'w, '_>, name: &'w str) -> Option<Miss<'w>> {
    let mut ports = case
        .destination_pod()
        .into_iter()
        .flat_map(|pod| &pod.named_ports);
    let matches = ports
        .any(|port| port.name == name && port.port == case.port && port.protocol == case.protocol);
    (!matches).then_some(Miss::Port {
        wanted: PortWanted::Name(name),
        found: case.port,
    })
}

/// Numbers as IANA assigned them; none for ANY, which is several.
const fn number(protocol: Protocol) -> Option<u8> {
    Some(match protocol {
        Protocol::Any => return None,
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => SCTP,
        Protocol::Igmp => 2,
        Protocol::Ipip => 4,
        Protocol::Ipv6 => 41,
        Protocol::Gre => 47,
        Protocol::Esp => 50,
        Protocol::Ah => 51,
        Protocol::Vrrp => 112,
    })
}
