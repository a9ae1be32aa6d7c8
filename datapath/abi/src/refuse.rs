//! Telling a pod at once that nobody serves what it asks for: a TCP reset or an ICMP error in place of its packet. To TCP an ICMP error
//! comes too soon: while `connect` still holds the socket its kernel only makes a note of it.
//!
//! When that is so, `balance` knows.

use crate::{
    context::{Context, Outcome},
    datapath::Datapath,
    ipcache::Address,
    judge,
    neighbour::{Reply, put},
    packet::{be32, chunk},
    parse::{Headers, protocol, tcp},
};

/// Where the IP header of the quoted packet goes, by family.
const QUOTE_IPV4: usize = 14 + 20 + 8;
const QUOTE_IPV6: usize = 14 + 40 + 8;

/// Answers the packet with a reset (RFC 9293, section 3.10.7.1) or "port unreachable" (RFC 792, RFC 4443), if it is one that opens a
/// connection and has plain headers; else drops it, as it was told before.
#[inline(never)]
pub(crate) fn unreachable<D: Datapath>(datapath: &D, context: &mut Context) -> Outcome {
    let headers = &context.headers;
    let is_tcp = headers.protocol == protocol::TCP;
    // What is quoted, or what a reset answers.
    let least = headers.transport + if is_tcp { 20 } else { 8 };
    let plain = if headers.is(Headers::IPV6) {
        headers.transport == 54 && context.available >= least
    } else {
        headers.transport == 34 && context.available >= least
    };
    let silent = context.silent;
    if silent
        || !plain
        || headers.is(Headers::LATER)
        || !(headers.protocol == protocol::UDP || headers.opens())
    {
        return Outcome::Drop;
    }
    let Some(endpoint) = judge::present(datapath, context.slot) else {
        return Outcome::Drop;
    };
    put(&mut context.reply.bytes, 0, &endpoint.mac);
    put(&mut context.reply.bytes, 6, &endpoint.host_mac);
    match (context.headers.is(Headers::IPV6), is_tcp) {
        (true, true) => reset_ipv6(context),
        (true, false) => ipv6(context),
        (false, true) => reset_ipv4(context),
        (false, false) => ipv4(context),
    }
    Outcome::Reply
}

#[inline(always)]
fn reset_ipv4(context: &mut Context) {
    let (headers, head, reply) = (&context.headers, &context.head, &mut context.reply);
    reply.length = Reply::RESET_IPV4;
    let bytes = &mut reply.bytes;
    // As in `ipv4`, but for 40 bytes of TCP.
    put(
        bytes,
        12,
        &[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0],
    );
    put(bytes, 26, &v4(&headers.destination));
    put(bytes, 30, &v4(&headers.source));
    reset::<34>(bytes, &chunk(&head.bytes, 34));
    let header = fold(sum::<14, 34>(bytes, 0));
    put(bytes, 24, &header.to_be_bytes());
    // The pseudo-header: both addresses, the length and the protocol.
    let message = fold(sum::<26, 54>(bytes, 20 + 6));
    put(bytes, 50, &message.to_be_bytes());
}

#[inline(always)]
fn reset_ipv6(context: &mut Context) {
    let (headers, head, reply) = (&context.headers, &context.head, &mut context.reply);
    reply.length = Reply::RESET_IPV6;
    let bytes = &mut reply.bytes;
    put(bytes, 12, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
    put(bytes, 22, &headers.destination.0);
    put(bytes, 38, &headers.source.0);
    reset::<54>(bytes, &chunk(&head.bytes, 54));
    let message = fold(sum::<22, 74>(bytes, 20 + 6));
    put(bytes, 70, &message.to_be_bytes());
}

/// The header that resets what a SYN asks for, from `AT` on, without its checksum: ports swapped, and its number acknowledged.
#[inline(always)]
fn reset<const AT: usize>(bytes: &mut [u8; Reply::ROOM], syn: &[u8; 8]) {
    put::<2>(bytes, AT, &chunk(syn, 2));
    put::<2>(bytes, AT + 2, &chunk(syn, 0));
    put(bytes, AT + 4, &[0; 4]);
    let number = be32(syn, 4).wrapping_add(1);
    put(bytes, AT + 8, &number.to_be_bytes());
    // Five words of header; RST and ACK; no window, checksum, urgent pointer.
    put(
        bytes,
        AT + 12,
        &[0x50, tcp::RST | tcp::ACK, 0, 0, 0, 0, 0, 0],
    );
}

#[inline(always)]
fn ipv4(context: &mut Context) {
    let (headers, head, reply) = (&context.headers, &context.head, &mut context.reply);
    reply.length = Reply::UNREACHABLE_IPV4;
    let bytes = &mut reply.bytes;
    // EtherType; version and length, no service class; 56 bytes; no identification, don't fragment; hop limit, protocol, checksum.
    put(
        bytes,
        12,
        &[8, 0, 0x45, 0, 0, 56, 0, 0, 0x40, 0, 64, 1, 0, 0],
    );
    put(bytes, 26, &v4(&headers.destination));
    put(bytes, 30, &v4(&headers.source));
    // Destination unreachable, port.
    put(bytes, 34, &[3, 3, 0, 0, 0, 0, 0, 0]);
    put::<28>(bytes, QUOTE_IPV4, &chunk(&head.bytes, 14));
    let header = fold(sum::<14, 34>(bytes, 0));
    put(bytes, 24, &header.to_be_bytes());
    let message = fold(sum::<34, 70>(bytes, 0));
    put(bytes, 36, &message.to_be_bytes());
}

#[inline(always)]
fn ipv6(context: &mut Context) {
    let (headers, head, reply) = (&context.headers, &context.head, &mut context.reply);
    reply.length = Reply::UNREACHABLE_IPV6;
    let bytes = &mut reply.bytes;
    // EtherType; version; payload of 56 bytes, ICMPv6, hop limit.
    put(bytes, 12, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 56, 58, 64]);
    put(bytes, 22, &headers.destination.0);
    put(bytes, 38, &headers.source.0);
    // Destination unreachable, port.
    put(bytes, 54, &[1, 4, 0, 0, 0, 0, 0, 0]);
    put::<48>(bytes, QUOTE_IPV6, &chunk(&head.bytes, 14));
    // The pseudo-header: both addresses, the length and the protocol (RFC 8200, section 8.1).
    let message = fold(sum::<22, 110>(bytes, 56 + 58));
    put(bytes, 56, &message.to_be_bytes());
}

#[inline(always)]
fn v4(address: &Address) -> [u8; 4] {
    chunk(&address.0, 12)
}

/// The sum of the bytes from `FROM` up to `TO` as half words, and `more`.
#[inline(always)]
fn sum<const FROM: usize, const TO: usize>(bytes: &[u8; Reply::ROOM], more: u32) -> u32 {
    let mut sum = more;
    let mut at = FROM;
    while at + 1 < TO {
        // SAFETY: both are in bounds. Volatile, or else all bytes are kept on the stack at once.
        let (high, low) = unsafe {
            let pair = bytes.as_ptr().add(at);
            (pair.read_volatile(), pair.add(1).read_volatile())
        };
        sum += u32::from(high) << 8 | u32::from(low);
        at += 2;
    }
    sum
}

/// The Internet checksum of a sum (RFC 1071).
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // folded to 16 bits
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
