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

impl Netlink {
    /// Makes a VXLAN device whose packets say themselves where they go (`external` in iproute2). It is down. No other node
    /// may have the same Ethernet address: a device takes packets that bear its own for a loop.
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
}
