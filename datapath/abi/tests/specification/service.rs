//! A pod that talks to a service's address talks to one of its backends and is judged so; what comes back bears the service's address.

use crate::common::*;
use sluice_abi::{
    Cookie, Identity, Reason,
    conntrack::ConntrackEntry,
    context::Outcome,
    event::{EventKind, Hook},
    ipcache::Address,
    service::{Backend, Frontend, Service},
};
use std::net::IpAddr;

const DELIVER: Result<Outcome, Reason> = Ok(Outcome::Deliver);
const ROUTE: Result<Outcome, Reason> = Ok(Outcome::Route);
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The client's port.
const NEAR: u16 = 40_000;
/// The service's port.
const PORT: u16 = 8443;

pub(crate) type EndPoint = (IpAddr, u16);

/// A frame between two ends; for UDP without flags.
pub(crate) fn packet(slot: u32, protocol: u8, from: EndPoint, to: EndPoint, flags: u8) -> Vec<u8> {
    let mut payload = if protocol == TCP {
        tcp(from.1, to.1, flags)
    } else {
        udp(from.1, to.1)
    };
    // With the right checksum, so that it is seen to stay right.
    let at = if protocol == TCP { 16 } else { 6 };
    let addresses = ip(from.0, to.0, protocol, &[]);
    let pseudo = &addresses[if from.0.is_ipv6() { 8 } else { 12 }..];
    let length = u16::from(protocol) + u16::try_from(payload.len()).unwrap();
    let summed = [pseudo, &length.to_be_bytes(), &payload].concat();
    payload[at..at + 2].copy_from_slice(&(!ones_sum(&summed)).to_be_bytes());
    frame(slot, &ip(from.0, to.0, protocol, &payload))
}

/// The ends that the last packet has now.
pub(crate) fn ends(node: &Node) -> (EndPoint, EndPoint) {
    let headers = &node.context.headers;
    let ip = |address: Address| std::net::Ipv6Addr::from(address.0).to_canonical();
    (
        (ip(headers.source), headers.source_port),
        (ip(headers.destination), headers.destination_port),
    )
}

fn new_connections(node: &Node) -> Vec<(IpAddr, u16, Identity, Cookie)> {
    let ip = |address: Address| std::net::Ipv6Addr::from(address.0).to_canonical();
    node.memory
        .take_events()
        .iter()
        .filter(|event| event.kind == EventKind::NewConnection as u8)
        .map(|event| &event.destination)
        .map(|end| (ip(end.address), end.port, end.identity, end.cookie))
        .collect()
}

#[test]
fn a_service_leads_to_a_pod_of_the_node_and_its_answers_back() {
    for f in FAMILIES {
        let (client, service, backend) = ((f.a(), NEAR), (f.service(), PORT), (f.b(), 80));
        for protocol in [TCP, UDP] {
            let mut node = Node::new();
            node.service((f.service(), protocol, PORT), &[backend], 0);
            let asks = |flags| packet(A, protocol, client, service, flags);
            let answers = |flags| packet(B, protocol, backend, client, flags);
            assert_eq!(node.send(A, &asks(SYN)), DELIVER);
            assert_eq!((ends(&node), node.context.deliver), ((client, backend), B));
            assert_eq!(node.send(B, &answers(SYN | ACK)), DELIVER);
            assert_eq!((ends(&node), node.context.deliver), ((service, client), A));
            // The backend is who is judged and told of, once.
            assert_eq!(
                new_connections(&node),
                [(backend.0, backend.1, POD_B, RULE)]
            );
            node.memory.take_lookups();
            node.memory.take_service_lookups();
            assert_eq!(node.send(A, &asks(ACK)), DELIVER);
            assert_eq!(ends(&node), (client, backend));
            assert_eq!(
                node.memory.take_lookups(),
                (2, 0, 0),
                "one more than without"
            );
            assert_eq!(node.send(B, &answers(ACK)), DELIVER);
            assert_eq!(ends(&node), (service, client));
            assert_eq!(node.memory.take_lookups(), (1, 0, 0), "none more");
            assert_eq!(node.memory.take_service_lookups(), 0);
            // It is judged again as what it is.
            node.memory.epoch += 1;
            assert_eq!(node.send(B, &answers(ACK)), DELIVER);
            assert_eq!(ends(&node), (service, client));
            node.memory.epoch += 1;
            assert_eq!(node.send(A, &asks(ACK)), DELIVER);
            assert_eq!(ends(&node), (client, backend));
            assert!(new_connections(&node).is_empty());
            node.change(B_INGRESS, POD_A, cell(2, 2));
            assert_eq!(node.send(B, &answers(ACK)), Err(Reason::PolicyDefaultDeny));
            assert_eq!(node.send(A, &asks(ACK)), Err(Reason::PolicyDefaultDeny));
        }
    }
}

#[test]
fn a_service_leads_to_other_machines_and_their_answers_back() {
    for f in FAMILIES {
        for backend in [(f.remote(), 80), (f.other_node(), 6443), (f.world(), 443)] {
            let (client, service) = ((f.a(), NEAR), (f.service(), PORT));
            let mut node = Node::new();
            node.service((f.service(), TCP, PORT), &[backend], 0);
            let asks = |flags| packet(A, TCP, client, service, flags);
            let answers = |flags| packet(A, TCP, backend, client, flags);
            assert_eq!(node.send(A, &asks(SYN)), ROUTE);
            assert_eq!(ends(&node), (client, backend));
            assert_eq!(node.arrive(&answers(SYN | ACK)), DELIVER);
            assert_eq!(ends(&node), (service, client));
            assert_eq!(node.send(A, &asks(ACK)), ROUTE);
            // Also where the node's stack brings it.
            assert_eq!(node.give(A, OUTWARD, &answers(ACK)), Ok(Outcome::Stack));
            assert_eq!(ends(&node), (service, client));
        }
    }
}

#[test]
fn policy_is_of_the_backend() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.service((f.service(), TCP, 80), &[(f.b(), 81)], 0);
        node.service((f.service(), TCP, 81), &[(f.b(), 80)], 0);
        let to = |port| packet(A, TCP, (f.a(), NEAR), (f.service(), port), SYN);
        assert_eq!(node.send(A, &to(80)), Err(Reason::PolicyDefaultDeny));
        assert_eq!(node.send(A, &to(81)), DELIVER);
    }
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.service((f.service(), TCP, PORT), &[], 0);
        node.service((f.service(), UDP, PORT), &[], 0);
        let (client, service) = ((f.a(), NEAR), (f.service(), PORT));
        for protocol in [TCP, UDP] {
            let asks = packet(A, protocol, client, service, SYN);
            assert_eq!(node.send(A, &asks), Ok(Outcome::Reply));
            let reply = &node.context.reply;
            let bytes = &reply.bytes[..usize::from(reply.length)];
            assert_eq!(
                (&bytes[..6], &bytes[6..12]),
                (&mac(A)[..], &host_mac(A)[..])
            );
            let header = if f.v6 { 40 } else { 20 };
            let (packet, message) = (&bytes[14..14 + header], &bytes[14 + header..]);
            let protocol = if protocol == TCP {
                let asked = &asks[14 + header..];
                assert_eq!(message[..2], asked[2..4], "from the port");
                assert_eq!(message[2..4], asked[..2]);
                assert_eq!(message[8..12], [0, 0, 0, 1], "the SYN's number and one");
                assert_eq!(message[12..14], [0x50, RST | ACK]);
                TCP
            } else {
                let (unreachable, port) = if f.v6 { (1, 4) } else { (3, 3) };
                assert_eq!(message[..2], [unreachable, port]);
                assert_eq!(message[8..], asks[14..14 + header + 8], "what it is about");
                f.icmp()
            };
            let wanted = ip(service.0, client.0, protocol, message);
            let same = if f.v6 { 40 } else { 4 };
            assert_eq!(packet[..same], wanted[..same]);
            let addresses = if f.v6 { &packet[8..] } else { &packet[12..] };
            assert_eq!(
                addresses,
                &wanted[wanted.len() - message.len() - addresses.len()..][..addresses.len()]
            );
            assert!(f.v6 || ones_sum(packet) == 0xffff);
            let length = u8::try_from(message.len()).unwrap();
            let pseudo = [addresses, &[0, length, 0, protocol], message].concat();
            let summed = if protocol == 1 { message } else { &pseudo };
            assert_eq!(ones_sum(summed), 0xffff);
        }
        assert_eq!(
            node.memory
                .drops(Hook::FromEndpoint, Reason::NoBackend)
                .packets,
            2
        );
        // In midstream there is nothing to refuse.
        let stray = packet(A, TCP, client, service, ACK);
        assert_eq!(node.send(A, &stray), Err(Reason::NoBackend));
        let frontend = Frontend {
            address: service.0.into(),
            port: PORT,
            protocol: TCP,
            reserved: 0,
        };
        let asks = packet(A, TCP, client, service, SYN);
        for (flags, reason) in [
            (Service::SILENT, Reason::NoBackend),
            (Service::NOT_READY, Reason::ServiceNotReady),
        ] {
            node.memory.services.get_mut(&frontend).unwrap().flags = flags;
            assert_eq!(node.send(A, &asks), Err(reason));
        }
    }
}

#[test]
fn a_service_s_address_is_good_for_nothing_else() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.service((f.service(), TCP, PORT), &[(f.b(), 80)], 0);
        let (client, other) = ((f.a(), NEAR), (f.service(), PORT + 1));
        for sent in [
            packet(A, TCP, client, other, SYN),
            packet(A, UDP, client, (f.service(), PORT), 0),
            frame(
                A,
                &ip(client.0, other.0, f.icmp(), &icmp(f.echo_request(), 0, 7)),
            ),
            frame(A, &ip(client.0, other.0, 50, &[0; 16])),
        ] {
            assert_eq!(node.send(A, &sent), Err(Reason::NoSuchServicePort));
        }
        // Nobody but a pod gets there by this way.
        let from_outside = packet(A, TCP, (f.world(), NEAR), (f.service(), PORT), SYN);
        assert_eq!(node.arrive(&from_outside), Ok(Outcome::Stack));
    }
}

#[test]
fn a_pod_reaches_itself_by_its_service() {
    for f in FAMILIES {
        for protocol in [TCP, UDP] {
            let (client, service, itself) = ((f.a(), NEAR), (f.service(), PORT), (f.a(), 80));
            let mut node = Node::new();
            node.service((f.service(), protocol, PORT), &[itself], 0);
            let mask = (f.service(), NEAR);
            let both = |node: &mut Node, flags, answer| {
                let asks = packet(A, protocol, client, service, flags);
                assert_eq!(node.send(A, &asks), DELIVER);
                assert_eq!((ends(node), node.context.deliver), ((mask, itself), A));
                let answers = packet(A, protocol, itself, mask, answer);
                assert_eq!(node.send(A, &answers), DELIVER);
                assert_eq!((ends(node), node.context.deliver), ((service, client), A));
            };
            both(&mut node, SYN, SYN | ACK);
            both(&mut node, ACK, ACK);
            node.memory.epoch += 1;
            both(&mut node, ACK, ACK);
            let itself = [(itself.0, itself.1, POD_A, Cookie::SELF)];
            assert_eq!(new_connections(&node), itself);
            // From outside nobody gets into it.
            let forged = packet(A, protocol, mask, (f.a(), 80), ACK);
            assert_eq!(node.arrive(&forged), Err(Reason::TranslationConflict));
        }
    }
}

#[test]
fn a_backend_that_is_gone_keeps_its_connections_and_loses_the_rest() {
    for f in FAMILIES {
        let (client, service) = ((f.a(), NEAR), (f.service(), PORT));
        let asks = |protocol, flags| packet(A, protocol, client, service, flags);
        let gone = (f.remote(), 80);
        for (protocol, established, stays) in
            [(TCP, true, true), (TCP, false, false), (UDP, true, false)]
        {
            let mut node = Node::new();
            let ids = node.service((f.service(), protocol, PORT), &[gone], 0);
            assert_eq!(node.send(A, &asks(protocol, SYN)), ROUTE);
            if established {
                let answer = packet(A, protocol, gone, client, SYN | ACK);
                assert_eq!(node.arrive(&answer), DELIVER);
                assert_eq!(node.send(A, &asks(protocol, ACK)), ROUTE);
            }
            let left = (f.b(), 80);
            node.service((f.service(), protocol, PORT), &[left], 0);
            node.memory.backends.insert(ids[0], Backend::default());
            let flags = if established { ACK } else { SYN };
            let sent = node.send(A, &asks(protocol, flags));
            if stays {
                assert_eq!((sent, ends(&node)), (ROUTE, (client, gone)));
            } else {
                assert_eq!((sent, ends(&node)), (DELIVER, (client, left)));
            }
        }
    }
}

#[test]
fn an_ended_connection_s_ports_choose_again() {
    for f in FAMILIES {
        let (client, service, backend) = ((f.a(), NEAR), (f.service(), PORT), (f.b(), 80));
        let mut node = Node::new();
        node.service((f.service(), TCP, PORT), &[backend], 0);
        let asks = |flags| packet(A, TCP, client, service, flags);
        assert_eq!(node.send(A, &asks(SYN)), DELIVER);
        assert_eq!(node.send(A, &asks(RST)), DELIVER);
        assert_eq!(node.send(A, &asks(SYN)), DELIVER);
        assert_eq!(ends(&node), (client, backend));
        assert_eq!(new_connections(&node).len(), 2);
        node.memory.now += 3600 * 1_000_000_000;
        assert_eq!(node.send(A, &asks(SYN)), DELIVER);
        assert_eq!(new_connections(&node).len(), 1);
        assert_eq!(node.memory.entries().len(), 2);
    }
}

#[test]
fn clients_are_spread_and_those_with_affinity_stay() {
    for f in FAMILIES {
        let backends = [
            (f.b(), 80),
            (f.remote(), 80),
            (f.remote(), 81),
            (f.world(), 80),
        ];
        for affinity in [0, 100] {
            let mut node = Node::new();
            node.memory.config.conntrack_quota = 4;
            node.service((f.service(), UDP, PORT), &backends, affinity);
            let mut met = std::collections::BTreeMap::<EndPoint, u32>::new();
            for near in 1000..1400 {
                let asks = packet(A, UDP, (f.a(), near), (f.service(), PORT), 0);
                node.send(A, &asks).unwrap();
                *met.entry(ends(&node).1).or_default() += 1;
            }
            if affinity == 0 {
                assert_eq!(met.len(), backends.len());
                assert!(
                    met.values().all(|count| (60..140).contains(count)),
                    "{met:?}"
                );
                continue;
            }
            assert_eq!(met.len(), 1, "{met:?}");
            // Each new connection begins the time anew; after it, and when the backend goes, any will do.
            let kept = *met.keys().next().unwrap();
            let after = |node: &mut Node, seconds: u64, near| {
                node.memory.now += seconds * 1_000_000_000;
                let asks = packet(A, UDP, (f.a(), near), (f.service(), PORT), 0);
                node.send(A, &asks).unwrap();
                ends(node).1
            };
            for near in 1400..1410 {
                assert_eq!(after(&mut node, 90, near), kept);
            }
            assert!((1410..1440).any(|near| after(&mut node, 101, near) != kept));
            let last = after(&mut node, 1, 1440);
            for backend in node.memory.backends.values_mut() {
                if backend.address == last.0.into() && backend.port == last.1 {
                    backend.service = 0;
                }
            }
            assert_ne!(after(&mut node, 1, 1441), last);
        }
    }
}

/// The same pod, from the same port, to a service and straight to its backend: whoever comes second is told apart or refused.
#[test]
fn connections_that_translation_would_make_one_stay_two() {
    for f in FAMILIES {
        let (client, service, backend) = ((f.a(), NEAR), (f.service(), PORT), (f.b(), 80));
        let direct = |flags| packet(A, TCP, client, backend, flags);
        let by_service = |flags| packet(A, TCP, client, service, flags);
        let mut node = Node::new();
        node.service((f.service(), TCP, PORT), &[backend], 0);
        assert_eq!(node.send(A, &direct(SYN)), DELIVER);
        assert_eq!(node.send(A, &by_service(SYN)), DELIVER);
        let masked = ends(&node).0;
        assert_eq!(masked.0, client.0);
        assert_ne!(masked.1, client.1);
        let answer = packet(B, TCP, backend, masked, SYN | ACK);
        assert_eq!(node.send(B, &answer), DELIVER);
        assert_eq!(ends(&node), (service, client));
        let answer = packet(B, TCP, backend, client, SYN | ACK);
        assert_eq!(node.send(B, &answer), DELIVER);
        assert_eq!(ends(&node), (backend, client));

        let mut node = Node::new();
        node.service((f.service(), TCP, PORT), &[backend], 0);
        assert_eq!(node.send(A, &by_service(SYN)), DELIVER);
        assert_eq!(node.send(A, &direct(SYN)), Err(Reason::TranslationConflict));
        assert_eq!(node.send(A, &by_service(RST)), DELIVER);
        assert_eq!(node.send(A, &direct(SYN)), DELIVER);
        let answer = packet(B, TCP, backend, client, SYN | ACK);
        assert_eq!(node.send(B, &answer), DELIVER);
        assert_eq!(ends(&node), (backend, client), "it is the direct one's now");
    }
}

#[test]
fn sctp_keeps_its_ports() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.service((f.service(), 132, 80), &[(f.b(), 80)], 0);
        node.service((f.service(), 132, 81), &[(f.b(), 80)], 0);
        let init = |port: u16| {
            let mut bytes = vec![0; 24];
            bytes[..2].copy_from_slice(&NEAR.to_be_bytes());
            bytes[2..4].copy_from_slice(&port.to_be_bytes());
            bytes[12] = 1;
            frame(A, &ip(f.a(), f.service(), 132, &bytes))
        };
        assert_eq!(node.send(A, &init(81)), Err(Reason::Untranslatable));
        assert_eq!(node.send(A, &init(80)), DELIVER);
        assert_eq!(ends(&node).1, (f.b(), 80));
    }
}

#[test]
fn errors_speak_to_each_side_in_its_own_words() {
    for f in FAMILIES {
        let unreachable = if f.v6 { 1 } else { 3 };
        let (client, service) = ((f.a(), NEAR), (f.service(), PORT));
        for backend in [(f.b(), 80), (f.remote(), 80)] {
            let mut node = Node::new();
            node.service((f.service(), UDP, PORT), &[backend], 0);
            let asks = packet(A, UDP, client, service, 0);
            node.send(A, &asks).unwrap();
            let quote = |from: IpAddr, to: IpAddr, (source, destination): (EndPoint, EndPoint)| {
                let quoted = ip(source.0, destination.0, UDP, &udp(source.1, destination.1));
                let error = crate::headers::error(f, unreachable, &quoted);
                ip(from, to, f.icmp(), &error)
            };
            let inner = |node: &Node| {
                let inner = &node.context.inner;
                let ip = |address: Address| std::net::Ipv6Addr::from(address.0).to_canonical();
                (
                    (ip(inner.source), inner.source_port),
                    (ip(inner.destination), inner.destination_port),
                )
            };
            // From the backend, and from a router on the way to it.
            let mut senders = vec![backend.0];
            if backend.0 == f.remote() {
                senders.push(f.world());
            }
            for sender in senders {
                let error = quote(sender, client.0, (client, backend));
                let sent = if sender == f.b() {
                    node.send(B, &frame(B, &error))
                } else {
                    node.arrive(&frame(A, &error))
                };
                assert_eq!(sent, DELIVER);
                assert_eq!(node.context.deliver, A);
                let (from, to) = ends(&node);
                let named = if sender == backend.0 {
                    service.0
                } else {
                    sender
                };
                assert_eq!((from.0, to.0), (named, client.0));
                assert_eq!(inner(&node), (client, service));
            }
            // The client does not want an answer that it got.
            let error = quote(client.0, service.0, (service, client));
            let sent = node.send(A, &frame(A, &error));
            assert_eq!(sent, if backend.0 == f.b() { DELIVER } else { ROUTE });
            let (from, to) = ends(&node);
            assert_eq!((from.0, to.0), (client.0, backend.0));
            assert_eq!(inner(&node), (backend, client));
            // Of what it was never sent it can't complain.
            let error = quote(client.0, backend.0, (backend, client));
            assert_eq!(node.send(A, &frame(A, &error)), Err(Reason::UnrelatedError));
        }
    }
}

#[test]
fn later_fragments_go_where_the_first_went() {
    for f in FAMILIES {
        let (client, service, backend) = ((f.a(), NEAR), (f.service(), PORT), (f.b(), 80));
        let mut node = Node::new();
        node.service((f.service(), UDP, PORT), &[backend], 0);
        let piece = |slot, from: EndPoint, to: EndPoint, at, more| {
            let payload = udp(from.1, to.1);
            frame(
                slot,
                &crate::headers::fragment_between((from.0, to.0), 7, at, more, UDP, &payload),
            )
        };
        let later = piece(A, client, service, 24, false);
        assert_eq!(node.send(A, &later), Err(Reason::FragmentWithoutFirst));
        assert_eq!(node.send(A, &piece(A, client, service, 0, true)), DELIVER);
        assert_eq!(ends(&node), (client, backend));
        assert_eq!(node.send(A, &later), DELIVER);
        assert_eq!(ends(&node), (client, backend));
        assert_eq!(node.send(B, &piece(B, backend, client, 0, true)), DELIVER);
        assert_eq!(node.send(B, &piece(B, backend, client, 24, false)), DELIVER);
        assert_eq!(ends(&node), (service, client));
    }
}

/// Whichever of its two entries has to give way, the connection goes on where it was.
#[test]
fn a_connection_survives_the_loss_of_an_entry() {
    for f in FAMILIES {
        let (client, service) = ((f.a(), NEAR), (f.service(), PORT));
        let backends: Vec<EndPoint> = (0..8).map(|n| (f.remote(), 80 + n)).collect();
        for lost in [ConntrackEntry::SERVICE, ConntrackEntry::TRANSLATED] {
            let mut node = Node::new();
            node.service((f.service(), TCP, PORT), &backends, 0);
            assert_eq!(node.send(A, &packet(A, TCP, client, service, SYN)), ROUTE);
            let backend = ends(&node).1;
            let answer = packet(A, TCP, backend, client, SYN | ACK);
            assert_eq!(node.arrive(&answer), DELIVER);
            let entries = node.memory.entries();
            let entry = entries
                .iter()
                .find(|entry| entry.flags & lost != 0)
                .unwrap();
            let connection = entries
                .iter()
                .find(|entry| entry.leads_to().is_none())
                .unwrap();
            assert!(
                entries
                    .iter()
                    .all(|entry| { entry.leads_to().is_none_or(|to| to == connection.key) })
            );
            node.forget(&entry.key);
            assert_eq!(node.send(A, &packet(A, TCP, client, service, ACK)), ROUTE);
            assert_eq!(ends(&node), (client, backend));
            assert_eq!(node.arrive(&packet(A, TCP, backend, client, ACK)), DELIVER);
            assert_eq!(ends(&node), (service, client));
            assert_eq!(node.memory.entries().len(), 2);
        }
    }
}
