//! How the classification reads a packet: by copying bytes out at checked offsets, never by pointers into it.
//!
//! What the bytes mean is `parse`'s.

/// How many leading bytes [`Packet::head`] gives: Ethernet, IPv6 without extension headers, TCP without options.
pub const HEAD: usize = 74;

/// Access to one frame, from its Ethernet header on.
pub trait Packet {
    /// Bytes of the frame.
    fn length(&self) -> u32;

    /// Copies the first [`HEAD`] bytes, or all if there are fewer; how many were copied, 0 if none could be.
    fn head(&self, into: &mut Head) -> u32;

    /// Copies `N` bytes from `offset` on; false, with `into` undefined, if the frame ends before.
    #[must_use]
    fn load<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> bool;

    /// Whether the frame carries a VLAN tag beside its bytes.
    fn tagged(&self) -> bool {
        false
    }
}

/// The first bytes of a frame, placed so that the network header is aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Head {
    padding: [u8; 2],
    /// The frame's bytes.
    pub bytes: [u8; HEAD],
}

impl Default for Head {
    fn default() -> Self {
        Self {
            padding: [0; 2],
            bytes: [0; HEAD],
        }
    }
}

/// `N` bytes of `bytes` from `at` on. Both are constants at every call, so that the compiler drops the check.
#[must_use]
#[inline(always)]
pub(crate) fn chunk<const N: usize, const M: usize>(bytes: &[u8; M], at: usize) -> [u8; N] {
    let mut out = [0; N];
    let mut index = 0;
    while index < N {
        if at + index < M {
            out[index] = bytes[at + index];
        }
        index += 1;
    }
    out
}

/// The big-endian number in two bytes from `at` on.
#[must_use]
#[inline(always)]
pub(crate) fn be16<const M: usize>(bytes: &[u8; M], at: usize) -> u16 {
    u16::from_be_bytes(chunk(bytes, at))
}

/// The big-endian number in four bytes from `at` on.
#[must_use]
#[inline(always)]
pub(crate) fn be32<const M: usize>(bytes: &[u8; M], at: usize) -> u32 {
    u32::from_be_bytes(chunk(bytes, at))
}

/// A frame in memory.
impl Packet for [u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn head(&self, into: &mut Head) -> u32 {
        let count = self.len().min(HEAD);
        into.bytes[..count].copy_from_slice(&self[..count]);
        u32::try_from(count).unwrap_or(0)
    }

    fn load<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> bool {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .and_then(|rest| rest.first_chunk());
        if let Some(bytes) = bytes {
            *into = *bytes;
        }
        bytes.is_some()
    }
}
