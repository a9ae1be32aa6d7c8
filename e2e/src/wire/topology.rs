//! What Sluice is compared with: two namespaces joined by a bare veth pair, by a bridge, or by a router with netfilter rules.
//!
//! Every namespace made here is removed when its topology is dropped.

use std::{
    io::Write as _,
    net::IpAddr,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};
use sluice_datapath::net::{
    Mac, NetNs, Netlink, Route, VethEnd, dual_stack_forwarding, set_sysctls,
};

use super::Endpoint;

/// How the router of [`Topology::router`] filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netfilter {
    /// Connection tracking only: established passes, new passes.
    Conntrack,
    /// One iptables (legacy or nft, as the machine has it) rule for each peer; the client's comes last.
    Iptables,
    /// One iptables rule that looks up an ipset of the peers.
    Ipset,
    /// One nftables rule that looks up a set of the peers.
    NftSet,
}

/// Two endpoints and what joins them.
#[derive(Debug)]
pub struct Topology {
    /// Opens connections.
    pub client: Endpoint,
    /// Answers them.
    pub server: Endpoint,
    namespaces: Vec<String>,
}

impl Drop for Topology {
    fn drop(&mut self) {
        for name in &self.namespaces {
            if let Err(error) = NetNs::delete(name) {
                eprintln!("{name}: {error}");
            }
        }
    }
}

const CLIENT: &str = "10.201.0.2";
const SERVER: &str = "10.201.1.2";
const CLIENT_V6: &str = "fd97::1:2";
const SERVER_V6: &str = "fd97::2:2";

/// No wait for duplicates of an IPv6 address.
const USABLE_AT_ONCE: &[(&str, &str)] = &[
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
];

impl Topology {
    /// A veth pair, one end in each namespace: nothing in between. The endpoints are reached by their addresses of the family: 0 for
    /// IPv4, 1 for IPv6.
    ///
    /// # Errors
    /// If a namespace or link can't be made.
    pub fn bare(family: usize) -> Result<Self> {
        let mut made = Self::empty("bare")?;
        let (client, server) = [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)][family];
        (made.client.address, made.server.address) = (client.parse()?, server.parse()?);
        let (near, far) = (
            NetNs::open(&made.client.namespace)?,
            NetNs::open(&made.server.namespace)?,
        );
        let mut netlink = Netlink::open_in(&near)?;
        netlink.create_veth(&end("eth0", 1), &end("eth0", 2), &far)?;
        for (namespace, own, other) in [(&near, client, server), (&far, server, client)] {
            set_sysctls(namespace, USABLE_AT_ONCE)?;
            let mut netlink = Netlink::open_in(namespace)?;
            let index = netlink.index("eth0")?;
            netlink.add_address(index, host_prefix(own)?)?;
            netlink.set_up(index)?;
            netlink.add_route(&Route {
                destination: host_prefix(other)?,
                interface: index,
                via: None,
                source: None,
            })?;
        }
        Ok(made)
    }

    /// Two veth pairs on a bridge in a third namespace, without netfilter.
    ///
    /// # Errors
    /// If a namespace or link can't be made.
    pub fn bridge() -> Result<Self> {
        let mut made = Self::empty("bridge")?;
        let node = made.add_namespace("bridge", "node")?;
        run_in(&node, "ip", &["link", "add", "br0", "type", "bridge"], "")?;
        run_in(&node, "ip", &["link", "set", "br0", "up"], "")?;
        for (index, own, other) in [(1, CLIENT, SERVER), (2, SERVER, CLIENT)] {
            let pod = made.namespace_of(index)?;
            let port = join(&node, &pod, index)?;
            run_in(&node, "ip", &["link", "set", &port, "master", "br0"], "")?;
            let mut netlink = Netlink::open_in(&pod)?;
            let interface = netlink.index("eth0")?;
            netlink.add_address(interface, host_prefix(own)?)?;
            netlink.set_up(interface)?;
            netlink.add_route(&Route {
                destination: host_prefix(other)?,
                interface,
                via: None,
                source: None,
            })?;
        }
        Ok(made)
    }

    /// Two veth pairs to a router that filters new connections by source address against `rules` peers, the client's being the last.
    ///
    /// # Errors
    /// If a namespace or link can't be made, or the tool that loads the rules fails or is missing.
    pub fn router(filter: Netfilter, rules: u32) -> Result<Self> {
        let mut made = Self::empty("router")?;
        let node = made.add_namespace("router", "node")?;
        set_sysctls(&node, dual_stack_forwarding())?;
        for (index, own, gateway) in [(1_u8, CLIENT, "10.201.0.1"), (2, SERVER, "10.201.1.1")] {
            let pod = made.namespace_of(index)?;
            let port = join(&node, &pod, index)?;
            let mut router = Netlink::open_in(&node)?;
            let router_port = router.index(&port)?;
            router.add_address(router_port, format!("{gateway}/24").parse()?)?;
            let mut netlink = Netlink::open_in(&pod)?;
            let interface = netlink.index("eth0")?;
            netlink.add_address(interface, format!("{own}/24").parse()?)?;
            netlink.set_up(interface)?;
            netlink.add_route(&Route {
                destination: "0.0.0.0/0".parse()?,
                interface,
                via: Some(gateway.parse()?),
                source: None,
            })?;
        }
        load_rules(&node, filter, rules)?;
        Ok(made)
    }

    fn empty(kind: &str) -> Result<Self> {
        let mut made = Self {
            client: Endpoint {
                namespace: String::new(),
                address: CLIENT.parse()?,
            },
            server: Endpoint {
                namespace: String::new(),
                address: SERVER.parse()?,
            },
            namespaces: Vec::new(),
        };
        made.add_namespace(kind, "client")?;
        made.add_namespace(kind, "server")?;
        made.client.namespace.clone_from(&made.namespaces[0]);
        made.server.namespace.clone_from(&made.namespaces[1]);
        Ok(made)
    }

    fn add_namespace(&mut self, kind: &str, role: &str) -> Result<NetNs> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("sluice-bench-{}-{kind}-{number}-{role}", std::process::id());
        let namespace = NetNs::create(&name)?;
        self.namespaces.push(name);
        Ok(namespace)
    }

    fn namespace_of(&self, index: u8) -> Result<NetNs> {
        let endpoint = if index == 1 {
            &self.client
        } else {
            &self.server
        };
        Ok(NetNs::open(&endpoint.namespace)?)
    }
}

/// Makes a veth pair between `node` and `pod`; the node's end is up and named by the answer.
fn join(node: &NetNs, pod: &NetNs, index: u8) -> Result<String> {
    let port = format!("port{index}");
    let mut netlink = Netlink::open_in(node)?;
    netlink.create_veth(&end(&port, index), &end("eth0", index + 0x10), pod)?;
    let interface = netlink.index(&port)?;
    netlink.set_up(interface)?;
    Ok(port)
}

fn end(name: &str, last: u8) -> VethEnd<'_> {
    VethEnd {
        name,
        mac: Mac([2, 0, 0, 0, 1, last]),
        mtu: 1500,
    }
}

fn host_prefix(address: &str) -> Result<ipnet::IpNet> {
    Ok(ipnet::IpNet::from(address.parse::<IpAddr>()?))
}

fn load_rules(node: &NetNs, filter: Netfilter, rules: u32) -> Result<()> {
    // Addresses that never match, then the client's.
    let peers: Vec<String> = (1..rules)
        .map(|number| {
            format!(
                "172.{}.{}.{}",
                16 + (number >> 16),
                (number >> 8) & 255,
                number & 255
            )
        })
        .chain([CLIENT.to_owned()])
        .collect();
    let established = "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n";
    match filter {
        Netfilter::Conntrack => iptables(
            node,
            &format!("*filter\n:FORWARD DROP [0:0]\n{established}-A FORWARD -j ACCEPT\nCOMMIT\n"),
        ),
        Netfilter::Iptables => {
            let list = lines(&peers, |peer| {
                format!("-A FORWARD -s {peer} -p tcp -j ACCEPT")
            });
            iptables(
                node,
                &format!("*filter\n:FORWARD DROP [0:0]\n{established}{list}COMMIT\n"),
            )
        }
        Netfilter::Ipset => {
            let list = lines(&peers, |peer| format!("add peers {peer}"));
            run_in(
                node,
                "ipset",
                &["restore"],
                &format!("create peers hash:ip maxelem 1000000\n{list}"),
            )?;
            iptables(
                node,
                &format!(
                    "*filter\n:FORWARD DROP [0:0]\n{established}-A FORWARD -m set --match-set peers src -p tcp -j ACCEPT\nCOMMIT\n"
                ),
            )
        }
        Netfilter::NftSet => {
            let elements = peers.join(", ");
            run_in(
                node,
                "nft",
                &["-f", "-"],
                &format!(
                    "table ip bench {{\n set peers {{ type ipv4_addr; elements = {{ {elements} }} }}\n chain forward {{ type filter hook forward priority 0; policy drop;\n \
                     ct state established,related accept\n ip saddr @peers meta l4proto tcp accept\n }}\n}}\n"
                ),
            )
        }
    }
}

/// One line for each peer, each ended.
fn lines(peers: &[String], line: impl Fn(&String) -> String) -> String {
    let mut lines: Vec<String> = peers.iter().map(line).collect();
    lines.push(String::new());
    lines.join("\n")
}

fn iptables(node: &NetNs, rules: &str) -> Result<()> {
    run_in(node, "iptables-legacy-restore", &[], rules)
}

/// Runs a tool inside `namespace` with `input` on its standard input.
fn run_in(namespace: &NetNs, program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace.name(), program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `ip`: install iproute2")?;
    child
        .stdin
        .take()
        .context("standard input of the tool")?
        .write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{program} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
