//! What the operator said, kept for the next start: written before it is put in force, so that what the kernel enforces is never newer than
//! what a new process would begin with. What is in it may not enter.

use sluice_stream::{Catalog, Held, Update};
use tracing::warn;

use crate::store::{StoreError, Updates};

/// What was said, and where it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) catalog: Catalog,
    pub(super) held: Held,
    store: Updates,
}

impl Kept {
    /// Reads what an earlier process kept. What can't be understood, as that of another release, is as if nothing had been said.
    pub(super) fn read(mut store: Updates) -> Result<Self, StoreError> {
        let (mut catalog, mut held) = (Catalog::default(), Held::default());
        let mut broken = None;
        store.each(|bytes| {
            if broken.is_some() {
                return;
            }
            match Update::decode(bytes) {
                Ok(update) => {
                    catalog.apply(&update);
                    held.note(&update);
                }
                Err(error) => broken = Some(error),
            }
        })?;
        if let Some(error) = broken {
            warn!(%error, "what the operator said last can't be understood: starting without");
            (catalog, held) = (Catalog::default(), Held::default());
        }
        Ok(Self {
            catalog,
            held,
            store,
        })
    }

    /// Takes an update in and writes it down.
    pub(super) fn take(&mut self, update: &Update) -> Result<(), StoreError> {
        self.catalog.apply(update);
        self.held.note(update);
        if update.snapshot {
            return self.store.replace(&update.encode());
        }
        self.store.append(&update.encode())?;
        if self.store.is_long() {
            self.store.replace(&self.catalog.snapshot().encode())?;
        }
        Ok(())
    }

    /// Whether anything was said.
    pub(super) fn is_empty(&self) -> bool {
        self.catalog.revision() == sluice_stream::Revision::default()
    }
}
