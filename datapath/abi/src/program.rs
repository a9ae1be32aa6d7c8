//! Port programs as the kernel runs them: from (protocol, port or ICMP type) to a cell.
//!
//! Programs here are lowered: every point has its final verdict. Joining and lowering is the compiler's and may not enter here.

/// What a [`Cell`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Drop.
    Deny = 0,
    /// Pass.
    Allow = 1,
    /// Pass to the proxy listener named by the cell's `redirect`.
    Redirect = 2,
    /// Drop: rules of equal precedence contradict each other in ways that can't be joined.
    DenyConflict = 3,
    /// Drop: the rule demands an authentication that did not happen.
    DenyAuthentication = 4,
}

impl Verdict {
    /// The verdict with this number; an unknown number is a denial.
    #[must_use]
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Allow,
            2 => Self::Redirect,
            3 => Self::DenyConflict,
            4 => Self::DenyAuthentication,
            _ => Self::Deny,
        }
    }

    /// Whether the packet may go on (to its destination or a proxy).
    #[must_use]
    #[inline(always)]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Allow | Self::Redirect)
    }
}

/// The verdict at one point of a program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// A [`Verdict`] as a number.
    pub verdict: u8,
    /// [`Cell::LOG`] and later flags.
    pub flags: u8,
    /// Which slot of the attribution names the rule.
    pub slot: u16,
    /// For [`Verdict::Redirect`]: the rule set and listener; else 0.
    pub redirect: u32,
}

impl Cell {
    /// Flag: tell of this verdict in the log.
    pub const LOG: u8 = 1;

    /// The verdict as its type.
    #[must_use]
    #[inline(always)]
    pub const fn decision(self) -> Verdict {
        Verdict::from_raw(self.verdict)
    }
}

/// One inline range of a program. `low` and `high` are inclusive and in host byte order; for ICMP they are types.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// First port or ICMP type.
    pub low: u16,
    /// Last port or ICMP type.
    pub high: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// What holds in the range.
    pub cell: Cell,
}

/// How many ranges a program holds inline. A longer program has all its ranges in the trie.
pub const INLINE_RANGES: usize = 7;

/// A lowered program. Ranges are disjoint; a point that no range covers has the cell `other`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program {
    /// How many of `ranges` are in use.
    pub count: u16,
    /// [`Program::PRESENT`], [`Program::IN_TRIE`].
    pub flags: u16,
    /// Zero.
    pub reserved: u32,
    /// What holds where no range does, every protocol included.
    pub other: Cell,
    /// The ranges, `count` of them.
    pub ranges: [PortRange; INLINE_RANGES],
}

impl Program {
    /// Flag: the array slot holds a program. Without it a look-up finds nothing and drops.
    pub const PRESENT: u16 = 1;
    /// Flag: the ranges are in the trie, none inline.
    pub const IN_TRIE: u16 = 2;
}

/// Key of the trie that holds long programs; the fields after the length are compared bit by bit in memory order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeKey {
    /// How many bits of what follows count: [`RangeKey::EXACT_BITS`] plus those of the port.
    pub prefix_bits: u32,
    /// Program id, any fixed byte order.
    pub program: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Port or ICMP type, big endian.
    pub port: [u8; 2],
}

impl RangeKey {
    /// Bits before the port: program, protocol and padding, always compared whole.
    pub const EXACT_BITS: u32 = 48;
    /// All bits: the length of a look-up key.
    pub const ALL_BITS: u32 = 64;

    /// The key that looks up one point.
    #[must_use]
    #[inline(always)]
    pub const fn point(program: u32, protocol: u8, port: u16) -> Self {
        Self {
            prefix_bits: Self::ALL_BITS,
            program,
            protocol,
            reserved: 0,
            port: port.to_be_bytes(),
        }
    }
}

crate::map_data!(Cell, PortRange, Program, RangeKey);

const _: () = assert!(size_of::<Program>() == 128 && size_of::<PortRange>() == 16);
const _: () = assert!(size_of::<RangeKey>() == 12 && size_of::<Cell>() == 8);
