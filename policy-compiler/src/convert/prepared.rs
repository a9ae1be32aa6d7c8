//! A policy with a digest of each of its rules, made where it is read: which rules of a long policy a change concerns is then found
//! without reading the rules again, neither the new ones nor those in force.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, LazyLock},
};

use sluice_world::Policy;

use super::outline::{Difference, Outline, Rules, count, differing, differing_behind, outlines};

/// Whoever writes policies must not be able to make two rules with one digest, so the key is this process's own, and secret.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// See the module. Two different rules have the same digest once in 2^64 pairs.
#[derive(Clone, Debug)]
pub struct Prepared {
    policy: Arc<Policy>,
    sets: Arc<[Digests]>,
}

/// Of one rule set.
#[derive(Debug)]
struct Digests {
    /// Of all but the rules.
    form: u64,
    /// The first rules; those behind move with their number.
    front: Vec<u64>,
    behind: Vec<u64>,
}

impl Prepared {
    /// Reads a policy's rules once.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        let sets = outlines(&policy).iter().map(Digests::of).collect();
        Self { policy, sets }
    }

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What is different in each rule set; `None` where the policies differ in more than their rules.
    pub(crate) fn differences(&self, new: &Self) -> Option<Vec<Difference>> {
        if self.sets.len() != new.sets.len() {
            return None;
        }
        let pairs = self.sets.iter().zip(&*new.sets);
        pairs.map(|(old, new)| old.difference(new)).collect()
    }
}

impl Digests {
    fn of(outline: &Outline<'_>) -> Self {
        let (front, behind) = match outline.rules {
            Rules::Network(rules) => (digests(rules), Vec::new()),
            Rules::Tier(rules) => (digests(rules), Vec::new()),
            Rules::Sections { allow, deny } => (digests(allow), digests(deny)),
        };
        Self {
            form: KEY.hash_one(outline.form()),
            front,
            behind,
        }
    }

    fn difference(&self, new: &Self) -> Option<Difference> {
        if self.form != new.form {
            return None;
        }
        let mut positions = differing(&self.front, &new.front, 0);
        positions.extend(differing_behind(
            (self.front.len(), &self.behind),
            (new.front.len(), &new.behind),
        ));
        Some(Difference {
            positions,
            length: count(new.front.len() + new.behind.len()),
        })
    }
}

fn digests<T: Hash>(rules: &[T]) -> Vec<u64> {
    rules.iter().map(|rule| KEY.hash_one(rule)).collect()
}
