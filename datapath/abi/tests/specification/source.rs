//! A pod can't speak for another address, hardware address, or the router; nobody outside can speak for a pod or this node.

use crate::common::*;
use sluice_abi::{Reason, context::Outcome, endpoint::Endpoint, ipcache::Address};
use std::net::{IpAddr, Ipv6Addr};

#[test]
fn a_pod_speaks_only_for_itself() {
    for f in FAMILIES {
        let syn = tcp(40_000, 80, SYN);
        let of = |source| frame(A, &ip(source, f.b(), 6, &syn));
        let mut node = Node::new();
        for known in [false, true] {
            assert_eq!(
                node.send(A, &of(f.b())),
                Err(Reason::SpoofedAddress),
                "{known}"
            );
            assert_eq!(node.send(A, &of(f.remote())), Err(Reason::SpoofedAddress));
            assert_eq!(node.send(A, &of(f.node())), Err(Reason::SpoofedAddress));
            assert_eq!(node.send(A, &of(f.world())), Err(Reason::SpoofedAddress));
            // Under A's address, from B's interface; and with another hardware address.
            let mut as_b = of(f.a());
            as_b[6..12].copy_from_slice(&mac(B));
            assert_eq!(node.send(B, &as_b), Err(Reason::SpoofedAddress));
            let mut other_mac = of(f.a());
            other_mac[11] ^= 1;
            assert_eq!(node.send(A, &other_mac), Err(Reason::SpoofedMac));
            assert_eq!(node.send(5, &of(f.a())), Err(Reason::UnknownEndpoint));
            // Once the connection is known, all the same.
            assert_eq!(node.send(A, &of(f.a())), Ok(Outcome::Deliver));
        }
    }
}

#[test]
fn an_endpoint_without_a_family_may_not_use_it() {
    for f in FAMILIES {
        let mut node = Node::new();
        let endpoint = node.memory.endpoints.get_mut(&A).unwrap();
        endpoint.flags &= !if f.v6 { Endpoint::IPV6 } else { Endpoint::IPV4 };
        let sent = frame(A, &ip(f.a(), f.b(), 17, &udp(1, 80)));
        assert_eq!(node.send(A, &sent), Err(Reason::SpoofedAddress));
    }
}

#[test]
fn addresses_that_no_host_can_have() {
    let mut node = Node::new();
    for (source, destination) in [
        ("0.0.0.0", "10.0.0.2"),
        ("127.0.0.1", "10.0.0.2"),
        ("224.0.0.1", "10.0.0.2"),
        ("255.255.255.255", "10.0.0.2"),
        ("::", "fd00::2"),
        ("::1", "fd00::2"),
        ("ff02::1", "fd00::2"),
    ] {
        let packet = ip(
            source.parse().unwrap(),
            destination.parse().unwrap(),
            17,
            &udp(1, 80),
        );
        assert_eq!(
            node.send(A, &frame(A, &packet)),
            Err(Reason::InvalidSource),
            "{source}"
        );
        assert_eq!(
            node.arrive(&frame(A, &packet)),
            Err(Reason::InvalidSource),
            "{source}"
        );
        assert_eq!(
            node.give(B, 9, &frame(A, &packet)),
            Err(Reason::InvalidSource),
            "{source}"
        );
    }
    for (source, destination) in [
        ("10.0.0.1", "127.0.0.1"),
        ("10.0.0.1", "0.0.0.0"),
        ("fd00::1", "::1"),
        ("fd00::1", "::"),
    ] {
        let packet = ip(
            source.parse().unwrap(),
            destination.parse().unwrap(),
            17,
            &udp(1, 80),
        );
        assert_eq!(
            node.send(A, &frame(A, &packet)),
            Err(Reason::NoRoute),
            "{destination}"
        );
    }
}

#[test]
fn inside_addresses_do_not_come_from_outside() {
    for f in FAMILIES {
        let mut node = Node::new();
        let open = tcp(40_000, 80, SYN);
        // Also where a connection of just these ends is known.
        for known in [false, true] {
            for inside in [f.a(), f.node()] {
                let to_pod = frame(B, &ip(inside, f.b(), 6, &open));
                assert_eq!(
                    node.arrive(&to_pod),
                    Err(Reason::AddressFromOutside),
                    "{known}"
                );
                // What netfilter gave the node's address is judged, but as no traffic of the node's own; see `stack`.
                let forwarded = if inside == f.node() && !known {
                    Reason::PolicyDefaultDeny
                } else {
                    Reason::AddressFromOutside
                };
                assert_eq!(node.give(B, OUTWARD, &to_pod), Err(forwarded));
                let to_node = frame(B, &ip(inside, f.node(), 6, &open));
                assert_eq!(node.arrive(&to_node), Err(Reason::AddressFromOutside));
            }
            let from_pod = frame(A, &ip(f.a(), f.b(), 6, &open));
            assert_eq!(node.send(A, &from_pod), Ok(Outcome::Deliver));
            let from_node = frame(B, &ip(f.node(), f.b(), 6, &open));
            assert_eq!(node.give(B, 0, &from_node), Ok(Outcome::Stack));
        }
        let forged = frame(B, &ip(f.world(), f.b(), 6, &open));
        assert_eq!(
            node.give(B, 0, &forged),
            Err(Reason::InvalidSource),
            "the node speaks for itself"
        );
        let astray = frame(A, &ip(f.node(), f.a(), 6, &open));
        assert_eq!(
            node.give(B, 0, &astray),
            Err(Reason::UnknownEndpoint),
            "another pod's interface"
        );
    }
}

/// An ARP frame from a pod.
fn arp(operation: u16, sender_mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend(mac(A));
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    bytes.extend(operation.to_be_bytes());
    bytes.extend(sender_mac);
    bytes.extend(sender);
    bytes.extend([0; 6]);
    bytes.extend(target);
    bytes
}

#[test]
fn arp_for_the_gateway_is_answered_and_nobody_else_is_spoken_for() {
    let own = [10, 0, 0, 1];
    let gateway = [169, 254, 1, 1];
    for (name, sent, expected) in [
        (
            "asks for the gateway",
            arp(1, mac(A), own, gateway),
            Ok(Outcome::Reply),
        ),
        (
            "asks for another",
            arp(1, mac(A), own, [10, 0, 0, 2]),
            Ok(Outcome::Stack),
        ),
        (
            "probes its address",
            arp(1, mac(A), [0; 4], own),
            Ok(Outcome::Stack),
        ),
        (
            "announces itself",
            arp(1, mac(A), own, own),
            Ok(Outcome::Stack),
        ),
        (
            "answers the node",
            arp(2, mac(A), own, gateway),
            Ok(Outcome::Stack),
        ),
        (
            "announces another",
            arp(1, mac(A), [10, 0, 0, 2], [10, 0, 0, 2]),
            Err(Reason::SpoofedArp),
        ),
        (
            "answers for another",
            arp(2, mac(A), [10, 0, 0, 2], gateway),
            Err(Reason::SpoofedArp),
        ),
        (
            "answers for the gateway",
            arp(2, mac(A), gateway, own),
            Err(Reason::SpoofedArp),
        ),
        (
            "answers for nobody",
            arp(2, mac(A), [0; 4], own),
            Err(Reason::SpoofedArp),
        ),
        (
            "names another's hardware",
            arp(1, mac(B), own, gateway),
            Err(Reason::SpoofedArp),
        ),
        (
            "asks something else",
            arp(3, mac(A), own, gateway),
            Err(Reason::Malformed),
        ),
        (
            "is cut short",
            arp(1, mac(A), own, gateway)[..41].to_vec(),
            Err(Reason::Truncated),
        ),
    ] {
        let mut node = Node::new();
        assert_eq!(node.send(A, &sent), expected, "{name}");
    }
    let mut node = Node::new();
    node.send(A, &arp(1, mac(A), own, gateway)).unwrap();
    let reply = &node.context.reply.bytes[..42];
    assert_eq!(
        (&reply[..6], &reply[6..12]),
        (&mac(A)[..], &host_mac(A)[..])
    );
    assert_eq!(reply[20..22], [0, 2]);
    assert_eq!(
        (&reply[22..28], &reply[28..32]),
        (&host_mac(A)[..], &gateway[..])
    );
    assert_eq!((&reply[32..38], &reply[38..42]), (&mac(A)[..], &own[..]));
    let mut other_mac = arp(1, mac(A), own, gateway);
    other_mac[11] ^= 1;
    assert_eq!(node.send(A, &other_mac), Err(Reason::SpoofedMac));
}

/// A neighbour-discovery packet with hop limit 255.
fn nd(kind: u8, source: &str, target: &str, option: Option<(u8, [u8; 6])>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if matches!(kind, 135..=137) {
        message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    }
    if let Some((number, address)) = option {
        message.extend([number, 1]);
        message.extend(address);
    }
    let source: IpAddr = source.parse().unwrap();
    let mut packet = ip(source, "ff02::1".parse().unwrap(), 58, &message);
    packet[7] = 255;
    frame(A, &packet)
}

#[test]
fn discovery_of_the_gateway_is_answered_and_nobody_else_is_spoken_for() {
    let link_local = Ipv6Addr::from(Node::new().memory.endpoints[&A].link_local().0).to_string();
    let own = Some((1, mac(A)));
    let stack = Ok(Outcome::Stack);
    let spoofed = Err(Reason::SpoofedNeighbour);
    assert_eq!(link_local, "fe80::ff:fe00:1");
    for (name, sent, expected) in [
        (
            "asks for the gateway",
            nd(135, "fd00::1", "fe80::1", own),
            Ok(Outcome::Reply),
        ),
        (
            "asks from the link",
            nd(135, &link_local, "fe80::1", own),
            Ok(Outcome::Reply),
        ),
        (
            "wants the gateway's address",
            nd(135, "::", "fe80::1", None),
            Ok(Outcome::Reply),
        ),
        (
            "asks for another",
            nd(135, "fd00::1", "fd00::2", own),
            stack,
        ),
        ("probes its address", nd(135, "::", "fd00::1", None), stack),
        (
            "answers for itself",
            nd(136, "fd00::1", "fd00::1", Some((2, mac(A)))),
            stack,
        ),
        (
            "answers from the link",
            nd(136, &link_local, &link_local, Some((2, mac(A)))),
            stack,
        ),
        ("asks for routers", nd(133, &link_local, "::", own), stack),
        (
            "reports its groups",
            nd(143, &link_local, "::", None),
            stack,
        ),
        (
            "reports before it has an address",
            nd(143, "::", "::", None),
            stack,
        ),
        (
            "answers for another",
            nd(136, "fd00::1", "fd00::2", Some((2, mac(A)))),
            spoofed,
        ),
        (
            "answers for the gateway",
            nd(136, "fd00::1", "fe80::1", Some((2, mac(A)))),
            spoofed,
        ),
        (
            "answers as another",
            nd(136, "fd00::2", "fd00::2", Some((2, mac(A)))),
            spoofed,
        ),
        (
            "answers as the gateway",
            nd(136, "fe80::1", "fe80::1", Some((2, mac(A)))),
            spoofed,
        ),
        (
            "answers as nobody",
            nd(136, "::", "fd00::1", Some((2, mac(A)))),
            spoofed,
        ),
        (
            "names another's hardware",
            nd(135, "fd00::1", "fe80::1", Some((1, mac(B)))),
            spoofed,
        ),
        (
            "names it in an answer",
            nd(136, "fd00::1", "fd00::1", Some((2, mac(B)))),
            spoofed,
        ),
        ("plays router", nd(134, &link_local, "::", own), spoofed),
        ("redirects", nd(137, &link_local, "fd00::1", None), spoofed),
        (
            "uses another link-local address",
            nd(135, "fe80::2", "fe80::1", own),
            spoofed,
        ),
    ] {
        let mut node = Node::new();
        assert_eq!(node.send(A, &sent), expected, "{name}");
    }
    let mut forwarded = nd(135, "fd00::1", "fe80::1", own);
    forwarded[14 + 7] = 64;
    assert_eq!(Node::new().send(A, &forwarded), Err(Reason::Malformed));
    let mut endless = nd(135, "fd00::1", "fe80::1", own);
    endless[14 + 40 + 25] = 0;
    assert_eq!(Node::new().send(A, &endless), Err(Reason::Malformed));
}

#[test]
fn the_advertisement_has_its_checksum_right() {
    for (source, destination) in [("fd00::1", "fd00::1"), ("::", "ff02::1")] {
        let mut node = Node::new();
        let option = (source != "::").then_some((1, mac(A)));
        node.send(A, &nd(135, source, "fe80::1", option)).unwrap();
        let reply = node.context.reply.bytes;
        assert_eq!(
            reply[38..54],
            Ipv6Addr::octets(&destination.parse().unwrap())
        );
        assert_eq!((reply[54], reply[21]), (136, 255));
        assert_eq!(reply[80..86], host_mac(A));
        // Pseudo-header and message sum to all ones.
        let mut sum = 32 + 58_u32;
        for pair in reply[22..].chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
    }
}

#[test]
fn the_node_may_resolve_its_pods_and_nobody_through_it() {
    let mut node = Node::new();
    assert_eq!(
        node.give(A, 0, &arp(1, mac(B), [169, 254, 1, 1], [10, 0, 0, 1])),
        Ok(Outcome::Stack)
    );
    let asks = nd(135, "fe80::9", "fd00::1", None);
    assert_eq!(node.give(A, 0, &asks), Ok(Outcome::Stack));
    let mut forwarded = asks;
    forwarded[14 + 7] = 63;
    assert!(node.give(A, 9, &forwarded).is_err());
    assert_eq!(Address::v4([1, 2, 3, 4]), IpAddr::from([1, 2, 3, 4]).into());
}
