//! From bytes to headers: Ethernet, IPv4 and IPv6 with options, extension headers and fragments, and what the transports say.
//!
//! Only what a packet says of itself; whether it may say so is judged elsewhere. Nothing is trusted: every length is checked.

use crate::{
    Reason,
    atomic::{self, Words},
    ipcache::Address,
    packet::{HEAD, Head, Packet, be16, be32, chunk},
};

/// `EtherType` numbers.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// IP protocol numbers that are treated specially.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// Group membership, IPv4.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;

    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
}

/// Flags of the TCP header. SCTP chunks are mapped to those that mean the same.
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// A connection is opened.
    pub const SYN: u8 = 2;
    /// A connection is reset.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

const ETHERNET: u32 = 14;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
/// Where the transport header is in nearly every packet.
const PLAIN_IPV4: u32 = ETHERNET + IPV4_HEADER;
const PLAIN_IPV6: u32 = ETHERNET + IPV6_HEADER;
/// How many extension headers are followed; senders use one or two.
const MAX_EXTENSIONS: u32 = 6;
/// The largest frame whose length fields can be right; beyond, the kernel's segmentation offload leaves them 0.
const MAX_SIZED: u32 = 65_535;

/// What is known of a packet after parsing.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Offset of the transport header in the frame.
    pub transport: u32,
    /// Offset of the first byte behind the IP packet.
    pub end: u32,
    /// Identification of a fragmented packet.
    pub fragment_id: u32,
    /// Source port, host byte order. For ICMP queries the asking end has the identifier as port and the other end 0, so that a question
    /// and its answer share a connection and a question back does not.
    pub source_port: u16,
    /// Destination port likewise.
    pub destination_port: u16,
    /// The frame's type.
    pub ether_type: u16,
    /// IP protocol number, behind all extension headers.
    pub protocol: u8,
    /// Protocol that the fragment header (or IPv4 header) names.
    pub fragment_protocol: u8,
    /// TCP flags (or their like); 0 for other protocols and later fragments.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// For ICMP queries and their answers: the type of the question. Else 0.
    pub icmp_query: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// [`Headers::IPV6`] and the flags after it.
    pub flags: u8,
    /// Source hardware address.
    pub source_mac: [u8; 6],
}

// SAFETY: integers and arrays of integers without padding, as the size shows.
unsafe impl Words for Headers {}
const _: () = assert!(size_of::<Headers>() == 64);

impl Headers {
    /// Flag: an IPv6 packet.
    pub const IPV6: u8 = 1;
    /// Flag: a fragment, the first or a later one.
    pub const FRAGMENT: u8 = 2;
    /// Flag: a fragment that is not the first; it has no transport header.
    pub const LATER: u8 = 4;
    /// Flag: an ICMP error, with the packet it complains of inside.
    pub const ICMP_ERROR: u8 = 8;
    /// Flag: an ICMP message that opens no connection: neither a question nor an error.
    pub const CONNECTIONLESS: u8 = 16;

    /// Whether all of `flags` are set.
    #[must_use]
    #[inline(always)]
    pub const fn is(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether the protocol has handshakes that open and close connections.
    #[must_use]
    #[inline(always)]
    pub const fn has_handshake(&self) -> bool {
        matches!(self.protocol, protocol::TCP | protocol::SCTP)
    }

    /// Whether the packet asks to open a connection and is no answer.
    #[must_use]
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// What policy looks at besides protocol and peer: the port at the end the flow was opened to (the source's if this packet is
    /// `reversed`), or the ICMP type of the question.
    #[must_use]
    #[inline(always)]
    pub const fn point(&self, reversed: bool) -> u16 {
        match (self.protocol, reversed) {
            (protocol::ICMP | protocol::ICMPV6, false) => self.icmp_type as u16,
            (protocol::ICMP | protocol::ICMPV6, true) => self.icmp_query as u16,
            (_, false) => self.destination_port,
            (_, true) => self.source_port,
        }
    }
}

/// Reads the Ethernet header, and the head of the frame for those that read on.
///
/// # Errors
/// [`Reason::Truncated`]; [`Reason::UnsupportedEtherType`] for a tagged frame.
#[inline(always)]
pub fn link<P: Packet + ?Sized>(
    packet: &P,
    head: &mut Head,
    headers: &mut Headers,
) -> Result<u32, Reason> {
    atomic::clear(headers);
    let available = packet.head(head);
    if available < ETHERNET {
        return Err(Reason::Truncated);
    }
    headers.source_mac = chunk(&head.bytes, 6);
    headers.ether_type = be16(&head.bytes, 12);
    if packet.tagged() {
        return Err(Reason::UnsupportedEtherType);
    }
    Ok(available)
}

/// Reads the IP header behind the Ethernet header, extension headers included.
///
/// # Errors
/// [`Reason::UnsupportedEtherType`] and what `ipv4` and `ipv6` say.
#[inline(always)]
pub fn network<P: Packet + ?Sized>(
    packet: &P,
    head: &Head,
    available: u32,
    headers: &mut Headers,
) -> Result<(), Reason> {
    match headers.ether_type {
        ether_type::IPV4 if available < ETHERNET + IPV4_HEADER => Err(Reason::Truncated),
        ether_type::IPV4 => {
            let bytes: [u8; 20] = chunk(&head.bytes, 14);
            ipv4(&bytes, ETHERNET, packet.length(), headers)
        }
        ether_type::IPV6 if available < ETHERNET + IPV6_HEADER => Err(Reason::Truncated),
        ether_type::IPV6 => {
            let bytes: [u8; 40] = chunk(&head.bytes, 14);
            ipv6(&bytes, ETHERNET, packet.length(), headers)?;
            if is_extension(headers.protocol) {
                extensions(packet, headers)?;
            }
            Ok(())
        }
        _ => Err(Reason::UnsupportedEtherType),
    }
}

/// Reads an IPv4 header at `offset` of a frame of `length` bytes (RFC 791). Does not verify its checksum: the node's stack and
/// the receiver do.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::Truncated`].
#[inline(always)]
fn ipv4(bytes: &[u8; 20], offset: u32, length: u32, headers: &mut Headers) -> Result<(), Reason> {
    let header = u32::from(bytes[0] & 0xf) * 4;
    if bytes[0] >> 4 != 4 || header < IPV4_HEADER {
        return Err(Reason::Malformed);
    }
    let available = length.saturating_sub(offset);
    let total = match u32::from(be16(bytes, 2)) {
        0 if available > MAX_SIZED => available,
        total => total,
    };
    if total < header {
        return Err(Reason::Malformed);
    }
    if total > available {
        return Err(Reason::Truncated);
    }
    headers.end = offset + total;
    headers.transport = offset + header;
    headers.hop_limit = bytes[8];
    headers.protocol = bytes[9];
    headers.fragment_protocol = bytes[9];
    headers.source = Address::v4(chunk(bytes, 12));
    headers.destination = Address::v4(chunk(bytes, 16));
    let fragment = be16(bytes, 6);
    if fragment & 0x3fff != 0 {
        headers.fragment_id = u32::from(be16(bytes, 4));
        return fragmented(headers, u32::from(fragment & 0x1fff) * 8);
    }
    Ok(())
}

/// Reads an IPv6 header at `offset` of a frame of `length` bytes (RFC 8200), not its extension headers.
#[inline(always)]
fn ipv6(bytes: &[u8; 40], offset: u32, length: u32, headers: &mut Headers) -> Result<(), Reason> {
    if bytes[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let available = length.saturating_sub(offset + IPV6_HEADER);
    let payload = match u32::from(be16(bytes, 4)) {
        0 if available > MAX_SIZED => available,
        payload => payload,
    };
    if payload > available {
        return Err(Reason::Truncated);
    }
    headers.flags |= Headers::IPV6;
    headers.transport = offset + IPV6_HEADER;
    headers.end = headers.transport + payload;
    headers.protocol = bytes[6];
    headers.hop_limit = bytes[7];
    headers.source = Address(chunk(bytes, 8));
    headers.destination = Address(chunk(bytes, 24));
    Ok(())
}

/// Whether the number is an extension header that hides the transport. The authentication header is not: it is a protocol that
/// policy can name, and what is behind it is for its receiver alone, in both families.
#[inline(always)]
const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
    )
}

/// Follows the extension headers from `headers.transport` on.
#[inline(never)]
fn extensions<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
    let mut count = 0;
    while count < MAX_EXTENSIONS {
        let number = headers.protocol;
        if !is_extension(number) {
            return Ok(());
        }
        let offset = headers.transport;
        let mut bytes = [0; 8];
        if offset + 8 > headers.end || !packet.load(offset, &mut bytes) {
            return Err(Reason::Truncated);
        }
        headers.protocol = bytes[0];
        if number == protocol::FRAGMENT {
            if headers.is(Headers::FRAGMENT) {
                return Err(Reason::Malformed);
            }
            headers.transport = offset + 8;
            headers.fragment_protocol = bytes[0];
            headers.fragment_id = be32(&bytes, 4);
            let field = be16(&bytes, 2);
            // Offset 0 and no more to come is a whole packet all the same (RFC 6946).
            if field & 0xfff9 != 0 {
                fragmented(headers, u32::from(field & 0xfff8))?;
                if headers.is(Headers::LATER) {
                    return Ok(());
                }
            }
        } else {
            // Hop-by-hop options come first or not at all; a route that is not at its end leads to addresses nobody judged.
            if number == protocol::HOP_BY_HOP && count != 0
                || number == protocol::ROUTING && bytes[3] != 0
            {
                return Err(Reason::Malformed);
            }
            headers.transport = offset + (u32::from(bytes[1]) + 1) * 8;
            if headers.transport > headers.end {
                return Err(Reason::Truncated);
            }
        }
        count += 1;
    }
    if is_extension(headers.protocol) {
        return Err(Reason::TooManyHeaders);
    }
    Ok(())
}

/// Notes a fragment that starts `offset` bytes into its packet.
#[inline(always)]
fn fragmented(headers: &mut Headers, offset: u32) -> Result<(), Reason> {
    headers.flags |= Headers::FRAGMENT;
    if offset == 0 {
        return Ok(());
    }
    // A fragment that would overwrite the transport header behind the back of whoever judged the first one (RFC 3128).
    if offset < 20 {
        return Err(Reason::Malformed);
    }
    headers.flags |= Headers::LATER;
    Ok(())
}

/// Reads the transport header. To be called for packets that are no later fragment.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::Truncated`].
#[inline(always)]
pub fn transport<P: Packet + ?Sized>(
    packet: &P,
    head: &Head,
    available: u32,
    headers: &mut Headers,
) -> Result<(), Reason> {
    let needed = match headers.protocol {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => 8,
        // Everything else has no port and nothing that policy looks at.
        _ => return Ok(()),
    };
    if headers.end - headers.transport < needed {
        return Err(Reason::Truncated);
    }
    let bytes: [u8; 20] = match headers.transport {
        PLAIN_IPV4 if available >= PLAIN_IPV4 + needed => chunk(&head.bytes, 34),
        PLAIN_IPV6 if available >= PLAIN_IPV6 + needed => chunk(&head.bytes, 54),
        _ => return transport_behind(packet, headers),
    };
    transport_fields(&bytes, headers)
}

/// Reads a transport header that is not where it usually is.
#[inline(never)]
fn transport_behind<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
    let mut bytes = [0_u8; 20];
    let offset = headers.transport;
    if headers.end - offset >= 20 {
        if !packet.load(offset, &mut bytes) {
            return Err(Reason::Truncated);
        }
    } else {
        let mut eight = [0_u8; 8];
        if !packet.load(offset, &mut eight) {
            return Err(Reason::Truncated);
        }
        let mut index = 0;
        while index < 8 {
            bytes[index] = eight[index];
            index += 1;
        }
    }
    transport_fields(&bytes, headers)
}

/// `HEAD` must reach to the end of a plain TCP header over IPv6.
const _: () = assert!(HEAD == 14 + 40 + 20);

/// The fields of a transport header whose length was checked.
#[inline(always)]
fn transport_fields(bytes: &[u8; 20], headers: &mut Headers) -> Result<(), Reason> {
    match headers.protocol {
        protocol::TCP => {
            let header = u32::from(bytes[12] >> 4) * 4;
            if header < 20 {
                return Err(Reason::Malformed);
            }
            if header > headers.end - headers.transport {
                return Err(Reason::Truncated);
            }
            let flags = bytes[13];
            if flags & tcp::SYN != 0 && flags & (tcp::FIN | tcp::RST) != 0 {
                return Err(Reason::Malformed);
            }
            headers.tcp_flags = flags;
            ports(bytes, headers);
        }
        protocol::UDP => {
            let length = be16(bytes, 4);
            if length != 0 && length < 8 {
                return Err(Reason::Malformed);
            }
            ports(bytes, headers);
        }
        protocol::SCTP => {
            if headers.end - headers.transport >= 20 {
                headers.tcp_flags = sctp_flags(bytes[12]);
            }
            ports(bytes, headers);
        }
        _ => icmp(bytes, headers)?,
    }
    Ok(())
}

#[inline(always)]
fn ports(bytes: &[u8; 20], headers: &mut Headers) {
    headers.source_port = be16(bytes, 0);
    headers.destination_port = be16(bytes, 2);
}

/// What the first chunk of an SCTP packet means in terms of a TCP connection (RFC 9260, section 3.2).
#[inline(always)]
const fn sctp_flags(chunk: u8) -> u8 {
    match chunk {
        1 => tcp::SYN,
        2 => tcp::SYN | tcp::ACK,
        6 => tcp::RST,
        7 | 8 => tcp::FIN | tcp::ACK,
        14 => tcp::RST | tcp::ACK,
        _ => tcp::ACK,
    }
}

/// Type, code, and for questions and answers the identifier.
#[inline(always)]
fn icmp(bytes: &[u8; 20], headers: &mut Headers) -> Result<(), Reason> {
    let ipv6 = headers.is(Headers::IPV6);
    // ICMP of the other family: nothing accepts it, and its types would be mistaken for the right one's.
    if ipv6 != (headers.protocol == protocol::ICMPV6) {
        return Err(Reason::Malformed);
    }
    headers.icmp_type = bytes[0];
    headers.icmp_code = bytes[1];
    let identifier = be16(bytes, 4);
    match (ipv6, bytes[0]) {
        (false, 3 | 4 | 5 | 11 | 12) | (true, 1..=4) => headers.flags |= Headers::ICMP_ERROR,
        // Echo, timestamp, information, address mask.
        (false, 8 | 13 | 15 | 17) | (true, 128) => {
            headers.icmp_query = bytes[0];
            headers.source_port = identifier;
        }
        (false, 14 | 16 | 18) | (true, 129) => {
            headers.icmp_query = bytes[0] - 1;
            headers.destination_port = identifier;
        }
        (false, 0) => {
            headers.icmp_query = 8;
            headers.destination_port = identifier;
        }
        _ => headers.flags |= Headers::CONNECTIONLESS,
    }
    Ok(())
}

/// Whether an ICMP message is the answer to a question.
#[must_use]
#[inline(always)]
pub const fn is_icmp_answer(headers: &Headers) -> bool {
    headers.icmp_query != 0 && headers.icmp_type != headers.icmp_query
}

/// Reads the packet that an ICMP error complains of: its addresses, protocol and ports.
///
/// # Errors
/// [`Reason::UnrelatedError`] for whatever is not whole enough to name a connection.
#[inline(never)]
pub fn quoted<P: Packet + ?Sized>(
    packet: &P,
    outer: &Headers,
    inner: &mut Headers,
) -> Result<(), Reason> {
    atomic::clear(inner);
    let offset = outer.transport + 8;
    // Only the start of the packet is quoted, so that its own lengths are not to be held against the frame's.
    if outer.is(Headers::IPV6) {
        let mut bytes = [0_u8; 40];
        if offset + 40 > outer.end || !packet.load(offset, &mut bytes) {
            return Err(Reason::UnrelatedError);
        }
        bytes[4] = 0;
        bytes[5] = 0;
        ipv6(&bytes, offset, u32::MAX, inner).map_err(|_| Reason::UnrelatedError)?;
        inner.end = outer.end;
        if is_extension(inner.protocol) {
            extensions(packet, inner).map_err(|_| Reason::UnrelatedError)?;
        }
    } else {
        let mut bytes = [0_u8; 20];
        if offset + 20 > outer.end || !packet.load(offset, &mut bytes) {
            return Err(Reason::UnrelatedError);
        }
        bytes[2] = 0;
        bytes[3] = 0;
        ipv4(&bytes, offset, u32::MAX, inner).map_err(|_| Reason::UnrelatedError)?;
        inner.end = outer.end;
    }
    if inner.is(Headers::LATER) {
        return Err(Reason::UnrelatedError);
    }
    quoted_ports(packet, inner)
}

/// The first eight bytes of the quoted transport header, all that is sure to be there (RFC 792).
#[inline(always)]
fn quoted_ports<P: Packet + ?Sized>(packet: &P, inner: &mut Headers) -> Result<(), Reason> {
    if !matches!(
        inner.protocol,
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6
    ) {
        return Ok(());
    }
    let mut eight = [0_u8; 8];
    if inner.transport + 8 > inner.end || !packet.load(inner.transport, &mut eight) {
        return Err(Reason::UnrelatedError);
    }
    let bytes: [u8; 20] = chunk(&eight, 0);
    if matches!(inner.protocol, protocol::ICMP | protocol::ICMPV6) {
        icmp(&bytes, inner).map_err(|_| Reason::UnrelatedError)?;
        if inner.is(Headers::ICMP_ERROR) {
            return Err(Reason::UnrelatedError);
        }
    } else {
        ports(&bytes, inner);
    }
    Ok(())
}
