//! Frames that are nearly right: random bytes alone hardly ever get past the first header. And a frame that knows what was read of it.

use std::cell::Cell;

use bolero::TypeGenerator;
use sluice_abi::packet::{HEAD, Head, Packet};

use crate::common::{A, FAMILIES, SYN, frame, icmp, ip, tcp, udp};

/// Extension headers that the parser follows, and one that it must not.
const EXTENSIONS: [u8; 6] = [0, 43, 44, 60, 135, 51];

/// How a frame is made: a right one, then spoilt.
#[derive(Clone, Debug, TypeGenerator)]
pub(crate) struct Recipe {
    v6: bool,
    back: bool,
    transport: Transport,
    port: u16,
    /// IPv4: the words of options. IPv6: which extension headers, with their bytes 1 to 7.
    extensions: Vec<(u8, [u8; 7])>,
    /// Bytes that are set, by place.
    edits: Vec<(u8, u8)>,
    /// Whether any of them are.
    spoilt: bool,
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Transport {
    Tcp { flags: u8 },
    Udp,
    Sctp { chunk: u8 },
    Icmp { kind: u8 },
    Echo,
    Error { kind: u8, quoted: u8 },
    Other { protocol: u8 },
}

impl Recipe {
    /// The frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let family = FAMILIES[usize::from(self.v6)];
        let (source, destination) = if self.back {
            (family.b(), family.a())
        } else {
            (family.a(), family.b())
        };
        let icmp_protocol = family.icmp();
        let (protocol, payload) = match self.transport {
            Transport::Tcp { flags } => (6, tcp(40_000, self.port, flags)),
            Transport::Udp => (17, udp(40_000, self.port)),
            Transport::Sctp { chunk } => {
                let mut bytes = tcp(40_000, self.port, 0);
                bytes[12] = chunk;
                (132, bytes)
            }
            Transport::Icmp { kind } => (icmp_protocol, icmp(kind, 0, self.port)),
            Transport::Echo => (icmp_protocol, icmp(family.echo_request(), 0, self.port)),
            Transport::Error { kind, quoted } => {
                let mut bytes = icmp(kind % 13, 0, 0);
                let inner = ip(destination, source, 6, &tcp(self.port, 40_000, SYN));
                let keep = usize::from(quoted).min(inner.len());
                bytes.extend(&inner[..keep]);
                (icmp_protocol, bytes)
            }
            Transport::Other { protocol } => (protocol, vec![0; 8]),
        };
        let packet = if self.v6 {
            let (first, behind) = self.extended(protocol, &payload);
            ip(source, destination, first, &behind)
        } else {
            self.optioned(&ip(source, destination, protocol, &payload))
        };
        let mut frame = frame(A, &packet);
        if self.spoilt {
            let length = frame.len();
            for &(at, value) in &self.edits {
                frame[usize::from(at) % length] = value;
            }
        }
        frame
    }

    /// The first header's number, and all headers with the payload behind them.
    fn extended(&self, protocol: u8, payload: &[u8]) -> (u8, Vec<u8>) {
        let chosen = self.extensions.iter().take(8);
        let mut next = protocol;
        let mut bytes = payload.to_vec();
        for (kind, body) in chosen {
            let mut header = vec![next];
            header.extend(body);
            if !self.spoilt {
                header[1] = 0;
            }
            header.extend(bytes);
            bytes = header;
            next = EXTENSIONS[usize::from(*kind) % EXTENSIONS.len()];
        }
        (next, bytes)
    }

    /// An IPv4 packet with words of options, and its lengths made right.
    fn optioned(&self, packet: &[u8]) -> Vec<u8> {
        let options: Vec<u8> = self
            .extensions
            .iter()
            .take(10)
            .flat_map(|(kind, body)| [*kind, body[0], body[1], body[2]])
            .collect();
        let mut bytes = packet[..20].to_vec();
        bytes.extend(&options);
        bytes.extend(&packet[20..]);
        let words = 5 + u8::try_from(options.len() / 4).unwrap();
        bytes[0] = 0x40 | words;
        let total = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        if self.spoilt
            && let Some((field, body)) = self.extensions.first()
        {
            // A fragment, of any offset.
            bytes[6..8].copy_from_slice(&[*field & 0x3f, body[3]]);
        }
        bytes
    }
}

/// A frame that notes how far it was read, apart from the head that is always copied.
pub(crate) struct Watched<'f> {
    bytes: &'f [u8],
    furthest: Cell<u32>,
}

impl<'f> Watched<'f> {
    pub(crate) fn new(bytes: &'f [u8]) -> Self {
        Self {
            bytes,
            furthest: Cell::new(0),
        }
    }

    /// The end of the last byte that was read.
    pub(crate) fn furthest(&self) -> u32 {
        self.furthest.get()
    }
}

impl Packet for Watched<'_> {
    fn length(&self) -> u32 {
        self.bytes.length()
    }

    fn head(&self, into: &mut Head) -> u32 {
        let count = self.bytes.head(into);
        assert!(usize::try_from(count).unwrap() <= HEAD);
        count
    }

    fn load<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> bool {
        let end = offset + u32::try_from(N).unwrap();
        let loaded = self.bytes.load(offset, into);
        if loaded {
            self.furthest.set(self.furthest.get().max(end));
        }
        loaded
    }
}
