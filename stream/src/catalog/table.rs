//! One peer table with counts of what its cells use, so that views follow the few programs of a table and not its many entries.

use rustc_hash::FxHashMap;
use sluice_abi::{Identity, Scope, policy::PeerCell};
use sluice_policy::TableDelta;

use super::step::{Shift, TableStep};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    defaults: [PeerCell; Scope::COUNT],
    peers: FxHashMap<Identity, PeerCell>,
    /// Cells by program and by attribution; 0, which is neither, is not counted.
    programs: FxHashMap<u32, u32>,
    attributions: FxHashMap<u32, u32>,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn programs(&self) -> impl Iterator<Item = u32> {
        self.programs.keys().copied()
    }

    pub(crate) fn attributions(&self) -> impl Iterator<Item = u32> {
        self.attributions.keys().copied()
    }

    pub(crate) const fn defaults(&self) -> [PeerCell; Scope::COUNT] {
        self.defaults
    }

    pub(crate) fn cell(&self, identity: Identity) -> Option<PeerCell> {
        self.peers.get(&identity).copied()
    }

    /// The table for one who does not know it.
    pub(crate) fn whole(&self, id: u32) -> TableDelta {
        let mut set: Vec<(Identity, PeerCell)> = self.peers.iter().map(|(i, c)| (*i, *c)).collect();
        set.sort_unstable();
        TableDelta {
            id,
            new: true,
            defaults: Some(self.defaults),
            set,
            ..TableDelta::default()
        }
    }

    pub(crate) fn change(&mut self, delta: &TableDelta, step: &mut TableStep) {
        if let Some(defaults) = delta.defaults {
            for (old, new) in std::mem::replace(&mut self.defaults, defaults)
                .into_iter()
                .zip(defaults)
            {
                self.swap(old, new, step);
            }
        }
        for (identity, cell) in &delta.set {
            let old = self.peers.insert(*identity, *cell);
            self.swap(old.unwrap_or(PeerCell::ABSENT), *cell, step);
        }
        for identity in &delta.removed {
            self.remove(*identity, step);
        }
    }

    pub(crate) fn remove(&mut self, identity: Identity, step: &mut TableStep) {
        if let Some(old) = self.peers.remove(&identity) {
            self.swap(old, PeerCell::ABSENT, step);
        }
    }

    fn swap(&mut self, old: PeerCell, new: PeerCell, step: &mut TableStep) {
        count(
            &mut self.programs,
            old.program,
            new.program,
            &mut step.programs,
        );
        count(
            &mut self.attributions,
            old.attribution,
            new.attribution,
            &mut step.attributions,
        );
    }
}

/// Counts one user more of `new` and one less of `old`, and tells whose use began or ended.
fn count(counts: &mut FxHashMap<u32, u32>, old: u32, new: u32, shift: &mut Shift) {
    if old == new {
        return;
    }
    if new != 0 {
        let users = counts.entry(new).or_default();
        *users += 1;
        if *users == 1 {
            shift.begins(new);
        }
    }
    if old != 0
        && let Some(users) = counts.get_mut(&old)
    {
        *users -= 1;
        if *users == 0 {
            counts.remove(&old);
            shift.ends(old);
        }
    }
}
