//! Reading what the kernel programs tell, with names. Who is told may not enter.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use sluice_abi::event::Event;
use sluice_datapath::state::Events;

use crate::{AgentError, book::Book, flow::FlowRecord};

/// Reads flows of one node.
pub struct FlowReader {
    events: Events,
    book: Arc<RwLock<Book>>,
}

impl FlowReader {
    pub(crate) const fn new(events: Events, book: Arc<RwLock<Book>>) -> Self {
        Self { events, book }
    }

    /// The flows that are there, after waiting at most `patience` for a first one.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn read(&mut self, patience: Duration) -> Result<Vec<FlowRecord>, AgentError> {
        let waiting = |source| AgentError::Io {
            action: "waiting for events",
            source,
        };
        if !self.events.wait(patience).map_err(waiting)? {
            return Ok(Vec::new());
        }
        let mut flows = Vec::new();
        while let Some(event) = self.events.next_event() {
            let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
            flows.push(FlowRecord::of(&event, &*book));
        }
        Ok(flows)
    }

    /// The next event that is there, as it is.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.next_event()
    }
}
