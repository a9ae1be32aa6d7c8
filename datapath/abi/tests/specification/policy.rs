//! Packets in, verdicts out: policy, connections and changes of policy, in both families.

use crate::common::*;
use sluice_abi::{
    Cookie, Identity, Reason,
    conntrack::State,
    context::Outcome,
    event::{EventKind, Hook},
    policy::PeerCell,
    program::Verdict,
};

const DELIVER: Result<Outcome, Reason> = Ok(Outcome::Deliver);

#[test]
fn a_connection_is_opened_answered_used_and_closed_with_one_judgement() {
    for f in FAMILIES {
        let mut node = Node::new();
        let there = |flags| frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, flags)));
        let back = |flags| frame(B, &ip(f.b(), f.a(), 6, &tcp(80, 40_000, flags)));
        assert_eq!(node.send(A, &there(SYN)), DELIVER);
        assert_eq!(node.context.deliver, B);
        let events = node.memory.take_events();
        assert_eq!(events.len(), 1);
        let event = events[0];
        assert_eq!(event.kind, EventKind::NewConnection as u8);
        assert_eq!(
            (event.source.identity, event.source.cookie),
            (POD_A, Cookie::DEFAULT_ALLOW)
        );
        assert_eq!(
            (event.destination.identity, event.destination.cookie),
            (POD_B, RULE)
        );
        assert_eq!((event.source.port, event.destination.port), (40_000, 80));
        let state = |node: &Node| State::from_raw(node.memory.entries()[0].state);
        assert_eq!(state(&node), State::Opening);
        assert_eq!(node.send(B, &back(SYN | ACK)), DELIVER);
        assert_eq!(node.context.deliver, A);
        assert_eq!(state(&node), State::Answered);
        assert_eq!(node.send(A, &there(ACK)), DELIVER);
        assert_eq!(state(&node), State::Established);
        node.memory.take_lookups();
        assert_eq!(node.send(B, &back(ACK)), DELIVER);
        assert_eq!(
            node.memory.take_lookups(),
            (1, 0, 0),
            "an established packet costs one look-up"
        );
        assert_eq!(node.send(A, &there(FIN | ACK)), DELIVER);
        assert_eq!(state(&node), State::Closing);
        assert_eq!(node.send(B, &back(FIN | ACK)), DELIVER);
        assert_eq!(state(&node), State::Closed);
        assert_eq!(node.memory.entries()[0].packets, [3, 3]);
        assert!(node.memory.take_events().is_empty());
    }
}

#[test]
fn a_cell_that_names_its_rules_itself_needs_no_attribution() {
    for f in FAMILIES {
        let mut node = Node::new();
        // Slot 0 elsewhere, slot 1 at the port, as the compiler numbers them.
        program(
            &mut node.memory,
            5,
            Verdict::Deny,
            &[(6, 80, 80, Verdict::Allow, 1)],
        );
        node.memory
            .programs
            .get_mut(&5)
            .expect("written above")
            .other
            .slot = 0;
        let direct = PeerCell::direct(&[Cookie::DEFAULT_DENY, RULE]).expect("few and small");
        node.change(B_INGRESS, POD_A, cell(5, direct));
        let open = frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, SYN)));
        assert_eq!(node.send(A, &open), DELIVER);
        assert_eq!(node.context.ingress.cookie, RULE);
        let closed = frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 81, SYN)));
        assert_eq!(node.send(A, &closed), Err(Reason::PolicyDefaultDeny));
        assert_eq!(node.context.ingress.cookie, Cookie::DEFAULT_DENY);
    }
}

#[test]
fn what_no_rule_allows_is_dropped_with_its_reason_and_rule() {
    for f in FAMILIES {
        for (name, protocol, payload, reason, cookie) in [
            (
                "other port",
                6,
                tcp(40_000, 81, SYN),
                Reason::PolicyDefaultDeny,
                Cookie::DEFAULT_DENY,
            ),
            (
                "other protocol",
                17,
                udp(40_000, 81),
                Reason::PolicyDefaultDeny,
                Cookie::DEFAULT_DENY,
            ),
            (
                "redirect that nobody serves",
                6,
                tcp(40_000, 8080, SYN),
                Reason::NoProxy,
                PROXY_RULE,
            ),
            (
                "no port at all",
                47,
                vec![0; 8],
                Reason::PolicyDefaultDeny,
                Cookie::DEFAULT_DENY,
            ),
        ] {
            let mut node = Node::new();
            let sent = frame(A, &ip(f.a(), f.b(), protocol, &payload));
            assert_eq!(node.send(A, &sent), Err(reason), "{name}");
            let event = node.memory.take_events()[0];
            assert_eq!(
                (event.kind, event.reason),
                (EventKind::Drop as u8, reason as u8)
            );
            assert_eq!(
                (event.destination.cookie, event.slot),
                (cookie, A),
                "{name}"
            );
            assert_eq!(node.memory.drops(Hook::FromEndpoint, reason).packets, 1);
            assert_eq!(node.memory.rule(cookie).packets, 1, "{name}");
            assert!(node.memory.entries().is_empty());
        }
    }
}

#[test]
fn every_protocol_that_the_rule_names_passes() {
    for f in FAMILIES {
        let mut sctp = tcp(40_000, 80, 0);
        sctp[12] = 1;
        for (protocol, payload) in [
            (6, tcp(40_000, 80, SYN)),
            (17, udp(40_000, 80)),
            (132, sctp),
            (f.icmp(), icmp(f.echo_request(), 0, 77)),
        ] {
            let mut node = Node::new();
            let sent = frame(A, &ip(f.a(), f.b(), protocol, &payload));
            assert_eq!(node.send(A, &sent), DELIVER, "protocol {protocol}");
            assert_eq!(node.memory.entries().len(), 1);
        }
    }
}

#[test]
fn protocols_without_ports_are_judged_as_port_0() {
    for f in FAMILIES {
        for protocol in [2, 4, 41, 47, 50, 51, 112] {
            let mut node = Node::new();
            let sent = frame(B, &ip(f.b(), f.a(), protocol, &[0; 16]));
            assert_eq!(node.send(B, &sent), DELIVER, "protocol {protocol}");
            assert_eq!(node.memory.take_events()[0].protocol, protocol);
        }
    }
}

#[test]
fn an_echo_is_answered_and_a_question_back_is_not_its_answer() {
    for f in FAMILIES {
        let mut node = Node::new();
        // A's ingress: nothing.
        node.memory.endpoints.get_mut(&A).unwrap().ingress_table = B_INGRESS;
        let ask = frame(
            A,
            &ip(f.a(), f.b(), f.icmp(), &icmp(f.echo_request(), 0, 77)),
        );
        let answer = |id| frame(B, &ip(f.b(), f.a(), f.icmp(), &icmp(f.echo_reply(), 0, id)));
        let ask_back = frame(
            B,
            &ip(f.b(), f.a(), f.icmp(), &icmp(f.echo_request(), 0, 77)),
        );
        assert_eq!(
            node.send(B, &answer(77)),
            Err(Reason::PolicyDefaultDeny),
            "unasked"
        );
        assert_eq!(node.send(A, &ask), DELIVER);
        assert_eq!(node.send(B, &answer(77)), DELIVER);
        assert_eq!(
            node.send(B, &answer(78)),
            Err(Reason::PolicyDefaultDeny),
            "other identifier"
        );
        assert_eq!(
            node.send(B, &ask_back),
            Err(Reason::PolicyDefaultDeny),
            "question back"
        );
    }
}

#[test]
fn udp_answers_pass_until_the_question_is_forgotten() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.memory.endpoints.get_mut(&A).unwrap().ingress_table = B_INGRESS;
        let ask = frame(A, &ip(f.a(), f.b(), 17, &udp(40_000, 80)));
        let answer = frame(B, &ip(f.b(), f.a(), 17, &udp(80, 40_000)));
        assert_eq!(node.send(B, &answer), Err(Reason::PolicyDefaultDeny));
        assert_eq!(node.send(A, &ask), DELIVER);
        node.memory.now += 59_000_000_000;
        assert_eq!(node.send(B, &answer), DELIVER);
        node.memory.now += 179_000_000_000;
        assert_eq!(
            node.send(B, &answer),
            DELIVER,
            "a stream lives longer than a question"
        );
        node.memory.now += 181_000_000_000;
        assert_eq!(node.send(B, &answer), Err(Reason::PolicyDefaultDeny));
    }
}

#[test]
fn a_new_deny_cuts_an_established_connection_whichever_way_its_next_packet_goes() {
    for f in FAMILIES {
        for reply_first in [false, true] {
            let mut node = Node::new();
            let there = frame(A, &ip(f.a(), f.b(), 17, &udp(40_000, 80)));
            let back = frame(B, &ip(f.b(), f.a(), 17, &udp(80, 40_000)));
            assert_eq!(node.send(A, &there), DELIVER);
            assert_eq!(node.send(B, &back), DELIVER);
            node.change(B_INGRESS, POD_A, cell(2, 2));
            let next = if reply_first {
                node.send(B, &back)
            } else {
                node.send(A, &there)
            };
            assert_eq!(next, Err(Reason::PolicyDefaultDeny));
            assert_eq!(node.send(A, &there), Err(Reason::PolicyDefaultDeny));
            assert_eq!(node.send(B, &back), Err(Reason::PolicyDefaultDeny));
            assert_eq!(
                node.memory.rule(RULE).packets,
                2,
                "what the rule allowed is counted"
            );
        }
    }
}

#[test]
fn a_tcp_connection_that_was_cut_does_not_live_on_the_other_way_round() {
    for f in FAMILIES {
        let mut node = Node::new();
        let there = |flags| frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, flags)));
        let back = |flags| frame(B, &ip(f.b(), f.a(), 6, &tcp(80, 40_000, flags)));
        assert_eq!(node.send(A, &there(SYN)), DELIVER);
        assert_eq!(node.send(B, &back(SYN | ACK)), DELIVER);
        assert_eq!(node.send(A, &there(ACK)), DELIVER);
        node.change(B_INGRESS, POD_A, cell(2, 2));
        // From B to A everything is allowed: judged as B's connection, these packets would pass.
        for _ in 0..3 {
            assert_eq!(node.send(A, &there(ACK)), Err(Reason::PolicyDefaultDeny));
            assert_eq!(node.send(B, &back(ACK)), Err(Reason::PolicyDefaultDeny));
        }
        node.change(B_INGRESS, POD_A, cell(1, 1));
        assert_eq!(
            node.send(A, &there(ACK)),
            DELIVER,
            "allowed again, it goes on"
        );
    }
}

#[test]
fn a_change_elsewhere_in_the_table_keeps_the_connection_and_renews_it() {
    for f in FAMILIES {
        let mut node = Node::new();
        let there = frame(A, &ip(f.a(), f.b(), 17, &udp(40_000, 80)));
        let back = frame(B, &ip(f.b(), f.a(), 17, &udp(80, 40_000)));
        assert_eq!(node.send(A, &there), DELIVER);
        node.change(B_INGRESS, Identity(999), cell(1, 1));
        assert_eq!(node.send(B, &back), DELIVER);
        let entry = node.memory.entries()[0];
        assert_eq!(
            (entry.destination.revision, entry.destination.cookie),
            (2, RULE.0)
        );
        node.memory.take_lookups();
        assert_eq!(node.send(A, &there), DELIVER);
        assert_eq!(node.memory.take_lookups(), (1, 0, 0));
    }
}

#[test]
fn a_changed_identity_or_table_or_address_is_judged_anew() {
    for f in FAMILIES {
        let open = |node: &mut Node| {
            let there = frame(A, &ip(f.a(), f.b(), 17, &udp(40_000, 80)));
            assert_eq!(node.send(A, &there), DELIVER);
            there
        };
        let mut node = Node::new();
        let there = open(&mut node);
        node.memory.endpoints.get_mut(&A).unwrap().identity = Identity(400);
        assert_eq!(
            node.send(A, &there),
            Err(Reason::PolicyDefaultDeny),
            "identity"
        );
        let mut node = Node::new();
        let there = open(&mut node);
        table(&mut node.memory, 5, cell(2, 2));
        node.memory.endpoints.get_mut(&B).unwrap().ingress_table = 5;
        assert_eq!(
            node.send(A, &there),
            Err(Reason::PolicyDefaultDeny),
            "table"
        );
        let mut node = Node::new();
        let there = open(&mut node);
        node.memory.endpoints.remove(&B);
        node.memory.slots_by_address.remove(&f.b().into());
        node.memory.addresses.remove(&f.b().into());
        node.memory.epoch += 1;
        assert_eq!(node.send(A, &there), Err(Reason::UnknownAddress), "address");
    }
}

#[test]
fn a_connection_met_midway_is_judged_both_ways_round() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.memory.endpoints.get_mut(&A).unwrap().ingress_table = B_INGRESS;
        let back = |flags| frame(B, &ip(f.b(), f.a(), 6, &tcp(80, 40_000, flags)));
        assert_eq!(
            node.send(B, &back(ACK)),
            DELIVER,
            "the answering end speaks first"
        );
        let event = node.memory.take_events()[0];
        assert_eq!((event.source.identity, event.source.port), (POD_A, 40_000));
        assert_eq!(
            (event.destination.identity, event.destination.port),
            (POD_B, 80)
        );
        assert_eq!(event.destination.cookie, RULE);
        let there = frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, ACK)));
        node.memory.take_lookups();
        assert_eq!(node.send(A, &there), DELIVER);
        assert_eq!(node.memory.take_lookups(), (1, 0, 0));
        let mut node = Node::new();
        node.memory.endpoints.get_mut(&A).unwrap().ingress_table = B_INGRESS;
        assert_eq!(
            node.send(B, &back(SYN)),
            Err(Reason::PolicyDefaultDeny),
            "an opener is judged as one"
        );
        let other = frame(B, &ip(f.b(), f.a(), 6, &tcp(81, 40_000, ACK)));
        assert_eq!(
            node.send(B, &other),
            Err(Reason::PolicyDefaultDeny),
            "allowed neither way"
        );
    }
}

#[test]
fn the_answering_end_cannot_open_a_connection_back_on_the_same_ports() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.memory.endpoints.get_mut(&A).unwrap().ingress_table = B_INGRESS;
        let there = |flags| frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, flags)));
        let back = |flags| frame(B, &ip(f.b(), f.a(), 6, &tcp(80, 40_000, flags)));
        for (slot, sent) in [(A, there(SYN)), (B, back(SYN | ACK)), (A, there(ACK))] {
            assert_eq!(node.send(slot, &sent), DELIVER);
        }
        assert_eq!(node.send(B, &back(SYN)), Err(Reason::PolicyDefaultDeny));
        assert_eq!(
            node.send(A, &there(ACK)),
            DELIVER,
            "the connection itself goes on"
        );
        assert_eq!(node.send(A, &there(RST)), DELIVER);
        assert_eq!(
            node.send(A, &there(SYN)),
            DELIVER,
            "ports are used again after the end"
        );
        assert_eq!(
            State::from_raw(node.memory.entries()[0].state),
            State::Opening
        );
    }
}

#[test]
fn a_pod_reaches_itself_whatever_policy_says() {
    for f in FAMILIES {
        let mut node = Node::new();
        let sent = frame(B, &ip(f.b(), f.b(), 6, &tcp(40_000, 1, SYN)));
        assert_eq!(node.send(B, &sent), DELIVER);
        let event = node.memory.take_events()[0];
        assert_eq!(
            (event.source.cookie, event.destination.cookie),
            (Cookie::SELF, Cookie::SELF)
        );
    }
}

#[test]
fn what_the_tables_do_not_know_yet_drops() {
    for f in FAMILIES {
        let sent = frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, SYN)));
        let mut node = Node::new();
        node.memory.watermarks = [299; 6];
        assert_eq!(node.send(A, &sent), Err(Reason::IdentityNotReady));
        let mut node = Node::new();
        node.memory.revisions.remove(&B_INGRESS);
        assert_eq!(node.send(A, &sent), Err(Reason::TableNotReady));
        let mut node = Node::new();
        node.memory.config.flags = 0;
        assert_eq!(node.send(A, &sent), Err(Reason::TableNotReady));
        let mut node = Node::new();
        let sent = frame(A, &ip(f.a(), f.unknown(), 6, &tcp(40_000, 80, SYN)));
        assert_eq!(
            node.send(A, &sent),
            Err(Reason::UnknownAddress),
            "no default speaks for the unknown"
        );
    }
}

#[test]
fn a_flood_evicts_only_its_own_endpoints_connections() {
    for f in FAMILIES {
        let mut node = Node::new();
        for port in 0..3 {
            assert_eq!(
                node.send(B, &frame(B, &ip(f.b(), f.a(), 17, &udp(port, 53)))),
                DELIVER
            );
        }
        for port in 0..1000 {
            assert_eq!(
                node.send(A, &frame(A, &ip(f.a(), f.b(), 17, &udp(port, 80)))),
                DELIVER
            );
        }
        let entries = node.memory.entries();
        assert_eq!(entries.iter().filter(|e| e.owner == A).count(), 8);
        assert_eq!(entries.iter().filter(|e| e.owner == B).count(), 3);
        assert_eq!(
            node.memory.rule(RULE).packets,
            992,
            "evicted connections keep their counts"
        );
    }
}

#[test]
fn a_lively_connection_gets_a_second_chance() {
    let f = FAMILIES[0];
    let mut node = Node::new();
    let there = |flags| frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 80, flags)));
    let back = frame(B, &ip(f.b(), f.a(), 6, &tcp(80, 40_000, SYN | ACK)));
    assert_eq!(node.send(A, &there(SYN)), DELIVER);
    assert_eq!(node.send(B, &back), DELIVER);
    assert_eq!(node.send(A, &there(ACK)), DELIVER);
    for port in 0..100 {
        assert_eq!(
            node.send(A, &frame(A, &ip(f.a(), f.b(), 17, &udp(port, 80)))),
            DELIVER
        );
    }
    assert!(node.memory.entries().iter().any(|e| e.key.protocol == 6));
}

#[test]
fn a_full_connection_table_drops_new_flows() {
    let f = FAMILIES[1];
    let mut node = Node::new();
    node.memory.capacity = Some(1);
    assert_eq!(
        node.send(A, &frame(A, &ip(f.a(), f.b(), 17, &udp(1, 80)))),
        DELIVER
    );
    let second = frame(A, &ip(f.a(), f.b(), 17, &udp(2, 80)));
    assert_eq!(node.send(A, &second), Err(Reason::ConntrackFull));
}

#[test]
fn drop_events_are_limited_and_what_is_held_back_is_counted_exactly() {
    let f = FAMILIES[0];
    let mut node = Node::new();
    let sent = frame(A, &ip(f.a(), f.b(), 6, &tcp(40_000, 81, SYN)));
    for _ in 0..500 {
        assert_eq!(node.send(A, &sent), Err(Reason::PolicyDefaultDeny));
    }
    let told = node.memory.take_events().len() as u64;
    assert_eq!(told, 20);
    assert_eq!(node.memory.suppressed(A, Reason::PolicyDefaultDeny), 480);
    node.memory.now += 100_000_000;
    let _ = node.send(A, &sent);
    let events = node.memory.take_events();
    assert_eq!((events.len(), events[0].suppressed), (1, 480));
    assert_eq!(
        node.memory
            .drops(Hook::FromEndpoint, Reason::PolicyDefaultDeny)
            .packets,
        501
    );
    let other = frame(A, &ip(f.a(), f.unknown(), 6, &tcp(1, 2, SYN)));
    assert_eq!(node.send(A, &other), Err(Reason::UnknownAddress));
    assert_eq!(
        node.memory.take_events().len(),
        1,
        "another reason has its own bucket"
    );
}

#[test]
fn traffic_with_the_node_and_the_outside() {
    for f in FAMILIES {
        let mut node = Node::new();
        let to = |ip_| frame(A, &ip(f.a(), ip_, 6, &tcp(40_000, 443, SYN)));
        assert_eq!(node.send(A, &to(f.node())), Ok(Outcome::Stack));
        assert_eq!(node.send(A, &to(f.gateway())), Ok(Outcome::Stack));
        assert_eq!(node.send(A, &to(f.world())), Ok(Outcome::Route));
        assert_eq!(node.send(A, &to(f.remote())), Ok(Outcome::Route));
        // The node itself reaches its pods; the outside and other nodes only as rules say.
        let open = |from| frame(B, &ip(from, f.b(), 6, &tcp(40_000, 80, SYN)));
        assert_eq!(node.give(B, 0, &open(f.node())), Ok(Outcome::Stack));
        assert_eq!(node.context.ingress.cookie, Cookie::LOCAL_HOST);
        assert_eq!(
            node.give(B, 0, &open(f.node())),
            Ok(Outcome::Stack),
            "again, as known"
        );
        assert_eq!(node.arrive(&open(f.remote())), DELIVER);
        assert_eq!(
            node.arrive(&open(f.other_node())),
            Err(Reason::PolicyDefaultDeny)
        );
        assert_eq!(
            node.arrive(&open(f.world())),
            Err(Reason::PolicyDefaultDeny)
        );
        assert_eq!(
            node.give(B, 9, &open(f.world())),
            Err(Reason::PolicyDefaultDeny)
        );
        let back = frame(A, &ip(f.world(), f.a(), 6, &tcp(443, 40_000, SYN | ACK)));
        assert_eq!(node.arrive(&back), DELIVER);
        assert_eq!(node.context.deliver, A);
        node.memory.take_lookups();
        assert_eq!(node.arrive(&back), DELIVER);
        assert_eq!(
            node.memory.take_lookups(),
            (1, 0, 0),
            "known from outside too"
        );
        let elsewhere = frame(A, &ip(f.world(), f.node(), 6, &tcp(443, 22, SYN)));
        assert_eq!(node.arrive(&elsewhere), Ok(Outcome::Stack), "not for a pod");
    }
}
