//! Addresses, routes and permanent neighbours of an interface, of either family.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Mac, NetError, Netlink};

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Out of which interface, by index.
    pub interface: u32,
    /// Through which router; without one the destination is on the link. The router need not lie in a subnet of the
    /// interface: it is taken to be on the link.
    pub via: Option<IpAddr>,
    /// The source address that packets without one get.
    pub source: Option<IpAddr>,
}

impl Netlink {
    /// Gives an interface an address with its prefix, usable at once: no duplicate-address detection. Repeating it is no error.
    ///
    /// # Errors
    /// There is no such interface, or IPv6 is switched off there.
    pub fn add_address(&mut self, interface: u32, address: IpNet) -> Result<(), NetError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = interface;
        message.attributes = vec![
            AddressAttribute::Address(address.addr()),
            AddressAttribute::Local(address.addr()),
        ];
        if matches!(address, IpNet::V6(_)) {
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.request(
            || format!("adding address {address} to interface {interface}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewAddress(message),
        )
    }

    /// Adds a route or replaces the one to the same destination.
    ///
    /// # Errors
    /// Gateway and destination are of different families, or the kernel refuses the route.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetError> {
        self.request(
            || format!("adding route {route:?}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewRoute(route_message(route)),
        )
    }

    /// Removes a route. One that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetError> {
        let removed = self.request(
            || format!("removing route {route:?}"),
            0,
            RouteNetlinkMessage::DelRoute(route_message(route)),
        );
        match removed {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Names the Ethernet address of a neighbour for good, so that it is never asked for.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn add_neighbour(
        &mut self,
        interface: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<(), NetError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = interface;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unspec;
        message.attributes = vec![
            NeighbourAttribute::Destination(match address {
                IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
                IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
            }),
            NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        ];
        self.request(
            || format!("adding neighbour {address} at {mac} to interface {interface}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewNeighbour(message),
        )
    }
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(route.destination.addr()),
        destination_prefix_length: route.destination.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: match (route.via, route.destination) {
            (None, IpNet::V4(_)) => RouteScope::Link,
            _ => RouteScope::Universe,
        },
        kind: RouteType::Unicast,
        flags: if route.via.is_some() {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(route.destination.network())),
        RouteAttribute::Oif(route.interface),
    ];
    if let Some(via) = route.via {
        message
            .attributes
            .push(RouteAttribute::Gateway(RouteAddress::from(via)));
    }
    if let Some(source) = route.source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(RouteAddress::from(source)));
    }
    message
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
