//! One rtnetlink socket: a request and its acknowledgement, or a dump. What is asked may not enter here.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{NetError, NetNs, in_namespace};

/// A conversation with the kernel about the links of one namespace: that in which it was opened, wherever it is used.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, NetError> {
        let context = |source| NetError::new("opening a netlink socket", source);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(context)?;
        socket.bind_auto().map_err(context)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(context)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Opens a socket in `ns`.
    ///
    /// # Errors
    /// The namespace may not be entered or the kernel gives no socket.
    pub fn open_in(ns: &NetNs) -> Result<Self, NetError> {
        in_namespace(ns, Self::open)?
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) fn request(
        &mut self,
        action: impl FnOnce() -> String,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<(), NetError> {
        self.exchange(flags | NLM_F_ACK, message, |_| ())
            .map_err(|source| NetError::new(action(), source))
    }

    /// Sends a request and collects the answers.
    pub(super) fn dump(
        &mut self,
        action: impl FnOnce() -> String,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetError> {
        let mut answers = Vec::new();
        self.exchange(NLM_F_DUMP, message, |answer| answers.push(answer))
            .map_err(|source| NetError::new(action(), source))?;
        Ok(answers)
    }

    /// Sends a request for one object and returns it.
    pub(super) fn get(
        &mut self,
        action: impl FnOnce() -> String,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetError> {
        let mut found = None;
        self.exchange(NLM_F_ACK, message, |answer| found = Some(answer))
            .map_err(|source| NetError::new(action(), source))?;
        Ok(found)
    }

    fn exchange(
        &mut self,
        flags: u16,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        while !self.receive(&mut each)? {}
        Ok(())
    }

    /// Reads one datagram; `true` when it ends the exchange.
    fn receive(&mut self, each: &mut impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            // Messages are aligned to four bytes (include/uapi/linux/netlink.h, NLMSG_ALIGN).
            let length = usize::try_from(message.header.length)
                .unwrap_or(usize::MAX)
                .next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) => each(inner),
                _ => {}
            }
        }
        Ok(false)
    }
}
