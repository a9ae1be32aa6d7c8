//! Another node with a pod, without a line of Sluice: the kernel's own VXLAN, told by routes where everything goes.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use sluice_datapath::net::{NetNs, Netlink, in_namespace};

use super::{Echo, NODE, OTHER};

/// The pod's addresses.
pub(crate) const FAR: [&str; 2] = ["10.244.2.5", "fd00:244:2::5"];
const DEVICE: &str = "vx0";
/// What the first node's pods have, and the node itself.
const NEAR: [(&str, &str); 2] = [("10.244.1.0/24", NODE[0]), ("fd00:244:1::/64", NODE[1])];
/// What the pod sends to the node's own address is wrapped, what the machine itself sends there is not.
const TABLE: &str = "100";

/// See the module. It lives in the namespace of the machine outside.
pub(crate) struct Far {
    namespace: NetNs,
    echoes: Vec<Echo>,
}

impl Far {
    /// The machine gets the other node's addresses, and a pod's, which sends nothing before [`Far::device`].
    pub(crate) fn start(namespace: NetNs) -> Self {
        let mut far = Self {
            namespace,
            echoes: Vec::new(),
        };
        for (address, bits) in OTHER.into_iter().zip([24, 64]) {
            far.ip(&format!("address add {address}/{bits} dev eth0 nodad"));
        }
        for (address, bits) in FAR.into_iter().zip([32, 128]) {
            far.ip(&format!("address add {address}/{bits} dev lo nodad"));
        }
        for address in FAR {
            let family = family(address);
            far.ip(&format!("{family} rule add from {address} lookup {TABLE}"));
        }
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        far.echoes = FAR
            .map(|text| Echo::start(&far.namespace, at(text), 8080))
            .into();
        far
    }

    /// What the pod sends bears this number from now on, and goes to this port.
    pub(crate) fn device(&self, vni: u32, port: u16) {
        self.remove_device();
        self.ip(&format!(
            "link add {DEVICE} address 02:53:00:00:00:02 mtu 1450 type vxlan external dstport {port}"
        ));
        self.ip(&format!("link set {DEVICE} arp off up"));
        // Nobody is asked for hardware addresses, so that packets bear their sender's.
        self.run(
            "nft",
            &[&format!(
                "table netdev far {{
                    chain in {{ type filter hook ingress device {DEVICE} priority 0; meta pkttype set host; }}
                }}"
            )],
        );
        for ((pods, node), own) in NEAR.into_iter().zip(FAR) {
            let family = family(pods);
            let wrapped = format!(
                "encap ip id {vni} src {} dst {} dev {DEVICE}",
                OTHER[0], NODE[0]
            );
            for to in [pods, node] {
                self.ip(&format!(
                    "{family} route replace {to} {wrapped} table {TABLE}"
                ));
            }
            self.ip(&format!(
                "{family} route replace {pods} {wrapped} src {own}"
            ));
        }
    }

    /// Where the pod answers, IPv4 first.
    pub(crate) fn at(&self) -> Vec<SocketAddr> {
        self.echoes.iter().map(Echo::at).collect()
    }

    /// Takes the overlay away and routes to the first node's pods through it, as direct routing does.
    pub(crate) fn unwrap(&self) {
        self.remove_device();
        for ((pods, node), own) in NEAR.into_iter().zip(FAR) {
            let family = family(pods);
            self.ip(&format!(
                "{family} route replace {pods} via {node} src {own}"
            ));
        }
    }

    fn ip(&self, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        self.run("ip", &words);
    }

    fn run(&self, program: &str, words: &[&str]) {
        let mut command = Command::new(program);
        command.args(words);
        let done = in_namespace(&self.namespace, || command.output().unwrap()).unwrap();
        assert!(done.status.success(), "{program} {words:?}: {done:?}");
    }

    /// Takes the device away, if it is there, with its routes and rules.
    fn remove_device(&self) {
        let mut netlink = Netlink::open_in(&self.namespace).unwrap();
        if let Some(link) = netlink.link(DEVICE).unwrap() {
            netlink.delete_link(link.index).unwrap();
            self.run("nft", &["delete table netdev far"]);
        }
    }
}

/// As `ip` has it.
fn family(text: &str) -> &'static str {
    if text.contains(':') { "-6" } else { "-4" }
}
