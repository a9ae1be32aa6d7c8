//! Ports, protocols, ICMP types, and what a deny may carry.

use super::*;

#[test]
fn ports_and_protocols() {
    refuse(
        "SluiceNetworkPolicy",
        &[
            (
                "endPort < port",
                port("port: \"80\", endPort: 79"),
                END_PORT,
                "end must not be below",
            ),
            (
                "endPort with a named port",
                port("port: web, endPort: 90"),
                END_PORT,
                "named port",
            ),
            (
                "endPort with port 0",
                port("port: \"0\", endPort: 90"),
                END_PORT,
                "every port",
            ),
            (
                "endPort too high",
                port("port: \"80\", endPort: 65536"),
                END_PORT,
                "65535",
            ),
            (
                "endPort negative",
                port("port: \"80\", endPort: -1"),
                END_PORT,
                "65535",
            ),
            ("port too high", port("port: \"65536\""), PORT, "65535"),
            (
                "port beyond any integer",
                port("port: \"99999999999999999999999\""),
                PORT,
                "65535",
            ),
            ("port as a number", port("port: 80"), PORT, "quotes"),
            (
                "port with leading zero",
                port("port: \"080\""),
                PORT,
                "octal",
            ),
            ("port missing", port("protocol: TCP"), PORT, "missing"),
            (
                "port name too long",
                port("port: sixteen-letters-"),
                PORT,
                "port name",
            ),
            (
                "port name with underscore",
                port("port: a_b"),
                PORT,
                "port name",
            ),
            (
                "no ports",
                ingress("toPorts: [{}]"),
                "spec.ingress[0].toPorts[0].ports",
                "every port",
            ),
            (
                "41 ports",
                ingress(&ports(41)),
                "spec.ingress[0].toPorts[0].ports",
                "at most 40",
            ),
            (
                "ICMP in toPorts",
                port("port: \"8\", protocol: ICMP"),
                PROTOCOL,
                "icmps",
            ),
            (
                "ICMPv6 in toPorts",
                port("port: \"8\", protocol: ICMPv6"),
                PROTOCOL,
                "icmps",
            ),
            (
                "unknown protocol",
                port("port: \"8\", protocol: QUIC"),
                PROTOCOL,
                "no protocol",
            ),
            (
                "GRE with a port",
                port("port: \"8\", protocol: GRE"),
                PORT,
                "no ports",
            ),
            (
                "ESP with a range",
                port("port: \"0\", endPort: 9, protocol: ESP"),
                PORT,
                "no ports",
            ),
            (
                "icmps and toPorts",
                ingress("{toPorts: [{ports: [{port: \"80\"}]}], icmps: [{fields: [{type: 8}]}]}"),
                "spec.ingress[0].icmps",
                "can't be in one rule",
            ),
            (
                "41 ICMP types",
                ingress(&icmps(41)),
                "spec.ingress[0].icmps[0].fields",
                "at most 40",
            ),
            (
                "ICMP type 256",
                ingress("icmps: [{fields: [{type: 256}]}]"),
                "spec.ingress[0].icmps[0].fields[0].type",
                "0 to 255",
            ),
            (
                "ICMP name of the other family",
                ingress("icmps: [{fields: [{type: PacketTooBig}]}]"),
                "spec.ingress[0].icmps[0].fields[0].type",
                "family",
            ),
            (
                "unknown ICMP name",
                ingress("icmps: [{fields: [{type: Ping}]}]"),
                "spec.ingress[0].icmps[0].fields[0].type",
                "EchoRequest",
            ),
            (
                "unknown family",
                ingress("icmps: [{fields: [{family: IPv5, type: 1}]}]"),
                "spec.ingress[0].icmps[0].fields[0].family",
                "IPv4 or IPv6",
            ),
        ],
    );
    accept(
        "SluiceNetworkPolicy",
        &[
            ("40 ports", ingress(&ports(40))),
            ("40 ICMP types", ingress(&icmps(40))),
            ("endPort = port", port("port: \"80\", endPort: 80")),
            ("endPort written as 0", port("port: \"80\", endPort: 0")),
            (
                "protocol in lower case",
                port("port: \"80\", protocol: tcp"),
            ),
            (
                "ICMP names",
                ingress(
                    "icmps: [{fields: [{type: EchoRequest}, {family: IPv6, type: EchoRequest}, {family: IPv6, type: \"128\"}]}]",
                ),
            ),
        ],
    );
    for protocol in ["VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"] {
        accept(
            "SluiceNetworkPolicy",
            &[
                (protocol, port(&format!("protocol: {protocol}"))),
                (
                    protocol,
                    port(&format!("port: \"0\", protocol: {protocol}")),
                ),
            ],
        );
    }
}

#[test]
fn deny_rules() {
    let deny = |extra: &str| {
        section(
            "ingressDeny",
            &format!(
                "{{fromEntities: [all], toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}], {extra}}}]}}"
            ),
        )
    };
    let entry = |field: &str| format!("spec.ingressDeny[0].toPorts[0].{field}");
    refuse(
        "SluiceNetworkPolicy",
        &[
            (
                "http under a deny",
                deny("rules: {http: [{}]}"),
                &entry("rules"),
                "deny rule",
            ),
            (
                "listener under a deny",
                deny("listener: {name: a, envoyConfig: {name: b}}"),
                &entry("listener"),
                "deny rule",
            ),
            (
                "terminatingTLS under a deny",
                deny("terminatingTLS: {secret: {name: a}}"),
                &entry("terminatingTLS"),
                "deny rule",
            ),
            (
                "originatingTLS under a deny",
                deny("originatingTLS: {secret: {name: a}}"),
                &entry("originatingTLS"),
                "deny rule",
            ),
            (
                "serverNames under a deny",
                deny("serverNames: [a.b]"),
                &entry("serverNames"),
                "deny rule",
            ),
            (
                "authentication under a deny",
                section("ingressDeny", "authentication: {mode: required}"),
                "spec.ingressDeny[0].authentication",
                "deny rule",
            ),
        ],
    );
}
