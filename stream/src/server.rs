//! The gRPC service: who may subscribe, and the two directions of a session. What is sent is the hub's.

use std::{future::Future, io, sync::Arc, time::Duration};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::ResolvesServerCert,
};
use sluice_world::NodeName;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    EVERY_NODE,
    catalog::Held,
    error::{AuthError, ServeError},
    hub::{
        Hub, Peer,
        session::{Frame, Next},
    },
    types::Report,
    wire::{
        self,
        encode::message,
        proto::{
            self, Down, Up, down,
            stream_server::{Stream, StreamServer},
            up,
        },
    },
};

/// How often each side says that it is there.
pub(crate) const BEAT: Duration = Duration::from_secs(3);
/// A side not heard for so long is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);
/// How long a new connection may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// How long a token is good for a session. Agents send a new one in half the time.
const TOKEN: Duration = Duration::from_hours(1);
/// How much longer, where tokens can't be checked.
const GRACE: Duration = Duration::from_mins(10);
/// How long agents may take to hear that the server ends.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Bytes of content in one message, about.
const PART: usize = 32 << 10;
/// Messages between the hub and the connection: what is more waits in the session's queue.
const WINDOW: usize = 2;

/// Says who a token belongs to.
#[tonic::async_trait]
pub trait Authenticate: Send + Sync {
    /// The node whose agent has the token; [`EVERY_NODE`] for an operator that may follow.
    async fn node_of(&self, token: &str) -> Result<NodeName, AuthError>;
}

/// The server's certificate.
#[derive(Clone, Debug)]
pub struct TlsConfig(Arc<rustls::ServerConfig>);

impl TlsConfig {
    /// A certificate chain and its key, as PEM.
    ///
    /// # Errors
    /// They are no certificate and key that fit together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, ServeError> {
        let wrong = |error: &dyn std::fmt::Display| ServeError::Tls(error.to_string());
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&error))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong(&error))?;
        let config = builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| wrong(&error))?;
        Ok(Self::with_http2(config))
    }

    /// Certificates that may change while the server runs.
    #[must_use]
    pub fn resolved_by(resolver: Arc<dyn ResolvesServerCert>) -> Self {
        Self::with_http2(builder().with_no_client_auth().with_cert_resolver(resolver))
    }

    fn with_http2(mut config: rustls::ServerConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(Arc::new(config))
    }
}

fn builder() -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
    rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for the default versions")
}

/// Serves a hub until `shutdown`; then ends all sessions, so that agents go elsewhere.
///
/// # Errors
/// The server ended by itself.
pub async fn serve(
    hub: Hub,
    listener: TcpListener,
    tls: Option<TlsConfig>,
    authenticate: Arc<dyn Authenticate>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let (stop, stopping) = watch::channel(false);
    let service = StreamServer::new(Service {
        hub,
        authenticate,
        stopping: stopping.clone(),
    });
    let ended = async move {
        shutdown.await;
        stop.send_replace(true);
    };
    let server = Server::builder();
    let mut stopped = stopping.clone();
    let overdue = async move {
        // The sender lives in `ended`, to its end.
        let _ = stopped.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    let serving = async move {
        if let Some(tls) = tls {
            let incoming = tls_incoming(listener, TlsAcceptor::from(tls.0), stopping);
            server
                .serve_with_incoming_shutdown(service, incoming, ended)
                .await
        } else {
            let incoming = plain_incoming(listener);
            server
                .serve_with_incoming_shutdown(service, incoming, ended)
                .await
        }
    };
    tokio::select! {
        ended = serving => ended?,
        () = overdue => tracing::info!("not every agent took its leave"),
    }
    Ok(())
}

fn plain_incoming(
    listener: TcpListener,
) -> impl tokio_stream::Stream<Item = io::Result<TcpStream>> {
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    incoming.map(|connection| connection.inspect(quick))
}

/// Shakes hands with every connection on its own, so that a slow one holds up nobody.
fn tls_incoming(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    mut stopping: watch::Receiver<bool>,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            let (connection, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of files, most likely: trying at once would only burn time.
                    tracing::warn!(%error, "no new connections");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            quick(&connection);
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                match tokio::time::timeout(HELLO, acceptor.accept(connection)).await {
                    // A server that is gone takes none.
                    Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::info!(%from, %error, "no TLS"),
                    Err(_) => tracing::info!(%from, "no TLS in time"),
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

/// Small messages leave at once. Where that can't be set they leave later.
fn quick(connection: &TcpStream) {
    let _ = connection.set_nodelay(true);
}

struct Service {
    hub: Hub,
    authenticate: Arc<dyn Authenticate>,
    stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Stream for Service {
    type SubscribeStream = ReceiverStream<Result<Down, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<Up>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let token = bearer(&request)?.to_owned();
        let node = self
            .authenticate
            .node_of(&token)
            .await
            .map_err(|error| refusal(&error))?;
        let mut inbound = request.into_inner();
        let hello = tokio::time::timeout(HELLO, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello in time"))??;
        let held = check(hello, &node)?;
        let (sender, receiver) = mpsc::channel(WINDOW);
        let (id, wake) = self
            .hub
            .state_of(|sessions| sessions.join(node.clone(), held));
        self.hub.changed();
        let session = Session {
            hub: self.hub.clone(),
            authenticate: Arc::clone(&self.authenticate),
            node,
            id,
            outbound: sender,
        };
        tokio::spawn(session.run(inbound, wake, self.stopping.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn bearer(request: &Request<Streaming<Up>>) -> Result<&str, Status> {
    let value = request.metadata().get("authorization");
    let text = value.and_then(|value| value.to_str().ok());
    text.and_then(|text| text.strip_prefix("Bearer "))
        .ok_or_else(|| Status::unauthenticated("no bearer token"))
}

fn refusal(error: &AuthError) -> Status {
    match error {
        AuthError::Refused(_) => Status::unauthenticated(error.to_string()),
        AuthError::Unavailable(_) => Status::unavailable(error.to_string()),
    }
}

/// Reads the first message: it must be a hello of a version that is spoken here, for the node that the token belongs to.
fn check(message: Option<Up>, node: &NodeName) -> Result<Option<Held>, Status> {
    let Some(up::Message::Hello(hello)) = message.and_then(|up| up.message) else {
        return Err(Status::invalid_argument("the first message is no hello"));
    };
    if !(hello.oldest_wire..=hello.newest_wire).contains(&wire::VERSION) {
        return Err(Status::failed_precondition(format!(
            "release {} speaks wire versions {} to {}, this operator (release {}) speaks {}: bring both to one release",
            hello.release,
            hello.oldest_wire,
            hello.newest_wire,
            env!("CARGO_PKG_VERSION"),
            wire::VERSION,
        )));
    }
    if hello.node != node.0 {
        return Err(Status::permission_denied(format!(
            "the token belongs to {:?} and can't subscribe as {:?}",
            node.0, hello.node
        )));
    }
    let held = hello.held.map(Held::try_from).transpose();
    held.map_err(|error| Status::invalid_argument(error.to_string()))
}

/// One session.
struct Session {
    hub: Hub,
    authenticate: Arc<dyn Authenticate>,
    node: NodeName,
    id: u64,
    outbound: mpsc::Sender<Result<Down, Status>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.state_of(|sessions| sessions.leave(self.id));
        self.hub.changed();
    }
}

impl Session {
    async fn run(
        self,
        inbound: Streaming<Up>,
        wake: Arc<Notify>,
        mut stopping: watch::Receiver<bool>,
    ) {
        tracing::debug!(node = %self.node, "connected");
        let status = tokio::select! {
            status = self.write(&wake) => status,
            status = self.read(inbound) => status,
            _ = stopping.wait_for(|stopping| *stopping) => {
                Some(Status::unavailable("the operator is shutting down"))
            }
        };
        tracing::debug!(node = %self.node, why = status.as_ref().map(Status::message), "disconnected");
        self.hub.state_of(|sessions| sessions.leave(self.id));
        self.hub.changed();
        if let Some(status) = status {
            // A client that reads no more learns of it by the end of the connection.
            let _ = tokio::time::timeout(BEAT, self.outbound.send(Err(status))).await;
        }
    }

    /// Sends what the hub has for the session. Ends when nobody reads.
    async fn write(&self, wake: &Notify) -> Option<Status> {
        let welcome = proto::Welcome {
            wire: wire::VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.send(down::Message::Welcome(welcome)).await?;
        let mut beat = tokio::time::interval_at(Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let idle = tokio::select! {
                () = wake.notified() => false,
                _ = beat.tick() => true,
            };
            while let Some(next) = self.hub.state_of(|sessions| sessions.next(self.id, idle)) {
                match next {
                    Next::Frame(frame) => self.send_frame(frame).await?,
                    Next::Again => self.send(down::Message::Again(proto::Again {})).await?,
                    Next::Beat => {
                        self.send(down::Message::Beat(proto::Beat {})).await?;
                        break;
                    }
                    Next::End(why) => return Some(Status::aborted(why)),
                }
            }
        }
    }

    async fn send_frame(&self, frame: Frame) -> Option<()> {
        let mut pieces = frame.pieces.into_iter().peekable();
        loop {
            let (mut part, mut bytes) = (Vec::new(), 0);
            while bytes < PART
                && let Some(piece) = pieces.next()
            {
                bytes += piece.len();
                part.push(piece);
            }
            let more = pieces.peek().is_some();
            let update = message(frame.revision, frame.snapshot, part);
            let part = proto::Part {
                update: Some(update),
                more,
            };
            self.send(down::Message::Part(part)).await?;
            if !more {
                return Some(());
            }
        }
    }

    async fn send(&self, message: down::Message) -> Option<()> {
        let down = Down {
            message: Some(message),
        };
        self.outbound.send(Ok(down)).await.ok()
    }

    /// Takes in what the agent says. Ends when it is gone, silent, or lost its right to be here.
    async fn read(&self, mut inbound: Streaming<Up>) -> Option<Status> {
        let mut good_until = Instant::now() + TOKEN;
        loop {
            let now = Instant::now();
            if now >= good_until {
                return Some(Status::unauthenticated(
                    "the token is too old: send a new one",
                ));
            }
            let until = good_until.min(now + SILENCE);
            let message = match tokio::time::timeout_at(until, inbound.message()).await {
                Ok(Ok(Some(up))) => up.message,
                Ok(Ok(None) | Err(_)) => return None,
                Err(_) if Instant::now() >= good_until => continue,
                Err(_) => return Some(Status::deadline_exceeded("silent for too long")),
            };
            self.hub.state_of(|sessions| sessions.seen(self.id));
            match message {
                Some(up::Message::Token(token)) => match self.renew(&token).await {
                    Ok(longer) => good_until = Instant::now() + longer,
                    Err(status) => return Some(status),
                },
                Some(message) => {
                    if let Err(status) = self.take(message).await {
                        return Some(status);
                    }
                }
                None => return Some(Status::invalid_argument("an empty message")),
            }
        }
    }

    async fn renew(&self, token: &str) -> Result<Duration, Status> {
        match self.authenticate.node_of(token).await {
            Ok(node) if node == self.node => Ok(TOKEN),
            Ok(node) => Err(Status::permission_denied(format!(
                "the new token belongs to {node}, the session to {}",
                self.node
            ))),
            Err(AuthError::Unavailable(_)) => Ok(GRACE),
            Err(error) => Err(refusal(&error)),
        }
    }

    async fn take(&self, message: up::Message) -> Result<(), Status> {
        match message {
            up::Message::Ack(revision) => self.hub.ack(self.id, revision.into()),
            // Tokens were taken before.
            up::Message::Beat(_) | up::Message::Token(_) => {}
            up::Message::Report(report) => {
                let report = Report::try_from(report).map_err(|error| bad(&error))?;
                self.hub.report(self.node.clone(), report).await;
            }
            up::Message::Peers(peers) if self.node.0 == EVERY_NODE => {
                self.take_peers(peers).await?;
            }
            up::Message::Peers(_) => {
                return Err(Status::permission_denied(
                    "an agent speaks for its node only",
                ));
            }
            up::Message::Hello(_) => return Err(Status::invalid_argument("a second hello")),
        }
        Ok(())
    }

    async fn take_peers(&self, peers: proto::Peers) -> Result<(), Status> {
        if !peers.peers.is_empty() {
            self.hub.state_of(|sessions| {
                for peer in peers.peers {
                    let known = (!peer.gone).then(|| Peer {
                        acked: peer.acked.map(Into::into),
                        since: std::time::UNIX_EPOCH
                            + Duration::from_millis(peer.connected_since_ms),
                        via: self.id,
                    });
                    sessions.hear_of(NodeName(peer.node), known, self.id);
                }
            });
            self.hub.changed();
        }
        for forwarded in peers.reports {
            let report = forwarded.report.map(Report::try_from).transpose();
            if let Some(report) = report.map_err(|error| bad(&error))? {
                self.hub.report(NodeName(forwarded.node), report).await;
            }
        }
        Ok(())
    }
}

fn bad(error: &crate::DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}
