//! Pods' interfaces in the kernel: made, found again, compared and removed, by netlink alone. Whose they are may not enter.

use std::{net::IpAddr, time::Duration};

use sluice_datapath::net::{
    Mac, NetError, NetNs, Netlink, VethEnd, correct_own_sysctls, in_namespace, pod,
};
use tracing::warn;

use super::is_pod_link;

/// How long the kernel gets to start an interface that is up: it takes less than a millisecond, unless the machine is very busy.
const RUNNING: Duration = Duration::from_secs(2);

/// An interface that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// Name of the node's end.
    pub host_name: String,
    /// Ethernet address of the node's end.
    pub host_mac: Mac,
    /// Name of the pod's end.
    pub pod_name: String,
    /// Ethernet address of the pod's end.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// Makes interfaces: the kernel, or a test's memory.
pub trait Links: Send + Sync {
    /// Makes both ends, bare and down. Returns the index of the node's.
    ///
    /// # Errors
    /// The kernel refuses.
    fn make(&self, plan: &LinkPlan, namespace: &NetNs) -> Result<u32, NetError>;

    /// Lets traffic flow: both ends up, the pod's with addresses and routes, the node's with routes to these. The node's own traffic there
    /// comes from `sources`. When it returns, nothing that the pod sends is lost any more.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses an address or a route.
    fn connect(
        &self,
        plan: &LinkPlan,
        index: u32,
        namespace: &NetNs,
        sources: &[IpAddr],
    ) -> Result<(), NetError>;

    /// The index of the node's end, if it is there.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn find(&self, host_name: &str) -> Result<Option<u32>, NetError>;

    /// What is different from the plan; nothing where all is as made.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn differences(&self, plan: &LinkPlan, namespace: &NetNs) -> Result<Vec<String>, NetError>;

    /// Removes an interface. One that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    fn remove(&self, host_name: &str) -> Result<(), NetError>;

    /// Names of all nodes' ends of pods' interfaces.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn list(&self) -> Result<Vec<String>, NetError>;
}

/// The interfaces of the namespace this process runs in.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostLinks;

impl Links for HostLinks {
    fn make(&self, plan: &LinkPlan, namespace: &NetNs) -> Result<u32, NetError> {
        let mut node = Netlink::open()?;
        let near = VethEnd {
            name: &plan.host_name,
            mac: plan.host_mac,
            mtu: plan.mtu,
        };
        let far = VethEnd {
            name: &plan.pod_name,
            mac: plan.mac,
            mtu: plan.mtu,
        };
        node.create_veth(&near, &far, namespace)?;
        node.index(&plan.host_name)
    }

    fn connect(
        &self,
        plan: &LinkPlan,
        index: u32,
        namespace: &NetNs,
        sources: &[IpAddr],
    ) -> Result<(), NetError> {
        let mut node = Netlink::open()?;
        pod::connect(&mut node, index, plan.mac, &plan.addresses, sources)?;
        let sends = in_namespace(namespace, || {
            prepare(&plan.pod_name, &plan.addresses)?;
            let mut inside = Netlink::open()?;
            pod::furnish(&mut inside, &plan.pod_name, &plan.addresses, None)?;
            pod::wait_running(&mut inside, &plan.pod_name, RUNNING)
        })??;
        if !(sends && pod::wait_running(&mut node, &plan.host_name, RUNNING)?) {
            warn!(
                interface = plan.host_name,
                "the pod's interface does not send yet: its first packets may be lost"
            );
        }
        Ok(())
    }

    fn find(&self, host_name: &str) -> Result<Option<u32>, NetError> {
        Ok(Netlink::open()?.link(host_name)?.map(|link| link.index))
    }

    fn differences(&self, plan: &LinkPlan, namespace: &NetNs) -> Result<Vec<String>, NetError> {
        let mut found = Vec::new();
        let host = Netlink::open()?.link(&plan.host_name)?;
        match &host {
            None => found.push(format!("{} is gone from the node", plan.host_name)),
            Some(link) if !link.up => found.push(format!("{} is down", plan.host_name)),
            Some(_) => {}
        }
        let mut inside = Netlink::open_in(namespace)?;
        let Some(own) = inside.link(&plan.pod_name)? else {
            found.push(format!("{} is gone from the pod", plan.pod_name));
            return Ok(found);
        };
        if own.peer != host.map(|link| link.index) {
            found.push(format!("{} is another interface", plan.pod_name));
        }
        if own.mac != Some(plan.mac) {
            found.push(format!("{} has another Ethernet address", plan.pod_name));
        }
        let assigned = inside.assigned()?;
        for address in &plan.addresses {
            if !assigned
                .iter()
                .any(|(index, net)| *index == own.index && net.addr() == *address)
            {
                found.push(format!("address {address} is gone from {}", plan.pod_name));
            }
            if inside.default_interface(*address)? != Some(own.index) {
                found.push(format!("the default route for {address} is gone"));
            }
        }
        Ok(found)
    }

    fn remove(&self, host_name: &str) -> Result<(), NetError> {
        let mut node = Netlink::open()?;
        match node.link(host_name)? {
            Some(link) => node.delete_link(link.index),
            None => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<String>, NetError> {
        pod_links()
    }
}

/// Names of the node's ends of pods' interfaces in the namespace this process runs in.
///
/// # Errors
/// The kernel does not tell.
pub fn pod_links() -> Result<Vec<String>, NetError> {
    let links = Netlink::open()?.links()?;
    Ok(links
        .into_iter()
        .map(|link| link.name)
        .filter(|name| is_pod_link(name))
        .collect())
}

/// Some runtimes switch IPv6 off in a new namespace. Router advertisements are not what a pod's routes come from, and its link-local address
/// must be the one that the programs know it by. To be called in the pod's namespace.
fn prepare(interface: &str, addresses: &[IpAddr]) -> Result<(), NetError> {
    if addresses.iter().all(IpAddr::is_ipv4) {
        return Ok(());
    }
    // As sysctl(8) has it: dots separate, so one inside a name is written as a slash.
    let interface = interface.replace('.', "/");
    let of = |name: &str| format!("net.ipv6.conf.{interface}.{name}");
    let values = [
        ("net.ipv6.conf.lo.disable_ipv6".to_owned(), "0"),
        (of("disable_ipv6"), "0"),
        (of("accept_ra"), "0"),
        (of("addr_gen_mode"), "0"),
    ];
    correct_own_sysctls(&values).map(drop)
}
