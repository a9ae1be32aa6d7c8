//! What listens on a pod's container ports: over TCP it says the pod's name, then echoes; over UDP it answers each datagram with
//! the name and the datagram. Which pods there are and where they live may not enter.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// How long a refused `accept` (out of descriptors, say) rests before the next.
const REST: Duration = Duration::from_millis(50);

/// Sockets that listen, not served yet.
#[derive(Debug)]
pub struct Listeners {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

/// Listens on `ports` (protocol, port) in the calling thread's network namespace, over both families.
///
/// Protocols other than TCP and UDP have no responder and are passed over.
///
/// # Errors
/// A port can't be listened on: something else in the namespace does.
pub fn listen(ports: &BTreeSet<(u8, u16)>) -> io::Result<Listeners> {
    let mut listeners = Listeners {
        tcp: Vec::new(),
        udp: Vec::new(),
    };
    for &(protocol, port) in ports {
        for address in [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ] {
            match protocol {
                TCP => listeners.tcp.push(TcpListener::from_std(
                    bound(address, Type::STREAM, Protocol::TCP)?.into(),
                )?),
                UDP => listeners.udp.push(UdpSocket::from_std(
                    bound(address, Type::DGRAM, Protocol::UDP)?.into(),
                )?),
                _ => {}
            }
        }
    }
    Ok(listeners)
}

/// Serves for as long as it is polled.
pub async fn serve(name: String, listeners: Listeners) {
    let mut tasks = JoinSet::new();
    for listener in listeners.tcp {
        tasks.spawn(serve_tcp(name.clone(), listener));
    }
    for socket in listeners.udp {
        tasks.spawn(serve_udp(name.clone(), socket));
    }
    while tasks.join_next().await.is_some() {}
    // A pod without ports is served too: by nobody, for ever.
    std::future::pending::<()>().await;
}

fn bound(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // One socket for each family: the address a peer sees is then never a mapped one.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .map_err(|e| io::Error::new(e.kind(), format!("listening on {address}: {e}")))?;
    if kind == Type::STREAM {
        socket.listen(1024)?;
    }
    Ok(socket)
}

async fn serve_tcp(name: String, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(greet_and_echo(name.clone(), stream));
            }
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

async fn greet_and_echo(name: String, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn serve_udp(name: String, socket: UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, peer)) => {
                let mut answer = format!("{name}\n").into_bytes();
                answer.extend_from_slice(&buffer[..length]);
                // The asker may be gone, or denied the answer; neither is this side's to mend.
                let _ = socket.send_to(&answer, peer).await;
            }
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work)
    }

    /// A port nobody listens on, of both families, on this machine's loopback.
    fn free_port() -> u16 {
        std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    #[test]
    fn tcp_says_the_name_and_echoes_over_both_families() {
        let port = free_port();
        block_on(async {
            tokio::select! {
                () = serve("shop/cart".to_owned(), listen(&[(TCP, port)].into()).unwrap()) => panic!("it ended"),
                () = async {
                    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
                        let mut stream = TcpStream::connect(address).await.unwrap();
                        stream.write_all(b"ping").await.unwrap();
                        let mut answer = [0; 14];
                        stream.read_exact(&mut answer).await.unwrap();
                        assert_eq!(&answer, b"shop/cart\nping");
                    }
                } => {}
            }
        });
    }

    #[test]
    fn udp_answers_with_the_name_and_the_datagram_over_both_families() {
        let port = free_port();
        block_on(async {
            tokio::select! {
                () = serve("a/b".to_owned(), listen(&[(UDP, port)].into()).unwrap()) => panic!("it ended"),
                () = async {
                    for (own, peer) in [
                        (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
                        (SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))),
                    ] {
                        let socket = UdpSocket::bind(own).await.unwrap();
                        socket.send_to(b"7", peer).await.unwrap();
                        let mut answer = [0; 64];
                        let length = socket.recv(&mut answer).await.unwrap();
                        assert_eq!(&answer[..length], b"a/b\n7");
                    }
                } => {}
            }
        });
    }

    #[test]
    fn a_taken_port_is_an_error_that_names_it() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = block_on(async { listen(&[(TCP, port)].into()) }).unwrap_err();
        assert!(
            error.to_string().contains(&format!("0.0.0.0:{port}")),
            "{error}"
        );
    }
}
