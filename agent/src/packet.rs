//! Real packets for questions: the frame that a pod of this address would send first. Judging it may not enter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHER_IPV4: [u8; 2] = [0x08, 0x00];
const ETHER_IPV6: [u8; 2] = [0x86, 0xdd];
/// The port a question's packet comes from: the first of the dynamic range (RFC 6335).
pub const SOURCE_PORT: u16 = 49152;

/// What the frame is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Source and destination Ethernet addresses.
    pub macs: ([u8; 6], [u8; 6]),
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port, or ICMP type.
    pub port: u16,
}

/// The frame; none where source and destination are of different families.
#[must_use]
pub fn frame(wanted: &Wanted) -> Option<Vec<u8>> {
    let payload = payload(wanted);
    let mut frame = Vec::with_capacity(14 + 40 + payload.len());
    frame.extend(wanted.macs.1);
    frame.extend(wanted.macs.0);
    match (wanted.source, wanted.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend(ETHER_IPV4);
            frame.extend(ipv4_header(
                wanted.protocol,
                payload.len(),
                source,
                destination,
            ));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend(ETHER_IPV6);
            frame.extend(ipv6_header(
                wanted.protocol,
                payload.len(),
                source,
                destination,
            ));
        }
        _ => return None,
    }
    frame.extend(payload);
    Some(frame)
}

/// RFC 791, without options.
fn ipv4_header(protocol: u8, payload: usize, source: Ipv4Addr, destination: Ipv4Addr) -> [u8; 20] {
    let [length_high, length_low] = length(20 + payload);
    let mut header = [
        0x45,
        0,
        length_high,
        length_low,
        0,
        1,
        0x40,
        0,
        64,
        protocol,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    header
}

/// RFC 8200, without extension headers.
fn ipv6_header(protocol: u8, payload: usize, source: Ipv6Addr, destination: Ipv6Addr) -> [u8; 40] {
    let [length_high, length_low] = length(payload);
    let mut header = [0; 40];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, length_high, length_low, protocol, 64]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

/// The first thing a peer would send: a SYN, a datagram, an INIT, an ICMP message of the type; for other protocols some bytes.
fn payload(wanted: &Wanted) -> Vec<u8> {
    let [source_high, source_low] = SOURCE_PORT.to_be_bytes();
    let [port_high, port_low] = wanted.port.to_be_bytes();
    let ports = [source_high, source_low, port_high, port_low];
    match wanted.protocol {
        // RFC 9293: sequence 1, data offset 5, SYN, window 65535.
        6 => checked(
            wanted,
            &[
                &ports[..],
                &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0],
            ]
            .concat(),
            16,
        ),
        // RFC 768: header and four bytes.
        17 => checked(wanted, &[&ports[..], &[0, 12, 0, 0], b"ping"].concat(), 6),
        // RFC 9260: INIT chunk of 20 bytes, verification tag 0. The programs don't read SCTP's checksum (CRC32c).
        132 => [
            &ports[..],
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[
                1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1,
            ],
        ]
        .concat(),
        1 | 58 => icmp(wanted),
        _ => vec![0; 16],
    }
}

/// RFC 792 and RFC 4443: type, code 0, identifier 1, sequence 1. Error types quote a packet, as they must, that nobody sent.
fn icmp(wanted: &Wanted) -> Vec<u8> {
    // A type is one byte; the reader of questions has checked it.
    let kind = u8::try_from(wanted.port).unwrap_or(u8::MAX);
    let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
    if wanted.protocol == 1 {
        message.extend(b"ping");
        let sum = checksum(&[&message]);
        message[2..4].copy_from_slice(&sum);
        message
    } else {
        message.extend(b"ping");
        checked(wanted, &message, 2)
    }
}

/// The message with its checksum over pseudo-header and message (RFC 9293, RFC 8200) at `at`.
fn checked(wanted: &Wanted, message: &[u8], at: usize) -> Vec<u8> {
    let [high, low] = length(message.len());
    let tail = [0, wanted.protocol, high, low];
    let sum = match (wanted.source, wanted.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            checksum(&[&source.octets(), &destination.octets(), &tail, message])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            checksum(&[&source.octets(), &destination.octets(), &tail, message])
        }
        _ => [0, 0],
    };
    let mut message = message.to_vec();
    message[at..at + 2].copy_from_slice(&sum);
    message
}

/// RFC 1071 over parts of even length, but for the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded above to sixteen bits.
    (!u16::try_from(sum).unwrap_or(0)).to_be_bytes()
}

/// Lengths here are a few dozen bytes.
fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(v6: bool, protocol: u8, port: u16) -> Wanted {
        let (source, destination): (IpAddr, IpAddr) = if v6 {
            ("fd00::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
        } else {
            ("10.0.0.1".parse().unwrap(), "192.0.2.2".parse().unwrap())
        };
        Wanted {
            macs: ([2; 6], [4; 6]),
            source,
            destination,
            protocol,
            port,
        }
    }

    /// A receiver's check: the sum over everything, checksum included, is all ones.
    #[test]
    fn checksums_verify_in_both_families() {
        for v6 in [false, true] {
            for protocol in [6, 17, if v6 { 58 } else { 1 }] {
                let frame = frame(&wanted(v6, protocol, 8)).unwrap();
                let header = if v6 { 40 } else { 20 };
                let (ip, message) = frame[14..].split_at(header);
                if !v6 {
                    assert_eq!(checksum(&[ip]), [0, 0]);
                }
                let addresses = if v6 { &ip[8..40] } else { &ip[12..20] };
                let tail = [0, protocol, 0, u8::try_from(message.len()).unwrap()];
                let parts: &[&[u8]] = if protocol == 1 {
                    &[message]
                } else {
                    &[addresses, &tail, message]
                };
                assert_eq!(checksum(parts), [0, 0], "v6 {v6} protocol {protocol}");
            }
        }
    }

    #[test]
    fn lengths_are_those_of_the_packet() {
        for protocol in [1, 6, 17, 47, 132] {
            let v4 = frame(&wanted(false, protocol, 80)).unwrap();
            assert_eq!(
                usize::from(u16::from_be_bytes([v4[16], v4[17]])),
                v4.len() - 14
            );
            let v6 = frame(&wanted(true, protocol, 80)).unwrap();
            assert_eq!(
                usize::from(u16::from_be_bytes([v6[18], v6[19]])),
                v6.len() - 54
            );
        }
    }

    #[test]
    fn families_do_not_mix() {
        let mixed = Wanted {
            destination: "::1".parse().unwrap(),
            ..wanted(false, 6, 80)
        };
        assert_eq!(frame(&mixed), None);
    }
}
