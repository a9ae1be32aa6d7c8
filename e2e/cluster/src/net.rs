//! The segment that the machines share: network namespaces, a switch, the links to it, addresses, and the router to the
//! outside host. Routes to pods are the business of whoever gives pods addresses.

use std::{net::IpAddr, process::Command};

use ipnet::IpNet;

use crate::{
    command,
    error::Result,
    plan::{self, Machine, Name, addresses, namespace, prefix},
};

/// Forwarding is per namespace; nothing outside of the named one changes.
const ROUTER: &[&str] = &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];

/// Makes the namespaces of the control plane, the outside host and `nodes` nodes, and links them.
pub(crate) fn up(name: &Name, nodes: u8) -> Result<()> {
    let net = Net { name };
    net.switch()?;
    net.outside()?;
    for number in 1..=nodes {
        net.node(Machine::Node(number))?;
    }
    Ok(())
}

/// The cluster's namespaces that exist.
pub(crate) fn namespaces(name: &Name) -> Result<Vec<String>> {
    let prefix = prefix(name);
    let listed = command::output(Command::new("ip").args(["netns", "list"]))?;
    let names = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names
        .filter(|found| found.starts_with(&prefix))
        .map(str::to_owned)
        .collect())
}

/// Removes a namespace, and with it its links.
pub(crate) fn remove(namespace: &str) -> Result<()> {
    command::output(Command::new("ip").args(["netns", "del", namespace])).map(drop)
}

/// Processes whose network namespace this is.
pub(crate) fn processes(namespace: &str) -> Result<Vec<i32>> {
    let listed = command::output(Command::new("ip").args(["netns", "pids", namespace]))?;
    Ok(listed
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect())
}

/// Sets a route to pods by way of a node.
pub(crate) fn route(name: &Name, on: Machine, to: IpNet, via: Machine) -> Result<()> {
    let gateway = addresses(via);
    let gateway = match to {
        IpNet::V4(_) => IpAddr::from(gateway.v4),
        IpNet::V6(_) => gateway.v6.into(),
    };
    Net { name }.ip(
        on,
        &[
            "route",
            "replace",
            &to.to_string(),
            "via",
            &gateway.to_string(),
        ],
    )
}

struct Net<'a> {
    name: &'a Name,
}

impl Net<'_> {
    /// The control plane's namespace holds the switch and is the nodes' router.
    fn switch(&self) -> Result<()> {
        let cp = Machine::ControlPlane;
        self.namespace(cp)?;
        self.ip(
            cp,
            &[
                "link",
                "add",
                "br0",
                "type",
                "bridge",
                "stp_state",
                "0",
                "forward_delay",
                "0",
                "mcast_snooping",
                "0",
            ],
        )?;
        self.address(cp, "br0", addresses(cp).both(), 24, 64)?;
        self.ip(cp, &["link", "set", "br0", "up"])?;
        self.sysctl(cp, ROUTER)?;
        // Frames between nodes are the wire, which no packet filter sees. Absent where the kernel has no bridge filter.
        self.sysctl(
            cp,
            &[
                "net.bridge.bridge-nf-call-iptables=0",
                "net.bridge.bridge-nf-call-ip6tables=0",
            ],
        )
        .or_else(|error| {
            if bridge_filter(self) {
                Err(error)
            } else {
                Ok(())
            }
        })
    }

    /// A host that knows only its router: a pod's packet is answered only under an address that the router knows.
    fn outside(&self) -> Result<()> {
        let (cp, out) = (Machine::ControlPlane, Machine::Outside);
        self.namespace(out)?;
        let peer = namespace(self.name, out);
        self.ip(
            cp,
            &[
                "link", "add", "outside", "type", "veth", "peer", "name", "eth0", "netns", &peer,
            ],
        )?;
        let gateway = plan::outside_gateway();
        self.address(cp, "outside", gateway.both(), 24, 64)?;
        self.ip(cp, &["link", "set", "outside", "up"])?;
        self.address(out, "eth0", addresses(out).both(), 24, 64)?;
        self.ip(out, &["link", "set", "eth0", "up"])?;
        self.default_routes(out, gateway)
    }

    fn node(&self, node: Machine) -> Result<()> {
        let cp = Machine::ControlPlane;
        self.namespace(node)?;
        let (port, peer) = (node.to_string(), namespace(self.name, node));
        self.ip(
            cp,
            &[
                "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &peer,
            ],
        )?;
        self.ip(cp, &["link", "set", &port, "master", "br0", "up"])?;
        self.sysctl(node, ROUTER)?;
        self.address(node, "eth0", addresses(node).both(), 24, 64)?;
        self.ip(node, &["link", "set", "eth0", "up"])?;
        self.default_routes(node, addresses(cp))
    }

    fn namespace(&self, machine: Machine) -> Result<()> {
        command::output(Command::new("ip").args(["netns", "add", &namespace(self.name, machine)]))?;
        self.ip(machine, &["link", "set", "lo", "up"])
    }

    fn address(
        &self,
        machine: Machine,
        device: &str,
        both: [IpAddr; 2],
        bits_v4: u8,
        bits_v6: u8,
    ) -> Result<()> {
        for address in both {
            let bits = if address.is_ipv4() { bits_v4 } else { bits_v6 };
            let with_bits = format!("{address}/{bits}");
            let mut words = vec!["addr", "add", &with_bits, "dev", device];
            if address.is_ipv6() {
                // Usable at once: the addresses are known to be unique.
                words.push("nodad");
            }
            self.ip(machine, &words)?;
        }
        Ok(())
    }

    fn default_routes(&self, machine: Machine, gateway: plan::Addresses) -> Result<()> {
        for address in gateway.both() {
            let family = if address.is_ipv4() { "-4" } else { "-6" };
            self.ip(
                machine,
                &[
                    family,
                    "route",
                    "add",
                    "default",
                    "via",
                    &address.to_string(),
                ],
            )?;
        }
        Ok(())
    }

    fn ip(&self, machine: Machine, words: &[&str]) -> Result<()> {
        command::output(
            Command::new("ip")
                .args(["-n", &namespace(self.name, machine)])
                .args(words),
        )
        .map(drop)
    }

    fn sysctl(&self, machine: Machine, settings: &[&str]) -> Result<()> {
        command::output(&mut inside(
            self.name,
            machine,
            "sysctl",
            &[&["-qw"], settings].concat(),
        ))
        .map(drop)
    }
}

fn bridge_filter(net: &Net<'_>) -> bool {
    command::output(&mut inside(
        net.name,
        Machine::ControlPlane,
        "test",
        &["-e", "/proc/sys/net/bridge"],
    ))
    .is_ok()
}

/// A command in the machine's network namespace and nothing else of it.
pub(crate) fn inside(name: &Name, machine: Machine, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", namespace(name, machine)))
        .arg("--")
        .arg(program)
        .args(arguments);
    command
}
