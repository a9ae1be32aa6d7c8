//! Talking to the engine from other threads and tasks. What it does may not enter.

use std::{
    net::IpAddr,
    sync::{Arc, mpsc::SyncSender},
    time::Instant,
};

use sluice_agent::Interface;
use sluice_datapath::{load::Attacher, net::Mac};
use sluice_stream::{Revision, Update};
use sluice_world::{PodRef, PodUid};
use tokio::sync::mpsc::Sender;
use tracing::debug;

use super::Board;
use crate::endpoint::{Datapath, Site};

/// Told when an update is in force.
pub type Acknowledge = Arc<dyn Fn(Revision) + Send + Sync>;

/// What the engine is asked for.
pub(super) enum Command {
    Attach {
        pod: PodRef,
        interface: Interface,
        done: SyncSender<Result<(), String>>,
    },
    Detach {
        pod: PodRef,
        mac: Mac,
        done: SyncSender<Result<(), String>>,
    },
    Update {
        update: Box<Update>,
        acknowledge: Acknowledge,
    },
    Tick,
    Stop {
        done: SyncSender<Result<(), String>>,
    },
}

/// A way to the engine.
#[derive(Clone)]
pub struct EngineHandle {
    pub(super) commands: Sender<Command>,
    pub(super) board: Arc<Board>,
    pub(super) attacher: Arc<Attacher>,
}

impl EngineHandle {
    /// What the engine knows.
    #[must_use]
    pub const fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Hands an update over; waits while the engine is behind. `false` if the engine has ended.
    pub async fn update(&self, update: Box<Update>, acknowledge: Acknowledge) -> bool {
        self.commands
            .send(Command::Update {
                update,
                acknowledge,
            })
            .await
            .is_ok()
    }

    /// Lets the engine do what is to be done from time to time. `false` if the engine has ended. To be called outside of tokio.
    #[must_use]
    pub fn tick(&self) -> bool {
        self.commands.blocking_send(Command::Tick).is_ok()
    }

    /// Ends the engine. What is in the kernel stays in force. To be called outside of tokio.
    ///
    /// # Errors
    /// It has ended already.
    pub fn stop(&self) -> Result<(), String> {
        self.ask(|done| Command::Stop { done })
    }

    fn ask(
        &self,
        command: impl FnOnce(SyncSender<Result<(), String>>) -> Command,
    ) -> Result<(), String> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        let ended = || "the agent is ending".to_owned();
        self.commands
            .blocking_send(command(done))
            .map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }
}

impl Datapath for EngineHandle {
    fn site(&self) -> Option<Site> {
        self.board.read(|known| known.site.clone())
    }

    fn wait_for_subject(&self, pod: &PodRef, uid: Option<PodUid>, until: Instant) -> bool {
        self.board.wait(until, |known| {
            let subject = known.subjects.get(pod);
            subject.is_some_and(|subject| PodUid::may_be(subject.uid, uid))
        })
    }

    fn attach(&self, pod: &PodRef, interface: Interface) -> Result<(), String> {
        // Not the engine's work: what it does meanwhile need not wait for the kernel's lock on interfaces.
        if let Err(error) = self.attacher.guard(interface.index) {
            debug!(%error, "no filters for an interface: its links are made at once");
            self.fasten(interface.index)?;
        }
        self.board.write(|known| {
            for address in &interface.addresses {
                known.heard.remove(address);
                known.awaited.insert(*address);
            }
        });
        let pod = pod.clone();
        self.ask(|done| Command::Attach {
            pod,
            interface,
            done,
        })
    }

    fn fasten(&self, index: u32) -> Result<(), String> {
        self.attacher
            .fasten(index)
            .map_err(|error| error.to_string())
    }

    fn release(&self, index: u32) -> Result<(), String> {
        self.attacher
            .release(index)
            .map_err(|error| error.to_string())
    }

    fn detach(&self, pod: &PodRef, mac: Mac) -> Result<(), String> {
        let pod = pod.clone();
        self.ask(|done| Command::Detach { pod, mac, done })
    }

    fn wait_for_addresses(&self, addresses: &[IpAddr], until: Instant) -> bool {
        let heard = self.board.wait(until, |known| {
            addresses
                .iter()
                .all(|address| known.heard.contains(address))
        });
        self.board.write(|known| {
            for address in addresses {
                known.awaited.remove(address);
                known.heard.remove(address);
            }
        });
        heard
    }

    fn is_in_force(&self, pod: &PodRef, uid: Option<PodUid>, index: u32) -> bool {
        self.board.read(|known| {
            let subject = known.subjects.get(pod);
            subject.is_some_and(|subject| PodUid::may_be(subject.uid, uid))
                && known.interfaces.get(pod) == Some(&index)
        })
    }
}
