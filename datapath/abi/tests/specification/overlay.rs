//! Between nodes: what is wrapped and with which number, and whom a wrapped packet is believed.

use crate::common::*;
use crate::service::{ends, packet};
use sluice_abi::{
    Identity, Reason,
    conntrack::ConntrackEntry,
    context::Outcome,
    ipcache::Address,
    masquerade::MARK,
    overlay::{Tunnel, VNI_BY_ADDRESS},
};

/// A packet from node 8, the only other one.
#[allow(clippy::unnecessary_wraps)] // one that the device tells nothing of has none
fn from_8(vni: u32) -> Option<Tunnel> {
    Some(Tunnel {
        remote: FAMILIES[0].other_node().into(),
        vni,
        ..Tunnel::default()
    })
}

/// A packet from somewhere else on the nodes' network.
#[allow(clippy::unnecessary_wraps)] // as above
fn from_stranger(vni: u32) -> Option<Tunnel> {
    Some(Tunnel {
        remote: Address::v4([192, 168, 0, 66]),
        vni,
        ..Tunnel::default()
    })
}

fn overlay_node() -> Node {
    let mut node = Node::new();
    node.overlay();
    node
}

#[test]
fn a_pods_packet_for_another_nodes_pod_is_wrapped_with_its_identity() {
    for f in FAMILIES {
        let mut node = overlay_node();
        for destination in [f.remote(), f.other_node()] {
            let sent = frame(A, &ip(f.a(), destination, 6, &tcp(40_000, 80, SYN)));
            for known in [false, true] {
                assert_eq!(node.send(A, &sent), Ok(Outcome::Tunnel), "{known}");
                let tunnel = node.context.tunnel;
                assert_eq!(tunnel.vni, POD_A.0);
                assert_eq!(tunnel.remote, FAMILIES[0].other_node().into());
                assert_eq!(tunnel.local, FAMILIES[0].node().into());
            }
        }
        // The outside is no node's, and this node is nobody's other end.
        let out = frame(A, &ip(f.a(), f.world(), 6, &tcp(40_000, 80, SYN)));
        assert_eq!(node.send(A, &out), Ok(Outcome::Route));
        let own = frame(A, &ip(f.a(), f.node(), 6, &tcp(40_000, 80, SYN)));
        assert_eq!(node.send(A, &own), Ok(Outcome::Stack));
    }
}

#[test]
fn a_packet_is_wrapped_with_the_nodes_address_of_the_family_between_nodes() {
    for f in FAMILIES {
        for between in FAMILIES {
            let mut node = overlay_node();
            let record = node.memory.nodes.get_mut(&8).unwrap();
            record.underlay = between.other_node().into();
            let sent = frame(A, &ip(f.a(), f.remote(), 6, &tcp(40_000, 80, SYN)));
            assert_eq!(node.send(A, &sent), Ok(Outcome::Tunnel));
            let tunnel = node.context.tunnel;
            assert_eq!(tunnel.remote, between.other_node().into());
            assert_eq!(tunnel.local, between.node().into());
        }
    }
}

#[test]
fn a_node_that_the_overlay_does_not_know_is_not_reached() {
    for f in FAMILIES {
        let mut node = overlay_node();
        node.memory.nodes.clear();
        let sent = frame(A, &ip(f.a(), f.remote(), 6, &tcp(40_000, 80, SYN)));
        assert_eq!(node.send(A, &sent), Err(Reason::NoRoute));
    }
}

#[test]
fn a_pod_does_not_send_to_the_overlays_port() {
    for f in FAMILIES {
        for target in [f.node(), f.other_node()] {
            let mut node = overlay_node();
            let to = |port| frame(A, &ip(f.a(), target, 17, &udp(40_000, port)));
            assert_eq!(node.send(A, &to(OVERLAY_PORT)), Err(Reason::OverlayPort));
            assert!(node.send(A, &to(OVERLAY_PORT + 1)).is_ok());
            // Nobody takes TCP or a pod's port for a wrapped packet.
            let stream = frame(A, &ip(f.a(), target, 6, &tcp(40_000, OVERLAY_PORT, SYN)));
            assert!(node.send(A, &stream).is_ok());
            let pod = frame(A, &ip(f.a(), f.remote(), 17, &udp(40_000, OVERLAY_PORT)));
            assert_eq!(node.send(A, &pod), Ok(Outcome::Tunnel));
        }
    }
}

#[test]
fn a_wrapped_packet_is_judged_by_the_number_it_carries() {
    for f in FAMILIES {
        let to_80 = |source| frame(A, &ip(source, f.b(), 6, &tcp(40_000, 80, SYN)));
        let mut node = overlay_node();
        assert_eq!(
            node.unwrap(from_8(POD_REMOTE.0), &to_80(f.remote())),
            Ok(Outcome::Deliver)
        );
        assert_eq!(node.context.deliver, B);
        // An address that has not come to this node yet.
        let mut node = overlay_node();
        assert_eq!(
            node.unwrap(from_8(POD_REMOTE.0), &to_80(f.unknown())),
            Ok(Outcome::Deliver)
        );
        // Another identity, which B's policy doesn't name.
        let mut node = overlay_node();
        assert_eq!(
            node.unwrap(from_8(303), &to_80(f.unknown())),
            Err(Reason::PolicyDefaultDeny)
        );
        // One that the tables don't know yet.
        assert_eq!(
            node.unwrap(from_8(100_000), &to_80(f.unknown())),
            Err(Reason::IdentityNotReady)
        );
        // No number, and nothing known of the address.
        assert_eq!(
            node.unwrap(from_8(VNI_BY_ADDRESS), &to_80(f.unknown())),
            Err(Reason::UnknownAddress)
        );
    }
}

#[test]
fn forged_wrapping_is_not_believed() {
    for f in FAMILIES {
        let syn = |source| frame(A, &ip(source, f.b(), 6, &tcp(40_000, 80, SYN)));
        let mut node = overlay_node();
        for known in [false, true] {
            for (tunnel, source) in [
                // A sender that is no node.
                (from_stranger(POD_REMOTE.0), f.remote()),
                (from_stranger(POD_REMOTE.0), f.unknown()),
                (None, f.remote()),
                // A node that speaks for another one's pods, for this one's, for this one, for the outside.
                (from_8(POD_A.0), f.a()),
                (from_8(VNI_BY_ADDRESS), f.a()),
                (from_8(VNI_BY_ADDRESS), f.node()),
                (from_8(POD_REMOTE.0), f.world()),
                (from_8(VNI_BY_ADDRESS), f.world()),
            ] {
                assert_eq!(
                    node.unwrap(tunnel, &syn(source)),
                    Err(Reason::ForgedOverlay),
                    "{tunnel:?} {source} {known}"
                );
            }
            // Once the connection is known, all the same.
            assert_eq!(
                node.unwrap(from_8(POD_REMOTE.0), &syn(f.remote())),
                Ok(Outcome::Deliver)
            );
        }
        // A number that is no pod's makes nobody host or anything else: the address says who it is.
        let mut node = overlay_node();
        let host = Identity::HOST.0;
        assert_eq!(
            node.unwrap(from_8(host), &syn(f.unknown())),
            Err(Reason::UnknownAddress)
        );
    }
}

#[test]
fn pods_of_other_nodes_do_not_come_unwrapped() {
    for f in FAMILIES {
        let mut node = overlay_node();
        let syn = |source| frame(A, &ip(source, f.b(), 6, &tcp(40_000, 80, SYN)));
        assert_eq!(
            node.arrive(&syn(f.remote())),
            Err(Reason::AddressFromOutside)
        );
        assert_eq!(
            node.arrive(&syn(f.unknown())),
            Err(Reason::AddressFromOutside)
        );
        // Not in the middle of a connection either.
        assert_eq!(
            node.unwrap(from_8(POD_REMOTE.0), &syn(f.remote())),
            Ok(Outcome::Deliver)
        );
        assert_eq!(
            node.arrive(&syn(f.remote())),
            Err(Reason::AddressFromOutside)
        );
        // Without an overlay they do come so.
        let mut node = Node::new();
        assert_eq!(node.arrive(&syn(f.remote())), Ok(Outcome::Deliver));
    }
}

#[test]
fn replies_come_back_through_the_overlay() {
    for f in FAMILIES {
        let mut node = overlay_node();
        let sent = frame(A, &ip(f.a(), f.remote(), 6, &tcp(40_000, 443, SYN)));
        assert_eq!(node.send(A, &sent), Ok(Outcome::Tunnel));
        let reply = frame(A, &ip(f.remote(), f.a(), 6, &tcp(443, 40_000, SYN | ACK)));
        assert_eq!(
            node.unwrap(from_8(POD_REMOTE.0), &reply),
            Ok(Outcome::Deliver)
        );
        assert_eq!(
            node.unwrap(from_stranger(POD_REMOTE.0), &reply),
            Err(Reason::ForgedOverlay)
        );
    }
}

#[test]
fn wrapped_packets_for_this_node_are_its_own_and_others_go_nowhere() {
    for f in FAMILIES {
        let mut node = overlay_node();
        let to = |target| frame(A, &ip(f.remote(), target, 6, &tcp(40_000, 80, SYN)));
        assert_eq!(
            node.unwrap(from_8(POD_REMOTE.0), &to(f.node())),
            Ok(Outcome::Accept)
        );
        for target in [f.world(), f.other_node(), f.unknown()] {
            assert_eq!(
                node.unwrap(from_8(POD_REMOTE.0), &to(target)),
                Err(Reason::NoRoute),
                "{target}"
            );
        }
        assert_eq!(
            node.unwrap(from_stranger(POD_REMOTE.0), &to(f.node())),
            Err(Reason::ForgedOverlay)
        );
    }
}

#[test]
fn a_source_that_nobody_has_is_not_taken_for_the_links() {
    for f in FAMILIES {
        let sources = if f.v6 {
            ["::", "::1", "fe80::1", "ff02::1"]
        } else {
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"]
        };
        for source in sources.map(|source| source.parse().unwrap()) {
            let mut node = overlay_node();
            let own = frame(A, &ip(f.remote(), f.node(), 17, &udp(40_000, 80)));
            let tunnel = from_8(POD_REMOTE.0);
            assert_eq!(node.unwrap(tunnel, &own), Ok(Outcome::Accept));
            // What was known of the packet before says nothing of this one.
            let nobodys = frame(A, &ip(source, f.node(), 17, &udp(40_000, 80)));
            for tunnel in [tunnel, from_stranger(VNI_BY_ADDRESS)] {
                assert_eq!(
                    node.unwrap(tunnel, &nobodys),
                    Err(Reason::InvalidSource),
                    "{source}"
                );
            }
        }
    }
}

#[test]
fn the_stack_wraps_its_own_and_its_pods_packets() {
    for f in FAMILIES {
        let syn = tcp(40_000, 80, SYN);
        let mut node = overlay_node();
        let own = frame(A, &ip(f.node(), f.remote(), 6, &syn));
        assert_eq!(node.wrap(0, &own), Ok(Outcome::Wrap));
        assert_eq!(node.context.tunnel.vni, VNI_BY_ADDRESS);
        let pods = frame(A, &ip(f.a(), f.remote(), 6, &syn));
        assert_eq!(node.wrap(ifindex(A), &pods), Ok(Outcome::Wrap));
        assert_eq!(node.context.tunnel.vni, POD_A.0);
        // Nobody would believe this node the outside's word.
        let foreign = frame(A, &ip(f.world(), f.remote(), 6, &syn));
        assert_eq!(node.wrap(OUTWARD, &foreign), Err(Reason::ForgedOverlay));
        let nowhere = frame(A, &ip(f.node(), f.world(), 6, &syn));
        assert_eq!(node.wrap(0, &nowhere), Err(Reason::NoRoute));
    }
}

#[test]
fn a_service_leads_through_the_overlay_and_its_answers_back() {
    for f in FAMILIES {
        for backend in [(f.remote(), 80), (f.other_node(), 6443)] {
            let (client, service) = ((f.a(), 40_000), (f.service(), 8443));
            let mut node = overlay_node();
            node.service((f.service(), 6, 8443), &[backend], 0);
            let asks = |flags| packet(A, 6, client, service, flags);
            let answers = |flags| packet(A, 6, backend, client, flags);
            for flags in [SYN, ACK] {
                assert_eq!(node.send(A, &asks(flags)), Ok(Outcome::Tunnel));
                assert_eq!(ends(&node), (client, backend));
                let tunnel = node.context.tunnel;
                assert_eq!(tunnel.vni, POD_A.0);
                assert_eq!(tunnel.remote, FAMILIES[0].other_node().into());
            }
            // Whoever else says it, is not the backend.
            let vni = if backend.0 == f.remote() {
                POD_REMOTE.0
            } else {
                VNI_BY_ADDRESS
            };
            assert_eq!(
                node.unwrap(from_stranger(vni), &answers(SYN | ACK)),
                Err(Reason::ForgedOverlay)
            );
            for flags in [SYN | ACK, ACK] {
                assert_eq!(
                    node.unwrap(from_8(vni), &answers(flags)),
                    Ok(Outcome::Deliver)
                );
                assert_eq!((ends(&node), node.context.deliver), ((service, client), A));
                // Also when it is judged again.
                node.memory.epoch += 1;
            }
        }
    }
}

#[test]
fn a_service_does_not_lead_to_the_overlays_port() {
    for f in FAMILIES {
        for target in [f.node(), f.other_node()] {
            let mut node = overlay_node();
            node.service((f.service(), 17, 53), &[(target, OVERLAY_PORT)], 0);
            let asks = packet(A, 17, (f.a(), 40_000), (f.service(), 53), 0);
            for _ in 0..2 {
                assert_eq!(node.send(A, &asks), Err(Reason::OverlayPort), "{target}");
            }
        }
    }
}

#[test]
fn what_came_through_the_stack_goes_back_there_before_it_is_wrapped() {
    for f in FAMILIES {
        let mut node = overlay_node();
        let (client, server) = ((f.remote(), 40_000), (f.b(), 80));
        let opens = packet(B, 6, client, server, SYN);
        assert_eq!(node.give(B, OVERLAY_DEVICE, &opens), Ok(Outcome::Stack));
        for flags in [SYN | ACK, ACK] {
            let answer = packet(B, 6, server, client, flags);
            assert_eq!(node.send(B, &answer), Ok(Outcome::Stack));
            node.memory.epoch += 1;
        }
        // From there, under whatever address of this node netfilter gave it.
        let translated = packet(B, 6, (f.node(), 30_080), client, SYN | ACK);
        assert_eq!(node.wrap(ifindex(B), &translated), Ok(Outcome::Wrap));
        assert_eq!(node.context.tunnel.vni, VNI_BY_ADDRESS);
    }
}

#[test]
fn only_what_leaves_the_cluster_is_masqueraded() {
    for f in FAMILIES {
        let mut node = overlay_node();
        node.masquerade(61_000, 61_100);
        for target in [f.remote(), f.other_node()] {
            let opens = packet(A, 6, (f.a(), 40_000), (target, 80), SYN);
            assert_eq!(node.send(A, &opens), Ok(Outcome::Tunnel));
            assert_eq!(node.context.flow & ConntrackEntry::MASQUERADED, 0);
        }
        let (client, world) = ((f.a(), 40_000), (f.world(), 443));
        let opens = packet(A, 6, client, world, SYN);
        assert_eq!(node.send(A, &opens), Ok(Outcome::Route));
        assert_eq!(node.leave(MARK, &opens), Ok(Outcome::Stack));
        let ((address, port), _) = ends(&node);
        assert_eq!(address, f.node());
        let answer = packet(A, 6, world, (address, port), SYN | ACK);
        assert_eq!(node.arrive(&answer), Ok(Outcome::Deliver));
        assert_eq!((ends(&node), node.context.deliver), ((world, client), A));
        // Nobody of the cluster answers for the world.
        assert_eq!(
            node.unwrap(from_8(VNI_BY_ADDRESS), &answer),
            Err(Reason::ForgedOverlay)
        );
    }
}
