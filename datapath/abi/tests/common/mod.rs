//! A small node for packet tests: two pods, a remote one, the node itself, the outside; and frames to send.
//!
//! Only building blocks; expectations are in the specification. What a node remembers is in ordinary memory; where the test binary gives
//! it a [`Twin`], each frame is judged there too, and the twin sees to it that both agree.
// Each test binary uses a part of it, and names say what constants are.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::cast_possible_truncation, clippy::field_reassign_with_default)]

use sluice_abi::{
    Cookie, Identity, Reason, Scope,
    classify::{self, Seen},
    config::Config,
    conntrack::ConntrackKey,
    context::{Context, Outcome},
    datapath::Datapath,
    endpoint::Endpoint,
    event::{Event, Hook},
    ipcache::{Address, AddressInfo, PrefixKey},
    memory::Memory,
    overlay::{NodeRecord, Tunnel},
    policy::{AttributionKey, PeerCell, PeerKey, PeerValue, TableDefaults, Versioned},
    program::{Cell, PortRange, Program, Verdict},
    service::{Backend, Frontend, Service},
};
use std::net::IpAddr;

pub const NODE: u32 = 7;
pub const A: u32 = 1;
pub const B: u32 = 2;
pub const ALLOW_ALL: u32 = 1;
pub const B_INGRESS: u32 = 2;
pub const POD_A: Identity = Identity(300);
pub const POD_B: Identity = Identity(301);
pub const POD_REMOTE: Identity = Identity(302);
/// The rule that lets A reach B at TCP and UDP 80 and by echo request.
pub const RULE: Cookie = Cookie(2000);
/// The rule that sends TCP 8080 to a proxy.
pub const PROXY_RULE: Cookie = Cookie(2001);

/// A family's addresses.
#[derive(Clone, Copy)]
pub struct Family {
    pub v6: bool,
}

pub const FAMILIES: [Family; 2] = [Family { v6: false }, Family { v6: true }];

impl Family {
    fn of(self, v4: &str, v6: &str) -> IpAddr {
        (if self.v6 { v6 } else { v4 }).parse().unwrap()
    }
    pub fn a(self) -> IpAddr {
        self.of("10.0.0.1", "fd00::1")
    }
    pub fn b(self) -> IpAddr {
        self.of("10.0.0.2", "fd00::2")
    }
    pub fn remote(self) -> IpAddr {
        self.of("10.0.1.1", "fd00:1::1")
    }
    pub fn unknown(self) -> IpAddr {
        self.of("10.0.1.99", "fd00:1::99")
    }
    pub fn node(self) -> IpAddr {
        self.of("192.168.0.7", "fd01::7")
    }
    pub fn other_node(self) -> IpAddr {
        self.of("192.168.0.8", "fd01::8")
    }
    pub fn world(self) -> IpAddr {
        self.of("203.0.113.5", "2001:db8::5")
    }
    pub fn service(self) -> IpAddr {
        self.of("10.96.0.10", "fd96::10")
    }
    pub fn gateway(self) -> IpAddr {
        self.of("169.254.1.1", "fe80::1")
    }
    pub fn icmp(self) -> u8 {
        if self.v6 { 58 } else { 1 }
    }
    pub fn echo_request(self) -> u8 {
        if self.v6 { 128 } else { 8 }
    }
    pub fn echo_reply(self) -> u8 {
        if self.v6 { 129 } else { 0 }
    }
}

pub fn mac(slot: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0, slot as u8]
}

pub fn host_mac(slot: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, slot as u8]
}

pub fn ifindex(slot: u32) -> u32 {
    100 + slot
}

/// The interface that faces outward.
pub const OUTWARD: u32 = 9;
/// The device that wraps packets for other nodes.
pub const OVERLAY_DEVICE: u32 = 11;
pub const OVERLAY_PORT: u16 = 8472;

/// What the datapath over ordinary memory did with one frame.
pub struct Judged<'a> {
    pub memory: &'a Memory,
    pub context: &'a Context,
    pub hook: Hook,
    pub seen: Seen,
    /// For [`Hook::Trace`]: the node from whose sight it was judged. For [`Hook::ToOutside`]: the packet's mark.
    pub sight: u32,
    pub frame: &'a [u8],
    pub outcome: Outcome,
    /// The events that were sent.
    pub events: &'a [Event],
}

/// Another datapath with the same maps. It fails the test where it differs.
pub trait Twin {
    /// Whether it can judge such a frame; it stays out of it where it can't.
    fn takes(&self, frame: &[u8]) -> bool;
    fn judge(&mut self, judged: &Judged<'_>);
    /// Forgets a connection's entry.
    fn forget(&mut self, key: &ConntrackKey);
}

/// The node and what its programs remember.
pub struct Node {
    pub memory: Memory,
    pub context: Box<Context>,
    /// What packets out of the overlay were wrapped in.
    tunnel: Option<Tunnel>,
    twin: Option<Box<dyn Twin>>,
}

impl Node {
    pub fn new() -> Self {
        let mut memory = Memory::default();
        memory.config = Config {
            gateway_ipv4: Address::v4([169, 254, 1, 1]),
            gateway_ipv6: FAMILIES[1].gateway().into(),
            drop_event_interval: Config::DEFAULT_DROP_EVENT_INTERVAL,
            drop_event_burst: Config::DEFAULT_DROP_EVENT_BURST,
            node: NODE,
            flags: Config::READY,
            conntrack_quota: 8,
            overlay_ifindex: OVERLAY_DEVICE,
            overlay_port: u32::from(OVERLAY_PORT),
            overlay_ipv4: FAMILIES[0].node().into(),
            overlay_ipv6: FAMILIES[1].node().into(),
            ..Config::default()
        };
        memory.now = 1_000_000_000_000;
        memory.epoch = 1;
        memory.watermarks = [1000; 6];
        program(&mut memory, 1, Verdict::Allow, &[]);
        program(&mut memory, 2, Verdict::Deny, &[]);
        program(
            &mut memory,
            3,
            Verdict::Deny,
            &[
                (6, 80, 80, Verdict::Allow, 0),
                (17, 80, 80, Verdict::Allow, 0),
                (132, 80, 80, Verdict::Allow, 0),
                (1, 8, 8, Verdict::Allow, 0),
                (58, 128, 128, Verdict::Allow, 0),
                (6, 8080, 8080, Verdict::Redirect, 1),
            ],
        );
        attribution(&mut memory, 1, 0, Cookie::DEFAULT_ALLOW);
        attribution(&mut memory, 2, 0, Cookie::DEFAULT_DENY);
        attribution(&mut memory, 3, 0, RULE);
        attribution(&mut memory, 3, 1, PROXY_RULE);
        attribution(&mut memory, 3, 9, Cookie::DEFAULT_DENY);
        attribution(&mut memory, 4, 0, Cookie::LOCAL_HOST);
        table(&mut memory, ALLOW_ALL, cell(1, 1));
        table(&mut memory, B_INGRESS, cell(2, 2));
        peer(&mut memory, B_INGRESS, POD_A, cell(3, 3));
        peer(&mut memory, B_INGRESS, POD_REMOTE, cell(3, 3));
        peer(&mut memory, B_INGRESS, Identity::HOST, cell(1, 4));
        let mut node = Self {
            memory,
            context: Box::new(Context::new()),
            tunnel: None,
            twin: crate::twin(),
        };
        node.pod(A, POD_A, ALLOW_ALL, ALLOW_ALL);
        node.pod(B, POD_B, ALLOW_ALL, B_INGRESS);
        for family in FAMILIES {
            let m = &mut node.memory;
            address(
                m,
                family.remote(),
                POD_REMOTE,
                POD_REMOTE,
                8,
                AddressInfo::POD,
            );
            for (ip, number) in [(family.node(), NODE), (family.other_node(), 8)] {
                address(
                    m,
                    ip,
                    Identity::REMOTE_NODE,
                    Identity::HOST,
                    number,
                    AddressInfo::NODE,
                );
            }
        }
        for (bits, ip) in [(96 + 16, "10.0.0.0"), (48, "fd00:1::"), (64, "fd00::")] {
            let address: IpAddr = ip.parse().unwrap();
            node.memory.prefixes.insert(
                PrefixKey {
                    prefix_bits: bits,
                    address: address.into(),
                },
                AddressInfo::default(),
            );
        }
        node
    }

    pub fn pod(&mut self, slot: u32, identity: Identity, egress: u32, ingress: u32) {
        let ip = |v6: bool| -> IpAddr {
            (if v6 {
                format!("fd00::{slot}")
            } else {
                format!("10.0.0.{slot}")
            })
            .parse()
            .unwrap()
        };
        self.memory.endpoints.insert(
            slot,
            Endpoint {
                ipv4: ip(false).into(),
                ipv6: ip(true).into(),
                identity,
                egress_table: egress,
                ingress_table: ingress,
                ifindex: ifindex(slot),
                flags: Endpoint::PRESENT | Endpoint::IPV4 | Endpoint::IPV6,
                generation: 1,
                mac: mac(slot),
                host_mac: host_mac(slot),
                identity_ipv6: Identity::UNKNOWN,
            },
        );
        self.memory.slots_by_ifindex.insert(ifindex(slot), slot);
        for v6 in [false, true] {
            self.memory.slots_by_address.insert(ip(v6).into(), slot);
            address(
                &mut self.memory,
                ip(v6),
                identity,
                identity,
                NODE,
                AddressInfo::POD,
            );
        }
    }

    /// Makes a service: where its frontend leads, and for how many seconds a client stays there. Returns its backends' ids.
    pub fn service(
        &mut self,
        (address, protocol, port): (IpAddr, u8, u16),
        backends: &[(IpAddr, u16)],
        affinity: u32,
    ) -> Vec<u32> {
        let m = &mut self.memory;
        let mark = Frontend::mark(address.into());
        let frontend = Frontend {
            protocol,
            port,
            ..mark
        };
        let number = match m.services.get(&frontend) {
            Some(known) => known.number,
            None => m.services.len() as u32 + 1,
        };
        let (first, free) = (m.lists.len() as u32, m.backends.len() as u32 + 1);
        let ids: Vec<u32> = (free..).take(backends.len()).collect();
        for (id, &(address, port)) in ids.iter().zip(backends) {
            m.lists.insert(m.lists.len() as u32, *id);
            let record = Backend {
                address: address.into(),
                service: number,
                port,
                reserved: 0,
            };
            m.backends.insert(*id, record);
        }
        let marked = Service {
            frontend: mark,
            ..Service::default()
        };
        m.services.insert(mark, marked);
        let service = Service {
            frontend,
            number,
            first,
            count: backends.len() as u32,
            affinity,
            flags: 0,
        };
        m.services.insert(frontend, service);
        ids
    }

    /// Forgets a connection's entry, as if it had to give way.
    pub fn forget(&mut self, key: &ConntrackKey) {
        self.memory.remove_connection(key);
        if let Some(twin) = &mut self.twin {
            twin.forget(key);
        }
    }

    /// Sends a frame from a pod.
    pub fn send(&mut self, slot: u32, frame: &[u8]) -> Result<Outcome, Reason> {
        self.judge(Hook::FromEndpoint, ifindex(slot), ifindex(slot), frame, 0)
    }

    /// Gives a frame to a pod out of the stack; `ingress` 0 for the node's own.
    pub fn give(&mut self, slot: u32, ingress: u32, frame: &[u8]) -> Result<Outcome, Reason> {
        self.judge(Hook::ToEndpoint, ifindex(slot), ingress, frame, 0)
    }

    /// A frame arrives from outside.
    pub fn arrive(&mut self, frame: &[u8]) -> Result<Outcome, Reason> {
        self.judge(Hook::FromOutside, OUTWARD, OUTWARD, frame, 0)
    }

    /// A frame leaves for outside, with a mark.
    pub fn leave(&mut self, mark: u32, frame: &[u8]) -> Result<Outcome, Reason> {
        self.judge(Hook::ToOutside, OUTWARD, 0, frame, mark)
    }

    /// Gives pods' connections beyond the cluster the node's address, and these ports.
    pub fn masquerade(&mut self, first: u16, last: u16) {
        let config = &mut self.memory.config;
        config.masquerade_ipv4 = FAMILIES[0].node().into();
        config.masquerade_ipv6 = FAMILIES[1].node().into();
        config.masquerade_first = first;
        config.masquerade_last = last;
    }

    /// A frame arrives that another node wrapped. A test run in the kernel can't be given the wrapping, so from here on there is no twin.
    pub fn unwrap(&mut self, tunnel: Option<Tunnel>, frame: &[u8]) -> Result<Outcome, Reason> {
        self.twin = None;
        self.tunnel = tunnel;
        self.judge(Hook::FromOverlay, OVERLAY_DEVICE, OVERLAY_DEVICE, frame, 0)
    }

    /// The stack sends a frame to another node; `ingress` 0 for the node's own.
    pub fn wrap(&mut self, ingress: u32, frame: &[u8]) -> Result<Outcome, Reason> {
        self.judge(Hook::ToOverlay, OVERLAY_DEVICE, ingress, frame, 0)
    }

    /// Turns the overlay on, with one other node, number 8.
    pub fn overlay(&mut self) {
        self.memory.config.flags |= Config::OVERLAY;
        let underlay = FAMILIES[0].other_node().into();
        let record = NodeRecord {
            number: 8,
            underlay,
        };
        self.memory.nodes.insert(8, record);
        for (bits, ip) in [(96 + 24, "10.0.1.0"), (48, "fd00:1::")] {
            let address: IpAddr = ip.parse().unwrap();
            let block = PrefixKey {
                prefix_bits: bits,
                address: address.into(),
            };
            self.memory.node_cidrs.insert(block, 8);
        }
    }

    /// Whether a twin, if there is one, judges such a frame too.
    pub fn takes(&self, frame: &[u8]) -> bool {
        self.twin.as_ref().is_none_or(|twin| twin.takes(frame))
    }

    /// Traces a frame from the sight of a node, 0 for this one.
    pub fn trace(&mut self, frame: &[u8], sight: u32) {
        let _ = self.judge(Hook::Trace, 1, 1, frame, sight);
    }

    fn judge(
        &mut self,
        hook: Hook,
        ifindex: u32,
        ingress_ifindex: u32,
        frame: &[u8],
        sight: u32,
    ) -> Result<Outcome, Reason> {
        let seen = Seen {
            ifindex,
            ingress_ifindex,
        };
        let (memory, context) = (&self.memory, &mut *self.context);
        let told = memory.events().len();
        let outcome = match hook {
            Hook::FromEndpoint => classify::from_endpoint(memory, frame, context, seen),
            Hook::ToEndpoint => classify::to_endpoint(memory, frame, context, seen),
            Hook::FromOutside => classify::from_outside(memory, frame, context, seen),
            Hook::Trace => classify::trace(memory, frame, context, seen, sight),
            Hook::ToOutside => classify::to_outside(memory, frame, context, seen, sight),
            Hook::FromOverlay => {
                context.tunnel = self.tunnel.unwrap_or_default();
                let wrapped = self.tunnel.is_some();
                classify::from_overlay(memory, frame, context, seen, wrapped)
            }
            Hook::ToOverlay => classify::to_overlay(memory, frame, context, seen),
        };
        if let Some(twin) = self.twin.as_mut().filter(|twin| twin.takes(frame)) {
            twin.judge(&Judged {
                memory,
                context,
                hook,
                seen,
                sight,
                frame,
                outcome,
                events: &memory.events()[told..],
            });
        }
        match outcome {
            Outcome::Drop => Err(self.context.reason),
            outcome => Ok(outcome),
        }
    }

    /// Replaces what B's ingress says of a peer, as userland does: the entry first, then the revision.
    pub fn change(&mut self, table: u32, identity: Identity, new: PeerCell) {
        let key = PeerKey { table, identity };
        let revision = self.memory.revisions[&table];
        let old = self
            .memory
            .peers
            .get(&key)
            .map_or(PeerCell::ABSENT, |v| v.cell.at(revision));
        let cell = Versioned {
            old,
            new,
            from_revision: revision + 1,
            reserved: 0,
        };
        self.memory.peers.insert(key, PeerValue { key, cell });
        self.memory.revisions.insert(table, revision + 1);
    }
}

pub fn cell(program: u32, attribution: u32) -> PeerCell {
    PeerCell {
        program,
        attribution,
    }
}

fn always(cell: PeerCell) -> Versioned {
    Versioned {
        old: cell,
        new: cell,
        from_revision: 1,
        reserved: 0,
    }
}

pub fn table(memory: &mut Memory, id: u32, default: PeerCell) {
    memory.revisions.insert(id, 1);
    memory
        .defaults
        .insert(id, TableDefaults::constant([default; Scope::COUNT]));
}

pub fn peer(memory: &mut Memory, table: u32, identity: Identity, cell: PeerCell) {
    let key = PeerKey { table, identity };
    let cell = always(cell);
    memory.peers.insert(key, PeerValue { key, cell });
}

pub fn attribution(memory: &mut Memory, attribution: u32, slot: u32, cookie: Cookie) {
    memory
        .attributions
        .insert(AttributionKey { attribution, slot }, cookie);
}

pub fn program(
    memory: &mut Memory,
    id: u32,
    other: Verdict,
    ranges: &[(u8, u16, u16, Verdict, u16)],
) {
    let mut program = Program {
        count: ranges.len() as u16,
        flags: Program::PRESENT,
        other: Cell {
            verdict: other as u8,
            slot: if ranges.is_empty() { 0 } else { 9 },
            ..Cell::default()
        },
        ..Program::default()
    };
    for (at, &(protocol, low, high, verdict, slot)) in ranges.iter().enumerate() {
        program.ranges[at] = PortRange {
            low,
            high,
            protocol,
            reserved: [0; 3],
            cell: Cell {
                verdict: verdict as u8,
                slot,
                ..Cell::default()
            },
        };
    }
    memory.programs.insert(id, program);
}

pub fn address(
    memory: &mut Memory,
    ip: IpAddr,
    identity: Identity,
    host_identity: Identity,
    node: u32,
    flags: u32,
) {
    memory.addresses.insert(
        ip.into(),
        AddressInfo {
            identity,
            host_identity,
            node,
            flags,
        },
    );
}

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;
pub const RST: u8 = 4;

/// A TCP header without options.
pub fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = flags;
    bytes
}

pub fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes[..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.to_be_bytes());
    bytes[5] = 12;
    bytes
}

pub fn icmp(kind: u8, code: u8, identifier: u16) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(identifier.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// An IP packet.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = 20 + payload.len() as u16;
            bytes.extend([0x45, 0]);
            bytes.extend(total.to_be_bytes());
            bytes.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            let sum = !ones_sum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => panic!("families differ"),
    }
    bytes.extend(payload);
    bytes
}

/// The Internet checksum's sum over bytes (RFC 1071), without the final complement.
pub fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The frame that carries an IP packet from a pod.
pub fn frame(slot: u32, packet: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(host_mac(slot));
    bytes.extend(mac(slot));
    bytes.extend(if packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [8, 0]
    });
    bytes.extend(packet);
    bytes
}
