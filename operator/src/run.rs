//! The runtime: one loop that owns the cluster, and tasks around it for everything that waits. No decision about policy is made here.
//!
//! ```text
//! watches ─▶ inputs ─┐                       ┌─▶ Writer::first ─▶ Hub::publish ─▶ (published)
//! agents ─▶ reports ─┼─▶ loop: Cluster ─ commit ┘
//! lease ─▶ standing ─┘                       └─ writes ─▶ Writer, Events
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, api::ListParams};
use sluice_crds::resources::{Identity, SluiceNode};
use sluice_stream::{Hub, Published, Revision, hub::Following};
use sluice_world::NodeName;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use crate::{
    authority,
    ca::CaStore,
    core::{AgentView, Cluster, Input, IpamError, convert},
    events::Events,
    health::{self, Health},
    lease::{self, Election, Standing},
    listen::{TlsListener, listen},
    metrics::Metrics,
    options::Options,
    serving::{Certificates, SERVER_NAME},
    token::TokenReviews,
    watch as watches, webhook,
    writer::{WriteError, Writer},
};

/// Inputs that may wait for the loop; then watches wait.
const INPUTS: usize = 4096;
/// Inputs that are taken at once.
const HANDFUL: usize = 512;
/// How often statuses of policies and endpoints are looked after.
const LOOK: Duration = Duration::from_millis(250);
/// How often those of nodes and identities are.
const SLOW_LOOK: Duration = Duration::from_secs(10);
/// With more writes waiting, none are added.
const MAX_WAITING: usize = 2000;
/// How long an orderly end may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the operator ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another replica leads now; this one starts anew as a follower.
    #[error(
        "the leader's lease is lost: this process ends, so that the next one starts with fresh eyes"
    )]
    LeaseLost,
    /// Another leader wrote what this one was about to.
    #[error(transparent)]
    Overtaken(#[from] WriteError),
    /// A task that should never end did.
    #[error("{0} ended by itself")]
    Ended(&'static str),
    /// An address can't be listened on.
    #[error(transparent)]
    Listen(#[from] io::Error),
    /// A pool makes no sense.
    #[error(transparent)]
    Ipam(#[from] IpamError),
}

/// Runs until `stop` says so.
///
/// # Errors
/// See [`RunError`]: none is to be retried within the process.
pub async fn run(
    options: Options,
    client: Client,
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let metrics = Metrics::default();
    let health = Health::default();
    let certificates = Arc::new(Certificates::default());
    let bundle = Arc::new(Mutex::new(String::new()));
    let leader = Arc::new(Mutex::new(None));
    let hub = Hub::new(0);
    let cluster = Cluster::new(options.config()?, watches::required_kinds());
    let writer = Writer::new(client.clone(), options.write_rate, metrics.clone());
    let stream = listen(options.stream_listen).await?;
    let own = SocketAddr::new(options.address, stream.local_addr()?.port());
    let (election, standing) = Election::new(client.clone(), lease_settings(&options, own));

    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    serve_health(&options, &health, &metrics, &mut tasks).await?;
    serve_webhook(&options, &certificates, &metrics, &mut tasks).await?;
    serve_agents(
        &options,
        &client,
        &hub,
        stream,
        &certificates,
        &metrics,
        &stop,
        &mut tasks,
    );
    tasks.spawn(writer.clone().run().map(|()| "the writer"));
    tasks.spawn(
        authority::keep(
            CaStore::new(client.clone(), &options.namespace),
            client.clone(),
            options.clone(),
            Arc::clone(&certificates),
            Arc::clone(&bundle),
            standing.clone(),
        )
        .map(|()| "the keeper of certificates"),
    );
    let following = follow(&hub, &options, own, &leader, &bundle);

    let (sender, inputs) = mpsc::channel(INPUTS);
    let turning = Loop {
        cluster,
        hub,
        writer,
        events: Events::new(client.clone(), options.pod_name.clone()),
        metrics: metrics.clone(),
        health,
        certificates,
        leader,
        following: Some(following),
        election: Some(election),
        client: client.clone(),
        gather: Duration::from_millis(options.gather),
        announced: false,
        farewell: None,
    };
    let namespace = options.namespace.clone();
    tasks.spawn(async move {
        // Watches end with the set, and the set with this task.
        let mut running = watches::start(&client, &namespace, &sender, &metrics).await;
        // Known by now are all kinds that are installed: only now may the core trust its list of lists.
        let _ = sender
            .send(Input::Listed(crate::core::Kind::Discovery))
            .await;
        drop(sender);
        running.join_next().await;
        "a watch"
    });
    let turning = turning.run(inputs, standing, stop.clone());
    tokio::pin!(turning);
    let result = loop {
        tokio::select! {
            result = &mut turning => break result,
            Some(ended) = tasks.join_next() => {
                // Told to end, servers do so before the loop has given back the lease.
                if !*stop.borrow() {
                    break Err(RunError::Ended(ended.unwrap_or("a task that panicked")));
                }
            }
        }
    };
    // What is left of the sessions' last words.
    let _ = timeout(Duration::from_millis(500), tasks.join_next()).await;
    result
}

fn lease_settings(options: &Options, own: SocketAddr) -> lease::Settings {
    // The pod's name outlives its containers: with the start time no two processes are the same.
    let started = Timestamp::now().as_millisecond();
    lease::Settings {
        namespace: options.namespace.clone(),
        name: "sluice-operator".to_owned(),
        identity: format!("{}_{started:x}", options.pod_name),
        address: own,
        duration: Duration::from_secs(options.lease_duration),
        renew: Duration::from_secs(
            options
                .lease_renew
                .min(options.lease_duration.saturating_sub(1)),
        ),
        retry: Duration::from_secs(options.lease_retry.max(1)),
    }
}

async fn serve_health(
    options: &Options,
    health: &Health,
    metrics: &Metrics,
    tasks: &mut JoinSet<&'static str>,
) -> Result<(), RunError> {
    let listener = listen(options.health_listen).await?;
    let router = health::router(health.clone(), metrics.clone());
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "health and metrics can't be served");
        }
        "the health server"
    });
    Ok(())
}

async fn serve_webhook(
    options: &Options,
    certificates: &Arc<Certificates>,
    metrics: &Metrics,
    tasks: &mut JoinSet<&'static str>,
) -> Result<(), RunError> {
    let listener = TlsListener::new(
        listen(options.webhook_listen).await?,
        Arc::clone(certificates),
    )?;
    let router = webhook::router(metrics.clone());
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the webhook can't be served");
        }
        "the webhook"
    });
    Ok(())
}

#[expect(
    clippy::too_many_arguments,
    reason = "everything an agent meets comes together here, once"
)]
fn serve_agents(
    options: &Options,
    client: &Client,
    hub: &Hub,
    listener: tokio::net::TcpListener,
    certificates: &Arc<Certificates>,
    metrics: &Metrics,
    stop: &watch::Receiver<bool>,
    tasks: &mut JoinSet<&'static str>,
) {
    let reviews = TokenReviews::new(
        client.clone(),
        &options.namespace,
        &options.agent_account,
        &options.operator_account,
        metrics.clone(),
    );
    let tls = sluice_stream::TlsConfig::resolved_by(Arc::clone(certificates) as _);
    let mut stop = stop.clone();
    let shutdown = async move {
        lease::told(&mut stop).await;
    };
    let served = sluice_stream::serve(
        hub.clone(),
        listener,
        Some(tls),
        Arc::new(reviews),
        shutdown,
    );
    tasks.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "agents can't be served");
        }
        "the agents' server"
    });
}

/// Follows whoever leads, as long as the value lives.
fn follow(
    hub: &Hub,
    options: &Options,
    own: SocketAddr,
    leader: &Arc<Mutex<Option<SocketAddr>>>,
    bundle: &Arc<Mutex<String>>,
) -> Following {
    let leader = Arc::clone(leader);
    let bundle = Arc::clone(bundle);
    let token = options.token_file.clone();
    hub.follow(sluice_stream::Options {
        node: NodeName(sluice_stream::EVERY_NODE.to_owned()),
        addresses: Arc::new(move || {
            let leader = *leader.lock().unwrap_or_else(PoisonError::into_inner);
            // A lease of this pod's process before this one names this address.
            leader
                .filter(|leader| *leader != own)
                .map(|leader| vec![leader])
                .ok_or_else(|| "nobody else leads".to_owned())
        }),
        ca: Some(Arc::new(move || {
            let bundle = bundle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if bundle.is_empty() {
                return Err("the leader has not made certificates yet".to_owned());
            }
            Ok(bundle)
        })),
        server_name: SERVER_NAME.to_owned(),
        token: Arc::new(move || {
            std::fs::read_to_string(&token)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("the token {}: {error}", token.display()))
        }),
        resume: None,
    })
}

type Publication = BoxFuture<'static, Result<(Revision, Option<Published>), WriteError>>;

/// The loop, and all it owns.
struct Loop {
    cluster: Cluster,
    hub: Hub,
    writer: Writer,
    events: Events,
    metrics: Metrics,
    health: Health,
    certificates: Arc<Certificates>,
    leader: Arc<Mutex<Option<SocketAddr>>>,
    following: Option<Following>,
    /// Until everything is listed: who knows nothing shall not lead.
    election: Option<Election>,
    client: Client,
    gather: Duration,
    /// Something has been published by this leader.
    announced: bool,
    farewell: Option<tokio::task::JoinHandle<()>>,
}

impl Loop {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut standing: watch::Receiver<Standing>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), RunError> {
        let mut reports = self.hub.reports();
        let mut handful = Vec::with_capacity(HANDFUL);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slow_look = interval(SLOW_LOOK);
        slow_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When the next commit is due.
        let mut due: Option<Instant> = None;
        let mut publication: Option<Publication> = None;
        let stopping = stop.clone();
        loop {
            tokio::select! {
                () = lease::told(&mut stop) => {
                    if let Some(farewell) = self.farewell.take() {
                        let _ = timeout(FAREWELL, farewell).await;
                    }
                    return Ok(());
                }
                count = inputs.recv_many(&mut handful, HANDFUL) => {
                    if count == 0 {
                        return Err(RunError::Ended("the watches"));
                    }
                    for input in handful.drain(..) {
                        self.cluster.apply(input);
                    }
                }
                Some((node, report)) = reports.recv() => self.cluster.apply(Input::Report(node, report)),
                Ok(()) = standing.changed() => {
                    let now = *standing.borrow_and_update();
                    self.stand(now).await?;
                }
                result = wait_for(&mut publication), if publication.is_some() => {
                    publication = None;
                    self.published(result?);
                }
                () = wait_until(due), if due.is_some() && publication.is_none() => {
                    due = None;
                    publication = Some(self.commit());
                }
                _ = look.tick() => self.look(),
                _ = slow_look.tick() => self.look_slowly(),
            }
            if self.cluster.listing().is_empty()
                && let Some(election) = self.election.take()
            {
                tracing::info!(counts = ?self.cluster.counts(), "everything is listed");
                self.farewell = Some(tokio::spawn(election.run(stopping.clone())));
            }
            if due.is_none() && self.can_commit() {
                due = Some(Instant::now() + self.gather);
            }
        }
    }

    fn can_commit(&self) -> bool {
        self.cluster.leads() && self.cluster.listing().is_empty() && self.cluster.is_dirty()
    }

    async fn stand(&mut self, standing: Standing) -> Result<(), RunError> {
        match standing {
            Standing::Follows(leader) => {
                *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
            }
            Standing::Leads(epoch) => {
                self.catch_up().await;
                self.following = None;
                self.cluster.lead(Timestamp::now());
                self.hub.lead(epoch);
                self.metrics.leader.set(1);
                self.metrics
                    .epoch
                    .set(i64::try_from(epoch).unwrap_or(i64::MAX));
            }
            Standing::Lost => return Err(RunError::LeaseLost),
        }
        Ok(())
    }

    /// Reads the numbers that the leader before has stored: the watch may not have told of the last of them.
    async fn catch_up(&mut self) {
        let identities: Api<Identity> = Api::all(self.client.clone());
        let nodes: Api<SluiceNode> = Api::all(self.client.clone());
        let everything = ListParams::default();
        loop {
            match futures::try_join!(identities.list(&everything), nodes.list(&everything)) {
                Ok((identities, nodes)) => {
                    for identity in identities {
                        self.cluster.apply(convert::identity(identity));
                    }
                    for node in nodes {
                        self.cluster.apply(convert::record(node));
                    }
                    return;
                }
                Err(error) => {
                    // Without them numbers might be given out twice. The lease runs out if this goes on.
                    tracing::warn!(%error, "stored numbers can't be read");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Compiles what has changed. What follows is done while more is taken in.
    fn commit(&mut self) -> Publication {
        let begun = Instant::now();
        let (cluster, now) = (&mut self.cluster, Timestamp::now());
        // A first commit of a large cluster takes a second; agents' sessions must not wait for it.
        let step = tokio::task::block_in_place(|| cluster.commit(now));
        self.metrics.commits.inc();
        self.metrics
            .commit_seconds
            .observe(begun.elapsed().as_secs_f64());
        for error in &step.errors {
            self.metrics.compile_errors.inc();
            tracing::error!(error, "not compiled; what it concerns is denied");
        }
        let (writer, hub) = (self.writer.clone(), self.hub.clone());
        let metrics = self.metrics.clone();
        async move {
            writer.first(step.first).await?;
            let Some(batch) = step.batch else {
                return Ok((hub.revision(), None));
            };
            let published = hub.publish(batch).await;
            metrics
                .publish_seconds
                .observe(begun.elapsed().as_secs_f64());
            Ok((published.revision, Some(published)))
        }
        .boxed()
    }

    fn published(&mut self, (revision, published): (Revision, Option<Published>)) {
        self.announced = true;
        self.metrics
            .revision
            .set(i64::try_from(revision.number).unwrap_or(i64::MAX));
        self.cluster.published(revision, Timestamp::now());
        if let Some(published) = published {
            tracing::debug!(
                %revision,
                steps = published.steps,
                acknowledged = published.acknowledged,
                of = published.of,
                waited = ?published.waited,
                "published"
            );
        }
        self.look();
    }

    fn look(&mut self) {
        self.health.turned(self.missing());
        let agents = self.agents();
        self.measure(&agents);
        if !self.cluster.leads() {
            return;
        }
        let budget = MAX_WAITING.saturating_sub(self.writer.waiting());
        let (writes, notices) = self.cluster.writes(&agents, Timestamp::now(), budget);
        self.writer.wish(writes);
        self.events.publish(notices);
    }

    fn look_slowly(&mut self) {
        if self.writer.waiting() < MAX_WAITING {
            let agents = self.agents();
            self.writer
                .wish(self.cluster.slow_writes(&agents, Timestamp::now()));
        }
    }

    fn agents(&self) -> AgentView {
        let sessions = self.hub.sessions().into_iter();
        AgentView {
            sessions: sessions
                .map(|session| (session.node, session.acked))
                .collect(),
        }
    }

    fn measure(&self, agents: &AgentView) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let counts = self.cluster.counts();
        let metrics = &self.metrics;
        metrics.listing.set(count(self.cluster.listing().len()));
        metrics.agents.set(count(agents.sessions.len()));
        metrics.nodes.set(count(counts.nodes));
        metrics.pods.set(count(counts.pods));
        metrics.services.set(count(counts.services));
        metrics.policies.set(count(counts.policies));
        metrics.invalid_policies.set(count(counts.invalid_policies));
        metrics.pending_policies.set(count(counts.pending_policies));
        metrics.identities.set(count(counts.identities));
        let revision = self.hub.revision();
        let behind = agents.sessions.values().map(|acked| {
            let same_epoch = acked.filter(|acked| acked.epoch == revision.epoch);
            revision
                .number
                .saturating_sub(same_epoch.map_or(0, |acked| acked.number))
        });
        metrics
            .agents_behind
            .set(i64::try_from(behind.max().unwrap_or(0)).unwrap_or(i64::MAX));
    }

    /// What agents can't be served well without.
    fn missing(&self) -> Vec<String> {
        let mut missing: Vec<String> = self
            .cluster
            .listing()
            .iter()
            .map(|kind| format!("{kind:?} is not listed yet"))
            .collect();
        if !self.certificates.are_there() {
            missing.push("there is no certificate yet".to_owned());
        }
        if self.cluster.leads() && !self.announced {
            missing.push("nothing is published yet".to_owned());
        }
        if !self.cluster.leads() && self.hub.revision() == Revision::default() {
            missing.push("nothing has come from the leader yet".to_owned());
        }
        missing
    }
}

async fn wait_for<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
