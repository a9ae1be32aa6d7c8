//! Listening: plain or TLS. Who is served may not enter.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ServerConfig, crypto::ring};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::serving::Certificates;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The pause after connections could not be taken, as when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens. `[::]` takes both families; on a machine without IPv6 all of IPv4 instead.
///
/// # Errors
/// The address can't be listened on; the message names it.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("listening on {address}: {error}"));
    match TcpListener::bind(address).await {
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(v4).await.map_err(named)
        }
        result => result.map_err(named),
    }
}

/// Connections over TLS, for axum. Each shakes hands on its own, so that a slow one holds up nobody.
#[derive(Debug)]
pub struct TlsListener {
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl TlsListener {
    /// Serves with the certificate of the moment.
    ///
    /// # Errors
    /// The listener has no address.
    ///
    /// # Panics
    /// Never: the provider has cipher suites for the protocol versions.
    pub fn new(listener: TcpListener, certificates: Arc<Certificates>) -> io::Result<Self> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for the default versions")
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let local = listener.local_addr()?;
        let (sender, connections) = mpsc::channel(64);
        tokio::spawn(accept(listener, acceptor, sender));
        Ok(Self { connections, local })
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let Ok((connection, peer)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            if let Ok(Ok(connection)) = timeout(HANDSHAKE, acceptor.accept(connection)).await {
                // A server that is gone takes none.
                let _ = sender.send((connection, peer)).await;
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // The task that accepts lives as long as this does.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.local)
    }
}
