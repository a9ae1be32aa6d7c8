//! Interfaces: veth pairs across namespaces, state, MTU, MAC and look-ups.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::{Mac, NetError, NetNs, Netlink};

/// The longest interface name (`IFNAMSIZ` less its terminator).
const NAME_LIMIT: usize = 15;

/// What is wanted of one end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Interface name, at most 15 bytes.
    pub name: &'a str,
    /// Ethernet address.
    pub mac: Mac,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index, unique within its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address, where it has one.
    pub mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it also sends: some moments after both ends of a pair are up, and until then it drops.
    pub running: bool,
    /// For a veth: the other end's index, in whatever namespace that is.
    pub peer: Option<u32>,
}

impl Netlink {
    /// Makes a veth pair: `near` in this socket's namespace, `far` in `far_ns`. Both ends are down.
    ///
    /// # Errors
    /// A name is too long or taken, or the kernel has no veth driver.
    pub fn create_veth(
        &mut self,
        near: &VethEnd<'_>,
        far: &VethEnd<'_>,
        far_ns: &NetNs,
    ) -> Result<(), NetError> {
        for end in [near, far] {
            check_name(end.name)?;
        }
        let mut peer = describe(far);
        peer.attributes
            .push(LinkAttribute::NetNsFd(far_ns.as_fd().as_raw_fd()));
        let mut message = describe(near);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.request(
            || {
                format!(
                    "creating veth pair {} and {} in {}",
                    near.name,
                    far.name,
                    far_ns.name()
                )
            },
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewLink(message),
        )
    }

    /// The interface of this name, if there is one.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self.get(
            || format!("looking up interface {name}"),
            RouteNetlinkMessage::GetLink(message),
        ) {
            Ok(answer) => Ok(answer.and_then(link_of)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The interface of this name, which must be there.
    ///
    /// # Errors
    /// It is not, or the kernel refuses to tell.
    pub fn index(&mut self, name: &str) -> Result<u32, NetError> {
        self.link(name)?.map(|link| link.index).ok_or_else(|| {
            NetError::new(
                format!("looking up interface {name}"),
                std::io::Error::from_raw_os_error(libc::ENODEV),
            )
        })
    }

    /// All interfaces of the namespace.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn links(&mut self) -> Result<Vec<Link>, NetError> {
        let answers = self.dump(
            || "listing interfaces".to_owned(),
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
        )?;
        Ok(answers.into_iter().filter_map(link_of).collect())
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(
            || format!("setting interface {index} up"),
            0,
            RouteNetlinkMessage::SetLink(message),
        )
    }

    /// Sets an interface's largest packet, in bytes.
    ///
    /// # Errors
    /// There is no such interface, or it can't have this MTU.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetError> {
        self.set(index, LinkAttribute::Mtu(mtu), || {
            format!("setting MTU {mtu} of interface {index}")
        })
    }

    /// Sets an interface's Ethernet address.
    ///
    /// # Errors
    /// There is no such interface, or it can't have this address.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), NetError> {
        self.set(index, LinkAttribute::Address(mac.0.to_vec()), || {
            format!("setting address {mac} of interface {index}")
        })
    }

    /// Removes an interface; of a veth pair both ends go. One that is not there is no error.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let removed = self.request(
            || format!("removing interface {index}"),
            0,
            RouteNetlinkMessage::DelLink(message),
        );
        match removed {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    fn set(
        &mut self,
        index: u32,
        attribute: LinkAttribute,
        action: impl FnOnce() -> String,
    ) -> Result<(), NetError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.request(action, 0, RouteNetlinkMessage::SetLink(message))
    }
}

fn describe(end: &VethEnd<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Mtu(end.mtu),
        LinkAttribute::Address(end.mac.0.to_vec()),
    ];
    message
}

fn link_of(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
        peer: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(peer) => link.peer = Some(peer),
            _ => {}
        }
    }
    Some(link)
}

fn check_name(name: &str) -> Result<(), NetError> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.contains(['/', ' ', ':']) {
        return Err(NetError::new(
            format!("interface name `{name}`"),
            std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("1 to {NAME_LIMIT} bytes without `/`, `:` and space are wanted"),
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_cut_or_refuse_are_refused_first() {
        assert!(check_name("fifteen-letters").is_ok());
        for bad in ["", "sixteen-letters-", "a/b", "a b", "a:b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_loopback_interface_is_found_by_name_and_in_the_list() {
        let mut netlink = Netlink::open().unwrap();
        let found = netlink.link("lo").unwrap().unwrap();
        assert!(netlink.links().unwrap().contains(&found));
        assert_eq!(netlink.link("no-such-link").unwrap(), None);
        assert!(netlink.index("no-such-link").unwrap_err().is_not_found());
    }
}
