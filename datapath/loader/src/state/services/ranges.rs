//! Giving out runs of elements of an array: the first that is long enough, joined again when they come back.

use std::collections::BTreeMap;

/// The free runs: where each begins and how long it is.
#[derive(Debug)]
pub(super) struct Ranges(BTreeMap<u32, u32>);

impl Ranges {
    /// All of `room` elements.
    pub(super) fn new(room: u32) -> Self {
        Self(BTreeMap::from([(0, room)]))
    }

    /// Whether a run of `count` is free.
    pub(super) fn has(&self, count: u32) -> bool {
        count == 0 || self.0.values().any(|length| *length >= count)
    }

    /// Takes a run of `count`; where it begins. Of no elements there are always enough.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        if count == 0 {
            return Some(0);
        }
        let (&first, _) = self.0.iter().find(|(_, length)| **length >= count)?;
        self.take_at(first, count);
        Some(first)
    }

    /// Takes a run that is known to be used, as far as it is free.
    pub(super) fn take_at(&mut self, first: u32, count: u32) {
        let end = first.saturating_add(count);
        let touched: Vec<(u32, u32)> = self
            .0
            .range(..end)
            .map(|(start, length)| (*start, *length))
            .filter(|(start, length)| start + length > first)
            .collect();
        if count == 0 {
            return;
        }
        for (start, length) in touched {
            self.0.remove(&start);
            if start < first {
                self.0.insert(start, first - start);
            }
            if start + length > end {
                self.0.insert(end, start + length - end);
            }
        }
    }

    /// Gives a run back.
    pub(super) fn give(&mut self, first: u32, count: u32) {
        if count == 0 {
            return;
        }
        let (mut first, mut count) = (first, count);
        if let Some(after) = self.0.remove(&(first + count)) {
            count += after;
        }
        if let Some((&start, &length)) = self.0.range(..first).next_back()
            && start + length == first
        {
            first = start;
            count += length;
        }
        self.0.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_given_out_once_and_joined_again() {
        let mut ranges = Ranges::new(10);
        assert_eq!(ranges.take(4), Some(0));
        assert_eq!(ranges.take(4), Some(4));
        assert_eq!(ranges.take(0), Some(0));
        assert!(!ranges.has(3) && ranges.take(3).is_none());
        ranges.give(0, 4);
        assert!(!ranges.has(6));
        ranges.give(4, 4);
        assert_eq!(ranges.0, BTreeMap::from([(0, 10)]));
    }

    #[test]
    fn what_is_known_to_be_used_is_not_given_out() {
        let mut ranges = Ranges::new(10);
        ranges.take_at(3, 2);
        ranges.take_at(9, 1);
        ranges.take_at(3, 0);
        assert_eq!(ranges.0, BTreeMap::from([(0, 3), (5, 4)]));
        ranges.take_at(2, 4);
        assert_eq!(ranges.0, BTreeMap::from([(0, 2), (6, 3)]));
        assert_eq!(ranges.take(3), Some(6));
    }
}
