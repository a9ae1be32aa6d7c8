//! One agent that is connected: what it was sent, what waits for it, what it has acknowledged. How its content is found is the state's.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use sluice_world::NodeName;
use tokio::sync::Notify;

use crate::{
    catalog::{Held, View},
    types::Revision,
};

/// An agent not heard for so long does not count.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// Updates that may wait for a session before it is given a snapshot instead.
const QUEUE_UPDATES: usize = 256;
/// Bytes that may.
const QUEUE_BYTES: usize = 8 << 20;

/// An update on its way to a session.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) revision: Revision,
    pub(crate) snapshot: bool,
    pub(crate) pieces: Vec<Bytes>,
}

/// What is to be sent next.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Frame),
    Again,
    Beat,
    /// The session was ended from this side.
    End(&'static str),
}

/// Where a session is.
#[derive(Debug)]
pub(super) enum Place {
    /// It needs what it lacks beside what it holds, or a snapshot.
    Start(Option<Held>),
    /// It follows, as one node. Boxed: it is far larger than the others.
    Node(Box<View>),
    /// It follows everything.
    Everything,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) node: NodeName,
    pub(super) place: Place,
    pub(super) sent: Option<Revision>,
    pub(super) acked: Option<Revision>,
    pub(super) since: SystemTime,
    pub(super) last_seen: Instant,
    pub(super) again: bool,
    pub(super) ended: Option<&'static str>,
    pub(super) wake: Arc<Notify>,
    queue: VecDeque<Frame>,
    bytes: usize,
}

impl Session {
    pub(super) fn new(node: NodeName, held: Option<Held>) -> Self {
        Self {
            node,
            place: Place::Start(held),
            sent: None,
            acked: None,
            since: SystemTime::now(),
            last_seen: Instant::now(),
            again: false,
            ended: None,
            wake: Arc::default(),
            queue: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.ended.is_none() && self.last_seen.elapsed() <= LEASE
    }

    pub(super) const fn follows(&self) -> bool {
        !matches!(self.place, Place::Start(_))
    }

    pub(super) fn everything(&self) -> bool {
        self.node.0 == crate::EVERY_NODE
    }

    /// It holds all that it needs up to here: what did not concern it counts as acknowledged.
    pub(super) fn holds(&self, now: Revision) -> Option<Revision> {
        if self.follows() && self.acked.is_some() && self.acked == self.sent {
            Some(now)
        } else {
            self.acked
        }
    }

    /// Puts a frame behind those that wait. `false`: too many wait, and the session needs a snapshot instead.
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        self.bytes += frame.pieces.iter().map(Bytes::len).sum::<usize>();
        self.sent = Some(frame.revision);
        self.queue.push_back(frame);
        self.wake.notify_one();
        self.queue.len() <= QUEUE_UPDATES && self.bytes <= QUEUE_BYTES
    }

    pub(super) fn pop(&mut self) -> Option<Frame> {
        let frame = self.queue.pop_front()?;
        self.bytes -= frame.pieces.iter().map(Bytes::len).sum::<usize>();
        Some(frame)
    }

    /// Forgets what waits: a snapshot will follow.
    pub(super) fn restart(&mut self) {
        self.place = Place::Start(None);
        self.queue.clear();
        self.bytes = 0;
        self.wake.notify_one();
    }
}
