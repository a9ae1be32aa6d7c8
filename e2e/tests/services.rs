//! Services and masquerade with live traffic: real interfaces, whose checksums the kernel leaves to be made and whose segments it leaves to
//! be cut. Needs root: `cargo xtask test` runs it, by setting `SLUICE_KERNEL_TESTS`.

mod loader_support;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use loader_support::{Ground, POD_A, POD_B, kernel_tests, load};
use sluice_abi::Reason;
use sluice_abi::config::Config;
use sluice_abi::service::Frontend;
use sluice_datapath::load::{Datapath, Sizes};
use sluice_datapath::net::{NetNs, in_namespace};
use sluice_datapath::state::{Services, ServicesError, Target, Targets};

const PATIENCE: Duration = Duration::from_secs(3);
const TCP: u8 = 6;
const UDP: u8 = 17;
/// More than one segment, and more than a socket's buffer at once.
const BYTES: usize = 1 << 20;

fn services() -> [IpAddr; 2] {
    [
        IpAddr::from([10, 96, 0, 10]),
        IpAddr::from([0xfd96, 0, 0, 0, 0, 0, 0, 0x10]),
    ]
}

fn frontend(address: IpAddr, protocol: u8, port: u16) -> Frontend {
    Frontend {
        address: address.into(),
        port,
        protocol,
        reserved: 0,
    }
}

fn to(backends: &[SocketAddr]) -> Targets {
    let target = |backend: &SocketAddr| Target {
        address: backend.ip().into(),
        port: backend.port(),
    };
    Targets {
        backends: backends.iter().map(target).collect(),
        ..Targets::default()
    }
}

fn inside<T: Send>(ns: &NetNs, work: impl FnOnce() -> T + Send) -> T {
    in_namespace(ns, work).unwrap()
}

/// A connection from one namespace to an address that leads to a listener in another: a megabyte there and back. Who the client is for
/// the server.
fn talk(
    client: &NetNs,
    server: &NetNs,
    listener: &TcpListener,
    address: SocketAddr,
) -> std::io::Result<SocketAddr> {
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let _ = server;
            let (mut stream, peer) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut bytes = vec![0; BYTES];
            stream.read_exact(&mut bytes)?;
            stream.write_all(&bytes)?;
            Ok(peer)
        });
        let mut stream = inside(client, || TcpStream::connect_timeout(&address, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let sent: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
        stream.write_all(&sent)?;
        let mut back = vec![0; BYTES];
        stream.read_exact(&mut back)?;
        assert_eq!(back, sent);
        assert_eq!(stream.peer_addr()?, address);
        serving.join().unwrap()
    })
}

fn listen(ns: &NetNs, address: IpAddr) -> TcpListener {
    inside(ns, || TcpListener::bind((address, 0))).unwrap()
}

fn bind(ns: &NetNs, address: IpAddr) -> UdpSocket {
    let socket = inside(ns, || UdpSocket::bind((address, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A datagram there and back, of so many bytes. Who the client is for the server.
fn ask(client: &UdpSocket, server: &UdpSocket, address: SocketAddr, bytes: usize) -> SocketAddr {
    let mut buffer = vec![0; bytes + 1];
    client.send_to(&vec![7; bytes], address).unwrap();
    let (length, peer) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(length, bytes);
    server.send_to(&buffer[..length], peer).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((length, from), (bytes, address));
    peer
}

fn dropped(datapath: &Datapath) -> Vec<Reason> {
    let drops = datapath.counters().unwrap().drops().unwrap();
    drops.iter().map(|drop| drop.reason).collect()
}

#[test]
fn pods_reach_a_service_s_pods_and_themselves_by_it() {
    if !kernel_tests() {
        return;
    }
    let ground = Ground::new("svc");
    let mut datapath = load(None);
    let mut writer = datapath.writer().unwrap();
    ground.connect(&mut datapath, &mut writer);
    let mut services_map = datapath.services().unwrap();
    for ((own, other), service) in Ground::address_pairs().into_iter().zip(services()) {
        for (server, address) in [(POD_B, other), (POD_A, own)] {
            let (client, server) = (ground.pod(POD_A), ground.pod(server));
            let listener = listen(server, address);
            let socket = bind(server, address);
            services_map
                .apply(&[
                    (
                        frontend(service, TCP, 80),
                        Some(to(&[listener.local_addr().unwrap()])),
                    ),
                    (
                        frontend(service, UDP, 53),
                        Some(to(&[socket.local_addr().unwrap()])),
                    ),
                ])
                .unwrap();
            let peer = talk(client, server, &listener, (service, 80).into()).unwrap();
            // Who is its own backend meets the service.
            let known_as = if address == own { service } else { own };
            assert_eq!(peer.ip(), known_as);
            let asking = bind(client, own);
            for bytes in [4, 4000] {
                let peer = ask(&asking, &socket, (service, 53).into(), bytes);
                assert_eq!(peer.ip(), known_as);
            }
            // Nobody listens any more: the error comes back under the service's address.
            drop(socket);
            inside(client, || asking.connect((service, 53))).unwrap();
            asking.send(b"x").unwrap();
            let error = asking.recv(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    }
    assert!(dropped(&datapath).is_empty(), "{:?}", dropped(&datapath));
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    if !kernel_tests() {
        return;
    }
    let ground = Ground::new("refuse");
    let mut datapath = load(None);
    let mut writer = datapath.writer().unwrap();
    ground.connect(&mut datapath, &mut writer);
    let mut services_map = datapath.services().unwrap();
    for ((own, _), service) in Ground::address_pairs().into_iter().zip(services()) {
        let nobody = |protocol| (frontend(service, protocol, 80), Some(Targets::default()));
        services_map.apply(&[nobody(TCP), nobody(UDP)]).unwrap();
        let client = ground.pod(POD_A);
        let address = SocketAddr::from((service, 80));
        let begun = Instant::now();
        let answer = inside(client, || TcpStream::connect_timeout(&address, PATIENCE));
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let tcp = begun.elapsed();
        let asking = bind(client, own);
        inside(client, || asking.connect(address)).unwrap();
        asking.send(b"x").unwrap();
        let error = asking.recv(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        // Without an answer to its first packet a client waits for a second before the next.
        let both = begun.elapsed();
        assert!(
            tcp < Duration::from_millis(900),
            "{service}: {tcp:?}, {both:?}"
        );
    }
    let drops = datapath.counters().unwrap().drops().unwrap();
    assert_eq!(dropped(&datapath), [Reason::NoBackend]);
    assert_eq!(drops[0].counter.packets, 4);
}

/// With the stack forwarding and with its netfilter passed by; straight, and by a service whose backend is out there.
#[test]
fn pods_reach_the_world_under_the_node_s_address() {
    if !kernel_tests() {
        return;
    }
    let ground = Ground::new("masq");
    let mut datapath = load(None);
    let mut writer = datapath.writer().unwrap();
    ground.connect(&mut datapath, &mut writer);
    let world = ground.world(&mut datapath);
    let settings = datapath.settings().unwrap();
    let mut services_map = datapath.services().unwrap();
    for by_fib in [0, Config::FORWARD] {
        let config = settings.get().unwrap().unwrap();
        settings
            .put(&Config {
                flags: Config::READY | by_fib,
                masquerade_ipv4: world.node[0].into(),
                masquerade_ipv6: world.node[1].into(),
                masquerade_first: 61_000,
                masquerade_last: 61_999,
                ..config
            })
            .unwrap();
        for (family, (own, _)) in Ground::address_pairs().into_iter().enumerate() {
            let (there, node) = (world.addresses[family], world.node[family]);
            let listener = listen(&world.ns, there);
            let socket = bind(&world.ns, there);
            let client = ground.pod(POD_A);
            let straight = listener.local_addr().unwrap();
            let service = SocketAddr::from((services()[family], 80));
            services_map
                .apply(&[(frontend(service.ip(), TCP, 80), Some(to(&[straight])))])
                .unwrap();
            for address in [straight, service] {
                let peer = talk(client, &world.ns, &listener, address).unwrap();
                assert_eq!(peer.ip(), node);
                assert!((61_000..=61_999).contains(&peer.port()), "{peer}");
            }
            let asking = bind(client, own);
            for bytes in [4, 4000] {
                let peer = ask(&asking, &socket, socket.local_addr().unwrap(), bytes);
                assert_eq!(peer.ip(), node);
            }
            assert!(ground.ping(there), "{there}");
            let closed = socket.local_addr().unwrap();
            drop(socket);
            inside(client, || asking.connect(closed)).unwrap();
            asking.send(b"x").unwrap();
            let error = asking.recv(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    }
    assert!(dropped(&datapath).is_empty(), "{:?}", dropped(&datapath));
}

#[test]
fn services_are_written_taken_over_and_refused_when_there_is_no_room() {
    if !kernel_tests() {
        return;
    }
    let sizes = Sizes {
        services: 8,
        backends: 9,
        ..Sizes::small()
    };
    let datapath = Datapath::open(None, &sizes).unwrap();
    let mut services_map = datapath.services().unwrap();
    let backends = |from: u8, count: u8| -> Vec<SocketAddr> {
        (from..from + count)
            .map(|n| ([10, 0, 0, n], 80).into())
            .collect()
    };
    let [first, second] = services().map(|service| frontend(service, TCP, 80));
    let changed = services_map.apply(&[
        (first, Some(to(&backends(1, 3)))),
        (second, Some(to(&backends(1, 2)))),
    ]);
    assert_eq!(changed.unwrap(), 2);
    assert_eq!(
        services_map
            .apply(&[(first, Some(to(&backends(1, 3))))])
            .unwrap(),
        0
    );
    // Over and over: what is let go is used again.
    for round in 0..50 {
        let from = 1 + round % 7;
        services_map
            .apply(&[(first, Some(to(&backends(from, 3))))])
            .unwrap();
    }
    let known = |services_map: &Services| -> BTreeMap<Frontend, Targets> {
        services_map.iter().map(|(f, t)| (*f, t)).collect()
    };
    let before = known(&services_map);
    // There are ids for eight backends.
    let third = frontend(services()[0], UDP, 53);
    let refused = services_map.apply(&[
        (second, Some(to(&backends(100, 6)))),
        (third, Some(to(&backends(1, 7)))),
    ]);
    let Err(ServicesError::Full { map, left_out, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((map, left_out), ("service_backends", vec![second, third]));
    let mut after = known(&services_map);
    assert_eq!(after.remove(&third), Some(Targets::default()));
    assert_eq!(after, before);
    // Another process finds the same, and goes on.
    let mut next = datapath.services().unwrap();
    after.insert(third, to(&backends(1, 1)));
    assert_eq!(next.sync(&after).unwrap(), 1);
    assert_eq!(next.sync(&after).unwrap(), 0);
    assert_eq!(
        next.apply(&[(first, None), (second, None), (third, None)])
            .unwrap(),
        3
    );
    assert_eq!(next.sync(&BTreeMap::new()).unwrap(), 0);
    assert_eq!(datapath.services().unwrap().iter().count(), 0);
}
