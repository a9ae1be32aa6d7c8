//! Port programs before lowering: functions from (protocol, port or ICMP type) to a cell that still holds every tier's word, and
//! their join. Nothing here knows peers, tables, modes or the kernel's form.
//!
//! ```text
//! rule ── Program::of ──▶ Program ── join ──▶ Program ── lower ──▶ Lowered ── shape ──▶ abi::Program + slots
//! ```

mod cell;
mod lower;
mod shape;

pub use cell::{Cell, NamespaceWord, Part, Rank, Strictness, TierAction, TierWord};
pub use lower::{Decision, Lowered, LoweredCell, Lowering, Proxies};
pub use shape::{Shape, ShapeRange};

/// A point of a program's domain: the protocol number in the upper half, the port or ICMP type in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point(u32);

impl Point {
    /// One past the last point.
    const END: u32 = 1 << 24;

    /// The point of this protocol and port (or ICMP type).
    #[must_use]
    pub const fn new(protocol: u8, port: u16) -> Self {
        Self((protocol as u32) << 16 | port as u32)
    }

    /// The protocol number.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// The port or ICMP type.
    #[must_use]
    pub const fn port(self) -> u16 {
        let bytes = self.0.to_be_bytes();
        u16::from_be_bytes([bytes[2], bytes[3]])
    }
}

/// An inclusive range of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    first: u32,
    last: u32,
}

impl Span {
    /// Every point of every protocol.
    pub const ALL: Self = Self {
        first: 0,
        last: Point::END - 1,
    };

    /// Ports `low` to `high` of one protocol. The range must not be upside down.
    #[must_use]
    pub const fn ports(protocol: u8, low: u16, high: u16) -> Self {
        Self {
            first: Point::new(protocol, low).0,
            last: Point::new(protocol, high).0,
        }
    }

    /// All of one protocol.
    #[must_use]
    pub const fn protocol(protocol: u8) -> Self {
        Self::ports(protocol, 0, u16::MAX)
    }
}

/// An unresolved program. Canonical: the first piece starts at point 0 and neighbours differ, so equal functions are equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    pieces: Vec<(u32, Cell)>,
}

impl Default for Program {
    /// The program that says nothing anywhere: the neutral element of join.
    fn default() -> Self {
        Self {
            pieces: vec![(0, Cell::default())],
        }
    }
}

impl Program {
    /// The program that has `cell` in every one of `spans` and says nothing elsewhere.
    #[must_use]
    pub fn of(spans: &[Span], cell: &Cell) -> Self {
        if spans == [Span::ALL] {
            return Self {
                pieces: vec![(0, cell.clone())],
            };
        }
        let mut sorted = spans.to_vec();
        sorted.sort_unstable();
        let mut builder = Builder::default();
        let mut reached = 0;
        for span in sorted {
            if span.first > reached {
                builder.push(reached, Cell::default());
            }
            builder.push(span.first.max(reached), cell.clone());
            reached = reached.max(span.last + 1);
        }
        if reached < Point::END {
            builder.push(reached, Cell::default());
        }
        Self {
            pieces: builder.pieces,
        }
    }

    /// Cell by cell: higher precedence wins, at equal precedence deny wins, the other attributes as [`Cell::join`] says.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let (left, right) = (&self.pieces, &other.pieces);
        let mut builder = Builder {
            pieces: Vec::with_capacity(left.len().max(right.len())),
        };
        let (mut at_left, mut at_right) = (0, 0);
        let mut position = 0;
        loop {
            builder.push(position, left[at_left].1.join(&right[at_right].1));
            let next_left = left.get(at_left + 1).map_or(Point::END, |piece| piece.0);
            let next_right = right.get(at_right + 1).map_or(Point::END, |piece| piece.0);
            position = next_left.min(next_right);
            if position == Point::END {
                return Self {
                    pieces: builder.pieces,
                };
            }
            at_left += usize::from(next_left == position);
            at_right += usize::from(next_right == position);
        }
    }

    /// The join of many, pairwise, so that thousands of rules cost n log n.
    #[must_use]
    pub fn join_all(mut programs: Vec<Self>) -> Self {
        while programs.len() > 1 {
            let half: Vec<Self> = programs
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => left.join(right),
                    rest => rest[0].clone(),
                })
                .collect();
            programs = half;
        }
        programs.pop().unwrap_or_default()
    }

    /// Whether this is the program that says nothing anywhere.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(&self.pieces[..], [(_, cell)] if *cell == Cell::default())
    }

    /// The cell at one point.
    #[must_use]
    pub fn at(&self, point: Point) -> &Cell {
        let index = self.pieces.partition_point(|piece| piece.0 <= point.0);
        &self.pieces[index - 1].1
    }

    /// The pieces: where each starts, and its cell.
    pub(crate) fn pieces(&self) -> &[(u32, Cell)] {
        &self.pieces
    }
}

/// Collects pieces in ascending order and merges equal neighbours.
struct Builder<T> {
    pieces: Vec<(u32, T)>,
}

impl<T> Default for Builder<T> {
    fn default() -> Self {
        Self { pieces: Vec::new() }
    }
}

impl<T: PartialEq> Builder<T> {
    fn push(&mut self, start: u32, cell: T) {
        match self.pieces.last_mut() {
            Some((_, last)) if *last == cell => {}
            Some((position, last)) if *position == start => *last = cell,
            _ => self.pieces.push((start, cell)),
        }
    }
}
