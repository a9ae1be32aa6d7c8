//! What is done about an interface when the runtime has its answer: the kernel takes its time for it, and holds the lock that every
//! request needs. What is done may not enter.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sluice_cni::protocol::AttachmentId;

/// Requests come together: nothing is begun until none has been there for as long.
const QUIET: Duration = Duration::from_millis(20);
/// A node that is never quiet does it nonetheless.
const OVERDUE: Duration = Duration::from_secs(2);
/// What failed is tried again after as long.
const AGAIN: Duration = Duration::from_secs(5);

/// What is left to do about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// Name of the node's end.
    pub(super) host_name: String,
    /// Its index.
    pub(super) index: u32,
    /// What is to be done.
    pub(super) what: What,
}

/// See [`Task`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Its programs are to be fastened.
    Fasten,
    /// It is no endpoint any more, and is to be removed.
    Remove,
}

/// Tasks that wait, one for each interface.
#[derive(Debug)]
pub(super) struct Later {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug)]
struct Waiting {
    tasks: VecDeque<Entry>,
    requests: usize,
    last_request: Instant,
}

#[derive(Debug)]
struct Entry {
    id: AttachmentId,
    task: Task,
    since: Instant,
}

impl Default for Later {
    fn default() -> Self {
        let waiting = Waiting {
            tasks: VecDeque::new(),
            requests: 0,
            last_request: Instant::now(),
        };
        Self {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
        }
    }
}

impl Later {
    /// Says that a request is being answered, for as long as the returned value lives.
    pub(super) fn request(&self) -> Request<'_> {
        self.lock().requests += 1;
        Request(self)
    }

    /// Leaves a task, in place of the interface's one before.
    pub(super) fn put(&self, id: &AttachmentId, task: Task) {
        self.put_at(id, task, Instant::now());
    }

    /// Leaves a task that failed.
    pub(super) fn put_again(&self, id: &AttachmentId, task: Task) {
        self.put_at(id, task, Instant::now() + AGAIN);
    }

    /// Takes the interface's task out. Only whoever has the interface's turn may.
    pub(super) fn take(&self, id: &AttachmentId) -> Option<Task> {
        let mut waiting = self.lock();
        let at = waiting.tasks.iter().position(|entry| entry.id == *id)?;
        waiting.tasks.remove(at).map(|entry| entry.task)
    }

    /// The interfaces that have a task.
    pub(super) fn all(&self) -> Vec<AttachmentId> {
        let waiting = self.lock();
        waiting.tasks.iter().map(|entry| entry.id.clone()).collect()
    }

    /// Waits until it is time for a task, and returns whose.
    pub(super) fn next(&self) -> AttachmentId {
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            let Some(due) = waiting.due() else {
                waiting = self
                    .changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if due.at <= now {
                return due.id;
            }
            waiting = self
                .changed
                .wait_timeout(waiting, due.at - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn put_at(&self, id: &AttachmentId, task: Task, since: Instant) {
        let mut waiting = self.lock();
        waiting.tasks.retain(|entry| entry.id != *id);
        waiting.tasks.push_back(Entry {
            id: id.clone(),
            task,
            since,
        });
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No step leaves it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that is next, and when its time comes if nothing happens before.
struct Due {
    id: AttachmentId,
    at: Instant,
}

impl Waiting {
    fn due(&self) -> Option<Due> {
        let first = self.tasks.iter().min_by_key(|entry| entry.since)?;
        let overdue = first.since + OVERDUE;
        let quiet = if self.requests == 0 {
            (self.last_request + QUIET).max(first.since)
        } else {
            overdue
        };
        Some(Due {
            id: first.id.clone(),
            at: quiet.min(overdue),
        })
    }
}

/// A request that is being answered.
pub(super) struct Request<'a>(&'a Later);

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.requests -= 1;
        waiting.last_request = Instant::now();
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str) -> AttachmentId {
        AttachmentId {
            container: container.to_owned(),
            interface: "eth0".to_owned(),
        }
    }

    fn task(what: What) -> Task {
        Task {
            host_name: "slu0".to_owned(),
            index: 7,
            what,
        }
    }

    #[test]
    fn an_interface_has_one_task_and_the_last_one_counts() {
        let later = Later::default();
        later.put(&id("a"), task(What::Fasten));
        later.put(&id("b"), task(What::Fasten));
        later.put(&id("a"), task(What::Remove));
        assert_eq!(later.all(), [id("b"), id("a")]);
        assert_eq!(later.take(&id("a")), Some(task(What::Remove)));
        assert_eq!(later.take(&id("a")), None);
        assert_eq!(later.next(), id("b"));
    }

    #[test]
    fn a_request_comes_first_until_the_task_is_overdue() {
        let later = Later::default();
        later.put(&id("a"), task(What::Fasten));
        let waits = || later.lock().due().unwrap().at;
        assert!(waits() <= Instant::now() + QUIET);
        let request = later.request();
        assert!(waits() > Instant::now() + OVERDUE / 2);
        drop(request);
        assert!(waits() <= Instant::now() + QUIET);
    }

    #[test]
    fn what_failed_waits_longer_than_what_is_new() {
        let later = Later::default();
        later.put_again(&id("a"), task(What::Remove));
        later.put(&id("b"), task(What::Remove));
        assert_eq!(later.next(), id("b"));
        later.take(&id("b"));
        assert!(later.lock().due().unwrap().at > Instant::now() + AGAIN / 2);
    }
}
