//! What a pod opens to the world beyond the cluster leaves with the node's address, and its answers come back to the pod; nothing else does.

use crate::common::*;
use crate::service::{ends, packet};
use sluice_abi::{
    Reason, conntrack::ConntrackEntry, context::Outcome, ipcache::PrefixKey, masquerade::MARK,
    memory::Memory,
};
use std::net::IpAddr;

const DELIVER: Result<Outcome, Reason> = Ok(Outcome::Deliver);
const ROUTE: Result<Outcome, Reason> = Ok(Outcome::Route);
const STACK: Result<Outcome, Reason> = Ok(Outcome::Stack);
const TCP: u8 = 6;
const UDP: u8 = 17;
const NEAR: u16 = 40_000;

fn rig() -> Node {
    let mut node = Node::new();
    node.masquerade(61_000, 61_999);
    node
}

/// The connections that leave with the node's address.
fn masqueraded(memory: &Memory) -> Vec<ConntrackEntry> {
    let mut entries = memory.entries();
    entries.retain(|entry| entry.flags & ConntrackEntry::MASQUERADED != 0);
    entries
}

#[test]
fn a_pod_s_connection_leaves_with_the_node_s_address_and_comes_back() {
    for f in FAMILIES {
        for protocol in [TCP, UDP] {
            let (pod, world) = ((f.a(), NEAR), (f.world(), 443));
            let mut node = rig();
            let out = |flags| packet(A, protocol, pod, world, flags);
            assert_eq!(node.send(A, &out(SYN)), ROUTE);
            assert_eq!(ends(&node), (pod, world), "until it leaves");
            assert_eq!(node.leave(MARK, &out(SYN)), STACK);
            let (masked, to) = ends(&node);
            assert_eq!((masked.0, to), (f.node(), world));
            assert!((61_000..=61_999).contains(&masked.1));
            let back = |flags| packet(A, protocol, world, masked, flags);
            assert_eq!(node.arrive(&back(SYN | ACK)), DELIVER);
            assert_eq!((ends(&node), node.context.deliver), ((world, pod), A));
            node.memory.take_lookups();
            assert_eq!(node.send(A, &out(ACK)), ROUTE);
            assert_eq!(node.memory.take_lookups(), (1, 0, 0));
            assert_eq!(node.leave(MARK, &out(ACK)), STACK);
            assert_eq!(ends(&node), (masked, world));
            assert_eq!(node.memory.take_lookups(), (1, 0, 0));
            assert_eq!(node.arrive(&back(ACK)), DELIVER);
            assert_eq!(node.memory.take_lookups(), (2, 0, 0));
            // Judged again, it is the same.
            node.memory.epoch += 1;
            assert_eq!(node.arrive(&back(ACK)), DELIVER);
            assert_eq!(ends(&node), (world, pod));
            node.memory.epoch += 1;
            assert_eq!(node.send(A, &out(ACK)), ROUTE);
            assert_eq!(node.leave(MARK, &out(ACK)), STACK);
            assert_eq!(ends(&node), (masked, world));
            // Whoever else speaks to the node's port speaks to the node.
            let stranger = packet(A, protocol, (f.world(), 444), masked, ACK);
            assert_eq!(node.arrive(&stranger), STACK);
            assert_eq!(ends(&node).1, masked);
        }
    }
}

#[test]
fn an_echo_to_the_world_comes_back() {
    for f in FAMILIES {
        let mut node = rig();
        let asks = frame(
            A,
            &ip(f.a(), f.world(), f.icmp(), &icmp(f.echo_request(), 0, 7)),
        );
        assert_eq!(node.send(A, &asks), ROUTE);
        assert_eq!(node.leave(MARK, &asks), STACK);
        let (masked, _) = ends(&node);
        assert_eq!(masked.0, f.node());
        let answers = icmp(f.echo_reply(), 0, masked.1);
        let answers = frame(A, &ip(f.world(), f.node(), f.icmp(), &answers));
        assert_eq!(node.arrive(&answers), DELIVER);
        assert_eq!(ends(&node).1, (f.a(), 7));
    }
}

#[test]
fn the_cluster_and_what_is_excluded_see_the_pod_s_own_address() {
    for f in FAMILIES {
        for destination in [f.remote(), f.other_node(), f.node(), f.b()] {
            let mut node = rig();
            node.send(A, &packet(A, TCP, (f.a(), NEAR), (destination, 80), SYN))
                .unwrap();
            assert!(masqueraded(&node.memory).is_empty(), "{destination}");
        }
        let mut node = rig();
        let (network, bits): (IpAddr, u32) = if f.v6 {
            ("2001:db8::".parse().unwrap(), 32)
        } else {
            ("203.0.0.0".parse().unwrap(), 96 + 8)
        };
        node.memory.excluded.insert(PrefixKey {
            prefix_bits: bits,
            address: network.into(),
        });
        let out = packet(A, TCP, (f.a(), NEAR), (f.world(), 80), SYN);
        assert_eq!(node.send(A, &out), ROUTE);
        assert!(masqueraded(&node.memory).is_empty());
        // What does not bear the mark leaves as it is: the node's own above all.
        let own = packet(A, TCP, (f.node(), NEAR), (f.world(), 80), SYN);
        for frame in [&out, &own] {
            assert_eq!(node.leave(!MARK, frame), STACK);
        }
        // What the world opens is answered as it came.
        let mut node = rig();
        let world = [
            sluice_abi::Identity::WORLD_IPV4,
            sluice_abi::Identity::WORLD_IPV6,
        ];
        peer(
            &mut node.memory,
            B_INGRESS,
            world[usize::from(f.v6)],
            cell(3, 3),
        );
        let comes = packet(A, TCP, (f.world(), NEAR), (f.b(), 80), SYN);
        assert_eq!(node.arrive(&comes), DELIVER);
        let answer = packet(B, TCP, (f.b(), 80), (f.world(), NEAR), SYN | ACK);
        assert_eq!(node.send(B, &answer), ROUTE);
        assert!(masqueraded(&node.memory).is_empty());
    }
}

#[test]
fn ports_are_shared_out() {
    for f in FAMILIES {
        let out = |slot: u32, port, far| {
            let from = if slot == A { f.a() } else { f.b() };
            packet(slot, UDP, (from, port), (f.world(), far), 0)
        };
        let mut node = rig();
        // A port in the range is kept, and given once.
        let mut met = std::collections::BTreeSet::new();
        for slot in [A, B] {
            for port in [61_007, 61_008, 40_001, 40_002] {
                assert_eq!(node.send(slot, &out(slot, port, 53)), ROUTE);
                assert_eq!(node.leave(MARK, &out(slot, port, 53)), STACK);
                let masked = ends(&node).0;
                assert!(slot == B || port < 61_000 || masked.1 == port);
                assert!((61_000..=61_999).contains(&masked.1));
                assert!(met.insert(masked));
            }
        }
        let mut node = rig();
        node.masquerade(61_000, 61_000);
        assert_eq!(node.send(A, &out(A, 1, 53)), ROUTE);
        assert_eq!(node.send(B, &out(B, 2, 53)), Err(Reason::NatPortsExhausted));
        assert_eq!(node.send(B, &out(B, 2, 54)), ROUTE, "for each destination");
        assert_eq!(node.send(A, &out(A, 1, 53)), ROUTE);
        node.memory.now += 200 * 1_000_000_000;
        assert_eq!(node.send(B, &out(B, 2, 53)), ROUTE, "when it is over");
        assert_eq!(node.send(A, &out(A, 1, 53)), Err(Reason::NatPortsExhausted));
    }
}

#[test]
fn protocols_whose_ports_cannot_change_keep_them() {
    for f in FAMILIES {
        let mut node = rig();
        let esp = |slot, from| frame(slot, &ip(from, f.world(), 50, &[1; 16]));
        assert_eq!(node.send(A, &esp(A, f.a())), ROUTE);
        assert_eq!(node.leave(MARK, &esp(A, f.a())), STACK);
        assert_eq!(ends(&node).0.0, f.node());
        let back = frame(A, &ip(f.world(), f.node(), 50, &[2; 16]));
        assert_eq!(node.arrive(&back), DELIVER);
        assert_eq!(node.context.deliver, A);
        assert_eq!(
            node.send(B, &esp(B, f.b())),
            Err(Reason::NatPortsExhausted),
            "there is one such flow to a destination"
        );
    }
}

#[test]
fn errors_find_the_pod_and_the_world() {
    for f in FAMILIES {
        let unreachable = if f.v6 { 1 } else { 3 };
        let (pod, world) = ((f.a(), NEAR), (f.world(), 443));
        let mut node = rig();
        let out = packet(A, UDP, pod, world, 0);
        assert_eq!(node.send(A, &out), ROUTE);
        assert_eq!(node.leave(MARK, &out), STACK);
        let masked = ends(&node).0;
        let quote =
            |from: IpAddr, to: IpAddr, source: (IpAddr, u16), destination: (IpAddr, u16)| {
                let quoted = ip(source.0, destination.0, UDP, &udp(source.1, destination.1));
                let error = crate::headers::error(f, unreachable, &quoted);
                frame(A, &ip(from, to, f.icmp(), &error))
            };
        for sender in [world.0, f.unknown()] {
            let error = quote(sender, masked.0, masked, world);
            assert_eq!(node.arrive(&error), DELIVER);
            assert_eq!(node.context.deliver, A);
            assert_eq!((ends(&node).0.0, ends(&node).1.0), (sender, pod.0));
            let inner = &node.context.inner;
            assert_eq!((inner.source, inner.source_port), (pod.0.into(), pod.1));
        }
        // About the node's own packets the node is told.
        let own = quote(world.0, masked.0, (masked.0, 999), world);
        assert_eq!(node.arrive(&own), STACK);
        // The pod complains of an answer.
        let error = quote(pod.0, world.0, world, pod);
        assert_eq!(node.send(A, &error), ROUTE);
        assert_eq!(node.leave(MARK, &error), STACK);
        assert_eq!((ends(&node).0.0, ends(&node).1.0), (masked.0, world.0));
        let inner = &node.context.inner;
        assert_eq!(
            (inner.destination, inner.destination_port),
            (masked.0.into(), masked.1)
        );
    }
}

/// A service whose backends are beyond the cluster: both translations, each way.
#[test]
fn a_service_may_lead_out_of_the_cluster() {
    for f in FAMILIES {
        for protocol in [TCP, UDP] {
            let (pod, service, world) = ((f.a(), NEAR), (f.service(), 443), (f.world(), 6443));
            let mut node = rig();
            node.service((service.0, protocol, service.1), &[world], 0);
            for flags in [SYN, ACK] {
                assert_eq!(
                    node.send(A, &packet(A, protocol, pod, service, flags)),
                    ROUTE
                );
                assert_eq!(ends(&node), (pod, world));
                let out = packet(A, protocol, pod, world, flags);
                assert_eq!(node.leave(MARK, &out), STACK);
                let masked = ends(&node).0;
                assert_eq!(masked.0, f.node());
                let back = packet(A, protocol, world, masked, flags | ACK);
                assert_eq!(node.arrive(&back), DELIVER);
                assert_eq!((ends(&node), node.context.deliver), ((service, pod), A));
                node.memory.epoch += 1;
                assert_eq!(
                    node.arrive(&packet(A, protocol, world, masked, ACK)),
                    DELIVER
                );
                assert_eq!(ends(&node), (service, pod));
                let quoted = ip(masked.0, world.0, protocol, &udp(masked.1, world.1));
                let error = crate::headers::error(f, if f.v6 { 1 } else { 3 }, &quoted);
                let error = frame(A, &ip(world.0, masked.0, f.icmp(), &error));
                assert_eq!(node.arrive(&error), DELIVER);
                assert_eq!((ends(&node).0.0, ends(&node).1.0), (service.0, pod.0));
                let inner = &node.context.inner;
                assert_eq!(
                    (
                        inner.source,
                        inner.source_port,
                        inner.destination,
                        inner.destination_port
                    ),
                    (pod.0.into(), pod.1, service.0.into(), service.1)
                );
            }
        }
    }
}

#[test]
fn fragments_leave_and_come_back() {
    for f in FAMILIES {
        let (pod, service, world) = ((f.a(), NEAR), (f.service(), 53), (f.world(), 5353));
        let mut node = rig();
        node.service((service.0, UDP, service.1), &[world], 0);
        let piece = |from: (IpAddr, u16), to: (IpAddr, u16), at, more| {
            let payload = udp(from.1, to.1);
            let both = (from.0, to.0);
            frame(
                A,
                &crate::headers::fragment_between(both, 9, at, more, UDP, &payload),
            )
        };
        for destination in [service, world] {
            for (at, more) in [(0, true), (24, false)] {
                assert_eq!(node.send(A, &piece(pod, destination, at, more)), ROUTE);
                assert_eq!(node.leave(MARK, &piece(pod, world, at, more)), STACK);
                assert_eq!(ends(&node).0.0, f.node());
                let masked = ends(&node).0;
                assert_eq!(node.arrive(&piece(world, masked, at, more)), DELIVER);
                assert_eq!(ends(&node), (destination, pod));
            }
            // The other way to the same world from the same port begins anew.
            node = rig();
        }
    }
}

#[test]
fn what_has_lost_its_connection_does_not_leave() {
    for f in FAMILIES {
        let (pod, world) = ((f.a(), NEAR), (f.world(), 443));
        let mut node = rig();
        let out = packet(A, TCP, pod, world, SYN);
        assert_eq!(node.leave(MARK, &out), Err(Reason::NotMasqueraded));
        assert_eq!(node.send(A, &out), ROUTE);
        assert_eq!(node.leave(MARK, &out), STACK);
        let masked = ends(&node).0;
        // Where the name by which the world answers has to give way, the connection does too, and both begin again by the same port.
        let name = node
            .memory
            .entries()
            .into_iter()
            .find(|entry| entry.flags & ConntrackEntry::OUTER != 0)
            .unwrap();
        assert_eq!(name.leads_to(), Some(masqueraded(&node.memory)[0].key));
        for near in 1..8 {
            let other = packet(A, UDP, (f.a(), near), (f.remote(), 80), 0);
            assert_eq!(node.send(A, &other), ROUTE);
        }
        assert!(node.memory.entry(&name.key).is_none());
        assert!(masqueraded(&node.memory).is_empty());
        let out = packet(A, TCP, pod, world, ACK);
        assert_eq!(node.send(A, &out), ROUTE);
        assert_eq!(node.leave(MARK, &out), STACK);
        assert_eq!(ends(&node).0, masked);
    }
}
