//! What the engine knows, for everyone to read and to wait for. Only the engine writes most of it; deciding may not enter.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use sluice_stream::{NodeInfo, Revision, Settings};
use sluice_world::{NodeName, PodRef, PodUid};

use crate::endpoint::Site;

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    known: Mutex<Known>,
    changed: Condvar,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What interfaces need to know of this node; `None` until an operator has said it.
    pub site: Option<Site>,
    /// Pods of this node whose tables are in the kernel.
    pub subjects: BTreeMap<PodRef, Subject>,
    /// Interfaces of pods, by index, whose endpoint the engine has.
    pub interfaces: BTreeMap<PodRef, u32>,
    /// Addresses that somebody waits to hear of.
    pub awaited: BTreeSet<IpAddr>,
    /// Of the awaited, those that the operator has said something of.
    pub heard: BTreeSet<IpAddr>,
    /// What is in force.
    pub revision: Option<Revision>,
    /// Since when, of this process.
    pub since: Option<SystemTime>,
    /// All nodes.
    pub nodes: BTreeMap<NodeName, NodeInfo>,
    /// The cluster's settings.
    pub settings: Settings,
    /// How many services there are.
    pub services: usize,
    /// Tables, entries of tables, programs, identities, addresses, prefixes, endpoints and services that the operator told of.
    pub sizes: [usize; 8],
    /// How full the kernel's maps are: name, used, capacity.
    pub maps: Vec<(&'static str, u64, u64)>,
    /// Live connections.
    pub connections: usize,
    /// What is wrong, by subject.
    pub troubles: BTreeMap<&'static str, Vec<String>>,
    /// Which operator serves, or why none does.
    pub operator: Operator,
    /// When the engine last did anything.
    pub heartbeat: Option<Instant>,
    /// Whose packets the datapath sees from outside: interface names.
    pub devices: Vec<String>,
}

/// A pod whose tables are in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its identity.
    pub identity: u32,
    /// Which of the pods of its name it is, where the operator says so.
    pub uid: Option<PodUid>,
}

/// The agent's operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Operator {
    /// None has been reached yet.
    #[default]
    Unknown,
    /// This one serves.
    Connected(String),
    /// None does.
    Lost(String),
}

impl Board {
    /// Reads.
    pub fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.lock())
    }

    /// Writes, and wakes those who wait.
    pub fn write<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `done` holds; `false` if it does not in time.
    pub fn wait(&self, until: Instant, mut done: impl FnMut(&Known) -> bool) -> bool {
        let mut known = self.lock();
        while !done(&known) {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            known = self
                .changed
                .wait_timeout(known, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Sets or clears what is wrong with a subject.
    pub fn trouble(&self, subject: &'static str, what: Vec<String>) {
        self.write(|known| {
            if what.is_empty() {
                known.troubles.remove(subject);
            } else {
                known.troubles.insert(subject, what);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Whoever panicked left at worst an old fact.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Duration};

    use super::*;

    #[test]
    fn who_waits_is_woken_by_what_it_waits_for_or_gives_up() {
        let board = Arc::new(Board::default());
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(!board.wait(soon, |known| known.site.is_some()));
        let writer = Arc::clone(&board);
        let thread = thread::spawn(move || {
            writer.write(|known| known.services = 1);
            writer.write(|known| known.site = Some(Site::default()));
        });
        let later = Instant::now() + Duration::from_secs(10);
        assert!(board.wait(later, |known| known.site.is_some()));
        thread.join().unwrap();
    }

    #[test]
    fn a_trouble_is_cleared_by_an_empty_one() {
        let board = Board::default();
        board.trouble("routes", vec!["no way".to_owned()]);
        assert_eq!(board.read(|known| known.troubles.len()), 1);
        board.trouble("routes", vec![]);
        assert_eq!(board.read(|known| known.troubles.len()), 0);
    }
}
