//! The device that wraps packets for other nodes: VXLAN, with the outside of each packet given by the programs.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::{Mac, NetError, Netlink};

/// What VXLAN adds to a packet over IPv4: outer IP, UDP and VXLAN headers and the inner Ethernet header (RFC 7348, section 5).
pub const OVERHEAD_IPV4: u32 = 50;
/// The same over IPv6.
pub const OVERHEAD_IPV6: u32 = 70;

/// The Ethernet address of a node's device: no other node's, and no pod's, since a device takes packets that bear its own for a loop.
#[must_use]
pub const fn mac(node: u32) -> Mac {
    let [a, b, c, d] = node.to_be_bytes();
    Mac([0x02, 0x53, a, b, c, d])
}

impl Netlink {
    /// Makes a VXLAN device whose packets say themselves where they go (`external` in iproute2). It is down. For the address see [`mac`].
    ///
    /// # Errors
    /// The name or the port is taken, or the kernel has no VXLAN driver.
    pub fn create_vxlan(
        &mut self,
        name: &str,
        mac: Mac,
        mtu: u32,
        port: u16,
    ) -> Result<(), NetError> {
        let mut message = LinkMessage::default();
        // Nobody is asked for a hardware address: the programs know where everyone is.
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vec![
                    InfoVxlan::CollectMetadata(true),
                    InfoVxlan::Learning(false),
                    InfoVxlan::Port(port),
                    InfoVxlan::UDPZeroCsumTX(true),
                    InfoVxlan::UDPZeroCsumRX(true),
                ])),
            ]),
        ];
        self.request(
            || format!("creating VXLAN device {name} at UDP port {port}"),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewLink(message),
        )
    }

    /// Whether the kernel makes VXLAN devices, whose module it looks for. None is made.
    ///
    /// # Errors
    /// This process may not ask.
    pub fn has_vxlan(&mut self) -> Result<bool, NetError> {
        self.makes(InfoKind::Vxlan)
    }

    /// Whether the kernel makes devices of a kind. The address asked for is none that a device can have, which only the kind's own driver can
    /// find out.
    fn makes(&mut self, kind: InfoKind) -> Result<bool, NetError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::Address(vec![0; 5]),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
        ];
        let refused = self.request(
            || "asking for a kind of device".to_owned(),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewLink(message),
        );
        match refused {
            Ok(()) => Ok(true),
            Err(error) => match error.source.raw_os_error() {
                Some(libc::EINVAL) => Ok(true),
                Some(libc::EOPNOTSUPP) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// The UDP port of the device of this name, if it is such as [`Netlink::create_vxlan`] makes.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn vxlan_port(&mut self, name: &str) -> Result<Option<u16>, NetError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self.get(
            || format!("looking up interface {name}"),
            RouteNetlinkMessage::GetLink(message),
        ) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(port_of(&link)),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn port_of(link: &LinkMessage) -> Option<u16> {
    let told = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(told) => Some(told),
            _ => None,
        })?;
    let data = told.iter().find_map(|told| match told {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    data.contains(&InfoVxlan::CollectMetadata(true)).then(|| {
        data.iter().find_map(|told| match told {
            InfoVxlan::Port(port) => Some(*port),
            _ => None,
        })
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_address_is_neither_a_pods_nor_anothers() {
        let one = mac(1);
        assert_eq!(one.0[0] & 0b11, 0b10, "local and unicast");
        assert_ne!(one, mac(2));
        assert_ne!(one.0[..2], Mac::local(1).0[..2], "pods' have another start");
    }

    #[test]
    fn a_kind_that_nobody_knows_is_not_made_and_asking_leaves_nothing() {
        let mut netlink = Netlink::open().unwrap();
        let before = netlink.links().unwrap().len();
        // Without the right to make devices there is no answer.
        if let Ok(made) = netlink.makes(InfoKind::Other("no-such-kind".to_owned())) {
            assert!(!made);
            assert!(netlink.makes(InfoKind::Veth).unwrap());
        }
        assert_eq!(netlink.links().unwrap().len(), before);
    }

    #[test]
    fn only_a_device_told_by_packets_has_a_port() {
        let with = |data: Vec<InfoVxlan>| {
            let mut link = LinkMessage::default();
            link.attributes = vec![LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(data)),
            ])];
            port_of(&link)
        };
        let port = InfoVxlan::Port(8472);
        let external = InfoVxlan::CollectMetadata;
        assert_eq!(with(vec![external(true), port.clone()]), Some(8472));
        assert_eq!(with(vec![external(false), port.clone()]), None);
        assert_eq!(with(vec![port]), None);
        assert_eq!(port_of(&LinkMessage::default()), None);
    }
}
