//! Any packets in any order, with changes of policy and addresses between: what one of them leaves behind, the next one meets.

#![allow(clippy::cast_possible_truncation)]

use crate::common::*;
use crate::headers::{error, extended, fragment, valid};
use proptest::prelude::*;
use sluice_abi::{Identity, Reason, masquerade::MARK};
use std::net::IpAddr;

/// What happens to the node.
#[derive(Clone, Debug)]
enum Act {
    /// A frame is seen at one of the places where frames are seen.
    Frame { place: u8, bytes: Vec<u8> },
    /// A table says something new of a peer.
    Change { table: u32, peer: u32, program: u32 },
    /// The defaults of a table's revision fall behind, or a watermark does.
    Watermark(u32),
    /// B loses its addresses, or has them back.
    Move(bool),
    /// Time passes, in seconds.
    Wait(u64),
    /// A backend goes, or comes back.
    Backend(u32, bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => (0..11_u8, frames()).prop_map(|(place, bytes)| Act::Frame { place, bytes }),
        2 => (1..3_u32, 299..304_u32, 0..5_u32)
            .prop_map(|(table, peer, program)| Act::Change { table, peer, program }),
        1 => prop_oneof![Just(1000_u32), Just(300)].prop_map(Act::Watermark),
        1 => any::<bool>().prop_map(Act::Move),
        1 => prop_oneof![Just(1_u64), Just(59), Just(62)].prop_map(Act::Wait),
        1 => (1..10_u32, any::<bool>()).prop_map(|(id, here)| Act::Backend(id, here)),
    ]
}

/// A frame: as it should be, with a few bytes changed, cut short, or nothing but noise.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let good = || prop_oneof![4 => between(), 1 => valid()];
    prop_oneof![
        8 => good(),
        3 => (good(), edits()).prop_map(|(mut bytes, edits)| {
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes
        }),
        1 => (good(), any::<prop::sample::Index>()).prop_map(|(mut bytes, keep)| {
            bytes.truncate(keep.index(bytes.len() + 1));
            bytes
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
}

/// A sound packet between any two of those who are there; few ports, so that connections meet again.
fn between() -> impl Strategy<Value = Vec<u8>> {
    let port = || prop::sample::select(vec![80_u16, 81, 8080, 40_000]);
    let flags = prop::sample::select(vec![SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK, 0]);
    (
        any::<bool>(),
        (0..9_u8, 0..9_u8),
        0..9_u8,
        (port(), port()),
        flags,
    )
        .prop_map(|(v6, (from, to), kind, (near, far), flags)| {
            let f = Family { v6 };
            let (source, destination) = (holder(f, from), holder(f, to));
            let packet = |protocol, payload: &[u8]| ip(source, destination, protocol, payload);
            let asked = ip(destination, source, 17, &udp(far, near));
            let kinds = |request| {
                if request {
                    f.echo_request()
                } else {
                    f.echo_reply()
                }
            };
            let packet = match kind {
                0..=2 => packet(6, &tcp(near, far, flags)),
                3 => packet(17, &udp(near, far)),
                4 => packet(f.icmp(), &icmp(kinds(near == 80), 0, far)),
                5 => packet(f.icmp(), &error(f, if v6 { 1 } else { 3 }, &asked)),
                6 => {
                    return fragment(
                        f,
                        near,
                        if far == 80 { 0 } else { 24 },
                        far == 80,
                        17,
                        &udp(near, 80),
                    );
                }
                7 if v6 => {
                    let pad = vec![1, 4, 0, 0, 0, 0];
                    extended(source, destination, &[(60, pad)], 6, &tcp(near, far, flags))
                }
                _ => packet([47, 50, 132][usize::from(flags % 3)], &[1; 16]),
            };
            frame(if from == 1 { B } else { A }, &packet)
        })
}

fn holder(f: Family, number: u8) -> IpAddr {
    match number {
        0 | 6 => f.a(),
        1 | 7 => f.b(),
        2 => f.remote(),
        3 => f.unknown(),
        4 => f.node(),
        8 => f.service(),
        _ => f.world(),
    }
}

/// Does it; a drop has a reason, and is counted once.
fn happen(node: &mut Node, act: &Act) {
    match act {
        // What one of two judges would have counted alone tells nothing of the next frame.
        Act::Frame { bytes, .. } if !node.takes(bytes) => {}
        Act::Frame { place, bytes } => {
            let before: u64 = drops(node);
            let result = match place {
                0 | 1 => node.send(A, bytes),
                2 | 3 => node.send(B, bytes),
                4 => node.give(B, 0, bytes),
                5 => node.give(A, OUTWARD, bytes),
                6 => node.give(B, ifindex(A), bytes),
                7 => node.give(A, ifindex(B), bytes),
                8 => node.leave(MARK, bytes),
                9 => node.leave(0, bytes),
                _ => node.arrive(bytes),
            };
            let counted = drops(node) - before;
            // What nobody serves is refused, and counted as dropped.
            let refused = node.context.reason == Reason::NoBackend;
            assert_eq!(counted, u64::from(result.is_err() || refused));
            if let Err(reason) = result {
                assert!(!matches!(reason, Reason::None | Reason::Internal));
            }
        }
        Act::Change {
            table,
            peer,
            program,
        } => {
            node.change(*table, Identity(*peer), cell(*program, *program));
        }
        Act::Watermark(number) => node.memory.watermarks = [*number; 6],
        Act::Move(here) => {
            for f in FAMILIES {
                if *here {
                    node.memory.slots_by_address.insert(f.b().into(), B);
                } else {
                    node.memory.slots_by_address.remove(&f.b().into());
                }
            }
            node.memory.epoch += 1;
        }
        Act::Backend(id, here) => {
            if let Some(backend) = node.memory.backends.get_mut(id) {
                // Which service it is of, the unused half word keeps meanwhile.
                if *here && backend.service == 0 {
                    (backend.service, backend.reserved) = (u32::from(backend.reserved), 0);
                } else if !*here && backend.service != 0 {
                    (backend.service, backend.reserved) = (0, backend.service as u16);
                }
            }
        }
        // A little more than asked for: at exactly a timeout, the kernel's clock, which goes on meanwhile, would be past it and the
        // memory's would not.
        Act::Wait(seconds) => node.memory.now += seconds * 1_000_000_000 + 1_000_000,
    }
}

fn drops(node: &Node) -> u64 {
    let all = node.memory.all_drops();
    all.iter().map(|(_, counter)| counter.packets).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 400, ..ProptestConfig::with_cases(crate::CASES / 8) })]

    #[test]
    fn whatever_happens_there_is_one_outcome(acts in prop::collection::vec(act(), 1..40)) {
        let mut node = Node::new();
        node.masquerade(40_000, 40_001);
        for f in FAMILIES {
            node.service((f.service(), 6, 80), &[(f.b(), 80), (f.a(), 8080), (f.remote(), 80)], 0);
            node.service((f.service(), 17, 80), &[(f.b(), 81), (f.remote(), 80)], 10);
            node.service((f.service(), 6, 8080), &[], 0);
        }
        for act in &acts {
            happen(&mut node, act);
        }
    }
}
