//! A hub's state and every change of it, synchronous, under one lock. Sockets and waiting may not enter.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use sluice_world::NodeName;
use tokio::sync::mpsc;

use super::{
    encoded::{EncodedState, EncodedStep},
    log::Log,
    session::{Frame, Next, Place, Session},
    wait::{Waiter, Whom},
};
use crate::{
    catalog::{Catalog, Held, Need, Step, View},
    client::Handle,
    types::{Report, Revision, SessionInfo, Update},
    wire::encode::pieces,
};

/// A node that another replica serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) acked: Option<Revision>,
    pub(crate) since: SystemTime,
    /// The session of the replica that serves it.
    pub(crate) via: u64,
}

/// Who numbers the steps.
#[derive(Debug)]
pub(super) enum Role {
    /// This one, in this epoch.
    Leader { epoch: u64 },
    /// Another; reports go there.
    Follower { upstream: Handle },
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    pub(super) role: Role,
    /// Something was published, or mirrored, since the role began. Before that nobody is sent anything: an empty state must not
    /// replace what agents have.
    pub(super) ready: bool,
    pub(super) catalog: Catalog,
    pub(super) reports: Option<mpsc::Sender<(NodeName, Report)>>,
    log: Log,
    sessions: FxHashMap<u64, Session>,
    next_session: u64,
    holders: FxHashMap<u32, FxHashSet<u64>>,
    by_number: FxHashMap<u32, FxHashSet<u64>>,
    by_name: FxHashMap<NodeName, u64>,
    pub(super) remote: FxHashMap<NodeName, Peer>,
    waiters: FxHashMap<u64, Waiter>,
    next_waiter: u64,
    encoded: EncodedState,
}

impl State {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            role: Role::Leader { epoch },
            ready: false,
            catalog: Catalog::default(),
            reports: None,
            log: Log::default(),
            sessions: FxHashMap::default(),
            next_session: 1,
            holders: FxHashMap::default(),
            by_number: FxHashMap::default(),
            by_name: FxHashMap::default(),
            remote: FxHashMap::default(),
            waiters: FxHashMap::default(),
            next_waiter: 1,
            encoded: EncodedState::default(),
        }
    }

    /// Gives a step its number and sends it to whom it concerns. With `wait`, a waiter for their acknowledgements.
    pub(super) fn publish(&mut self, mut update: Update, wait: bool) -> Option<u64> {
        let Role::Leader { epoch } = self.role else {
            return None;
        };
        let now = self.catalog.revision();
        let number = if self.ready { now.number + 1 } else { 1 };
        update.revision = Revision { epoch, number };
        update.snapshot = !self.ready;
        let concerned = self.take(update);
        wait.then(|| self.wait(concerned))
    }

    /// Takes a step from upstream. `false`: steps are missing before it.
    pub(super) fn mirror(&mut self, update: Update) -> bool {
        let now = self.catalog.revision();
        let next = Revision {
            number: now.number + 1,
            ..now
        };
        if !update.snapshot && (!self.ready || update.revision != next) {
            // Coming back to where it was is no gap.
            return update.revision == now && update.is_empty();
        }
        self.take(update);
        true
    }

    /// Makes a step hold. Returns the sessions that were sent it.
    fn take(&mut self, update: Update) -> Vec<u64> {
        let step = self.catalog.apply(&update);
        self.encoded.clear();
        self.ready = true;
        if update.snapshot {
            self.log.clear();
            self.restart_all();
            return Vec::new();
        }
        let update = Arc::new(update);
        let sent = self.send(&update, &step);
        self.log.push(update, step.endpoints);
        sent
    }

    fn send(&mut self, update: &Update, step: &Step) -> Vec<u64> {
        let mut encoded = EncodedStep::new(&self.catalog, update);
        let touched = touched(step, &self.holders, &self.by_number, &self.sessions);
        let all = !encoded.shared.is_empty();
        let mut sent = Vec::new();
        let mut slow = Vec::new();
        let mut moved = Vec::new();
        for (id, session) in &mut self.sessions {
            let pieces: Vec<Bytes> = match &mut session.place {
                Place::Everything => encoded.everything(),
                Place::Node(view) if touched.contains(id) => {
                    let number = view.number();
                    let need = view.step(&self.catalog, update, step);
                    if need.is_empty() && !all {
                        continue;
                    }
                    let pieces = encoded.of(&need);
                    moved.push((*id, number, view.number(), need));
                    pieces
                }
                Place::Node(_) if all => encoded.shared.clone(),
                Place::Node(_) | Place::Start(_) => continue,
            };
            sent.push(*id);
            let frame = Frame {
                revision: update.revision,
                snapshot: false,
                pieces,
            };
            if !session.push(frame) {
                slow.push(*id);
            }
        }
        for (id, from, to, need) in moved {
            self.register(id, from, to, &need);
        }
        for id in slow {
            self.restart(id);
        }
        sent
    }

    /// Notes which sessions a change of a table or a node's endpoints concerns.
    fn register(&mut self, id: u64, from: u32, to: u32, need: &Need) {
        for table in &need.whole {
            self.holders.entry(*table).or_default().insert(id);
        }
        for table in &need.dropped_tables {
            unlink(&mut self.holders, *table, id);
        }
        if from != to {
            unlink(&mut self.by_number, from, id);
            self.by_number.entry(to).or_default().insert(id);
        }
    }

    fn restart_all(&mut self) {
        self.holders.clear();
        self.by_number.clear();
        self.sessions.values_mut().for_each(Session::restart);
        let waiters = self.waiters.values_mut();
        for waiter in waiters {
            for whom in waiter.pending.clone() {
                waiter.lost(&whom);
            }
        }
    }

    /// Drops what waits for a session: it gets a snapshot instead, and does not count until then.
    fn restart(&mut self, id: u64) {
        self.forget_view(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            tracing::info!(node = %session.node, "the agent is slow: it gets a snapshot");
            session.restart();
        }
        self.lose(&Whom::Session(id));
    }

    fn forget_view(&mut self, id: u64) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if let Place::Node(view) = &session.place {
            for table in view.tables() {
                unlink(&mut self.holders, table, id);
            }
            unlink(&mut self.by_number, view.number(), id);
        }
    }

    /// A new session; one that the node had before ends.
    pub(super) fn join(
        &mut self,
        node: NodeName,
        held: Option<Held>,
    ) -> (u64, Arc<tokio::sync::Notify>) {
        let id = self.next_session;
        self.next_session += 1;
        let session = Session::new(node.clone(), held);
        let wake = Arc::clone(&session.wake);
        wake.notify_one();
        if !session.everything()
            && let Some(old) = self.by_name.insert(node, id)
            && let Some(old) = self.sessions.get_mut(&old)
        {
            old.ended = Some("the node's agent has a newer session");
            old.wake.notify_one();
        }
        self.sessions.insert(id, session);
        (id, wake)
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.forget_view(id);
        if let Some(session) = self.sessions.remove(&id) {
            if self.by_name.get(&session.node) == Some(&id) {
                self.by_name.remove(&session.node);
            }
            let served: Vec<NodeName> = self
                .remote
                .iter()
                .filter(|(_, peer)| peer.via == id)
                .map(|(node, _)| node.clone())
                .collect();
            for node in served {
                self.remote.remove(&node);
                self.lose(&Whom::Remote(node));
            }
        }
        self.lose(&Whom::Session(id));
    }

    /// What to send a session next. `idle`: nothing was sent for a while.
    pub(super) fn next(&mut self, id: u64, idle: bool) -> Option<Next> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Some(Next::End("the session is over"));
        };
        if let Some(why) = session.ended {
            return Some(Next::End(why));
        }
        if std::mem::take(&mut session.again) {
            return Some(Next::Again);
        }
        if self.ready && !session.follows() {
            return self.start(id).map(Next::Frame);
        }
        if let Some(frame) = session.pop() {
            return Some(Next::Frame(frame));
        }
        let now = self.catalog.revision();
        if idle && session.follows() && session.sent.is_some_and(|sent| sent < now) {
            // Nothing since concerned the node; its revision follows nevertheless.
            session.sent = Some(now);
            return Some(Next::Frame(Frame {
                revision: now,
                snapshot: false,
                pieces: Vec::new(),
            }));
        }
        idle.then_some(Next::Beat)
    }

    /// Begins to send a session its content: what changed since it was away, or all.
    fn start(&mut self, id: u64) -> Option<Frame> {
        let session = self.sessions.get_mut(&id)?;
        let Place::Start(held) = &mut session.place else {
            return None;
        };
        let now = self.catalog.revision();
        let held = held.take();
        if session.everything() {
            let from = held.map(|held| held.revision);
            session.place = Place::Everything;
            session.sent = Some(now);
            if let Some(from) = from
                && let Some(steps) = self.log.since(from, now)
            {
                session.sent = Some(from);
                for update in steps {
                    session.push(Frame {
                        revision: update.revision,
                        snapshot: false,
                        pieces: pieces(update),
                    });
                }
                return session.pop();
            }
            return Some(Frame {
                revision: now,
                snapshot: true,
                pieces: pieces(&self.catalog.snapshot()),
            });
        }
        session.sent = Some(now);
        let node = session.node.clone();
        let resumed = held.and_then(|held| {
            let span = self.log.span(held.revision, now)?;
            span.resume(&node, &self.catalog, &held)
        });
        let (view, frame) = if let Some((view, update)) = resumed {
            let frame = Frame {
                revision: now,
                snapshot: false,
                pieces: pieces(&update),
            };
            (view, frame)
        } else {
            let (view, need) = View::new(node, &self.catalog);
            let frame = Frame {
                revision: now,
                snapshot: true,
                pieces: self.encoded.of(&need, &self.catalog),
            };
            (view, frame)
        };
        for table in view.tables() {
            self.holders.entry(table).or_default().insert(id);
        }
        self.by_number.entry(view.number()).or_default().insert(id);
        session.place = Place::Node(Box::new(view));
        Some(frame)
    }

    pub(super) fn seen(&mut self, id: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.last_seen = std::time::Instant::now();
        }
    }

    /// A session holds what it was sent up to here. An acknowledgement of what it was never sent is none.
    pub(super) fn ack(&mut self, id: u64, revision: Revision) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        if session.sent.is_none_or(|sent| revision > sent) || session.acked >= Some(revision) {
            return false;
        }
        session.acked = Some(revision);
        if !session.everything() {
            let whom = Whom::Session(id);
            for waiter in self.waiters.values_mut() {
                waiter.acked(&whom, revision);
            }
        }
        true
    }

    /// What a replica tells of a node that it serves; `None` for one that it serves no more.
    pub(super) fn hear_of(&mut self, node: NodeName, peer: Option<Peer>, via: u64) {
        let whom = Whom::Remote(node.clone());
        if let Some(peer) = peer {
            if let Some(acked) = peer.acked {
                for waiter in self.waiters.values_mut() {
                    waiter.acked(&whom, acked);
                }
            }
            self.remote.insert(node, peer);
        } else if self.remote.get(&node).is_some_and(|known| known.via == via) {
            self.remote.remove(&node);
            self.lose(&whom);
        }
    }

    fn lose(&mut self, whom: &Whom) {
        for waiter in self.waiters.values_mut() {
            waiter.lost(whom);
        }
    }

    fn wait(&mut self, sent: Vec<u64>) -> u64 {
        let counts = |id: &u64| {
            let session = self.sessions.get(id);
            session.is_some_and(|known| known.follows() && known.is_live() && !known.everything())
        };
        let own = sent.into_iter().filter(counts).map(Whom::Session);
        let remote = self.remote.keys().cloned().map(Whom::Remote);
        let pending = own.chain(remote).collect();
        let id = self.next_waiter;
        self.next_waiter += 1;
        self.waiters
            .insert(id, Waiter::new(self.catalog.revision(), pending));
        id
    }

    /// Gives up those whom a waiter waits for and who fell silent. Whether somebody is left.
    pub(super) fn is_pending(&mut self, waiter: u64) -> bool {
        let Some(waiter) = self.waiters.get_mut(&waiter) else {
            return false;
        };
        let silent = |whom: &&Whom| match whom {
            Whom::Session(id) => self.sessions.get(id).is_none_or(|known| !known.is_live()),
            Whom::Remote(node) => {
                let via = self
                    .remote
                    .get(node)
                    .and_then(|peer| self.sessions.get(&peer.via));
                via.is_none_or(|known| !known.is_live())
            }
        };
        let silent: Vec<Whom> = waiter.pending.iter().filter(silent).cloned().collect();
        for whom in &silent {
            waiter.lost(whom);
        }
        !waiter.pending.is_empty()
    }

    pub(super) fn waiter(&self, id: u64) -> Option<&Waiter> {
        self.waiters.get(&id)
    }

    pub(super) fn end_wait(&mut self, id: u64) -> Option<Waiter> {
        self.waiters.remove(&id)
    }

    /// Asks all agents to report everything again.
    pub(super) fn ask_again(&mut self) {
        for session in self.sessions.values_mut() {
            session.again = true;
            session.wake.notify_one();
        }
    }

    /// The nodes served here, as a replica upstream hears of them: those with a live lease.
    pub(super) fn served(&self) -> FxHashMap<NodeName, (Option<Revision>, SystemTime)> {
        let now = self.catalog.revision();
        let own = self.sessions.values();
        own.filter(|session| session.is_live() && !session.everything())
            .map(|session| (session.node.clone(), (session.holds(now), session.since)))
            .collect()
    }

    /// How many live agents hold a revision, of how many.
    pub(super) fn enforced(&self, revision: Revision) -> (usize, usize) {
        let now = self.catalog.revision();
        let own = self.sessions.values();
        let own = own
            .filter(|session| !session.everything() && session.is_live())
            .map(|session| session.holds(now));
        let remote = self.remote.iter();
        let remote = remote
            .filter(|(node, _)| !self.by_name.contains_key(*node))
            .map(|(_, peer)| peer.acked);
        let (mut hold, mut all) = (0, 0);
        for acked in own.chain(remote) {
            all += 1;
            hold += usize::from(acked >= Some(revision));
        }
        (hold, all)
    }

    pub(super) fn infos(&self) -> Vec<SessionInfo> {
        let now = self.catalog.revision();
        let wall = SystemTime::now();
        let seen = |session: &Session| wall - session.last_seen.elapsed();
        let own = self.sessions.values();
        let own = own
            .filter(|session| !session.everything() && session.ended.is_none())
            .map(|session| SessionInfo {
                node: session.node.clone(),
                acked: session.holds(now),
                connected_since: session.since,
                last_seen: seen(session),
                remote: false,
            });
        let remote = self.remote.iter().map(|(node, peer)| SessionInfo {
            node: node.clone(),
            acked: peer.acked,
            connected_since: peer.since,
            last_seen: self.sessions.get(&peer.via).map_or(peer.since, seen),
            remote: true,
        });
        let mut all: Vec<SessionInfo> = own.chain(remote).collect();
        all.sort_by(|a, b| a.node.cmp(&b.node).then(b.last_seen.cmp(&a.last_seen)));
        // A node that just moved between replicas may be known of both.
        all.dedup_by(|later, first| later.node == first.node);
        all
    }
}

/// The sessions whose own content a step changes.
fn touched(
    step: &Step,
    holders: &FxHashMap<u32, FxHashSet<u64>>,
    by_number: &FxHashMap<u32, FxHashSet<u64>>,
    sessions: &FxHashMap<u64, Session>,
) -> FxHashSet<u64> {
    let tables = step.tables.keys().filter_map(|id| holders.get(id));
    let nodes = step.endpoints.keys().filter_map(|node| by_number.get(node));
    let mut touched: FxHashSet<u64> = tables.chain(nodes).flatten().copied().collect();
    if !step.numbered.is_empty() {
        let named: FxHashSet<&NodeName> = step.numbered.iter().collect();
        let new = sessions
            .iter()
            .filter(|(_, known)| named.contains(&known.node));
        touched.extend(new.map(|(id, _)| *id));
    }
    touched
}

fn unlink(index: &mut FxHashMap<u32, FxHashSet<u64>>, key: u32, id: u64) {
    if let Some(ids) = index.get_mut(&key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(&key);
        }
    }
}
