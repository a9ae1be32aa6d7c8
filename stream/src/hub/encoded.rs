//! Encodes for many: what several sessions get is encoded once and shared.

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::{
    catalog::{Catalog, Need, shared},
    types::{Revision, Update},
    wire::encode::{pieces, pieces_but_tables, table_pieces},
};

/// One step, encoded piece by piece as sessions need it.
pub(super) struct EncodedStep<'a> {
    catalog: &'a Catalog,
    update: &'a Update,
    /// What every node is told.
    pub(super) shared: Vec<Bytes>,
    whole: FxHashMap<u32, Vec<Bytes>>,
    changed: FxHashMap<usize, Vec<Bytes>>,
    everything: Option<Vec<Bytes>>,
}

impl<'a> EncodedStep<'a> {
    pub(super) fn new(catalog: &'a Catalog, update: &'a Update) -> Self {
        Self {
            catalog,
            update,
            shared: pieces_but_tables(&shared(update)),
            whole: FxHashMap::default(),
            changed: FxHashMap::default(),
            everything: None,
        }
    }

    /// The step without a view.
    pub(super) fn everything(&mut self) -> Vec<Bytes> {
        let all = self.everything.get_or_insert_with(|| pieces(self.update));
        all.clone()
    }

    /// The step for one node.
    pub(super) fn of(&mut self, need: &Need) -> Vec<Bytes> {
        let mut out = self.shared.clone();
        for id in &need.whole {
            out.extend_from_slice(table(&mut self.whole, *id, self.catalog));
        }
        for at in &need.changed {
            let change = &self.update.delta.tables[*at];
            let known = self
                .changed
                .entry(*at)
                .or_insert_with(|| table_pieces(change));
            out.extend_from_slice(known);
        }
        out.extend(rest(need, self.catalog, self.update));
        out
    }
}

/// The catalog as of one revision, encoded as new sessions need it.
#[derive(Debug, Default)]
pub(super) struct EncodedState {
    revision: Revision,
    shared: Vec<Bytes>,
    tables: FxHashMap<u32, Vec<Bytes>>,
}

impl EncodedState {
    /// The snapshot for one node.
    pub(super) fn of(&mut self, need: &Need, catalog: &Catalog) -> Vec<Bytes> {
        if self.revision != catalog.revision() {
            *self = Self {
                revision: catalog.revision(),
                shared: pieces_but_tables(&catalog.shared()),
                tables: FxHashMap::default(),
            };
        }
        let mut out = self.shared.clone();
        for id in &need.whole {
            out.extend_from_slice(table(&mut self.tables, *id, catalog));
        }
        out.extend(rest(need, catalog, &Update::default()));
        out
    }

    /// Forgets: nobody is about to need it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn table<'a>(known: &'a mut FxHashMap<u32, Vec<Bytes>>, id: u32, catalog: &Catalog) -> &'a [Bytes] {
    known.entry(id).or_insert_with(|| {
        let table = catalog.tables.get(&id);
        table.map_or_else(Vec::new, |table| table_pieces(&table.whole(id)))
    })
}

fn rest(need: &Need, catalog: &Catalog, update: &Update) -> Vec<Bytes> {
    let delta = need.rest(catalog, update);
    pieces_but_tables(&Update {
        delta,
        ..Update::default()
    })
}
