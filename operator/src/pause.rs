//! The pauses of a watch that fails, between its attempts. What failed may not enter.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::runtime::utils::Backoff;

/// The first pause, about.
const FIRST: Duration = Duration::from_millis(100);
/// The longest. An API server that was away is followed again this soon: until then no change of policy is seen. A dozen watches ask at
/// most some dozen times a second.
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses that double, up to a limit, and begin anew once the watch has told something.
#[derive(Clone, Debug)]
pub(crate) struct Pauses {
    next: Duration,
    random: RandomState,
    count: u64,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            next: FIRST,
            random: RandomState::new(),
            count: 0,
        }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    /// Between half of it and all of it, so that watches that failed together do not come back together.
    fn next(&mut self) -> Option<Duration> {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        self.count += 1;
        let share = self.random.hash_one(self.count) % 1024;
        let half = whole / 2;
        Some(half + half * u32::try_from(share).unwrap_or_default() / 1024)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_begin_anew() {
        let mut pauses = Pauses::default();
        let some: Vec<Duration> = pauses.by_ref().take(20).collect();
        assert!(some[0] >= FIRST / 2 && some[0] <= FIRST, "{some:?}");
        assert!(some[19] >= LONGEST / 2, "{some:?}");
        assert!(some.iter().all(|pause| *pause <= LONGEST), "{some:?}");
        pauses.reset();
        assert!(pauses.next().is_some_and(|pause| pause <= FIRST));
    }
}
