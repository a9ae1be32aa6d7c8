//! A pod's interface: what its two ends get beside the programs. Who the pod is may not enter.
//!
//! ```text
//! node                                            pod
//!   host end ◀────────────── veth ──────────────▶ interface: the pod's addresses, /32 and /128
//!   route and permanent neighbour for each        default routes via the gateways, which the program answers for
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{Mac, NetError, Netlink, Route};

/// The gateway of every pod of IPv4. Link-local, so that it is nobody's.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The gateway of every pod of IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The gateway for an address of a pod.
#[must_use]
pub const fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(GATEWAY_V4),
        IpAddr::V6(_) => IpAddr::V6(GATEWAY_V6),
    }
}

/// Gives the pod's end its addresses and default routes; `inside` is a socket of the pod's namespace. Repeating it is no error.
///
/// With `host_mac` the gateways are known for good: for an end behind which no program answers for them.
///
/// # Errors
/// There is no interface of this name, or the kernel refuses an address or a route.
pub fn furnish(
    inside: &mut Netlink,
    interface: &str,
    addresses: &[IpAddr],
    host_mac: Option<Mac>,
) -> Result<(), NetError> {
    let loopback = inside.index("lo")?;
    inside.set_up(loopback)?;
    let interface = inside.index(interface)?;
    inside.set_up(interface)?;
    for &address in addresses {
        inside.add_address(interface, IpNet::from(address))?;
        if let Some(mac) = host_mac {
            inside.add_neighbour(interface, gateway(address), mac)?;
        }
        inside.add_route(&Route {
            destination: everywhere(address),
            interface,
            via: Some(gateway(address)),
            source: Some(address),
        })?;
    }
    Ok(())
}

/// Sets the node's end up and routes the pod's addresses to it. What the node itself sends to the pod gets one of `sources`, the node's
/// addresses, so that it is known for the node's. Call it when the programs are attached: nothing flows before. Repeating it is no error.
///
/// # Errors
/// The interface is gone, or the kernel refuses a route.
pub fn connect(
    node: &mut Netlink,
    interface: u32,
    mac: Mac,
    addresses: &[IpAddr],
    sources: &[IpAddr],
) -> Result<(), NetError> {
    node.set_up(interface)?;
    for &address in addresses {
        let source = sources
            .iter()
            .copied()
            .find(|own| own.is_ipv4() == address.is_ipv4());
        node.add_neighbour(interface, address, mac)?;
        node.add_route(&Route {
            destination: IpNet::from(address),
            interface,
            via: None,
            source,
        })?;
    }
    Ok(())
}

/// Waits until an interface sends: the kernel starts the end that was up first only after a while, and what it is given before is lost.
/// `false` if it does not in time.
///
/// # Errors
/// The kernel does not tell.
pub fn wait_running(
    inside: &mut Netlink,
    interface: &str,
    patience: Duration,
) -> Result<bool, NetError> {
    const LOOK: Duration = Duration::from_micros(200);
    let until = Instant::now() + patience;
    loop {
        if inside.link(interface)?.is_some_and(|link| link.running) {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
}

/// The prefix of length 0 of an address's family.
#[must_use]
pub fn everywhere(like: IpAddr) -> IpNet {
    let any: IpAddr = match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new_assert(any, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_of_the_same_family() {
        for (address, net) in [("10.0.0.1", "0.0.0.0/0"), ("fd00::1", "::/0")] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(everywhere(address).to_string(), net);
            assert_eq!(gateway(address).is_ipv4(), address.is_ipv4());
        }
    }
}
