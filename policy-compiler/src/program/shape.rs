//! The form of a lowered program that the kernel runs: ranges with slots, inline or in the trie. Rules are gone from it; which
//! rule a slot stands for is in the list of cookies beside it, so that programs are shared by tables of different rules.

use sluice_abi::{
    Cookie,
    program::{Cell, INLINE_RANGES, PortRange, Program, RangeKey, Verdict},
};

use super::{Builder, Decision, Lowered, LoweredCell, Point, Rank};

/// A lowered program without rules, by content. Ranges are disjoint, sorted and differ from `other`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What holds outside the ranges.
    pub other: Cell,
    /// The ranges.
    pub ranges: Box<[ShapeRange]>,
}

/// One range of one protocol.
pub type ShapeRange = PortRange;

impl Shape {
    /// The shape of a lowered program, and the cookie of each slot. Slots are numbered in the order of their first use.
    pub fn of(
        lowered: &Lowered,
        mut cookie: impl FnMut(Rank) -> Cookie,
        mut redirect: impl FnMut(&LoweredCell) -> u32,
    ) -> (Self, Vec<Cookie>) {
        let mut slots = Vec::new();
        let mut pieces = Builder::default();
        for (start, cell) in &lowered.pieces {
            let by = match cell.decision {
                Decision::Rule(rank) => cookie(rank),
                Decision::BuiltIn(cookie) => cookie,
            };
            pieces.push(*start, (cell, by));
        }
        // No policy can name protocol 255, so what holds there is what holds wherever no rule singles a protocol out.
        let Some(&(_, (last, last_cookie))) = pieces.pieces.last() else {
            return (
                Self {
                    other: Cell::default(),
                    ranges: Box::default(),
                },
                slots,
            );
        };
        let mut kernel = |cell: &LoweredCell, by: Cookie| Cell {
            verdict: cell.verdict as u8,
            flags: if cell.log { Cell::LOG } else { 0 },
            slot: slot_of(&mut slots, by),
            redirect: if cell.verdict == Verdict::Redirect {
                redirect(cell)
            } else {
                0
            },
        };
        let other = kernel(last, last_cookie);
        let mut ranges = Vec::new();
        for (index, &(start, (cell, by))) in pieces.pieces.iter().enumerate() {
            let end = pieces
                .pieces
                .get(index + 1)
                .map_or(Point::END, |next| next.0)
                - 1;
            let cell = kernel(cell, by);
            if cell != other {
                push_ranges(&mut ranges, start, end, cell);
            }
        }
        (
            Self {
                other,
                ranges: ranges.into_boxed_slice(),
            },
            slots,
        )
    }

    /// The value of the programs map.
    #[must_use]
    pub fn program(&self) -> Program {
        let mut program = Program {
            flags: Program::PRESENT,
            other: self.other,
            ..Program::default()
        };
        if self.ranges.len() > INLINE_RANGES {
            program.flags |= Program::IN_TRIE;
            return program;
        }
        program.ranges[..self.ranges.len()].copy_from_slice(&self.ranges);
        program.count = u16::try_from(self.ranges.len()).unwrap_or(0);
        program
    }

    /// The entries of the trie that hold the ranges of program `id`; none where they are inline.
    #[must_use]
    pub fn trie(&self, id: u32) -> Vec<(RangeKey, Cell)> {
        if self.ranges.len() <= INLINE_RANGES {
            return Vec::new();
        }
        let mut entries = Vec::new();
        for range in &self.ranges {
            for (port, bits) in prefixes(range.low, range.high) {
                let key = RangeKey {
                    prefix_bits: RangeKey::EXACT_BITS + bits,
                    ..RangeKey::point(id, range.protocol, port)
                };
                entries.push((key, range.cell));
            }
        }
        entries
    }

    /// Whether some traffic that passes under `self` does not under `next`.
    #[must_use]
    pub fn restricts(&self, next: &Self) -> bool {
        if takes_away(self.other, next.other) {
            return true;
        }
        self.ranges.iter().chain(&next.ranges).any(|range| {
            // Verdicts change only where some range begins or has just ended.
            [Some(range.low), range.high.checked_add(1)]
                .into_iter()
                .flatten()
                .any(|port| {
                    takes_away(self.at(range.protocol, port), next.at(range.protocol, port))
                })
        })
    }

    /// The cell at one point.
    #[must_use]
    pub fn at(&self, protocol: u8, port: u16) -> Cell {
        let index = self
            .ranges
            .partition_point(|r| (r.protocol, r.low) <= (protocol, port));
        match index.checked_sub(1).map(|index| self.ranges[index]) {
            Some(range) if range.protocol == protocol && port <= range.high => range.cell,
            _ => self.other,
        }
    }
}

/// Whether traffic that `old` lets pass is dropped or sees another proxy under `new`.
fn takes_away(old: Cell, new: Cell) -> bool {
    match (old.decision(), new.decision()) {
        (Verdict::Allow, verdict) => verdict != Verdict::Allow,
        (Verdict::Redirect, Verdict::Redirect) => old.redirect != new.redirect,
        (Verdict::Redirect, verdict) => !verdict.passes(),
        _ => false,
    }
}

fn slot_of(slots: &mut Vec<Cookie>, cookie: Cookie) -> u16 {
    let index = slots
        .iter()
        .position(|&known| known == cookie)
        .unwrap_or_else(|| {
            slots.push(cookie);
            slots.len() - 1
        });
    // A program has at most one slot per piece; beyond 65,535 different rules the last slot is shared and only the name shown is off.
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// Cuts a run of points at protocol borders.
fn push_ranges(ranges: &mut Vec<PortRange>, first: u32, last: u32, cell: Cell) {
    let mut start = first;
    while start <= last {
        let end = last.min(start | 0xffff);
        ranges.push(PortRange {
            low: Point(start).port(),
            high: Point(end).port(),
            protocol: Point(start).protocol(),
            reserved: [0; 3],
            cell,
        });
        start = end + 1;
    }
}

/// The fewest aligned blocks (first port, prefix bits) that make up an inclusive range of ports.
fn prefixes(low: u16, high: u16) -> Vec<(u16, u32)> {
    let mut blocks = Vec::new();
    let (mut start, end) = (u32::from(low), u32::from(high) + 1);
    while start < end {
        let aligned = start.trailing_zeros().min(16);
        let fits = (end - start).ilog2();
        let size = aligned.min(fits);
        blocks.push((u16::try_from(start).unwrap_or(u16::MAX), 16 - size));
        start += 1 << size;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::prefixes;

    #[test]
    fn blocks_cover_the_range_exactly() {
        for (low, high) in [
            (0, 65535),
            (80, 80),
            (1, 65535),
            (1000, 2000),
            (65535, 65535),
            (0, 0),
        ] {
            let mut covered = Vec::new();
            for (start, bits) in prefixes(low, high) {
                let size = 1u32 << (16 - bits);
                assert_eq!(u32::from(start) % size, 0, "{start}/{bits} is aligned");
                covered.extend(u32::from(start)..u32::from(start) + size);
            }
            assert!(covered.into_iter().eq(u32::from(low)..=u32::from(high)));
        }
        assert_eq!(prefixes(0, 65535).len(), 1);
    }
}
