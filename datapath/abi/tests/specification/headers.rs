//! Odd packets: options, extension headers, fragments, ICMP errors, frames that are cut or contradict themselves.

#![allow(clippy::cast_possible_truncation)]

use crate::common::*;
use proptest::prelude::*;
use sluice_abi::{Reason, context::Outcome, event::EventKind, program::Verdict};
use std::net::IpAddr;

const DELIVER: Result<Outcome, Reason> = Ok(Outcome::Deliver);

/// An IPv4 packet with its identification and fragment fields set; `offset` in bytes.
pub(crate) fn fragment_v4(mut packet: Vec<u8>, id: u16, offset: u16, more: bool) -> Vec<u8> {
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let field = (offset / 8) | if more { 0x2000 } else { 0 };
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    packet
}

/// An IPv6 packet with the extension headers (type and bytes behind the first two) before `payload`.
pub(crate) fn extended(
    source: IpAddr,
    destination: IpAddr,
    headers: &[(u8, Vec<u8>)],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let next = |at: usize| headers.get(at).map_or(protocol, |h| h.0);
    let mut bytes = Vec::new();
    for (at, (kind, body)) in headers.iter().enumerate() {
        let words = if *kind == 44 {
            0
        } else {
            (body.len() + 2) / 8 - 1
        };
        bytes.extend([next(at + 1), words as u8]);
        bytes.extend(body);
    }
    bytes.extend(payload);
    ip(source, destination, next(0), &bytes)
}

/// A fragment of either family, of a packet from A to B.
pub(crate) fn fragment(
    f: Family,
    id: u16,
    offset: u16,
    more: bool,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    frame(
        A,
        &fragment_between((f.a(), f.b()), id, offset, more, protocol, payload),
    )
}

/// The packet of such a fragment, between any two.
pub(crate) fn fragment_between(
    (source, destination): (IpAddr, IpAddr),
    id: u16,
    offset: u16,
    more: bool,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    if source.is_ipv4() {
        return fragment_v4(ip(source, destination, protocol, payload), id, offset, more);
    }
    let field = offset | u16::from(more);
    let mut body = field.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(id.to_be_bytes());
    extended(source, destination, &[(44, body)], protocol, payload)
}

#[test]
fn later_fragments_follow_the_first() {
    for f in FAMILIES {
        let mut node = Node::new();
        let later = |id| fragment(f, id, 24, false, 17, &[1; 8]);
        assert_eq!(node.send(A, &later(5)), Err(Reason::FragmentWithoutFirst));
        assert_eq!(
            node.send(A, &fragment(f, 5, 0, true, 17, &udp(40_000, 80))),
            DELIVER
        );
        assert_eq!(node.send(A, &later(5)), DELIVER);
        assert_eq!(
            node.send(A, &later(6)),
            Err(Reason::FragmentWithoutFirst),
            "another packet"
        );
        assert_eq!(node.memory.entries()[0].packets, [2, 0]);
        let denied = fragment(f, 7, 0, true, 17, &udp(40_000, 81));
        assert_eq!(node.send(A, &denied), Err(Reason::PolicyDefaultDeny));
        assert_eq!(
            node.send(A, &later(7)),
            Err(Reason::FragmentWithoutFirst),
            "of a denied packet"
        );
        node.memory.now += 61_000_000_000;
        assert_eq!(
            node.send(A, &later(5)),
            Err(Reason::FragmentWithoutFirst),
            "too late"
        );
    }
}

#[test]
fn later_fragments_of_a_connection_that_a_change_cut_are_cut_too() {
    for f in FAMILIES {
        let mut node = Node::new();
        assert_eq!(
            node.send(A, &fragment(f, 5, 0, true, 17, &udp(40_000, 80))),
            DELIVER
        );
        node.change(B_INGRESS, POD_A, cell(2, 2));
        let later = fragment(f, 5, 24, false, 17, &[1; 8]);
        assert_eq!(node.send(A, &later), Err(Reason::PolicyDefaultDeny));
    }
}

#[test]
fn fragments_that_hide_the_transport_header_are_malformed() {
    for f in FAMILIES {
        let mut node = Node::new();
        let tiny = fragment(f, 5, 0, true, 6, &tcp(40_000, 80, SYN)[..8]);
        assert_eq!(node.send(A, &tiny), Err(Reason::Truncated));
        let overlap = fragment(f, 5, 8, false, 6, &[0; 16]);
        assert_eq!(node.send(A, &overlap), Err(Reason::Malformed));
    }
}

#[test]
fn options_and_extension_headers_are_followed() {
    let (v4, v6) = (FAMILIES[0], FAMILIES[1]);
    let mut packet = ip(
        v4.a(),
        v4.b(),
        6,
        &[&[1; 8][..], &tcp(40_000, 80, SYN)].concat(),
    );
    packet[0] = 0x47;
    assert_eq!(
        Node::new().send(A, &frame(A, &packet)),
        DELIVER,
        "IPv4 options"
    );
    let pad = || vec![1, 4, 0, 0, 0, 0];
    let syn = tcp(40_000, 80, SYN);
    let closed = tcp(40_000, 81, SYN);
    let finished_route = vec![4, 0, 0, 0, 0, 0];
    let open_route = vec![4, 1, 0, 0, 0, 0];
    let atomic = vec![0, 0, 0, 0, 0, 9];
    for (name, headers, expected) in [
        ("none", vec![], DELIVER),
        ("hop-by-hop", vec![(0, pad())], DELIVER),
        ("destination", vec![(60, pad())], DELIVER),
        ("finished route", vec![(43, finished_route)], DELIVER),
        ("atomic fragment", vec![(44, atomic)], DELIVER),
        ("mobility", vec![(135, pad())], DELIVER),
        (
            "six",
            vec![
                (0, pad()),
                (60, pad()),
                (60, pad()),
                (60, pad()),
                (60, pad()),
                (60, pad()),
            ],
            DELIVER,
        ),
        (
            "route that goes on",
            vec![(43, open_route)],
            Err(Reason::Malformed),
        ),
        (
            "hop-by-hop later",
            vec![(60, pad()), (0, pad())],
            Err(Reason::Malformed),
        ),
        (
            "seven",
            (0..7).map(|_| (60, pad())).collect(),
            Err(Reason::TooManyHeaders),
        ),
    ] {
        let sent = |payload: &[u8]| frame(A, &extended(v6.a(), v6.b(), &headers, 6, payload));
        assert_eq!(Node::new().send(A, &sent(&syn)), expected, "{name}");
        if expected.is_ok() {
            let other = Node::new().send(A, &sent(&closed));
            assert_eq!(
                other,
                Err(Reason::PolicyDefaultDeny),
                "{name}: the port behind is what counts"
            );
        }
    }
}

/// The ICMP error that complains of `packet`.
pub(crate) fn error(f: Family, kind: u8, packet: &[u8]) -> Vec<u8> {
    let mut bytes = icmp(kind, 0, 0);
    bytes.extend(&packet[..packet.len().min(if f.v6 { 48 } else { 28 })]);
    bytes
}

#[test]
fn an_icmp_error_passes_only_for_a_known_connection() {
    for f in FAMILIES {
        let unreachable = if f.v6 { 1 } else { 3 };
        let mut node = Node::new();
        node.memory.endpoints.get_mut(&A).unwrap().ingress_table = B_INGRESS;
        let asked = ip(f.a(), f.b(), 17, &udp(40_000, 80));
        let complaint = |packet: &[u8]| {
            frame(
                B,
                &ip(f.b(), f.a(), f.icmp(), &error(f, unreachable, packet)),
            )
        };
        assert_eq!(
            node.send(B, &complaint(&asked)),
            Err(Reason::UnrelatedError),
            "nothing known"
        );
        assert_eq!(node.send(A, &frame(A, &asked)), DELIVER);
        assert_eq!(node.send(B, &complaint(&asked)), DELIVER);
        assert_eq!(node.context.deliver, A);
        assert_eq!(
            node.memory.entries()[0].packets,
            [1, 1],
            "it counts for the connection"
        );
        let other = ip(f.a(), f.b(), 17, &udp(40_001, 80));
        assert_eq!(
            node.send(B, &complaint(&other)),
            Err(Reason::UnrelatedError),
            "other port"
        );
        let third = ip(f.a(), f.remote(), 17, &udp(40_000, 80));
        assert_eq!(node.send(A, &frame(A, &third)), Ok(Outcome::Route));
        assert_eq!(
            node.send(B, &complaint(&third)),
            Err(Reason::UnrelatedError),
            "B is no router"
        );
        // A router outside may complain of what goes through it.
        let router = ip(f.world(), f.a(), f.icmp(), &error(f, unreachable, &third));
        assert_eq!(node.arrive(&frame(A, &router)), DELIVER);
        node.change(B_INGRESS, POD_A, cell(2, 2));
        assert_eq!(
            node.send(B, &complaint(&asked)),
            Err(Reason::UnrelatedError),
            "out of date"
        );
        let cut = frame(
            B,
            &ip(f.b(), f.a(), f.icmp(), &error(f, unreachable, &asked[..20])),
        );
        assert_eq!(
            node.send(B, &cut),
            Err(Reason::UnrelatedError),
            "too short to name one"
        );
    }
}

#[test]
fn a_pod_does_not_redirect_routes() {
    let f = FAMILIES[0];
    let mut node = Node::new();
    let asked = ip(f.a(), f.b(), 17, &udp(40_000, 80));
    assert_eq!(node.send(A, &frame(A, &asked)), DELIVER);
    let advice = frame(B, &ip(f.b(), f.a(), 1, &error(f, 5, &asked)));
    assert_eq!(node.send(B, &advice), Err(Reason::SpoofedNeighbour));
}

#[test]
fn frames_that_contradict_themselves() {
    for f in FAMILIES {
        let good = frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, SYN)));
        let transport = if f.v6 { 54 } else { 34 };
        let edit = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        for (name, sent, reason) in [
            ("VLAN tag", edit(12, 0x81), Reason::UnsupportedEtherType),
            ("wrong version", edit(14, 0x55), Reason::Malformed),
            (
                "length beyond the frame",
                edit(if f.v6 { 18 } else { 16 }, 9),
                Reason::Truncated,
            ),
            (
                "data offset too small",
                edit(transport + 12, 4 << 4),
                Reason::Malformed,
            ),
            (
                "data offset beyond the packet",
                edit(transport + 12, 6 << 4),
                Reason::Truncated,
            ),
            (
                "opens and closes",
                edit(transport + 13, SYN | FIN),
                Reason::Malformed,
            ),
            (
                "opens and resets",
                edit(transport + 13, SYN | RST),
                Reason::Malformed,
            ),
            (
                "ICMP of the other family",
                frame(A, &ip(f.a(), f.b(), if f.v6 { 1 } else { 58 }, &[8; 8])),
                Reason::Malformed,
            ),
        ] {
            assert_eq!(Node::new().send(A, &sent), Err(reason), "{name}");
        }
        for end in 0..good.len() {
            let result = Node::new().send(A, &good[..end]);
            assert_eq!(result, Err(Reason::Truncated), "cut to {end} bytes");
        }
        assert_eq!(Node::new().send(A, &good), DELIVER);
        let padded = [&good[..], &[0; 6]].concat();
        assert_eq!(
            Node::new().send(A, &padded),
            DELIVER,
            "an Ethernet trailer is no part of it"
        );
    }
}

#[test]
fn a_packet_at_the_end_of_its_hops_is_the_stacks_to_answer() {
    for f in FAMILIES {
        let mut packet = ip(f.a(), f.b(), 6, &tcp(40_000, 80, SYN));
        packet[if f.v6 { 7 } else { 8 }] = 1;
        assert_eq!(Node::new().send(A, &frame(A, &packet)), Ok(Outcome::Stack));
    }
}

/// Runs the `trace` entry point; what it tells.
fn trace(node: &mut Node, packet: &[u8], sight: u32) -> sluice_abi::event::Event {
    node.trace(&frame(A, packet), sight);
    node.memory.take_events()[0]
}

#[test]
fn a_trace_tells_both_ends_and_leaves_nothing_behind() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.memory.endpoints.get_mut(&A).unwrap().egress_table = B_INGRESS;
        let event = trace(&mut node, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, SYN)), 0);
        assert_eq!(event.kind, EventKind::Trace as u8);
        assert_eq!(
            (event.reason, event.source.reason),
            (
                Reason::PolicyDefaultDeny as u8,
                Reason::PolicyDefaultDeny as u8
            )
        );
        assert_eq!(
            (event.destination.verdict, event.destination.cookie),
            (Verdict::Allow as u8, RULE)
        );
        let event = trace(&mut node, &ip(f.a(), f.b(), 6, &tcp(40_000, 8080, SYN)), 0);
        assert_eq!(
            (event.destination.verdict, event.destination.cookie),
            (Verdict::Redirect as u8, PROXY_RULE)
        );
        let from_node = ip(f.node(), f.b(), 6, &tcp(40_000, 80, SYN));
        assert_eq!(
            trace(&mut node, &from_node, 0).destination.verdict,
            Verdict::Allow as u8
        );
        let seen_as_remote = trace(&mut node, &from_node, 99);
        assert_eq!(seen_as_remote.destination.verdict, Verdict::Deny as u8);
        assert!(node.memory.entries().is_empty());
    }
}

/// A valid frame of some kind, to be mutated.
pub(crate) fn valid() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), 0..9_usize, any::<u16>()).prop_map(|(v6, kind, port)| {
        let f = Family { v6 };
        let udp_packet = ip(f.b(), f.a(), 17, &udp(port, 80));
        match kind {
            0 => frame(A, &ip(f.a(), f.b(), 6, &tcp(port, 80, SYN))),
            1 => frame(A, &ip(f.a(), f.b(), 17, &udp(port, 80))),
            2 => frame(
                A,
                &ip(f.a(), f.b(), f.icmp(), &icmp(f.echo_request(), 0, port)),
            ),
            3 => frame(
                A,
                &ip(
                    f.a(),
                    f.b(),
                    f.icmp(),
                    &error(f, if v6 { 1 } else { 3 }, &udp_packet),
                ),
            ),
            4 => fragment(f, port, 0, true, 17, &udp(port, 80)),
            5 => fragment(f, port, 24, false, 17, &[1; 8]),
            6 => frame(A, &ip(f.a(), f.b(), 47, &[0; 8])),
            7 if v6 => {
                let pad = vec![1, 4, 0, 0, 0, 0];
                frame(
                    A,
                    &extended(
                        f.a(),
                        f.b(),
                        &[(0, pad.clone()), (60, pad)],
                        6,
                        &tcp(port, 80, SYN),
                    ),
                )
            }
            7 => {
                let mut arp = vec![0xff; 6];
                arp.extend(mac(A));
                arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
                arp.extend(mac(A));
                arp.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 169, 254, 1, 1]);
                arp
            }
            _ => {
                let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
                message.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
                message.extend(mac(A));
                let mut packet = ip(FAMILIES[1].a(), "fe80::1".parse().unwrap(), 58, &message);
                packet[7] = 255;
                frame(A, &packet)
            }
        }
    })
}

/// Hands a frame to every entry point: whatever it is, there is an outcome, and a drop has a reason and is counted once.
fn judged_everywhere(bytes: &[u8]) {
    let mut node = Node::new();
    for hook in 0..4 {
        node.memory.take_events();
        let result = match hook {
            0 => node.send(A, bytes),
            1 => node.give(B, 0, bytes),
            2 => node.give(B, 9, bytes),
            _ => node.arrive(bytes),
        };
        if let Err(reason) = result {
            assert_ne!(reason, Reason::None);
            assert_ne!(reason, Reason::Internal);
            let events = node.memory.take_events();
            assert_eq!(events.last().unwrap().reason, reason as u8);
        }
    }
    node.trace(bytes, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::CASES))]

    #[test]
    fn any_bytes_get_an_outcome(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        judged_everywhere(&bytes);
    }

    #[test]
    fn any_mutated_packet_gets_an_outcome(
        mut bytes in valid(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len() + 1));
        }
        judged_everywhere(&bytes);
    }
}
