//! One try over one protocol. Many at once, and what they mean, may not enter.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpStream, UdpSocket},
    time::{interval, timeout},
};

use super::{Attempt, Outcome, Transport};

/// How often a datagram is sent again while no answer comes.
const AGAIN: Duration = Duration::from_millis(200);
/// ICMP and `ICMPv6` echo requests (RFC 792, RFC 4443); code, checksum and identifier are the kernel's to fill in.
const ECHO_V4: [u8; 12] = *b"\x08\0\0\0\0\0\0\x01ping";
const ECHO_V6: [u8; 12] = *b"\x80\0\0\0\0\0\0\x01ping";

/// Makes the attempt from the calling thread's network namespace.
pub(super) async fn make(attempt: &Attempt, patience: Duration) -> Outcome {
    let to = SocketAddr::from((attempt.address, attempt.port));
    let result = timeout(patience, async {
        match attempt.transport {
            Transport::Tcp => tcp(to).await,
            Transport::Udp => {
                datagram(UdpSocket::bind(any(to.ip())).await?, to, b"probe", name_of).await
            }
            Transport::Icmp => {
                datagram(ping_socket(to.ip())?, to, echo(to.ip()), |_| String::new()).await
            }
        }
    })
    .await;
    match result {
        Ok(Ok(name)) => Outcome::Answered(name),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Silence,
    }
}

async fn tcp(to: SocketAddr) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(TcpStream::connect(to).await?)
        .read_line(&mut line)
        .await?;
    Ok(name_of(line.as_bytes()))
}

/// Sends until the first answer comes.
async fn datagram(
    socket: UdpSocket,
    to: SocketAddr,
    content: &[u8],
    read: fn(&[u8]) -> String,
) -> io::Result<String> {
    socket.connect(to).await?;
    let mut ticks = interval(AGAIN);
    let mut buffer = [0; 2048];
    loop {
        tokio::select! {
            received = socket.recv(&mut buffer) => return Ok(read(&buffer[..received?])),
            _ = ticks.tick() => { socket.send(content).await?; }
        }
    }
}

/// An unprivileged ping socket (Linux `IPPROTO_ICMP` with `SOCK_DGRAM`): the kernel gives it an identifier of its own and hands
/// it only its replies. It behaves as a UDP socket from here on.
fn ping_socket(to: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

const fn echo(to: IpAddr) -> &'static [u8] {
    match to {
        IpAddr::V4(_) => &ECHO_V4,
        IpAddr::V6(_) => &ECHO_V6,
    }
}

fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The first line of an answer.
fn name_of(answer: &[u8]) -> String {
    let line = answer
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder;

    fn block_on<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work)
    }

    #[test]
    fn a_responder_answers_with_its_name_and_a_closed_port_refuses() {
        let free = || {
            std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        };
        let (tcp, udp, closed) = (free(), free(), free());
        block_on(async {
            tokio::select! {
                () = responder::serve("a/b".to_owned(), responder::listen(&[(6, tcp), (17, udp)].into()).unwrap()) => panic!("it ended"),
                () = async {
                    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
                        for (transport, port, wanted) in [
                            (Transport::Tcp, tcp, Outcome::Answered("a/b".to_owned())),
                            (Transport::Udp, udp, Outcome::Answered("a/b".to_owned())),
                            (Transport::Tcp, closed, Outcome::Refused),
                            (Transport::Udp, closed, Outcome::Refused),
                        ] {
                            let attempt = Attempt { transport, address, port };
                            assert_eq!(make(&attempt, Duration::from_secs(5)).await, wanted, "{attempt:?}");
                        }
                    }
                } => {}
            }
        });
    }

    #[test]
    fn silence_is_told_from_refusal() {
        // A bound socket that never answers.
        let mute = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let attempt = Attempt {
            transport: Transport::Udp,
            address: Ipv4Addr::LOCALHOST.into(),
            port: mute.local_addr().unwrap().port(),
        };
        assert_eq!(
            block_on(make(&attempt, Duration::from_millis(50))),
            Outcome::Silence
        );
    }
}
