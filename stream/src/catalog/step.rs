//! What one update did to a catalog, as far as views of nodes need to know: found once, used by every view.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_policy::RedirectSet;
use sluice_world::NodeName;

use super::{ProgramEntry, Slots, Table};

/// See the module.
#[derive(Debug, Default)]
pub struct Step {
    /// Tables that changed.
    pub(crate) tables: FxHashMap<u32, TableStep>,
    /// Which of the update's endpoints concern a node, by its number, in order.
    pub(crate) endpoints: FxHashMap<u32, Vec<usize>>,
    /// Nodes that got a number.
    pub(crate) numbered: Vec<NodeName>,
    /// What went, as it was last.
    pub(crate) gone_tables: FxHashMap<u32, Table>,
    pub(crate) gone_programs: FxHashMap<u32, ProgramEntry>,
    pub(crate) gone_attributions: FxHashMap<u32, Slots>,
    pub(crate) gone_redirects: FxHashMap<u32, Arc<RedirectSet>>,
}

/// What happened to a table.
#[derive(Debug, Default)]
pub(crate) struct TableStep {
    /// Its changes in the update.
    pub(crate) at: Vec<usize>,
    /// Its retired peers in the update.
    pub(crate) retired: Vec<usize>,
    pub(crate) programs: Shift,
    pub(crate) attributions: Shift,
}

/// Ids whose use by a table began or ended, taken over the whole update.
#[derive(Debug, Default)]
pub(crate) struct Shift {
    pub(crate) begun: FxHashSet<u32>,
    pub(crate) ended: FxHashSet<u32>,
}

impl Shift {
    pub(super) fn begins(&mut self, id: u32) {
        if !self.ended.remove(&id) {
            self.begun.insert(id);
        }
    }

    pub(super) fn ends(&mut self, id: u32) {
        if !self.begun.remove(&id) {
            self.ended.insert(id);
        }
    }
}
