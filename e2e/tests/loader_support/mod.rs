//! Two pods and a node between them, in namespaces of their own that go when the test ends, however it ends.
// Each test binary uses a part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::process::Command;

use sluice_abi::config::Config;
use sluice_abi::endpoint::Endpoint;
use sluice_abi::ipcache::{Address, AddressInfo};
use sluice_abi::policy::PeerCell;
use sluice_abi::program::{Cell, Program, Verdict};
use sluice_abi::{Cookie, Identity, Range};
use sluice_datapath::load::{Datapath, Instance, Sizes};
use sluice_datapath::net::{
    Mac, NetNs, Netlink, Route, VethEnd, dual_stack_forwarding, in_namespace, set_sysctls,
};
use sluice_datapath::state::AddressChange;
use sluice_datapath::writer::{
    AttributionImage, Change, KernelStore, ProgramImage, TableUpdate, Writer,
};

/// The rule that allows.
pub(crate) const ALLOW: Cookie = Cookie(2000);
/// The pod that asks.
pub(crate) const POD_A: u32 = 0;
/// The pod that answers.
pub(crate) const POD_B: u32 = 1;

const GATEWAY_V4: [u8; 4] = [169, 254, 1, 1];
const GATEWAY_V6: [u16; 8] = [0xfe80, 0, 0, 0, 0, 0, 0, 1];

/// Whether tests that need root and the programs are asked for.
pub(crate) fn kernel_tests() -> bool {
    std::env::var_os("SLUICE_KERNEL_TESTS").is_some()
}

/// A namespace beyond the node.
pub(crate) struct World {
    pub(crate) ns: NetNs,
    pub(crate) addresses: [IpAddr; 2],
    /// The node's addresses on the way there.
    pub(crate) node: [IpAddr; 2],
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = NetNs::delete(self.ns.name());
    }
}

/// The namespaces.
pub(crate) struct Ground {
    node: NetNs,
    pods: [NetNs; 2],
    interfaces: [u32; 2],
}

impl Ground {
    pub(crate) fn new(test: &str) -> Self {
        let name = |part: &str| format!("sl-e2e-{test}-{part}-{}", std::process::id());
        let node = NetNs::create(&name("node")).unwrap();
        set_sysctls(&node, dual_stack_forwarding()).unwrap();
        let pods = ["a", "b"].map(|pod| NetNs::create(&name(pod)).unwrap());
        let mut ground = Self {
            node,
            pods,
            interfaces: [0; 2],
        };
        for pod in [POD_A, POD_B] {
            ground.interfaces[pod as usize] = ground.plug(pod);
        }
        ground
    }

    /// Loads tables that let both pods talk, and attaches the programs.
    pub(crate) fn connect(&self, datapath: &mut Datapath, writer: &mut Writer<KernelStore>) {
        self.describe(datapath, writer);
        for pod in [POD_A, POD_B] {
            datapath
                .attach_endpoint(&self.node, self.interfaces[pod as usize])
                .unwrap();
        }
    }

    /// Writes everything there is to say of the pods into the maps.
    pub(crate) fn describe(&self, datapath: &Datapath, writer: &mut Writer<KernelStore>) {
        writer.apply(&allow_all(&[1, 2, 3, 4])).unwrap();
        let settings = datapath.settings().unwrap();
        settings
            .put(&Config {
                gateway_ipv4: Address::v4(GATEWAY_V4),
                gateway_ipv6: IpAddr::from(GATEWAY_V6).into(),
                drop_event_burst: 100,
                node: 1,
                conntrack_quota: 256,
                ..Config::default()
            })
            .unwrap();
        settings.raise_watermark(Range::Pod, 1000);
        let mut endpoints = datapath.endpoints().unwrap();
        let mut change = AddressChange::default();
        for pod in [POD_A, POD_B] {
            endpoints.put(&self.endpoint(pod)).unwrap();
            for address in addresses(pod) {
                let identity = identity(pod);
                let info = AddressInfo {
                    identity,
                    host_identity: identity,
                    node: 1,
                    flags: AddressInfo::POD,
                };
                change.set.push((address.into(), info));
            }
        }
        datapath.addresses().unwrap().apply(&change).unwrap();
    }

    pub(crate) fn pod(&self, pod: u32) -> &NetNs {
        &self.pods[pod as usize]
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.pods
            .iter()
            .chain([&self.node])
            .map(|ns| ns.name().to_owned())
            .collect()
    }

    /// A namespace beyond the node, by a device that faces outward and has the programs; it knows no way to pods. Its addresses and the
    /// node's there.
    pub(crate) fn world(&self, datapath: &mut Datapath) -> World {
        let ns = NetNs::create(&self.node.name().replace("-node-", "-world-")).unwrap();
        let mut node = Netlink::open_in(&self.node).unwrap();
        let near = VethEnd {
            name: "out0",
            mac: Mac::local(201),
            mtu: 1500,
        };
        let far = VethEnd {
            name: "eth0",
            mac: Mac::local(202),
            mtu: 1500,
        };
        node.create_veth(&near, &far, &ns).unwrap();
        let mut inside = Netlink::open_in(&ns).unwrap();
        let (out0, eth0) = (node.index("out0").unwrap(), inside.index("eth0").unwrap());
        let world = World {
            addresses: [[10, 78, 0, 2].into(), [0xfd78, 0, 0, 0, 0, 0, 0, 2].into()],
            node: [[10, 78, 0, 1].into(), [0xfd78, 0, 0, 0, 0, 0, 0, 1].into()],
            ns,
        };
        node.set_up(out0).unwrap();
        inside.set_up(eth0).unwrap();
        for family in 0..2 {
            let (here, there) = (world.node[family], world.addresses[family]);
            node.add_address(out0, here.into()).unwrap();
            inside.add_address(eth0, there.into()).unwrap();
            for (link, end, neighbour, mac) in [
                (&mut node, out0, there, far.mac),
                (&mut inside, eth0, here, near.mac),
            ] {
                link.add_neighbour(end, neighbour, mac).unwrap();
                link.add_route(&Route {
                    destination: neighbour.into(),
                    interface: end,
                    via: None,
                    source: None,
                })
                .unwrap();
            }
        }
        datapath.attach_outside(&self.node, out0).unwrap();
        world
    }

    /// A's address and B's, per family.
    pub(crate) fn address_pairs() -> [(IpAddr, IpAddr); 2] {
        let (a, b) = (addresses(POD_A), addresses(POD_B));
        [(a[0], b[0]), (a[1], b[1])]
    }

    /// The table that judges what a pod receives.
    pub(crate) fn table_of(&self, pod: u32) -> u32 {
        self.endpoint(pod).ingress_table
    }

    /// Whether A gets an echo reply.
    pub(crate) fn ping(&self, target: IpAddr) -> bool {
        let ping = || {
            Command::new("ping")
                .args(["-c1", "-W1", &target.to_string()])
                .output()
        };
        in_namespace(self.pod(POD_A), ping)
            .unwrap()
            .is_ok_and(|output| output.status.success())
    }

    fn endpoint(&self, pod: u32) -> Endpoint {
        let [v4, v6] = addresses(pod);
        Endpoint {
            ipv4: v4.into(),
            ipv6: v6.into(),
            identity: identity(pod),
            egress_table: pod * 2 + 1,
            ingress_table: pod * 2 + 2,
            ifindex: self.interfaces[pod as usize],
            flags: Endpoint::PRESENT | Endpoint::IPV4 | Endpoint::IPV6,
            mac: pod_mac(pod).0,
            host_mac: host_mac(pod).0,
            ..Endpoint::default()
        }
    }

    /// Plugs a pod in; returns the index of its interface's host side.
    fn plug(&self, pod: u32) -> u32 {
        let ns = self.pod(pod);
        let mut node = Netlink::open_in(&self.node).unwrap();
        let name = format!("lxc{pod}");
        let near = VethEnd {
            name: &name,
            mac: host_mac(pod),
            mtu: 1500,
        };
        let far = VethEnd {
            name: "eth0",
            mac: pod_mac(pod),
            mtu: 1500,
        };
        node.create_veth(&near, &far, ns).unwrap();
        let host = node.index(&name).unwrap();
        node.set_up(host).unwrap();
        let mut inside = Netlink::open_in(ns).unwrap();
        let eth0 = inside.index("eth0").unwrap();
        for link in [1, eth0] {
            inside.set_up(link).unwrap();
        }
        for (address, gateway, everything) in [
            (addresses(pod)[0], IpAddr::from(GATEWAY_V4), "0.0.0.0/0"),
            (addresses(pod)[1], IpAddr::from(GATEWAY_V6), "::/0"),
        ] {
            inside.add_address(eth0, address.into()).unwrap();
            inside.add_neighbour(eth0, gateway, host_mac(pod)).unwrap();
            let route = Route {
                destination: everything.parse().unwrap(),
                interface: eth0,
                via: Some(gateway),
                source: None,
            };
            inside.add_route(&route).unwrap();
            node.add_route(&Route {
                destination: address.into(),
                interface: host,
                via: None,
                source: None,
            })
            .unwrap();
            node.add_neighbour(host, address, pod_mac(pod)).unwrap();
        }
        host
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = NetNs::delete(&name);
        }
    }
}

pub(crate) fn load(instance: Option<&Instance>) -> Datapath {
    Datapath::open(instance, &Sizes::small()).unwrap()
}

fn addresses(pod: u32) -> [IpAddr; 2] {
    let last = u8::try_from(pod + 10).unwrap();
    [
        IpAddr::from([10, 77, 0, last]),
        IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, u16::from(last)]),
    ]
}

fn identity(pod: u32) -> Identity {
    Identity(300 + pod)
}

fn pod_mac(pod: u32) -> Mac {
    Mac::local(pod + 1)
}

fn host_mac(pod: u32) -> Mac {
    Mac::local(pod + 101)
}

fn program(id: u32, verdict: Verdict) -> ProgramImage {
    let other = Cell {
        verdict: verdict as u8,
        ..Cell::default()
    };
    ProgramImage {
        id,
        inline: Program {
            flags: Program::PRESENT,
            other,
            ..Program::default()
        },
        ranges: Vec::new(),
    }
}

fn parts() -> Change {
    Change {
        programs: vec![program(1, Verdict::Allow), program(2, Verdict::Deny)],
        attributions: vec![
            AttributionImage {
                id: 1,
                rules: vec![(0, ALLOW)],
            },
            AttributionImage {
                id: 2,
                rules: vec![(0, Cookie::DEFAULT_DENY)],
            },
        ],
        ..Change::default()
    }
}

const ALLOWED: PeerCell = PeerCell {
    program: 1,
    attribution: 1,
};
const DENIED: PeerCell = PeerCell {
    program: 2,
    attribution: 2,
};

/// Tables that let everyone in and out.
pub(crate) fn allow_all(tables: &[u32]) -> Change {
    let tables = tables.iter().map(|&table| TableUpdate {
        table,
        defaults: [ALLOWED; 5],
        ..TableUpdate::default()
    });
    Change {
        tables: tables.collect(),
        ..parts()
    }
}

/// The same, less one peer.
pub(crate) fn deny_peer(table: u32, pod: u32) -> Change {
    let update = TableUpdate {
        table,
        defaults: [ALLOWED; 5],
        set: vec![(identity(pod), DENIED)],
        ..TableUpdate::default()
    };
    Change {
        tables: vec![update],
        ..parts()
    }
}

/// The same, with many peers of their own, one of them the asking pod.
pub(crate) fn many_peers(table: u32, count: u32) -> Change {
    let cells: HashMap<_, _> = (0..count).map(|n| (Identity(300 + n), ALLOWED)).collect();
    let update = TableUpdate {
        table,
        defaults: [ALLOWED; 5],
        set: cells.into_iter().collect(),
        ..TableUpdate::default()
    };
    Change {
        tables: vec![update],
        ..parts()
    }
}
