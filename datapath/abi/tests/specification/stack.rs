//! What comes out of the node's stack may have been translated there, by kube-proxy for one: its answers go back through the stack, and
//! whoever hides behind the node's address has none of the node's rights.

use crate::common::*;
use sluice_abi::{Identity, Reason, conntrack::ConntrackEntry, context::Outcome, event::EventKind};
use std::net::IpAddr;

const STACK: Result<Outcome, Reason> = Ok(Outcome::Stack);

fn tcp_frame(slot: u32, from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    frame(slot, &ip(from.0, to.0, 6, &tcp(from.1, to.1, flags)))
}

/// Lets whoever `identity` is reach B.
fn admit(node: &mut Node, identity: Identity) {
    peer(&mut node.memory, B_INGRESS, identity, cell(3, 3));
}

#[test]
fn answers_to_what_the_stack_forwarded_go_back_into_the_stack() {
    for f in FAMILIES {
        for (client, identity) in [
            (
                f.world(),
                [Identity::WORLD_IPV4, Identity::WORLD_IPV6][usize::from(f.v6)],
            ),
            (f.remote(), POD_REMOTE),
        ] {
            let mut node = Node::new();
            admit(&mut node, identity);
            let (client, server) = ((client, 40_000), (f.b(), 80));
            let to_pod = |flags| tcp_frame(B, client, server, flags);
            let answer = |flags| tcp_frame(B, server, client, flags);
            assert_eq!(node.give(B, OUTWARD, &to_pod(SYN)), STACK);
            assert_eq!(node.send(B, &answer(SYN | ACK)), STACK);
            assert_eq!(node.give(B, OUTWARD, &to_pod(ACK)), STACK);
            assert_eq!(node.send(B, &answer(ACK)), STACK);
            // Also when it has to be judged again, and when it is an error.
            node.change(B_INGRESS, identity, cell(1, 1));
            assert_eq!(node.send(B, &answer(ACK)), STACK);
            node.memory.epoch += 1;
            assert_eq!(node.send(B, &answer(ACK)), STACK);
            let quoted = ip(client.0, server.0, 6, &tcp(client.1, server.1, ACK));
            let error = crate::headers::error(f, if f.v6 { 1 } else { 3 }, &quoted);
            let error = frame(B, &ip(server.0, client.0, f.icmp(), &error));
            assert_eq!(node.send(B, &error), STACK);
            // What comes straight from outside is delivered straight.
            let mut node = Node::new();
            admit(&mut node, identity);
            assert_eq!(node.arrive(&to_pod(SYN)), Ok(Outcome::Deliver));
            assert_eq!(node.send(B, &answer(SYN | ACK)), Ok(Outcome::Route));
        }
    }
}

#[test]
fn answers_to_the_pod_s_own_do_not_bind_it_to_the_stack() {
    for f in FAMILIES {
        let mut node = Node::new();
        let (client, server) = ((f.a(), 40_000), (f.world(), 443));
        let out = tcp_frame(A, client, server, SYN);
        assert_eq!(node.send(A, &out), Ok(Outcome::Route));
        let answer = tcp_frame(A, server, client, SYN | ACK);
        assert_eq!(node.give(A, OUTWARD, &answer), STACK);
        let out = tcp_frame(A, client, server, ACK);
        assert_eq!(node.send(A, &out), Ok(Outcome::Route));
        assert_eq!(
            node.memory.entries()[0].flags & ConntrackEntry::VIA_STACK,
            0
        );
    }
}

#[test]
fn whoever_has_the_node_s_address_from_netfilter_is_not_the_node() {
    for f in FAMILIES {
        let masked = |flags| tcp_frame(B, (f.node(), 61_000), (f.b(), 80), flags);
        let answer = |flags| tcp_frame(B, (f.b(), 80), (f.node(), 61_000), flags);
        let mut node = Node::new();
        assert_eq!(
            node.give(B, OUTWARD, &masked(SYN)),
            Err(Reason::PolicyDefaultDeny)
        );
        admit(&mut node, Identity::REMOTE_NODE);
        assert_eq!(node.give(B, OUTWARD, &masked(SYN)), STACK);
        assert_eq!(node.send(B, &answer(SYN | ACK)), STACK);
        // It stays what it was, also when its answers have it judged again.
        node.memory.epoch += 1;
        assert_eq!(node.send(B, &answer(ACK)), STACK);
        node.change(B_INGRESS, Identity::REMOTE_NODE, cell(2, 2));
        assert_eq!(node.send(B, &answer(ACK)), Err(Reason::PolicyDefaultDeny));
        assert_eq!(
            node.give(B, OUTWARD, &masked(ACK)),
            Err(Reason::PolicyDefaultDeny)
        );
        // The node itself is another matter; and nobody takes over what it began.
        let own = |flags| tcp_frame(B, (f.node(), 40_000), (f.b(), 80), flags);
        assert_eq!(node.give(B, 0, &own(SYN)), STACK);
        assert_eq!(
            node.give(B, OUTWARD, &own(ACK)),
            Err(Reason::AddressFromOutside)
        );
    }
}

/// A pod's packet to a port of its node's, which netfilter translates to another pod of the node.
#[test]
fn a_pod_reaches_another_by_the_node_s_port() {
    for f in FAMILIES {
        let (client, port, server) = ((f.a(), 40_000), (f.node(), 30_080), (f.b(), 80));
        let mut node = Node::new();
        let asks = |flags| tcp_frame(A, client, port, flags);
        let asked = |flags| tcp_frame(A, client, server, flags);
        let answers = |flags| tcp_frame(B, server, client, flags);
        let answered = |flags| tcp_frame(A, port, client, flags);
        let through = |node: &mut Node, first, second| {
            assert_eq!(node.send(A, &asks(first)), STACK);
            assert_eq!(node.give(B, ifindex(A), &asked(first)), STACK);
            assert_eq!(node.send(B, &answers(second)), STACK);
            assert_eq!(node.give(A, ifindex(B), &answered(second)), STACK);
        };
        through(&mut node, SYN, SYN | ACK);
        through(&mut node, ACK, ACK);
        node.memory.epoch += 1;
        through(&mut node, ACK, ACK);
        node.memory.epoch += 1;
        assert_eq!(node.give(A, ifindex(B), &answered(ACK)), STACK);
        let opened: Vec<_> = node
            .memory
            .take_events()
            .iter()
            .filter(|event| event.kind == EventKind::NewConnection as u8)
            .map(|event| (event.source.identity, event.destination.identity))
            .collect();
        assert_eq!(opened, [(POD_A, Identity::HOST), (POD_A, POD_B)]);
        // Both pods' policies speak, as for any traffic between them.
        node.change(B_INGRESS, POD_A, cell(2, 2));
        assert_eq!(node.send(A, &asks(ACK)), STACK);
        assert_eq!(
            node.give(B, ifindex(A), &asked(ACK)),
            Err(Reason::PolicyDefaultDeny)
        );
    }
}

#[test]
fn the_error_of_a_translated_packet_finds_its_way() {
    for f in FAMILIES {
        let mut node = Node::new();
        let udp_frame = |slot, from: IpAddr, to: IpAddr, near, far| {
            frame(slot, &ip(from, to, 17, &udp(near, far)))
        };
        let asks = udp_frame(A, f.a(), f.node(), 40_000, 30_080);
        let asked = udp_frame(A, f.a(), f.b(), 40_000, 80);
        assert_eq!(node.send(A, &asks), STACK);
        assert_eq!(node.give(B, ifindex(A), &asked), STACK);
        let unreachable = |slot, from: IpAddr, quoted: &[u8]| {
            let error = crate::headers::error(f, if f.v6 { 1 } else { 3 }, &quoted[14..]);
            frame(slot, &ip(from, f.a(), f.icmp(), &error))
        };
        assert_eq!(node.send(B, &unreachable(B, f.b(), &asked)), STACK);
        let translated = unreachable(A, f.node(), &asks);
        assert_eq!(node.give(A, ifindex(B), &translated), STACK);
    }
}

#[test]
fn nobody_borrows_a_pod_s_address_on_the_way_through_the_stack() {
    for f in FAMILIES {
        let mut node = Node::new();
        let asked = tcp_frame(A, (f.a(), 40_000), (f.b(), 80), SYN);
        for _known in [false, true] {
            for ingress in [OUTWARD, ifindex(B), ifindex(5)] {
                assert_eq!(
                    node.give(B, ingress, &asked),
                    Err(Reason::AddressFromOutside)
                );
            }
            assert_eq!(node.give(B, 0, &asked), Err(Reason::AddressFromOutside));
            assert_eq!(node.give(B, ifindex(A), &asked), STACK);
        }
    }
}
