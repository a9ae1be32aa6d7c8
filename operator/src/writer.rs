//! Writes to the API server: the last wish for each object, at a bounded rate, again until it succeeds. What is wished is the core's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{TryStreamExt, stream};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    core::{Change, Object, Write},
    metrics::Metrics,
};

/// The field manager under which everything is applied.
pub const MANAGER: &str = "sluice-operator";
/// Writes under way at once, of those that others wait for.
const PARALLEL: usize = 32;
/// Writes under way at once, of those nobody waits for.
const WORKERS: usize = 8;
/// The longest pause before a write is tried again.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server said no, or nothing.
    #[error("{kind} {name}: {source}")]
    Api {
        /// The object's kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What it said.
        #[source]
        source: kube::Error,
    },
    /// An object is there with other content, or does not take what it must: somebody else leads, or led after this process last looked.
    #[error(
        "{kind} {name} is stored with other content than this process gave it: another leader was here"
    )]
    Overtaken {
        /// The object's kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

/// A write's place in the queue: an object and its status are written apart.
type Place = (Object, bool);

#[derive(Debug, Default)]
struct Queue {
    wishes: BTreeMap<Place, (Change, u32)>,
    /// Not before.
    later: BTreeMap<Place, Instant>,
    busy: BTreeSet<Place>,
}

/// Takes wishes, and sees to them as long as [`Writer::run`] runs. Clones are the same writer.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    queue: Arc<Mutex<Queue>>,
    news: Arc<Notify>,
    /// The least time between two writes.
    pace: Duration,
    metrics: Metrics,
}

impl Writer {
    /// A writer of at most `rate` writes a second.
    #[must_use]
    pub fn new(client: Client, rate: u32, metrics: Metrics) -> Self {
        Self {
            client,
            queue: Arc::default(),
            news: Arc::default(),
            pace: Duration::from_secs(1) / rate.max(1),
            metrics,
        }
    }

    /// Adds wishes; one for the same object replaces the one that waits.
    pub fn wish(&self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        let mut queue = self.queue();
        for write in writes {
            let place = (write.object, matches!(write.change, Change::ApplyStatus(_)));
            queue.later.remove(&place);
            queue.wishes.insert(place, (write.change, 0));
        }
        self.metrics
            .writes_waiting
            .set(i64::try_from(queue.wishes.len()).unwrap_or(i64::MAX));
        drop(queue);
        self.news.notify_waiters();
    }

    /// How many wishes wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue().wishes.len()
    }

    /// Sees to wishes for ever.
    pub async fn run(self) {
        let rhythm = tokio::sync::Mutex::new(Instant::now());
        let workers = (0..WORKERS).map(|_| self.work(&rhythm));
        futures::future::join_all(workers).await;
    }

    /// Does all of these now, again and again until each has succeeded.
    ///
    /// # Errors
    /// Another leader was here.
    pub async fn first(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        stream::iter(writes.into_iter().map(Ok))
            .try_for_each_concurrent(PARALLEL, |wanted| async move {
                let mut pause = Duration::from_millis(100);
                loop {
                    match self.write(&wanted).await {
                        Ok(()) => return Ok(()),
                        Err(error @ WriteError::Overtaken { .. }) => return Err(error),
                        Err(error) => {
                            tracing::warn!(%error, "a number can't be stored; what uses it waits");
                            sleep(pause).await;
                            pause = (pause * 2).min(Duration::from_secs(5));
                        }
                    }
                }
            })
            .await
    }

    async fn work(&self, rhythm: &tokio::sync::Mutex<Instant>) {
        loop {
            let news = self.news.notified();
            let Some((place, change, tries)) = self.take() else {
                // A wish that waits for its time brings no news.
                let _ = tokio::time::timeout(Duration::from_secs(1), news).await;
                continue;
            };
            {
                let mut next = rhythm.lock().await;
                sleep_until(*next).await;
                *next = Instant::now() + self.pace;
            }
            let write = Write {
                object: place.0.clone(),
                change,
            };
            let result = self.write(&write).await;
            self.done(place, write.change, tries, result);
        }
    }

    fn take(&self) -> Option<(Place, Change, u32)> {
        let mut queue = self.queue();
        let now = Instant::now();
        let ready = |place: &&Place| {
            !queue.busy.contains(*place) && queue.later.get(*place).is_none_or(|time| *time <= now)
        };
        let place = queue.wishes.keys().find(ready)?.clone();
        let (change, tries) = queue.wishes.remove(&place)?;
        queue.later.remove(&place);
        queue.busy.insert(place.clone());
        Some((place, change, tries))
    }

    fn done(&self, place: Place, change: Change, tries: u32, result: Result<(), WriteError>) {
        let mut queue = self.queue();
        queue.busy.remove(&place);
        match result {
            Ok(()) => drop(self.metrics.writes.inc()),
            Err(error) => {
                self.metrics.write_errors.inc();
                let pause = Duration::from_millis(500)
                    .saturating_mul(1 << tries.min(16))
                    .min(LONGEST_PAUSE);
                tracing::warn!(%error, ?pause, "a write failed; it is tried again");
                // What was wished meanwhile is newer.
                if !queue.wishes.contains_key(&place) {
                    queue.later.insert(place.clone(), Instant::now() + pause);
                    queue.wishes.insert(place, (change, tries + 1));
                }
            }
        }
        self.metrics
            .writes_waiting
            .set(i64::try_from(queue.wishes.len()).unwrap_or(i64::MAX));
    }

    async fn write(&self, write: &Write) -> Result<(), WriteError> {
        let object = &write.object;
        let resource = ApiResource {
            group: object.group.to_owned(),
            version: object.version.to_owned(),
            api_version: object.api_version(),
            kind: object.kind.to_owned(),
            plural: object.plural.to_owned(),
        };
        let api: Api<DynamicObject> = match &object.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let apply = PatchParams::apply(MANAGER).force();
        let result = match &write.change {
            Change::Create(value) => return self.create(&api, object, value).await,
            Change::Apply(value) => api
                .patch(&object.name, &apply, &Patch::Apply(value))
                .await
                .map(drop),
            Change::ApplyStatus(value) => api
                .patch_status(&object.name, &apply, &Patch::Apply(value))
                .await
                .map(drop),
            Change::Delete => api
                .delete(&object.name, &DeleteParams::default())
                .await
                .map(drop),
        };
        match result {
            Ok(()) => Ok(()),
            // The object, or what it belongs to, is gone: there is nothing left to write.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(kube::Error::Api(status)) if is_of_going_namespace(&status) => Ok(()),
            // The only rule over these is that a number stays.
            Err(kube::Error::Api(status)) if status.code == 422 && object.kind == "SluiceNode" => {
                Err(WriteError::Overtaken {
                    kind: object.kind,
                    name: object.name.clone(),
                })
            }
            Err(source) => Err(WriteError::Api {
                kind: object.kind,
                name: object.name.clone(),
                source,
            }),
        }
    }

    async fn create(
        &self,
        api: &Api<DynamicObject>,
        object: &Object,
        value: &serde_json::Value,
    ) -> Result<(), WriteError> {
        let failed = |source| WriteError::Api {
            kind: object.kind,
            name: object.name.clone(),
            source,
        };
        let wanted: DynamicObject = serde_json::from_value(value.clone())
            .map_err(|error| failed(kube::Error::SerdeError(error)))?;
        match api.create(&PostParams::default(), &wanted).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = api.get(&object.name).await.map_err(failed)?;
                // This process may have made it, and missed the answer.
                if found.data.get("spec") == wanted.data.get("spec") {
                    Ok(())
                } else {
                    Err(WriteError::Overtaken {
                        kind: object.kind,
                        name: object.name.clone(),
                    })
                }
            }
            Err(source) => Err(failed(source)),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Objects of a namespace that is being deleted can't be made any more.
fn is_of_going_namespace(status: &kube::core::Status) -> bool {
    status.code == 403
        && status.details.as_ref().is_some_and(|details| {
            details
                .causes
                .iter()
                .any(|cause| cause.reason == "NamespaceTerminating")
        })
}
