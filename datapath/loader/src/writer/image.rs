//! Programs and attributions as a change brings them, and whether one program takes away what another gives.

use std::collections::{HashMap, HashSet};

use sluice_abi::Cookie;
use sluice_abi::policy::PeerCell;
use sluice_abi::program::{Cell, INLINE_RANGES, Program, RangeKey, Verdict};

use super::Refusal;

/// A lowered program with its id: its ranges inline, or in the trie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProgramImage {
    /// Program id.
    pub id: u32,
    /// The array's element.
    pub inline: Program,
    /// For a program whose ranges are in the trie: those, in no order; else empty.
    pub ranges: Vec<(RangeKey, Cell)>,
}

/// The rules behind the slots of an attribution.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttributionImage {
    /// Attribution id.
    pub id: u32,
    /// Slot and rule, in no order.
    pub rules: Vec<(u32, Cookie)>,
}

impl ProgramImage {
    /// Refuses what the kernel programs could not run.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let flags = self.inline.flags;
        let in_trie = flags & Program::IN_TRIE != 0;
        let sound = flags & Program::PRESENT != 0
            && usize::from(self.inline.count) <= INLINE_RANGES
            && (in_trie || self.ranges.is_empty())
            && (!in_trie || self.inline.count == 0)
            && self.ranges.iter().all(|(key, _)| {
                key.program == self.id
                    && key.reserved == 0
                    && (RangeKey::EXACT_BITS..=RangeKey::ALL_BITS).contains(&key.prefix_bits)
            });
        match (self.id, sound) {
            (0, _) => Err(Refusal::Zero { kind: "program" }),
            (_, false) => Err(Refusal::Malformed(self.id)),
            (_, true) => Ok(()),
        }
    }

    /// Whether both are the same program, whatever the order of their ranges.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.inline == other.inline && sorted(&self.ranges) == sorted(&other.ranges)
    }

    /// Whether some point has less access by `new` than by this program: a denial in place of a pass, or a proxy in place of a pass or
    /// of another proxy.
    pub(super) fn gives_more_than(&self, new: &Self) -> bool {
        let (before, after) = (Points::of(self), Points::of(new));
        let mut protocols: HashMap<u8, HashSet<u16>> = HashMap::new();
        for (protocol, low, high) in before.edges.iter().chain(&after.edges).copied() {
            let starts = protocols.entry(protocol).or_default();
            starts.extend([0, low]);
            starts.extend(high.checked_add(1));
        }
        let narrower =
            |protocol, port| takes(before.cell(protocol, port), after.cell(protocol, port));
        takes(self.inline.other, new.inline.other) && protocols.len() < 256
            || protocols
                .iter()
                .any(|(&protocol, starts)| starts.iter().any(|&port| narrower(protocol, port)))
    }
}

impl AttributionImage {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match self.id {
            0 => Err(Refusal::Zero {
                kind: "attribution",
            }),
            id if PeerCell::is_direct(id) => Err(Refusal::NoId(id)),
            _ => Ok(()),
        }
    }

    /// Whether both are the same attribution, whatever the order of their slots.
    pub(super) fn same(&self, other: &Self) -> bool {
        sorted(&self.rules) == sorted(&other.rules)
    }
}

fn sorted<T: Ord>(items: &[T]) -> Vec<&T> {
    let mut items: Vec<&T> = items.iter().collect();
    items.sort_unstable();
    items
}

/// Whether `after` gives less than `before` at one point.
fn takes(before: Cell, after: Cell) -> bool {
    match (before.decision(), after.decision()) {
        (Verdict::Allow | Verdict::Redirect, Verdict::Allow) => false,
        (Verdict::Redirect, Verdict::Redirect) => before.redirect != after.redirect,
        (Verdict::Allow | Verdict::Redirect, _) => true,
        _ => false,
    }
}

/// A program asked point by point.
struct Points<'a> {
    program: &'a ProgramImage,
    /// (Protocol, prefix bits, first port) of each range in the trie.
    trie: HashMap<(u8, u32, u16), Cell>,
    /// (Protocol, first port, last port) of each range.
    edges: Vec<(u8, u16, u16)>,
}

impl<'a> Points<'a> {
    fn of(program: &'a ProgramImage) -> Self {
        let mut edges = Vec::new();
        for range in &program.inline.ranges[..usize::from(program.inline.count).min(INLINE_RANGES)]
        {
            edges.push((range.protocol, range.low, range.high));
        }
        let mut trie = HashMap::new();
        for (key, cell) in &program.ranges {
            let low = u16::from_be_bytes(key.port) & mask(key.prefix_bits);
            edges.push((key.protocol, low, low | !mask(key.prefix_bits)));
            trie.insert((key.protocol, key.prefix_bits, low), *cell);
        }
        Self {
            program,
            trie,
            edges,
        }
    }

    fn cell(&self, protocol: u8, port: u16) -> Cell {
        let inline = &self.program.inline;
        let held = inline.ranges[..usize::from(inline.count).min(INLINE_RANGES)]
            .iter()
            .find(|range| range.protocol == protocol && (range.low..=range.high).contains(&port))
            .map(|range| range.cell);
        let longest = || {
            (RangeKey::EXACT_BITS..=RangeKey::ALL_BITS)
                .rev()
                .find_map(|bits| self.trie.get(&(protocol, bits, port & mask(bits))).copied())
        };
        held.or_else(longest).unwrap_or(inline.other)
    }
}

/// The bits of a port that a key of this length compares.
fn mask(prefix_bits: u32) -> u16 {
    let compared = prefix_bits.saturating_sub(RangeKey::EXACT_BITS).min(16);
    u16::MAX.checked_shl(16 - compared).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_abi::program::PortRange;

    fn cell(verdict: Verdict) -> Cell {
        Cell {
            verdict: verdict as u8,
            ..Cell::default()
        }
    }

    fn inline(other: Verdict, ranges: &[(u8, u16, u16, Verdict)]) -> ProgramImage {
        let mut program = Program {
            flags: Program::PRESENT,
            other: cell(other),
            ..Program::default()
        };
        for (at, &(protocol, low, high, verdict)) in ranges.iter().enumerate() {
            program.ranges[at] = PortRange {
                low,
                high,
                protocol,
                cell: cell(verdict),
                ..PortRange::default()
            };
            program.count += 1;
        }
        ProgramImage {
            id: 1,
            inline: program,
            ranges: Vec::new(),
        }
    }

    fn trie(other: Verdict, ranges: &[(u8, u16, u32, Verdict)]) -> ProgramImage {
        let inline = Program {
            flags: Program::PRESENT | Program::IN_TRIE,
            other: cell(other),
            ..Program::default()
        };
        let ranges = ranges
            .iter()
            .map(|&(protocol, port, bits, verdict)| {
                let key = RangeKey {
                    prefix_bits: RangeKey::EXACT_BITS + bits,
                    ..RangeKey::point(1, protocol, port)
                };
                (key, cell(verdict))
            })
            .collect();
        ProgramImage {
            id: 1,
            inline,
            ranges,
        }
    }

    use Verdict::{Allow, Deny, Redirect};

    #[test]
    fn less_access_anywhere_is_seen() {
        let all = inline(Allow, &[]);
        let web = inline(Deny, &[(6, 80, 90, Allow)]);
        let narrower_web = inline(Deny, &[(6, 80, 89, Allow)]);
        let web_in_trie = trie(Deny, &[(6, 80, 12, Allow), (6, 95, 16, Deny)]);
        let proxied = inline(Deny, &[(6, 80, 90, Redirect)]);
        assert!(all.gives_more_than(&web));
        assert!(!web.gives_more_than(&all));
        assert!(!web.gives_more_than(&web));
        assert!(web.gives_more_than(&narrower_web));
        assert!(!narrower_web.gives_more_than(&web));
        // The trie's range is 80..=95 without 95.
        assert!(web_in_trie.gives_more_than(&web));
        assert!(!web.gives_more_than(&web_in_trie));
        assert!(web.gives_more_than(&proxied));
        assert!(!proxied.gives_more_than(&web));
        // A protocol that neither names is judged by `other`.
        assert!(inline(Allow, &[(17, 0, 65535, Deny)]).gives_more_than(&inline(Deny, &[])));
        assert!(
            inline(Deny, &[(17, 0, 65535, Allow)])
                .gives_more_than(&inline(Deny, &[(17, 1, 65535, Allow)]))
        );
    }

    #[test]
    fn programs_the_kernel_could_not_run_are_refused() {
        assert_eq!(web().check(), Ok(()));
        assert_eq!(
            ProgramImage { id: 0, ..web() }.check(),
            Err(Refusal::Zero { kind: "program" })
        );
        let mut absent = web();
        absent.inline.flags = 0;
        assert_eq!(absent.check(), Err(Refusal::Malformed(1)));
        let foreign = ProgramImage {
            id: 2,
            ..trie(Deny, &[(6, 80, 16, Allow)])
        };
        assert_eq!(foreign.check(), Err(Refusal::Malformed(2)));
    }

    fn web() -> ProgramImage {
        inline(Deny, &[(6, 80, 90, Allow)])
    }
}
