//! The node and its pods as network namespaces, interfaces, addresses and routes. Programs and policy may not enter.
//!
//! ```text
//! sluice-<lab>-node                              sluice-<lab>-<namespace>.<pod>
//!   lo: the node's addresses                       eth0: the pod's addresses, /32 and /128
//!   v<number>-<pod> ◀────────── veth ──────────▶   default via 169.254.1.1 and fe80::1
//!   route to each pod's address
//! ```

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_datapath::net::{
    NetError, NetNs, Netlink, VethEnd, dual_stack_forwarding, pod as pod_interface, set_sysctls,
};

use crate::plan::PodPlan;

/// The MTU of every veth: what most real devices have.
const MTU: u32 = 1500;
const POD_INTERFACE: &str = "eth0";
/// What makes a namespace a host: addresses usable at once, no router advertisements believed, ping without privilege.
const HOST: &[(&str, &str)] = &[
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];
/// What the node needs beyond forwarding: the reverse-path check knows nothing of link-local gateways, and the datapath has its own.
const NODE: &[(&str, &str)] = &[
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];

/// The node of a lab.
#[derive(Debug)]
pub struct Node {
    namespace: NetNs,
    netlink: Netlink,
    addresses: Vec<IpAddr>,
}

impl Node {
    /// Makes the node, or takes over the one that is there; in both cases it ends up with these addresses.
    ///
    /// # Errors
    /// The process may not make namespaces (is it root?), or the kernel refuses an address.
    pub fn ensure(name: &str, addresses: Vec<IpAddr>) -> Result<Self, NetError> {
        let namespace = ensure_namespace(name)?;
        set_sysctls(&namespace, dual_stack_forwarding())?;
        set_sysctls(&namespace, HOST)?;
        set_sysctls(&namespace, NODE)?;
        let mut netlink = Netlink::open_in(&namespace)?;
        let loopback = netlink.index("lo")?;
        netlink.set_up(loopback)?;
        for address in &addresses {
            netlink.add_address(loopback, IpNet::from(*address))?;
        }
        Ok(Self {
            namespace,
            netlink,
            addresses,
        })
    }

    /// Its network namespace.
    #[must_use]
    pub const fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// Makes a pod's namespace and interface, or completes what is there. The interface's node end is still down: nothing flows before
    /// [`Node::connect`], so that no packet passes before the programs are attached.
    ///
    /// # Errors
    /// The kernel refuses a namespace, an interface, an address or a route.
    pub fn ensure_pod(&mut self, pod: &PodPlan) -> Result<u32, NetError> {
        let namespace = ensure_namespace(&pod.namespace)?;
        set_sysctls(&namespace, HOST)?;
        let mut inside = Netlink::open_in(&namespace)?;
        if self.netlink.link(&pod.interface)?.is_none() {
            let near = VethEnd {
                name: &pod.interface,
                mac: pod.host_mac,
                mtu: MTU,
            };
            let far = VethEnd {
                name: POD_INTERFACE,
                mac: pod.mac,
                mtu: MTU,
            };
            self.netlink.create_veth(&near, &far, &namespace)?;
        }
        // Behind an external pod's interface no program answers for the gateway.
        let host_mac = pod.external.then_some(pod.host_mac);
        pod_interface::furnish(&mut inside, POD_INTERFACE, &pod.addresses, host_mac)?;
        self.netlink.index(&pod.interface)
    }

    /// Sets the node's end of a pod's interface up and routes the pod's addresses to it.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses a route.
    pub fn connect(&mut self, pod: &PodPlan, interface: u32) -> Result<(), NetError> {
        pod_interface::connect(
            &mut self.netlink,
            interface,
            pod.mac,
            &pod.addresses,
            &self.addresses,
        )
    }

    /// Removes a pod's interface and namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_pod(&mut self, pod: &PodPlan) -> Result<(), NetError> {
        if let Some(link) = self.netlink.link(&pod.interface)? {
            self.netlink.delete_link(link.index)?;
        }
        NetNs::delete(&pod.namespace)
    }
}

fn ensure_namespace(name: &str) -> Result<NetNs, NetError> {
    match NetNs::open(name) {
        Ok(namespace) => Ok(namespace),
        Err(error) if error.is_not_found() => NetNs::create(name),
        Err(error) => Err(error),
    }
}
