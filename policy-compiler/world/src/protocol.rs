//! Names of IP protocols, for people. What a protocol means to a rule may not enter.

/// The name of an IP protocol number, for those that policies can name (the IANA assignments, as policies spell them).
#[must_use]
pub const fn protocol_name(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPIP",
        6 => "TCP",
        17 => "UDP",
        41 => "IPV6",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPv6",
        112 => "VRRP",
        132 => "SCTP",
        _ => return None,
    })
}
