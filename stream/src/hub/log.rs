//! The last steps, for those who were away for a moment. Bounded by number and by size.

use std::{collections::VecDeque, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    catalog::Span,
    types::{Revision, Update},
};

/// Steps kept at most.
const STEPS: usize = 4096;
/// Records in the kept steps at most, about: some tens of megabytes.
const RECORDS: usize = 1 << 19;

#[derive(Debug)]
struct Entry {
    update: Arc<Update>,
    /// Which of its endpoints concern a node, by its number.
    concerned: FxHashMap<u32, Vec<usize>>,
    records: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    records: usize,
}

impl Log {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn push(&mut self, update: Arc<Update>, concerned: FxHashMap<u32, Vec<usize>>) {
        let records = records(&update);
        self.records += records;
        self.entries.push_back(Entry {
            update,
            concerned,
            records,
        });
        while self.entries.len() > STEPS || self.records > RECORDS {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.records -= oldest.records;
        }
    }

    /// The steps after a revision, if all of them are there up to `now`.
    pub(crate) fn since(
        &self,
        revision: Revision,
        now: Revision,
    ) -> Option<impl Iterator<Item = &Arc<Update>>> {
        let skip = self.skip(revision, now)?;
        Some(self.entries.iter().skip(skip).map(|entry| &entry.update))
    }

    /// All that these steps touched.
    pub(crate) fn span(&self, revision: Revision, now: Revision) -> Option<Span> {
        let skip = self.skip(revision, now)?;
        let mut span = Span::default();
        for entry in self.entries.iter().skip(skip) {
            span.add(&entry.update, &entry.concerned);
        }
        Some(span)
    }

    fn skip(&self, revision: Revision, now: Revision) -> Option<usize> {
        if revision.epoch != now.epoch || revision.number > now.number {
            return None;
        }
        let missing = usize::try_from(now.number - revision.number).ok()?;
        self.entries.len().checked_sub(missing)
    }
}

fn records(update: &Update) -> usize {
    let delta = &update.delta;
    let tables = delta.tables.iter();
    let backends = update.services.iter().flat_map(|(_, entry)| entry);
    16 + delta.programs.len()
        + delta.ranges.len()
        + delta.attributions.len()
        + delta.cookies.len()
        + 4 * delta.identities.len()
        + tables
            .map(|table| 8 + table.set.len() + table.removed.len())
            .sum::<usize>()
        + delta.prefixes.len()
        + delta.addresses.len()
        + 4 * delta.endpoints.len()
        + delta.retired_peers.len()
        + delta.dropped_programs.len()
        + delta.dropped_attributions.len()
        + 4 * update.nodes.len()
        + 4 * update.services.len()
        + backends
            .map(|entry| 2 * entry.backends.len())
            .sum::<usize>()
}
