//! Waiting until those who count have acknowledged a step.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use sluice_world::NodeName;
use tokio::sync::Notify;

use crate::types::Revision;

/// Who is waited for: an own session, or a node that another replica serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whom {
    Session(u64),
    Remote(NodeName),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) revision: Revision,
    pub(super) pending: FxHashSet<Whom>,
    pub(super) of: usize,
    /// Those who left or fell silent: neither waited for nor counted as having acknowledged.
    pub(super) lost: usize,
    pub(super) done: Arc<Notify>,
}

impl Waiter {
    pub(super) fn new(revision: Revision, pending: FxHashSet<Whom>) -> Self {
        Self {
            revision,
            of: pending.len(),
            pending,
            lost: 0,
            done: Arc::default(),
        }
    }

    pub(super) fn acked(&mut self, whom: &Whom, revision: Revision) {
        if revision >= self.revision && self.pending.remove(whom) {
            self.tell();
        }
    }

    pub(super) fn lost(&mut self, whom: &Whom) {
        if self.pending.remove(whom) {
            self.lost += 1;
            self.tell();
        }
    }

    fn tell(&self) {
        if self.pending.is_empty() {
            self.done.notify_one();
        }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.of - self.pending.len() - self.lost
    }
}
