//! Programs, attributions and redirects by content, each with an id and a count of users. Ids given up in one commit are given out
//! again only after it.

use std::{hash::Hash, sync::Arc};

use rustc_hash::FxHashMap;
use sluice_abi::{
    Cookie,
    policy::{AttributionKey, PeerCell},
    program::Verdict,
};

use crate::{
    delta::{Delta, RedirectSet},
    program::Shape,
};

/// Ids with their contents.
type Named<T> = Vec<(u32, Arc<T>)>;

/// Things by content, with ids from 1.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    ids: FxHashMap<Arc<T>, u32>,
    slots: Vec<Option<Slot<T>>>,
    free: Vec<u32>,
    /// Given up since the last sweep.
    resting: Vec<u32>,
    /// Made since the last sweep.
    made: Vec<u32>,
    /// Lost their last user since the last sweep.
    unused: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    content: Arc<T>,
    users: u32,
    fresh: bool,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self {
            ids: FxHashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            resting: Vec::new(),
            made: Vec::new(),
            unused: Vec::new(),
        }
    }
}

impl<T: Hash + Eq> Shelf<T> {
    /// The id of this content, and whether it is new. Counts no user: an id that has none at the next sweep is given up.
    fn id(&mut self, content: T) -> (u32, bool) {
        if let Some(&id) = self.ids.get(&content) {
            return (id, false);
        }
        let content = Arc::new(content);
        let slot = Slot {
            content: Arc::clone(&content),
            users: 0,
            fresh: true,
        };
        let id = if let Some(id) = self.free.pop() {
            self.slots[id as usize - 1] = Some(slot);
            id
        } else {
            self.slots.push(Some(slot));
            u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
        };
        self.ids.insert(content, id);
        self.made.push(id);
        (id, true)
    }

    fn count(&mut self, id: u32, used: bool) {
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        if used {
            slot.users += 1;
        } else {
            slot.users -= 1;
            if slot.users == 0 {
                self.unused.push(id);
            }
        }
    }

    fn count_up(&mut self, id: u32, users: u32) {
        if let Some(slot) = self.slot_mut(id) {
            slot.users += users;
        }
    }

    fn content(&self, id: u32) -> Option<&Arc<T>> {
        Some(
            &self
                .slots
                .get((id as usize).checked_sub(1)?)?
                .as_ref()?
                .content,
        )
    }

    fn slot_mut(&mut self, id: u32) -> Option<&mut Slot<T>> {
        self.slots.get_mut((id as usize).checked_sub(1)?)?.as_mut()
    }

    /// Ids that consumers must learn of and ids they must forget since the last sweep.
    /// `unborn` sees what came and went between two sweeps, which consumers never hear of.
    fn sweep(&mut self, mut unborn: impl FnMut(&T)) -> (Named<T>, Named<T>) {
        self.free.append(&mut self.resting);
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        let mut candidates = std::mem::take(&mut self.made);
        candidates.append(&mut self.unused);
        candidates.sort_unstable();
        candidates.dedup();
        for id in candidates {
            let Some(slot) = self.slot_mut(id) else {
                continue;
            };
            let content = Arc::clone(&slot.content);
            match (slot.users, slot.fresh) {
                (0, fresh) => {
                    self.slots[id as usize - 1] = None;
                    self.ids.remove(&content);
                    if fresh {
                        unborn(&content);
                        self.free.push(id);
                    } else {
                        self.resting.push(id);
                        gone.push((id, content));
                    }
                }
                (_, true) => {
                    slot.fresh = false;
                    new.push((id, content));
                }
                (_, false) => {}
            }
        }
        (new, gone)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    programs: Shelf<Shape>,
    attributions: Shelf<Box<[Cookie]>>,
    redirects: Shelf<RedirectSet>,
}

impl Pool {
    /// The cell of a program and the rules of its slots. Counts no user.
    pub(crate) fn cell(&mut self, shape: Shape, slots: Vec<Cookie>) -> PeerCell {
        let redirects = redirects(&shape);
        let (program, new) = self.programs.id(shape);
        if new {
            for id in redirects {
                self.redirects.count(id, true);
            }
        }
        let attribution =
            PeerCell::direct(&slots).unwrap_or_else(|| self.attributions.id(slots.into()).0);
        PeerCell {
            program,
            attribution,
        }
    }

    /// The id of a redirect. Counts no user: programs do.
    pub(crate) fn redirect(&mut self, set: RedirectSet) -> u32 {
        self.redirects.id(set).0
    }

    /// An entry holds the cell, or no longer does.
    pub(crate) fn count(&mut self, cell: PeerCell, used: bool) {
        self.programs.count(cell.program, used);
        self.attributions.count(cell.attribution, used);
    }

    /// So many entries more hold the cell.
    pub(crate) fn count_up(&mut self, cell: PeerCell, entries: u32) {
        self.programs.count_up(cell.program, entries);
        self.attributions.count_up(cell.attribution, entries);
    }

    /// Whether traffic that passes under `old` does not under `new`.
    pub(crate) fn takes_away(&self, old: PeerCell, new: PeerCell) -> bool {
        if old.program == new.program {
            return false;
        }
        match (
            self.programs.content(old.program),
            self.programs.content(new.program),
        ) {
            (Some(old), Some(new)) => old.restricts(new),
            (old, _) => old.is_some(),
        }
    }

    /// Tells the delta what is new and what is gone.
    pub(crate) fn sweep(&mut self, delta: &mut Delta) {
        let mut given_up = Vec::new();
        let (new, gone) = self
            .programs
            .sweep(|shape| given_up.extend(redirects(shape)));
        for (id, shape) in new {
            delta.programs.push((id, shape.program()));
            delta.ranges.extend(shape.trie(id));
        }
        for (id, shape) in gone {
            given_up.extend(redirects(&shape));
            delta.dropped_programs.push(id);
            delta
                .dropped_ranges
                .extend(shape.trie(id).into_iter().map(|(key, _)| key));
        }
        for redirect in given_up {
            self.redirects.count(redirect, false);
        }
        let (new, gone) = self.attributions.sweep(|_| ());
        for (id, slots) in new {
            delta.attributions.extend(attribution(id, &slots));
        }
        for (id, slots) in gone {
            delta
                .dropped_attributions
                .extend(attribution(id, &slots).map(|(key, _)| key));
        }
        let (new, gone) = self.redirects.sweep(|_| ());
        delta.redirects.extend(new);
        delta
            .dropped_redirects
            .extend(gone.into_iter().map(|(id, _)| id));
    }
}

fn attribution(id: u32, slots: &[Cookie]) -> impl Iterator<Item = (AttributionKey, Cookie)> {
    (0..).zip(slots).map(move |(slot, cookie)| {
        (
            AttributionKey {
                attribution: id,
                slot,
            },
            *cookie,
        )
    })
}

fn redirects(shape: &Shape) -> Vec<u32> {
    let cells = shape
        .ranges
        .iter()
        .map(|range| range.cell)
        .chain([shape.other]);
    cells
        .filter(|cell| cell.decision() == Verdict::Redirect)
        .map(|cell| cell.redirect)
        .collect()
}
