//! Two nodes on one segment, each with its pods and programs, in namespaces that go when the test ends, however it ends.

use std::io::{Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sluice_abi::{Identity, Reason, service::Frontend};
use sluice_agent::{Interface, Masquerade, Node as Agent, OverlayDevice, config, packet};
use sluice_crds::manifest;
use sluice_datapath::load::Sizes;
use sluice_datapath::net::{Mac, NetNs, Route, VethEnd, in_namespace};
use sluice_datapath::net::{Netlink, overlay, overlay::OVERHEAD_IPV6};
use sluice_datapath::state::{OtherNode, Target, Targets};
use sluice_lab::network::Node;
use sluice_lab::plan::{GATEWAY_V4, GATEWAY_V6, PodPlan};
use sluice_policy::{Index, Settings, delta::Endpoint};
use sluice_world::{Inputs, NodeName, PodRef, World};

/// UDP port of the overlay.
pub(crate) const OVERLAY_PORT: u16 = 8472;
/// The pod, on node 0, that policy lets to the server at port 80.
pub(crate) const CLIENT: &str = "client";
/// A pod on node 0 that nothing lets to the server.
pub(crate) const STRANGER: &str = "stranger";
/// The pod on node 1.
pub(crate) const SERVER: &str = "server";

const UNDERLAY_MTU: u32 = 1500;
const DEVICE: &str = "sluice_vxlan";
/// How long a connection may take that must not come about; those that must have longer, by trying again.
const PATIENCE: Duration = Duration::from_millis(700);

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: node-0}
spec: {podCIDRs: [10.91.0.0/24, "fd91:0:0:0::/64"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8:2::1"}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {podCIDRs: [10.91.1.0/24, "fd91:0:0:1::/64"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}, {type: InternalIP, address: "2001:db8:2::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default, labels: {app: client}}
spec: {nodeName: node-0, containers: [{name: c}]}
status: {podIPs: [{ip: 10.91.0.10}, {ip: "fd91::10"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: default, labels: {app: stranger}}
spec: {nodeName: node-0, containers: [{name: c}]}
status: {podIPs: [{ip: 10.91.0.11}, {ip: "fd91::11"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: default, labels: {app: server}}
spec: {nodeName: node-1, containers: [{name: c}]}
status: {podIPs: [{ip: 10.91.1.10}, {ip: "fd91:0:0:1::10"}]}
---
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata: {name: server, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {app: client}}]
    icmps: [{fields: [{family: IPv4, type: 8}, {family: IPv6, type: 128}]}]
"#;

/// Whether tests that need root and the programs are asked for.
pub(crate) fn kernel_tests() -> bool {
    std::env::var_os("SLUICE_KERNEL_TESTS").is_some()
}

/// See the module.
pub(crate) struct Cluster {
    world: World,
    nodes: Vec<Station>,
    identities: Vec<(PodRef, Endpoint)>,
}

struct Station {
    network: Node,
    agent: Agent,
    pods: Vec<PodPlan>,
}

impl Cluster {
    /// Wrapped over IPv4.
    pub(crate) fn new(test: &str) -> Self {
        Self::between(test, false)
    }

    /// Wrapped over the family given.
    pub(crate) fn between(test: &str, ipv6: bool) -> Self {
        let (objects, problems) = manifest::read("overlay.yaml", MANIFESTS);
        assert!(problems.is_empty(), "{problems:?}");
        let world = sluice_world::build(objects.into_iter().collect::<Inputs>()).unwrap();
        let mut index = Index::new(Settings::default());
        for item in world.items() {
            index.apply(item);
        }
        let delta = index.commit();
        let mut nodes: Vec<Station> = (0..2).map(|number| station(test, number, &world)).collect();
        plug(&nodes);
        for (number, station) in nodes.iter_mut().enumerate() {
            let others: Vec<OtherNode> = delta
                .nodes
                .iter()
                .filter(|(name, _)| *name != node_name(number))
                .map(|(name, id)| OtherNode {
                    number: *id,
                    underlay: world.nodes[name].addresses[usize::from(ipv6)],
                    pod_cidrs: world.nodes[name].pod_cidrs.clone(),
                })
                .collect();
            station.agent.set_nodes(&others).unwrap();
            station.wrap(&world.nodes[&node_name(number)].addresses, &others);
            station.agent.apply(&delta).unwrap();
            station.agent.settle().unwrap();
        }
        let cluster = Self {
            world,
            nodes,
            identities: delta
                .endpoints
                .into_iter()
                .filter_map(|(pod, endpoint)| Some((pod, endpoint?)))
                .collect(),
        };
        cluster.listen();
        cluster
    }

    /// A pod's addresses, IPv4 first.
    pub(crate) fn addresses(&self, pod: &str) -> Vec<IpAddr> {
        self.world.pods[&pod_ref(pod)].addresses.clone()
    }

    pub(crate) fn node_addresses(&self, node: usize) -> Vec<IpAddr> {
        self.world.nodes[&node_name(node)].addresses.clone()
    }

    pub(crate) fn identity(&self, pod: &str) -> Identity {
        let pod = pod_ref(pod);
        let found = self.identities.iter().find(|(known, _)| *known == pod);
        found.expect("every pod has an identity").1.identity
    }

    /// Makes a service known to a node: its pods reach the backend by this address and port.
    pub(crate) fn serve(
        &mut self,
        node: usize,
        protocol: u8,
        frontend: SocketAddr,
        backend: SocketAddr,
    ) {
        let target = Target {
            address: backend.ip().into(),
            port: backend.port(),
        };
        let targets = Targets {
            backends: vec![target],
            ..Targets::default()
        };
        let frontend = Frontend {
            address: frontend.ip().into(),
            port: frontend.port(),
            protocol,
            reserved: 0,
        };
        let services = [(frontend, Some(targets))];
        let agent = &mut self.nodes[node].agent;
        assert_eq!(agent.apply_services(&services).unwrap(), 1);
    }

    /// Gives a node's pods its address for what is beyond the cluster; no block is excluded.
    pub(crate) fn masquerade(&mut self, node: usize) {
        let (mut ipv4, mut ipv6) = (None, None);
        for address in self.node_addresses(node) {
            match address {
                IpAddr::V4(address) => ipv4 = Some(address),
                IpAddr::V6(address) => ipv6 = Some(address),
            }
        }
        let wanted = Masquerade {
            ipv4,
            ipv6,
            ports: Masquerade::PORTS,
            excluded: [].into(),
        };
        self.nodes[node].agent.masquerade(&wanted).unwrap();
    }

    pub(crate) fn tcp(&self, pod: &str, target: IpAddr, port: u16) -> bool {
        talk(&self.pod(pod), target, port, 1)
    }

    /// Sends more than fits one packet, so that segments of full size have to pass.
    pub(crate) fn much(&self, pod: &str, target: IpAddr, port: u16) -> bool {
        talk(&self.pod(pod), target, port, 1 << 20)
    }

    pub(crate) fn tcp_from_node(&self, node: usize, target: IpAddr, port: u16) -> bool {
        talk(self.nodes[node].network.namespace(), target, port, 1)
    }

    pub(crate) fn ping(&self, pod: &str, target: IpAddr) -> bool {
        let ping = || {
            Command::new("ping")
                .args(["-c1", "-W1", &target.to_string()])
                .output()
        };
        in_namespace(&self.pod(pod), ping)
            .unwrap()
            .is_ok_and(|output| output.status.success())
    }

    /// Every drop of both nodes, for whoever wonders why.
    pub(crate) fn told(&self) -> String {
        let drops = |station: &Station| {
            station
                .agent
                .datapath()
                .counters()
                .unwrap()
                .drops()
                .unwrap()
        };
        let all: Vec<_> = self.nodes.iter().map(drops).collect();
        format!("{all:?}")
    }

    /// How many packets a node dropped for a reason.
    pub(crate) fn drops(&self, node: usize, reason: Reason) -> u64 {
        let counters = self.nodes[node].agent.datapath().counters().unwrap();
        let drops = counters.drops().unwrap();
        let of_reason = drops.iter().filter(|drop| drop.reason == reason);
        of_reason.map(|drop| drop.counter.packets).sum()
    }

    /// As [`Cluster::drops`], once there are as many as expected or a while is over: a packet may wait for its next hop's address.
    pub(crate) fn drops_soon(&self, node: usize, reason: Reason, expected: u64) -> u64 {
        let begin = Instant::now();
        loop {
            let drops = self.drops(node, reason);
            if drops >= expected || begin.elapsed() > Duration::from_secs(5) {
                return drops;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn send_from_pod(&self, pod: &str, target: IpAddr, port: u16, bytes: &[u8]) {
        send(&self.pod(pod), unspecified(target), target, port, bytes);
    }

    pub(crate) fn send_from_node(&self, node: usize, target: IpAddr, port: u16, bytes: &[u8]) {
        let from = self.node_addresses(node)[usize::from(target.is_ipv6())];
        send(
            self.nodes[node].network.namespace(),
            from,
            target,
            port,
            bytes,
        );
    }

    /// From an address on the nodes' segment that is no node's.
    pub(crate) fn send_as_stranger(&self, node: usize, target: IpAddr, port: u16, bytes: &[u8]) {
        let namespace = self.nodes[node].network.namespace();
        let from: IpAddr = if target.is_ipv4() {
            "192.0.2.66".parse().unwrap()
        } else {
            "2001:db8:2::66".parse().unwrap()
        };
        let mut netlink = Netlink::open_in(namespace).unwrap();
        let index = netlink.index("eth0").unwrap();
        netlink.add_address(index, IpNet::from(from)).unwrap();
        send(namespace, from, target, port, bytes);
    }

    fn pod(&self, pod: &str) -> NetNs {
        let pod = pod_ref(pod);
        let mut plans = self.nodes.iter().flat_map(|station| &station.pods);
        let plan = plans
            .find(|plan| plan.pod == pod)
            .expect("it is in the manifests");
        NetNs::open(&plan.namespace).unwrap()
    }

    /// Starts a server at ports 80 and 81 of every pod and node.
    fn listen(&self) {
        for station in &self.nodes {
            let pods = station.pods.iter();
            let pods = pods.map(|plan| NetNs::open(&plan.namespace).unwrap());
            for namespace in pods.chain([NetNs::open(station.network.namespace().name()).unwrap()])
            {
                for port in [80, 81] {
                    let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
                    let listener = in_namespace(&namespace, || TcpListener::bind(at)).unwrap();
                    let listener = listener.unwrap();
                    thread::spawn(move || serve(&listener));
                }
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for station in &self.nodes {
            for plan in &station.pods {
                let _ = NetNs::delete(&plan.namespace);
            }
            let _ = NetNs::delete(station.network.namespace().name());
        }
    }
}

impl Station {
    /// Makes the overlay's device and sends what is for other nodes' pods to it.
    fn wrap(&mut self, own: &[IpAddr], others: &[OtherNode]) {
        let namespace = self.network.namespace();
        let mut netlink = Netlink::open_in(namespace).unwrap();
        let mtu = UNDERLAY_MTU - OVERHEAD_IPV6;
        // Unlike the other node's.
        let mac = overlay::mac(others[0].number);
        netlink
            .create_vxlan(DEVICE, mac, mtu, OVERLAY_PORT)
            .unwrap();
        let index = netlink.index(DEVICE).unwrap();
        // What the node sends there comes from these.
        for address in own {
            netlink.add_address(index, IpNet::from(*address)).unwrap();
        }
        netlink.set_up(index).unwrap();
        for net in others.iter().flat_map(|other| &other.pod_cidrs) {
            netlink
                .add_route(&Route {
                    destination: *net,
                    interface: index,
                    via: None,
                    source: None,
                })
                .unwrap();
        }
        let device = OverlayDevice {
            index,
            port: OVERLAY_PORT,
            ipv4: own.iter().find_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            }),
            ipv6: own.iter().find_map(|address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(address) => Some(*address),
            }),
        };
        self.agent.set_overlay(Some(device), namespace).unwrap();
        let outward = netlink.index("eth0").unwrap();
        self.agent.add_outside(outward, namespace).unwrap();
    }
}

/// A node with its pods, not yet connected to anyone.
fn station(test: &str, number: usize, world: &World) -> Station {
    let name = |part: &str| format!("sl-ovl-{test}-{part}-{}", std::process::id());
    let node = &world.nodes[&node_name(number)];
    let network = Node::ensure(&name(&format!("n{number}")), node.addresses.clone()).unwrap();
    let sizes = Sizes::small();
    let config = config(GATEWAY_V4.into(), GATEWAY_V6.into(), &sizes);
    let agent = Agent::open(node.name.clone(), None, &sizes, config).unwrap();
    let pods = world.pods.values().filter(|pod| pod.node == node.name);
    let pods = (1_u32..).zip(pods).map(|(id, pod)| PodPlan {
        pod: pod.id.clone(),
        namespace: name(&pod.id.name),
        interface: format!("v{id}"),
        mac: Mac::local(id << 1),
        host_mac: Mac::local(id << 1 | 1),
        addresses: pod.addresses.clone(),
        listens: [].into(),
        external: false,
    });
    let mut station = Station {
        network,
        agent,
        pods: pods.collect(),
    };
    for plan in &station.pods {
        let index = station.network.ensure_pod(plan).unwrap();
        let interface = Interface {
            index,
            mac: plan.mac,
            host_mac: plan.host_mac,
            addresses: plan.addresses.clone(),
            uid: None,
        };
        let namespace = NetNs::open(station.network.namespace().name()).unwrap();
        station
            .agent
            .add_interface(&plan.pod, interface, &namespace)
            .unwrap();
        station.network.connect(plan, index).unwrap();
        shrink(plan);
    }
    station
}

/// A pod's packets must fit when wrapped.
fn shrink(plan: &PodPlan) {
    let namespace = NetNs::open(&plan.namespace).unwrap();
    let mut netlink = Netlink::open_in(&namespace).unwrap();
    let index = netlink.index("eth0").unwrap();
    netlink
        .set_mtu(index, UNDERLAY_MTU - OVERHEAD_IPV6)
        .unwrap();
}

/// Puts both nodes on one segment.
fn plug(nodes: &[Station]) {
    let [a, b] = [0, 1].map(|number| nodes[number].network.namespace());
    let end = |number: u32| VethEnd {
        name: "eth0",
        mac: Mac::local(0x1000 + number),
        mtu: UNDERLAY_MTU,
    };
    Netlink::open_in(a)
        .unwrap()
        .create_veth(&end(0), &end(1), b)
        .unwrap();
    for (namespace, last) in [(a, 1_u8), (b, 2)] {
        let mut netlink = Netlink::open_in(namespace).unwrap();
        let index = netlink.index("eth0").unwrap();
        netlink.set_up(index).unwrap();
        // The kernel would have all packets come from the first address, by which no node is known.
        let decoy = Ipv4Addr::new(192, 0, 2, 100 + last);
        netlink
            .add_address(index, IpNet::new(decoy.into(), 24).unwrap())
            .unwrap();
        let v4 = IpNet::new(Ipv4Addr::new(192, 0, 2, last).into(), 24).unwrap();
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(last));
        netlink.add_address(index, v4).unwrap();
        netlink
            .add_address(index, IpNet::new(v6.into(), 64).unwrap())
            .unwrap();
        if last == 1 {
            // More like the other node's than its own is, and so what the kernel would choose.
            let decoy = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 3);
            netlink
                .add_address(index, IpNet::new(decoy.into(), 64).unwrap())
                .unwrap();
        }
    }
}

/// The bytes of a wrapped SYN: VXLAN header (RFC 7348, section 5) and inner frame.
pub(crate) fn wrapped(identity: Identity, from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0];
    bytes.extend((identity.0 << 8).to_be_bytes());
    let wanted = packet::Wanted {
        macs: ([2; 6], [2; 6]),
        source: from,
        destination: to,
        protocol: 6,
        port,
    };
    bytes.extend(packet::frame(&wanted).expect("both are of one family"));
    bytes
}

/// Sends `count` bytes to a server and reads how many it got.
fn talk(from: &NetNs, target: IpAddr, port: u16, count: usize) -> bool {
    let address = SocketAddr::from((target, port));
    let connected = in_namespace(from, || TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
    let Ok(mut stream) = connected else {
        return false;
    };
    stream.set_read_timeout(Some(PATIENCE * 5)).unwrap();
    let mut told = [0; 8];
    stream.write_all(&vec![7; count]).is_ok()
        && stream.shutdown(Shutdown::Write).is_ok()
        && stream.read_exact(&mut told).is_ok()
        && u64::from_be_bytes(told) == count as u64
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        thread::spawn(move || {
            let mut got = Vec::new();
            if stream.read_to_end(&mut got).is_ok() {
                let _ = stream.write_all(&(got.len() as u64).to_be_bytes());
            }
        });
    }
}

fn send(from: &NetNs, own: IpAddr, target: IpAddr, port: u16, bytes: &[u8]) {
    let socket = in_namespace(from, || UdpSocket::bind((own, 0)))
        .unwrap()
        .unwrap();
    // A packet that a program drops is an error to its sender in some places and none in others.
    let _ = socket.send_to(bytes, (target, port));
    // It is judged when the interface's queue is served.
    thread::sleep(Duration::from_millis(100));
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn node_name(number: usize) -> NodeName {
    NodeName(format!("node-{number}"))
}

fn pod_ref(name: &str) -> PodRef {
    PodRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}
