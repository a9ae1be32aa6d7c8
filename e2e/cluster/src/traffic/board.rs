//! The counts that all threads of the program write to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Counts, Report, Trouble, now_ms};

/// Shared by all threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    flows: BTreeMap<String, Counts>,
    arrived: BTreeMap<String, u64>,
}

impl Board {
    /// Changes the counts of an own flow.
    pub(super) fn count(&self, flow: &str, change: impl FnOnce(&mut Counts)) {
        let mut inner = self.lock();
        match inner.flows.get_mut(flow) {
            Some(counts) => change(counts),
            None => change(inner.flows.entry(flow.to_owned()).or_default()),
        }
    }

    /// A request was answered after so long.
    pub(super) fn answered(&self, flow: &str, after: Duration) {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.count(flow, |counts| {
            counts.answered += 1;
            counts.worst_ms = counts.worst_ms.max(ms);
        });
    }

    /// Something went wrong: `which` is its count.
    pub(super) fn trouble(
        &self,
        flow: &str,
        what: &str,
        which: impl FnOnce(&mut Counts) -> &mut u64,
    ) {
        self.count(flow, |counts| {
            *which(counts) += 1;
            counts.last_trouble = Some(Trouble {
                at_ms: now_ms(),
                what: what.to_owned(),
            });
        });
    }

    /// Something of another's flow came.
    pub(super) fn arrived(&self, flow: &str) {
        let mut inner = self.lock();
        match inner.arrived.get_mut(flow) {
            Some(count) => *count += 1,
            None => {
                inner.arrived.insert(flow.to_owned(), 1);
            }
        }
    }

    pub(super) fn report(&self) -> Report {
        let inner = self.lock();
        Report {
            at_ms: now_ms(),
            flows: inner.flows.clone(),
            arrived: inner.arrived.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
