//! The subscribing side: finds an operator, keeps the stream up, and hands on what comes. What an update means is its user's.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sluice_world::NodeName;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    EVERY_NODE,
    catalog::Held,
    server::{BEAT, SILENCE},
    types::{Report, Revision, Update},
    wire::{
        self, Gathered,
        proto::{self, Down, Up, down, stream_client::StreamClient, up},
    },
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// An operator not heard for so long is given up for another: its beats come every 3 s.
const LOST: Duration = Duration::from_secs(10);
/// The first pause between attempts, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// How often a new token is sent on a stream that lasts.
const TOKEN: Duration = Duration::from_mins(30);
/// Messages to the operator that may wait.
const OUTBOUND: usize = 4096;
/// How often it is looked whether there is room for one more forwarded report.
const FORWARD: Duration = Duration::from_millis(5);
/// Events that may wait to be taken; then the operator waits.
const EVENTS: usize = 8;
/// Largest message taken. Contents come in parts of about 32 KiB, where a single service or program may make one larger.
const MESSAGE: usize = 64 << 20;

/// A value that is read anew at every attempt to connect. An error is told, and the attempt made again later.
pub type Source<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

/// How to subscribe.
#[derive(Clone)]
pub struct Options {
    /// Whose view to subscribe to.
    pub node: NodeName,
    /// Where operators are.
    pub addresses: Source<Vec<SocketAddr>>,
    /// The operators' CA as PEM; `None` for no TLS, which is for tests.
    pub ca: Option<Source<String>>,
    /// The name in the operators' certificates.
    pub server_name: String,
    /// The bearer token.
    pub token: Source<String>,
    /// What is held already: see [`crate::Catalog::held`].
    pub resume: Option<Held>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("node", &self.node)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// What happens to a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operator took the subscription. Whatever was reported before counts no more: report everything.
    Connected {
        /// Which.
        to: SocketAddr,
    },
    /// Whoever collects reports is new: report everything again.
    ReportAgain,
    /// The next update. Acknowledge it once it is in force.
    Update(Box<Update>),
    /// The subscription is down, or could not be made; it is tried again.
    Disconnected {
        /// Why.
        why: String,
    },
}

/// A subscription, kept up until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscription {
    /// Starts to subscribe. To be called within a tokio runtime.
    #[must_use]
    pub fn start(mut options: Options) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let link = Link {
            outbound: None,
            held: options.resume.take(),
            everything: options.node.0 == EVERY_NODE,
        };
        let handle = Handle {
            link: Arc::new(Mutex::new(link)),
            overflow: Arc::default(),
        };
        let client = Client {
            options,
            handle: handle.clone(),
            events: sender,
        };
        Self {
            handle,
            events,
            task: tokio::spawn(client.run()),
        }
    }

    /// The next event. Safe to cancel: no event is lost.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The task runs as long as this value is there.
            None => std::future::pending().await,
        }
    }

    /// See [`Handle::ack`].
    pub fn ack(&self, revision: Revision) {
        self.handle.ack(revision);
    }

    /// See [`Handle::report`].
    pub fn report(&self, report: &Report) {
        self.handle.report(report);
    }

    /// A handle for other tasks.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

/// A node that a replica serves, with what it holds and since when; `None` for one that it serves no more.
pub(crate) type PeerNews = (NodeName, Option<(Option<Revision>, SystemTime)>);

/// Talks back to the operator. Never waits.
#[derive(Clone, Debug)]
pub struct Handle {
    link: Arc<Mutex<Link>>,
    overflow: Arc<Notify>,
}

#[derive(Debug)]
struct Link {
    outbound: Option<mpsc::Sender<Up>>,
    /// What was handed on: where to come back to. Whether it was acknowledged does not matter, since it is taken in before all that
    /// follows.
    held: Option<Held>,
    /// Of one who gets everything, only the revision counts.
    everything: bool,
}

impl Handle {
    /// Everything up to this revision is in force.
    pub fn ack(&self, revision: Revision) {
        self.send(up::Message::Ack(revision.into()));
    }

    /// Reports. While disconnected this does nothing: see [`Event::Connected`].
    pub fn report(&self, report: &Report) {
        self.send(up::Message::Report(report.into()));
    }

    /// Passes a report on. Waits while many do, so that room is left for what can't wait.
    pub(crate) async fn forward(&self, node: &NodeName, report: &Report) {
        loop {
            let room = self.link().outbound.as_ref().map(mpsc::Sender::capacity);
            if room.is_none_or(|room| room > OUTBOUND / 2) {
                break;
            }
            tokio::time::sleep(FORWARD).await;
        }
        let forwarded = proto::Forwarded {
            node: node.0.clone(),
            report: Some(report.into()),
        };
        self.send(up::Message::Peers(proto::Peers {
            peers: Vec::new(),
            reports: vec![forwarded],
        }));
    }

    pub(crate) fn peers(&self, news: &[PeerNews]) {
        let peer = |(node, known): &PeerNews| proto::Peer {
            node: node.0.clone(),
            gone: known.is_none(),
            acked: known.and_then(|(acked, _)| acked).map(Into::into),
            connected_since_ms: known.map_or(0, |(_, since)| milliseconds(since)),
        };
        self.send(up::Message::Peers(proto::Peers {
            peers: news.iter().map(peer).collect(),
            reports: Vec::new(),
        }));
    }

    /// Where so much waits to be sent that there is no room, the operator will hear of us without.
    fn beat(&self) {
        let beat = Up {
            message: Some(up::Message::Beat(proto::Beat {})),
        };
        if let Some(outbound) = &self.link().outbound {
            drop(outbound.try_send(beat));
        }
    }

    fn send(&self, message: up::Message) {
        let link = self.link();
        let Some(outbound) = &link.outbound else {
            return;
        };
        let up = Up {
            message: Some(message),
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = outbound.try_send(up) {
            // What is lost here is said again on the next connection.
            self.overflow.notify_one();
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // Each change of a link is whole before anything can panic.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Client {
    options: Options,
    handle: Handle,
    events: mpsc::Sender<Event>,
}

impl Client {
    /// Tries one operator after another, in random order, all of them before any a second time.
    async fn run(self) {
        let [first, longest] = PAUSES;
        let mut pause = first;
        let mut tried: Vec<SocketAddr> = Vec::new();
        loop {
            tokio::time::sleep(pause.mul_f64(random())).await;
            let (lasted, why) = match self.choose(&mut tried) {
                Ok(address) => self.attempt(address).await,
                Err(why) => (false, why),
            };
            self.handle.link().outbound = None;
            if self.events.send(Event::Disconnected { why }).await.is_err() {
                return;
            }
            if lasted {
                pause = first;
                tried.truncate(0);
            } else {
                pause = (pause * 2).min(longest);
            }
        }
    }

    fn choose(&self, tried: &mut Vec<SocketAddr>) -> Result<SocketAddr, String> {
        let all = (self.options.addresses)()?;
        let mut left: Vec<SocketAddr> = all
            .iter()
            .filter(|address| !tried.contains(address))
            .copied()
            .collect();
        if left.is_empty() {
            tried.clear();
            left = all;
        }
        if left.is_empty() {
            return Err("no operator's address is known".to_owned());
        }
        let chosen = left[index(random(), left.len())];
        tried.push(chosen);
        Ok(chosen)
    }

    /// One connection, to its end: whether it was taken, and why it ended.
    async fn attempt(&self, address: SocketAddr) -> (bool, String) {
        let connected = match timeout(CONNECT * 2, self.connect(address)).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(why)) => return (false, format!("{address}: {why}")),
            Err(_) => return (false, format!("{address}: no answer in time")),
        };
        let (stream, outbound) = connected;
        self.handle.link().outbound = Some(outbound);
        if self
            .events
            .send(Event::Connected { to: address })
            .await
            .is_err()
        {
            return (true, String::new());
        }
        let why = tokio::select! {
            why = self.read(stream) => why,
            why = self.keep_up() => why,
            () = self.handle.overflow.notified() => "the operator does not read".to_owned(),
        };
        (true, format!("{address}: {why}"))
    }

    async fn connect(
        &self,
        address: SocketAddr,
    ) -> Result<(Streaming<Down>, mpsc::Sender<Up>), String> {
        let token = (self.options.token)()?;
        let channel = self.channel(address).await?;
        let (sender, receiver) = mpsc::channel(OUTBOUND);
        let held = self.handle.link().held.clone();
        let hello = up::Message::Hello(proto::Hello {
            oldest_wire: wire::VERSION,
            newest_wire: wire::VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.options.node.0.clone(),
            held: held.as_ref().map(Into::into),
        });
        let hello = Up {
            message: Some(hello),
        };
        sender.try_send(hello).map_err(|error| error.to_string())?;
        let mut request = Request::new(ReceiverStream::new(receiver));
        let bearer = MetadataValue::try_from(format!("Bearer {}", token.trim()));
        let bearer = bearer.map_err(|_| "the token is no token".to_owned())?;
        request.metadata_mut().insert("authorization", bearer);
        let mut client = StreamClient::new(channel).max_decoding_message_size(MESSAGE);
        let answer = client
            .subscribe(request)
            .await
            .map_err(|status| told(&status))?;
        Ok((answer.into_inner(), sender))
    }

    async fn channel(&self, address: SocketAddr) -> Result<Channel, String> {
        let scheme = if self.options.ca.is_some() {
            "https"
        } else {
            "http"
        };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true);
        if let Some(ca) = &self.options.ca {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(ca()?))
                .domain_name(self.options.server_name.clone());
            endpoint = endpoint.tls_config(tls).map_err(|error| chain(&error))?;
        }
        endpoint.connect().await.map_err(|error| chain(&error))
    }

    /// Hands on what comes, until nothing does.
    async fn read(&self, mut stream: Streaming<Down>) -> String {
        let mut gathered = Gathered::default();
        loop {
            let message = match timeout(LOST, stream.message()).await {
                Ok(Ok(Some(down))) => down.message,
                Ok(Ok(None)) => return "the operator ended the stream".to_owned(),
                Ok(Err(status)) => return told(&status),
                Err(_) => return "the operator is silent".to_owned(),
            };
            let event = match message {
                Some(down::Message::Part(part)) => match self.part(part, &mut gathered) {
                    Ok(None) => continue,
                    Ok(Some(event)) => event,
                    Err(error) => return error.to_string(),
                },
                Some(down::Message::Again(_)) => Event::ReportAgain,
                Some(down::Message::Welcome(_) | down::Message::Beat(_)) => continue,
                None => return "an empty message".to_owned(),
            };
            if self.events.send(event).await.is_err() {
                return String::new();
            }
        }
    }

    fn part(
        &self,
        part: proto::Part,
        gathered: &mut Gathered,
    ) -> Result<Option<Event>, crate::DecodeError> {
        let update = part
            .update
            .ok_or(crate::DecodeError::Missing("Part.update"))?;
        gathered.add(update)?;
        if part.more {
            return Ok(None);
        }
        let update = std::mem::take(gathered).finish()?;
        let mut link = self.handle.link();
        let everything = link.everything;
        let held = link.held.get_or_insert_default();
        if everything {
            held.revision = update.revision;
        } else {
            held.note(&update);
        }
        drop(link);
        Ok(Some(Event::Update(Box::new(update))))
    }

    /// Says that this side is there, and who it is by newer tokens.
    async fn keep_up(&self) -> String {
        let mut beat = interval(BEAT);
        let mut token = interval(TOKEN);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        token.tick().await;
        loop {
            tokio::select! {
                _ = beat.tick() => self.handle.beat(),
                _ = token.tick() => match (self.options.token)() {
                    Ok(token) => self.handle.send(up::Message::Token(token.trim().to_owned())),
                    // The old one is good for as long again: there is time for another attempt.
                    Err(error) => tracing::warn!(error, "no new token"),
                },
            }
        }
    }
}

fn told(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An error with its causes: transports hide what happened behind "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A number from 0 up to 1. Every `RandomState` has other keys.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 40;
    f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(1_u32 << 24)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a small place in a small list"
)]
fn index(random: f64, length: usize) -> usize {
    ((random * length as f64) as usize).min(length - 1)
}

const _: () = assert!(LOST.as_secs() > BEAT.as_secs() && SILENCE.as_secs() > LOST.as_secs());
