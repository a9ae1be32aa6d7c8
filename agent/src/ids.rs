//! The compiler's ids and the kernel's: both count from 1, but the kernel's may still hold what an earlier process, or an earlier world,
//! had put there. What the ids stand for may not enter.

use std::collections::{BTreeSet, HashMap};

/// One kind of id: tables, programs or attributions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    kernel: HashMap<u32, u32>,
    /// In use in the kernel, by whoever.
    taken: BTreeSet<u32>,
    /// Below this all are taken, or were not long ago.
    lowest: u32,
}

impl Ids {
    /// Knows that these are in use in the kernel.
    pub(crate) fn reserve(&mut self, used: impl IntoIterator<Item = u32>) {
        self.taken.extend(used);
    }

    /// The kernel's id of a compiler's id that is in use.
    pub(crate) fn get(&self, id: u32) -> Option<u32> {
        self.kernel.get(&id).copied()
    }

    /// The kernel's id; a new one for an id that has none.
    pub(crate) fn acquire(&mut self, id: u32) -> u32 {
        if let Some(known) = self.get(id) {
            return known;
        }
        let mut next = self.lowest.max(1);
        while self.taken.contains(&next) {
            next += 1;
        }
        self.lowest = next + 1;
        self.taken.insert(next);
        self.kernel.insert(id, next);
        next
    }

    /// Ends the use of a compiler's id. The kernel's stays taken until [`Ids::free`].
    pub(crate) fn drop(&mut self, id: u32) -> Option<u32> {
        self.kernel.remove(&id)
    }

    /// The kernel has forgotten these.
    pub(crate) fn free(&mut self, ids: &[u32]) {
        for id in ids {
            self.taken.remove(id);
            self.lowest = self.lowest.min(*id);
        }
    }

    /// Ends the use of all, and returns what the kernel holds for them and for whoever was there before.
    pub(crate) fn forget_all(&mut self) -> Vec<u32> {
        self.kernel.clear();
        self.taken.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_number_and_never_meets_one_in_use() {
        let mut ids = Ids::default();
        ids.reserve([1, 3]);
        assert_eq!((ids.acquire(1), ids.acquire(2), ids.acquire(1)), (2, 4, 2));
        assert_eq!(ids.drop(1), Some(2));
        // The kernel may still hold it.
        assert_eq!(ids.acquire(3), 5);
        ids.free(&[2]);
        assert_eq!(ids.acquire(4), 2);
        assert_eq!(ids.acquire(5), 6);
    }

    #[test]
    fn after_forgetting_nothing_in_use_is_given_out() {
        let mut ids = Ids::default();
        ids.reserve([1]);
        ids.acquire(7);
        assert_eq!(ids.forget_all(), [1, 2]);
        assert_eq!(ids.get(7), None);
        assert_eq!(ids.acquire(7), 3);
    }
}
