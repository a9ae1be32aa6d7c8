//! Where the generator's decisions come from: numbers a test framework recorded and may shrink, or a seeded sequence.
//!
//! The convention all of the generator keeps: the number 0 is always the simplest choice, and a recording that has run out goes
//! on with zeros. So shrinking numbers shrinks worlds.

/// The numbers behind one generated world. Each policy and each query has its own, so that leaving one out changes no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Namespaces, nodes, pods, services, groups, learned names.
    pub world: Vec<u32>,
    /// One list for each policy.
    pub policies: Vec<Vec<u32>>,
    /// One list for each query.
    pub queries: Vec<Vec<u32>>,
}

/// A source of decisions.
#[derive(Clone, Debug)]
pub struct Choices {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Recorded(std::vec::IntoIter<u32>),
    /// State of a `SplitMix64` sequence.
    Seeded(u64),
}

impl Choices {
    /// Decisions from a recording.
    #[must_use]
    pub fn recorded(numbers: Vec<u32>) -> Self {
        Self {
            source: Source::Recorded(numbers.into_iter()),
        }
    }

    /// Decisions from a seed, without end.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self {
            source: Source::Seeded(seed),
        }
    }

    /// A number below `bound`; 0 where the bound is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // Multiply and shift keeps the order of the recorded numbers, so that a smaller one gives a simpler choice.
        let scaled = (u64::from(self.number()) * u64::from(bound)) >> 32;
        u32::try_from(scaled).unwrap_or(0)
    }

    /// A number of a range, both ends included.
    pub fn within(&mut self, range: &std::ops::RangeInclusive<u32>) -> u32 {
        let span = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.below(span)
    }

    /// True in this share of cases; false is the simpler choice.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) + percent >= 100
    }

    /// One of these; the first is the simplest.
    ///
    /// # Panics
    /// Where there is nothing to choose from: a fault of the generator.
    pub fn pick<'a, T>(&mut self, options: &'a [T]) -> &'a T {
        let bound = u32::try_from(options.len()).expect("a short list");
        &options[self.below(bound) as usize]
    }

    /// One of these by weight; the first is the simplest.
    ///
    /// # Panics
    /// Where no option has a weight: a fault of the generator.
    pub fn weighted<T: Copy>(&mut self, options: &[(u32, T)]) -> T {
        let total = options.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(total);
        for (weight, option) in options {
            if left < *weight {
                return *option;
            }
            left -= weight;
        }
        unreachable!("the weights add up to {total}")
    }

    fn number(&mut self) -> u32 {
        match &mut self.source {
            Source::Recorded(numbers) => numbers.next().unwrap_or(0),
            Source::Seeded(state) => split_mix(state),
        }
    }
}

/// `SplitMix64` (Steele, Lea and Flood 2014): small, fast, and the same on every machine. The upper half is used.
fn split_mix(state: &mut u64) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    u32::try_from(mixed >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_the_simplest_choice() {
        let mut choices = Choices::recorded(vec![]);
        assert!(!choices.chance(99));
        assert_eq!(*choices.pick(&["first", "second"]), "first");
        assert_eq!(choices.within(&(3..=9)), 3);
        assert_eq!(choices.weighted(&[(1, 'a'), (100, 'b')]), 'a');
    }

    #[test]
    fn the_highest_number_stays_inside_every_bound() {
        let mut choices = Choices::recorded(vec![u32::MAX; 4]);
        assert_eq!(choices.below(7), 6);
        assert_eq!(choices.within(&(3..=9)), 9);
        assert!(choices.chance(1));
        assert!(!choices.chance(0));
    }
}
