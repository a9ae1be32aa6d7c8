//! What the namespace has and where it would send: assigned addresses, the next hop to an address, and routes that carry our mark, so
//! that those which an earlier process left are recognised. Which routes there should be may not enter.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::pod::everywhere;
use super::{NetError, Netlink};

/// The mark: a routing protocol's number (include/uapi/linux/rtnetlink.h, `RTPROT_*`) that nobody else is known to use.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(83);

/// Where a marked route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hop {
    /// To a router on the link of an interface.
    Via {
        /// The interface, by index.
        interface: u32,
        /// The router.
        router: IpAddr,
    },
    /// Out of an interface, to whoever is behind it.
    Interface(u32),
    /// Nowhere: senders are told so.
    Unreachable,
}

/// A route of the main table that carries our mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkedRoute {
    /// Where to.
    pub destination: IpNet,
    /// By which way.
    pub hop: Hop,
}

/// Where the kernel would send a packet for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Out of which interface, by index.
    pub interface: u32,
    /// Through which router; none for an address on the link.
    pub router: Option<IpAddr>,
    /// With which source address, where the packet has none.
    pub source: Option<IpAddr>,
    /// The address is this namespace's own.
    pub local: bool,
}

impl Netlink {
    /// The routes that carry our mark, of both families, sorted.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn marked_routes(&mut self) -> Result<Vec<MarkedRoute>, NetError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.dump(
                || "listing routes".to_owned(),
                RouteNetlinkMessage::GetRoute(message),
            )?;
            found.extend(answers.iter().filter_map(marked));
        }
        found.sort();
        Ok(found)
    }

    /// Adds a marked route or replaces the one to the same destination.
    ///
    /// # Errors
    /// Router and destination are of different families, or the kernel refuses the route.
    pub fn add_marked_route(&mut self, route: &MarkedRoute) -> Result<(), NetError> {
        self.request(
            || format!("adding route {route:?}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewRoute(message_of(route)),
        )
    }

    /// Removes a marked route. One that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delete_marked_route(&mut self, route: &MarkedRoute) -> Result<(), NetError> {
        let removed = self.request(
            || format!("removing route {route:?}"),
            0,
            RouteNetlinkMessage::DelRoute(message_of(route)),
        );
        match removed {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Where the kernel would send a packet for `address`; `None` where it would not.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn next_hop(&mut self, address: IpAddr) -> Result<Option<NextHop>, NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address);
        message.header.destination_prefix_length = IpNet::from(address).prefix_len();
        message.attributes = vec![RouteAttribute::Destination(address.into())];
        let answer = self.get(
            || format!("looking up the route to {address}"),
            RouteNetlinkMessage::GetRoute(message),
        );
        match answer {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(next_hop(&route)),
            Ok(_) => Ok(None),
            Err(error) if is_unreachable(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The interface of the default route of the family of `like`, if there is one.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn default_interface(&mut self, like: IpAddr) -> Result<Option<u32>, NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(like);
        let answers = self.dump(
            || "listing routes".to_owned(),
            RouteNetlinkMessage::GetRoute(message),
        )?;
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route)
                if destination(route) == Some(everywhere(like))
                    && route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.kind == RouteType::Unicast =>
            {
                interface(route)
            }
            _ => None,
        }))
    }

    /// The interfaces of the default routes of both families.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn default_interfaces(&mut self) -> Result<BTreeSet<u32>, NetError> {
        let mut found = BTreeSet::new();
        for like in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
            found.extend(self.default_interface(like)?);
        }
        Ok(found)
    }

    /// Addresses assigned to interfaces, with their prefixes, by interface index.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn assigned(&mut self) -> Result<Vec<(u32, IpNet)>, NetError> {
        let answers = self.dump(
            || "listing addresses".to_owned(),
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        )?;
        Ok(answers.iter().filter_map(assigned).collect())
    }
}

fn assigned(answer: &RouteNetlinkMessage) -> Option<(u32, IpNet)> {
    let RouteNetlinkMessage::NewAddress(message) = answer else {
        return None;
    };
    // On a point-to-point link `Address` is the other side's.
    let own = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
    let any = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
    let net = IpNet::new(own.or(any)?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

fn marked(answer: &RouteNetlinkMessage) -> Option<MarkedRoute> {
    let RouteNetlinkMessage::NewRoute(route) = answer else {
        return None;
    };
    if route.header.protocol != PROTOCOL || route.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let hop = match (route.header.kind, router(route), interface(route)) {
        (RouteType::Unreachable, _, _) => Hop::Unreachable,
        (_, Some(router), Some(interface)) => Hop::Via { interface, router },
        (_, None, Some(interface)) => Hop::Interface(interface),
        _ => return None,
    };
    Some(MarkedRoute {
        destination: destination(route)?,
        hop,
    })
}

fn message_of(route: &MarkedRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    let on_link = matches!(
        (route.hop, route.destination),
        (Hop::Interface(_), IpNet::V4(_))
    );
    message.header = RouteHeader {
        address_family: family(route.destination.addr()),
        destination_prefix_length: route.destination.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: PROTOCOL,
        scope: if on_link {
            RouteScope::Link
        } else {
            RouteScope::Universe
        },
        kind: if route.hop == Hop::Unreachable {
            RouteType::Unreachable
        } else {
            RouteType::Unicast
        },
        flags: if matches!(route.hop, Hop::Via { .. }) {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(
        route.destination.network().into(),
    )];
    match route.hop {
        Hop::Via { interface, router } => {
            message.attributes.push(RouteAttribute::Oif(interface));
            message
                .attributes
                .push(RouteAttribute::Gateway(router.into()));
        }
        Hop::Interface(interface) => message.attributes.push(RouteAttribute::Oif(interface)),
        Hop::Unreachable => {}
    }
    message
}

fn next_hop(route: &RouteMessage) -> Option<NextHop> {
    let unicast = matches!(route.header.kind, RouteType::Unicast | RouteType::Local);
    Some(NextHop {
        interface: interface(route).filter(|_| unicast)?,
        router: router(route),
        source: route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::PrefSource(address) => plain(address),
                _ => None,
            }),
        local: route.header.kind == RouteType::Local,
    })
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let named = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => plain(address),
            _ => None,
        });
    let like = match route.header.address_family {
        AddressFamily::Inet => everywhere(IpAddr::V4([0; 4].into())),
        AddressFamily::Inet6 => everywhere(IpAddr::V6([0; 16].into())),
        _ => return None,
    };
    // The default route names no destination.
    IpNet::new(
        named.unwrap_or_else(|| like.addr()),
        route.header.destination_prefix_length,
    )
    .ok()
}

fn router(route: &RouteMessage) -> Option<IpAddr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => plain(address),
            _ => None,
        })
}

fn interface(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

const fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// No route, or one that says so.
fn is_unreachable(error: &NetError) -> bool {
    error.is_not_found()
        || matches!(
            error.source.raw_os_error(),
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_route_is_read_back_from_its_message() {
        let routes = [
            (
                "10.0.1.0/24",
                Hop::Via {
                    interface: 3,
                    router: [192, 168, 0, 2].into(),
                },
            ),
            (
                "fd00:1::/64",
                Hop::Via {
                    interface: 3,
                    router: "fd09::2".parse().unwrap(),
                },
            ),
            ("10.0.2.0/24", Hop::Interface(4)),
            ("fd00:2::/64", Hop::Unreachable),
        ];
        for (destination, hop) in routes {
            let route = MarkedRoute {
                destination: destination.parse().unwrap(),
                hop,
            };
            let message = RouteNetlinkMessage::NewRoute(message_of(&route));
            assert_eq!(marked(&message), Some(route));
        }
    }

    #[test]
    fn the_loopback_address_is_assigned_and_its_own_next_hop() {
        let mut netlink = Netlink::open().unwrap();
        let loopback = netlink.index("lo").unwrap();
        let own: IpAddr = [127, 0, 0, 1].into();
        if netlink
            .assigned()
            .unwrap()
            .iter()
            .any(|(_, net)| net.addr() == own)
        {
            let hop = netlink.next_hop(own).unwrap().unwrap();
            assert_eq!((hop.interface, hop.local), (loopback, true));
        }
    }
}
