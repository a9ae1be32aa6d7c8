//! Watches: objects of the API server as inputs of the core, one task per kind. What inputs mean may not enter.
//!
//! Lists are streamed where the server can. Everything that the core does not need is dropped here, object by object.

mod resources;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::DynamicObject,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use sluice_crds::resources::{Identity, SluiceEndpoint, SluiceNode};
use sluice_world::BuildError;
use tokio::{
    sync::mpsc::Sender,
    task::{AbortHandle, JoinSet},
};

use crate::{
    core::{Input, Kind, LAST_VALID_LABEL, convert},
    metrics::Metrics,
    pause::Pauses,
};

pub use resources::{POLICY_RESOURCES, PolicyResource};

/// How often it is looked which kinds of others are installed.
const DISCOVERY: Duration = Duration::from_secs(30);
/// The pause after a failed look.
const RETRY: Duration = Duration::from_secs(2);

/// Where watches put what they find.
#[derive(Clone)]
struct Sink {
    kind: Kind,
    inputs: Sender<Input>,
    metrics: Metrics,
}

/// Kinds that are watched in every cluster; a core waits for their lists.
#[must_use]
pub fn required_kinds() -> Vec<Kind> {
    let policies = (0..POLICY_RESOURCES.len())
        .filter(|place| !POLICY_RESOURCES[*place].optional)
        .map(Kind::Policy);
    [
        Kind::Namespace,
        Kind::Pod,
        Kind::Node,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Identity,
        Kind::SluiceNode,
        Kind::SluiceEndpoint,
        Kind::LastValid,
        Kind::Discovery,
    ]
    .into_iter()
    .chain(policies)
    .collect()
}

/// Watches everything until dropped. Returns once it is known which kinds of others are installed: each is announced to the core before
/// this returns, so that it commits nothing without them.
pub async fn start(
    client: &Client,
    namespace: &str,
    inputs: &Sender<Input>,
    metrics: &Metrics,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let sink = |kind| Sink {
        kind,
        inputs: inputs.clone(),
        metrics: metrics.clone(),
    };
    tasks.spawn(watch(
        Api::<Namespace>::all(client.clone()),
        sink(Kind::Namespace),
        None,
        |object| vec![(convert::namespace(object), None)],
    ));
    tasks.spawn(watch(
        Api::<Pod>::all(client.clone()),
        sink(Kind::Pod),
        None,
        |object| vec![convert::pod(&object)],
    ));
    tasks.spawn(watch(
        Api::<Node>::all(client.clone()),
        sink(Kind::Node),
        None,
        |object| vec![convert::node(&object)],
    ));
    tasks.spawn(watch(
        Api::<Service>::all(client.clone()),
        sink(Kind::Service),
        None,
        |object| vec![convert::service(&object)],
    ));
    tasks.spawn(watch(
        Api::<EndpointSlice>::all(client.clone()),
        sink(Kind::EndpointSlice),
        None,
        |object| convert::slice(&object).into_iter().collect(),
    ));
    tasks.spawn(watch(
        Api::<Identity>::all(client.clone()),
        sink(Kind::Identity),
        None,
        |object| vec![(convert::identity(object), None)],
    ));
    tasks.spawn(watch(
        Api::<SluiceNode>::all(client.clone()),
        sink(Kind::SluiceNode),
        None,
        |object| vec![(convert::record(object), None)],
    ));
    tasks.spawn(watch(
        Api::<SluiceEndpoint>::all(client.clone()),
        sink(Kind::SluiceEndpoint),
        None,
        |object| vec![(convert::endpoint(object), None)],
    ));
    tasks.spawn(watch(
        Api::<ConfigMap>::namespaced(client.clone(), namespace),
        sink(Kind::LastValid),
        Some(format!("{LAST_VALID_LABEL}=true")),
        |object| {
            last_valid(object)
                .into_iter()
                .map(|input| (input, None))
                .collect()
        },
    ));
    for (place, resource) in POLICY_RESOURCES.iter().enumerate() {
        if !resource.optional {
            let sink = sink(Kind::Policy(place));
            tasks.spawn(watch_policies(
                client.clone(),
                *resource,
                resource.versions[0],
                sink,
            ));
        }
    }
    let mut guests = Guests {
        client: client.clone(),
        inputs: inputs.clone(),
        metrics: metrics.clone(),
        running: HashMap::new(),
    };
    while let Err(error) = guests.look().await {
        tracing::warn!(%error, "can't see which kinds of policies are installed; trying again");
        tokio::time::sleep(RETRY).await;
    }
    tasks.spawn(guests.run());
    tasks
}

/// Kinds of others: watched while they are installed.
struct Guests {
    client: Client,
    inputs: Sender<Input>,
    metrics: Metrics,
    /// By place: the version that is watched.
    running: HashMap<usize, (&'static str, AbortHandle)>,
}

impl Drop for Guests {
    fn drop(&mut self) {
        for (_, task) in self.running.values() {
            task.abort();
        }
    }
}

impl Guests {
    async fn run(mut self) {
        loop {
            tokio::time::sleep(DISCOVERY).await;
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "can't see which kinds of policies are installed");
            }
        }
    }

    /// Starts and ends watches as kinds come and go.
    async fn look(&mut self) -> Result<(), kube::Error> {
        let mut served: HashMap<String, Vec<String>> = HashMap::new();
        for group in guest_groups() {
            let kinds = match self.client.list_api_group_resources(&group).await {
                Ok(list) => list
                    .resources
                    .into_iter()
                    .map(|resource| resource.kind)
                    .collect(),
                Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
                Err(error) => return Err(error),
            };
            served.insert(group, kinds);
        }
        for (place, resource) in POLICY_RESOURCES.iter().enumerate() {
            if !resource.optional {
                continue;
            }
            // What is watched already goes on as long as it can.
            let running = self.running.get(&place).map(|(version, _)| *version);
            let version = resource.served_version(running, &served);
            self.set(place, *resource, version).await;
        }
        Ok(())
    }

    async fn set(&mut self, place: usize, resource: PolicyResource, version: Option<&'static str>) {
        let running = self.running.get(&place).map(|(version, _)| *version);
        if running == version {
            return;
        }
        if let Some((_, task)) = self.running.remove(&place) {
            // The task tells the core that all its objects are gone, on its way out.
            task.abort();
            tracing::info!(kind = resource.kind, "no longer installed");
        }
        let Some(version) = version else { return };
        tracing::info!(kind = resource.kind, version, "installed: it is read");
        let kind = Kind::Policy(place);
        // A core that is gone wants none.
        let _ = self.inputs.send(Input::Listing(kind)).await;
        let sink = Sink {
            kind,
            inputs: self.inputs.clone(),
            metrics: self.metrics.clone(),
        };
        let task = tokio::spawn(watch_policies(self.client.clone(), resource, version, sink));
        self.running.insert(place, (version, task.abort_handle()));
    }
}

/// Groups with versions that kinds of others are in.
fn guest_groups() -> BTreeSet<String> {
    let optional = POLICY_RESOURCES.iter().filter(|resource| resource.optional);
    optional
        .flat_map(|resource| {
            resource
                .versions
                .iter()
                .map(|version| format!("{}/{version}", resource.group))
        })
        .collect()
}

async fn watch_policies(
    client: Client,
    resource: PolicyResource,
    version: &'static str,
    sink: Sink,
) {
    let api = resource.api(version);
    let api_version = api.api_version.clone();
    watch(
        Api::<DynamicObject>::all_with(client, &api),
        sink,
        None,
        move |object: DynamicObject| {
            let key = resource.key(&object.metadata);
            vec![(
                convert::policy(key, &api_version, &object.metadata, object.data),
                None,
            )]
        },
    )
    .await;
}

/// What a `ConfigMap` holds of a policy that was valid last; nothing where somebody else wrote it.
fn last_valid(object: ConfigMap) -> Option<Input> {
    let mut data = object.data?;
    let (kind, name) = (data.remove("kind")?, data.remove("name")?);
    let key = PolicyResource::key_of(&kind, data.remove("namespace"), name)?;
    Some(Input::LastValid(key, Some(data.remove("policy")?)))
}

/// An object that the watch has told of: in which list it was last, and how to say that it is gone.
struct Known {
    list: u64,
    gone: Input,
}

/// Objects that were told of and are to be told gone, when the list lacks them or the watch ends.
struct Told {
    kind: Kind,
    inputs: Sender<Input>,
    known: HashMap<(Option<String>, String), Known>,
}

impl Drop for Told {
    /// The kind is not installed any more: none of its objects holds. (At the end of the process nobody listens.)
    fn drop(&mut self) {
        let mut gone: Vec<Input> = self.known.drain().map(|(_, known)| known.gone).collect();
        // Nobody is to wait for the list of a kind that is not there.
        gone.push(Input::Listed(self.kind));
        let inputs = self.inputs.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for input in gone {
                    if inputs.send(input).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
}

/// Watches one kind for ever.
async fn watch<K, F>(api: Api<K>, sink: Sink, labels: Option<String>, mut convert: F)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: FnMut(K) -> Vec<(Input, Option<BuildError>)>,
{
    let mut told = Told {
        kind: sink.kind,
        inputs: sink.inputs.clone(),
        known: HashMap::new(),
    };
    let mut list = 0;
    let mut streamed = true;
    loop {
        let mut config = watcher::Config::default();
        config.label_selector.clone_from(&labels);
        if streamed {
            config = config.streaming_lists();
        }
        let mut events = watcher(api.clone(), config)
            .backoff(Pauses::default())
            .boxed();
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) if streamed && refuses_streaming(&error) => {
                    tracing::debug!(kind = ?sink.kind, "the server can't stream lists; they are read page by page");
                    streamed = false;
                    break;
                }
                Err(error) => {
                    sink.metrics.watch_errors.inc();
                    tracing::warn!(kind = ?sink.kind, %error, "the watch failed; trying again");
                    continue;
                }
            };
            let carries_on = match event {
                Event::Init => {
                    list += 1;
                    true
                }
                Event::InitApply(object) | Event::Apply(object) => {
                    tell(&sink, &mut told, list, object, &mut convert).await
                }
                Event::Delete(object) => forget(&sink, &mut told, object.meta()).await,
                Event::InitDone => sweep(&sink, &mut told, list).await,
            };
            if !carries_on {
                return;
            }
        }
    }
}

/// Tells of an object. `false`: nobody listens any more.
async fn tell<K: Resource>(
    sink: &Sink,
    told: &mut Told,
    list: u64,
    object: K,
    convert: &mut impl FnMut(K) -> Vec<(Input, Option<BuildError>)>,
) -> bool {
    let key = (
        object.meta().namespace.clone(),
        object.meta().name.clone().unwrap_or_default(),
    );
    for (input, error) in convert(object) {
        if let Some(error) = error {
            tracing::warn!(%error, "the object can't be read: it counts as absent");
        }
        sink.metrics.watch_events.inc();
        if let Some(gone) = input.gone() {
            told.known.insert(key.clone(), Known { list, gone });
        }
        if sink.inputs.send(input).await.is_err() {
            return false;
        }
    }
    true
}

async fn forget(sink: &Sink, told: &mut Told, metadata: &ObjectMeta) -> bool {
    let key = (
        metadata.namespace.clone(),
        metadata.name.clone().unwrap_or_default(),
    );
    sink.metrics.watch_events.inc();
    match told.known.remove(&key) {
        Some(known) => sink.inputs.send(known.gone).await.is_ok(),
        None => true,
    }
}

/// The list is complete: what it lacks is gone.
async fn sweep(sink: &Sink, told: &mut Told, list: u64) -> bool {
    let gone: Vec<_> = told
        .known
        .iter()
        .filter(|(_, known)| known.list != list)
        .map(|(key, _)| key.clone())
        .collect();
    for key in gone {
        if let Some(known) = told.known.remove(&key)
            && sink.inputs.send(known.gone).await.is_err()
        {
            return false;
        }
    }
    sink.inputs.send(Input::Listed(sink.kind)).await.is_ok()
}

/// Whether the server does not know, or does not allow, `sendInitialEvents`.
fn refuses_streaming(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => {
            matches!(status.code, 400 | 422)
        }
        watcher::Error::WatchError(status) => matches!(status.code, 400 | 422),
        _ => false,
    }
}
