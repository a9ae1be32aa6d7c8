//! A replica that does not lead: it mirrors the leader's hub for its own agents, and passes on what they say.

use std::time::{Duration, SystemTime};

use rustc_hash::FxHashMap;
use sluice_world::NodeName;
use tokio::{sync::watch, task::JoinHandle};

use super::{Hub, state::Role};
use crate::{
    EVERY_NODE,
    catalog::Held,
    client::{Event, Handle, Options, PeerNews, Subscription},
    types::{Revision, Update},
};

/// How long acknowledgements are gathered before they are passed on.
const GATHER: Duration = Duration::from_millis(2);
/// How often it is looked whose lease ran out.
const LOOK: Duration = Duration::from_secs(1);

/// A hub that follows another, until this is dropped.
#[derive(Debug)]
pub struct Following {
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hub {
    /// Follows another operator's hub until the value is dropped: serves its content, and passes acknowledgements and reports on.
    /// Only the ways to reach it count of the options; it comes back to where it was where it can. To be called within a tokio runtime.
    #[must_use]
    pub fn follow(&self, mut options: Options) -> Following {
        options.node = NodeName(EVERY_NODE.to_owned());
        options.resume = {
            let state = self.state();
            state.ready.then(|| Held {
                revision: state.catalog.revision(),
                ..Held::default()
            })
        };
        let subscription = Subscription::start(options.clone());
        let handle = subscription.handle();
        self.state().role = Role::Follower {
            upstream: handle.clone(),
        };
        let follower = Follower {
            hub: self.clone(),
            handle,
            options,
            told: FxHashMap::default(),
            connected: false,
        };
        Following {
            task: tokio::spawn(follower.run(subscription)),
        }
    }
}

struct Follower {
    hub: Hub,
    handle: Handle,
    options: Options,
    /// What upstream knows of our nodes.
    told: FxHashMap<NodeName, (Option<Revision>, SystemTime)>,
    connected: bool,
}

impl Follower {
    async fn run(mut self, mut subscription: Subscription) {
        let mut changes = self.hub.changes();
        loop {
            tokio::select! {
                event = subscription.next() => {
                    if !self.event(event) {
                        // Steps are missing: only a whole state helps.
                        self.options.resume = None;
                        subscription = Subscription::start(self.options.clone());
                        self.handle = subscription.handle();
                        self.connected = false;
                        let upstream = self.handle.clone();
                        self.hub.state().role = Role::Follower { upstream };
                    }
                }
                () = settled(&mut changes), if self.connected => self.tell(),
            }
        }
    }

    /// `false`: the stream makes no sense any more.
    fn event(&mut self, event: Event) -> bool {
        match event {
            Event::Connected { to } => {
                tracing::info!(%to, "following");
                self.told.clear();
                self.connected = true;
                self.tell();
                self.hub.state().ask_again();
            }
            Event::ReportAgain => self.hub.state().ask_again(),
            Event::Disconnected { why } => {
                tracing::warn!(why, "not following anyone");
                self.connected = false;
            }
            Event::Update(update) => return self.update(*update),
        }
        true
    }

    fn update(&self, update: Update) -> bool {
        let revision = update.revision;
        let taken = {
            let mut state = self.hub.state();
            // Whoever leads meanwhile mirrors nobody.
            matches!(state.role, Role::Leader { .. }) || state.mirror(update)
        };
        self.hub.changed();
        self.handle.ack(revision);
        taken
    }

    /// Tells upstream what changed of our nodes since it was told.
    fn tell(&mut self) {
        let served = self.hub.state().served();
        let mut news: Vec<PeerNews> = Vec::new();
        for (node, now) in &served {
            if self.told.get(node) != Some(now) {
                news.push((node.clone(), Some(*now)));
            }
        }
        for node in self.told.keys().filter(|node| !served.contains_key(*node)) {
            news.push((node.clone(), None));
        }
        if !news.is_empty() {
            self.handle.peers(&news);
            self.told = served;
        }
    }
}

/// Returns a little after something changed, or when it is time to look anyway.
async fn settled(changes: &mut watch::Receiver<u64>) {
    if let Ok(Ok(())) = tokio::time::timeout(LOOK, changes.changed()).await {
        tokio::time::sleep(GATHER).await;
        changes.mark_unchanged();
    }
}
