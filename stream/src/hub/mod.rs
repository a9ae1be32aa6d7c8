//! The serving side: all agents of one operator, whether it leads or follows another.
//!
//! ```text
//! publish ─ split ─▶ State::publish ─▶ Catalog ─▶ views ─▶ queues ─▶ sessions ─▶ agents, followers
//!                └─ waits for acknowledgements between the steps ◀──────────────┘
//! ```

mod encoded;
mod follow;
pub(crate) mod log;
pub(crate) mod session;
pub(crate) mod split;
mod state;
mod wait;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sluice_world::NodeName;
use tokio::sync::{mpsc, watch};

use crate::types::{Batch, Published, Report, Revision, SessionInfo, Update};
use state::{Role, State};

pub use follow::Following;
pub(crate) use state::Peer;

/// The longest that a publication waits for acknowledgements, over all its steps.
pub const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a publication that waits looks whether those it waits for are still alive.
const LOOK: Duration = Duration::from_millis(500);
/// Reports that may wait to be taken. When they are not, agents wait.
const REPORTS: usize = 4096;

/// All agents of one operator. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// One publication at a time.
    publishing: tokio::sync::Mutex<()>,
    changes: watch::Sender<u64>,
}

impl Hub {
    /// A hub that leads in this epoch. Agents get nothing before the first publication. One that is to follow first may have epoch 0.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State::new(epoch)),
                publishing: tokio::sync::Mutex::default(),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// This replica leads from now on, in this epoch, which must be greater than all before; a process that was restarted needs a new
    /// one too, since its steps are other steps. Agents keep what they have until the
    /// first publication, which must hold everything and is given to them as a snapshot. They are asked to report everything again.
    pub fn lead(&self, epoch: u64) {
        let mut state = self.state();
        state.role = Role::Leader { epoch };
        state.ready = false;
        state.ask_again();
    }

    /// Publishes what changed, in up to three steps where running pods move to new identities or tables. Between the steps it waits for
    /// the agents that the step concerns and that are alive, [`LONGEST_WAIT`] in all. A batch that changes nothing is no step.
    ///
    /// Does nothing on a hub that follows.
    pub async fn publish(&self, batch: Batch) -> Published {
        let _turn = self.inner.publishing.lock().await;
        let steps = {
            let state = self.state();
            if state.ready {
                split::split(batch, &state.catalog)
            } else {
                vec![split::whole(batch)]
            }
        };
        let begun = Instant::now();
        let mut published = Published {
            revision: self.revision(),
            steps: 0,
            acknowledged: 0,
            of: 0,
            waited: Duration::ZERO,
        };
        let last = steps.len().saturating_sub(1);
        for (at, step) in steps.into_iter().enumerate() {
            published.steps += 1;
            let waiter = self.put(step, at < last);
            if let Some(waiter) = waiter {
                (published.acknowledged, published.of) =
                    self.wait(waiter, begun + LONGEST_WAIT).await;
                published.waited = begun.elapsed();
            }
        }
        published.revision = self.revision();
        published
    }

    /// The last step's revision; zero before any.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state().catalog.revision()
    }

    /// How many agents hold a revision, of how many there are with a live session.
    #[must_use]
    pub fn enforced(&self, revision: Revision) -> (usize, usize) {
        self.state().enforced(revision)
    }

    /// All sessions, by node.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.state().infos()
    }

    /// Changes when [`Hub::sessions`] does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// What agents report, from all replicas. There is one receiver: a second call ends the first's.
    #[must_use]
    pub fn reports(&self) -> mpsc::Receiver<(NodeName, Report)> {
        let (sender, receiver) = mpsc::channel(REPORTS);
        self.state().reports = Some(sender);
        receiver
    }

    pub(crate) fn changed(&self) {
        self.inner.changes.send_modify(|count| *count += 1);
    }

    /// Takes a report to where reports are collected. Waits while nobody takes them.
    pub(crate) async fn report(&self, node: NodeName, report: Report) {
        let (upstream, sender) = {
            let state = self.state();
            let upstream = match &state.role {
                Role::Follower { upstream } => Some(upstream.clone()),
                Role::Leader { .. } => None,
            };
            (upstream, state.reports.clone())
        };
        match (upstream, sender) {
            (Some(upstream), _) => upstream.forward(&node, &report).await,
            // A receiver that is gone wants none.
            (None, Some(sender)) => drop(sender.send((node, report)).await),
            (None, None) => {}
        }
    }

    pub(crate) fn ack(&self, session: u64, revision: Revision) {
        if self.state().ack(session, revision) {
            self.changed();
        }
    }

    pub(crate) fn state_of<T>(&self, with: impl FnOnce(&mut Sessions<'_>) -> T) -> T {
        with(&mut Sessions(self.state()))
    }

    fn put(&self, step: Update, wait: bool) -> Option<u64> {
        let waiter = self.state().publish(step, wait);
        self.changed();
        waiter
    }

    /// Waits for a waiter's agents. How many acknowledged, of how many.
    async fn wait(&self, waiter: u64, deadline: Instant) -> (usize, usize) {
        let done = self
            .state()
            .waiter(waiter)
            .map(|known| Arc::clone(&known.done));
        let Some(done) = done else { return (0, 0) };
        while self.state().is_pending(waiter) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Whether somebody died meanwhile is looked at again either way.
            let _ = tokio::time::timeout(left.min(LOOK), done.notified()).await;
        }
        let ended = self.state().end_wait(waiter);
        ended.map_or((0, 0), |waiter| (waiter.acknowledged(), waiter.of))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A holder that panicked is a defect; what it left is still better for the agents than no operator.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server does with the sessions, under the lock.
pub(crate) struct Sessions<'a>(MutexGuard<'a, State>);

impl Sessions<'_> {
    pub(crate) fn join(
        &mut self,
        node: NodeName,
        held: Option<crate::catalog::Held>,
    ) -> (u64, Arc<tokio::sync::Notify>) {
        self.0.join(node, held)
    }

    pub(crate) fn leave(&mut self, id: u64) {
        self.0.leave(id);
    }

    pub(crate) fn seen(&mut self, id: u64) {
        self.0.seen(id);
    }

    pub(crate) fn next(&mut self, id: u64, idle: bool) -> Option<session::Next> {
        self.0.next(id, idle)
    }

    pub(crate) fn hear_of(&mut self, node: NodeName, peer: Option<Peer>, via: u64) {
        self.0.hear_of(node, peer, via);
    }
}
