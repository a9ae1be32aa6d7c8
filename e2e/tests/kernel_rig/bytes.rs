//! What a translated frame must look like, worked out byte by byte and sum by sum, not as the programs do.

use sluice_abi::context::Outcome;
use sluice_abi::parse::{Headers, protocol};
use sluice_abi::translate::Changed;

use crate::common::{Judged, ones_sum};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// A frame with its new addresses and ports.
pub(super) struct Translated {
    pub(super) frame: Vec<u8>,
    /// Where checksums are that changed.
    pub(super) checksums: Vec<usize>,
    /// What is true of them.
    pub(super) checks: Vec<Check>,
}

/// Sums that are the same before and after.
#[derive(Debug)]
pub(super) struct Check {
    /// What is summed.
    parts: Vec<std::ops::Range<usize>>,
    /// Where the checksum is, if it may be left out.
    optional: Option<usize>,
}

impl Check {
    pub(super) fn holds(&self, before: &[u8], after: &[u8]) -> bool {
        if let Some(at) = self.optional
            && before[at..at + 2] == [0, 0]
        {
            return after[at..at + 2] == [0, 0];
        }
        let sum = |frame: &[u8]| {
            let mut bytes = Vec::new();
            for part in &self.parts {
                bytes.extend(&frame[part.start..part.end.min(frame.len())]);
            }
            ones_sum(&bytes) % 0xffff
        };
        sum(before) == sum(after)
    }
}

/// The frame that a judged one becomes, before it goes a hop on.
pub(super) fn translated(judged: &Judged<'_>) -> Translated {
    let context = judged.context;
    let mut to = Translated {
        frame: judged.frame.to_vec(),
        checksums: Vec::new(),
        checks: Vec::new(),
    };
    if context.changed == Changed::Nothing || judged.outcome == Outcome::Drop {
        return to;
    }
    let headers = &context.headers;
    let end = headers.end as usize;
    let transport = headers.transport as usize;
    to.addresses(headers, ETHERNET);
    match context.changed {
        Changed::Nothing => {}
        Changed::Packet => {
            to.ports(headers);
            to.check(headers, transport..end);
        }
        Changed::Error => {
            to.addresses(&context.inner, transport + 8);
            to.ports(&context.inner);
            to.check(headers, transport..end);
        }
    }
    to
}

impl Translated {
    fn addresses(&mut self, headers: &Headers, at: usize) {
        let (source, destination) = (headers.source.0, headers.destination.0);
        if headers.is(Headers::IPV6) {
            self.frame[at + 8..at + 24].copy_from_slice(&source);
            self.frame[at + 24..at + 40].copy_from_slice(&destination);
        } else {
            self.frame[at + 12..at + 16].copy_from_slice(&source[12..]);
            self.frame[at + 16..at + 20].copy_from_slice(&destination[12..]);
            self.checksums.push(at + 10);
            if at != ETHERNET {
                self.checks.push(Check {
                    parts: std::iter::once(at..at + 20).collect(),
                    optional: None,
                });
            }
        }
    }

    fn ports(&mut self, headers: &Headers) {
        let at = headers.transport as usize;
        let (source, destination) = (headers.source_port, headers.destination_port);
        match headers.protocol {
            _ if headers.is(Headers::LATER) => {}
            protocol::TCP | protocol::UDP | protocol::SCTP => {
                self.frame[at..at + 2].copy_from_slice(&source.to_be_bytes());
                self.frame[at + 2..at + 4].copy_from_slice(&destination.to_be_bytes());
            }
            protocol::ICMP | protocol::ICMPV6 if headers.icmp_query != 0 => {
                let identifier = if source == 0 { destination } else { source };
                self.frame[at + 4..at + 6].copy_from_slice(&identifier.to_be_bytes());
            }
            _ => {}
        }
    }

    /// The transport's checksum: of the addresses too, but for ICMP over IPv4.
    fn check(&mut self, headers: &Headers, message: std::ops::Range<usize>) {
        let at = match headers.protocol {
            _ if headers.is(Headers::LATER) => return,
            protocol::TCP => 16,
            protocol::UDP => 6,
            protocol::ICMP | protocol::ICMPV6 => 2,
            _ => return,
        };
        let at = message.start + at;
        self.checksums.push(at);
        let addresses = if headers.is(Headers::IPV6) {
            ETHERNET + 8..ETHERNET + 40
        } else {
            ETHERNET + 12..ETHERNET + 20
        };
        let mut parts = vec![message];
        if headers.protocol != protocol::ICMP {
            parts.push(addresses);
        }
        self.checks.push(Check {
            parts,
            optional: (headers.protocol == protocol::UDP).then_some(at),
        });
    }
}
