//! Traffic to measure: a server for both kinds, a stream that is as fast as it can be, and questions with answers. Runs inside pods' network
//! namespaces, where nothing of the cluster is known.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Subcommand;

/// The port of the server.
pub(super) const PORT: u16 = 5201;
/// What is written to a stream at once.
const CHUNK: usize = 128 << 10;
/// Longer than any answer takes, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first byte of a connection: what it is for.
const STREAM: u8 = b's';
const QUESTIONS: u8 = b'q';

/// One side of the traffic.
#[derive(Debug, Subcommand)]
pub(crate) enum Load {
    /// Take in streams and answer questions
    Serve,
    /// Send for so long, and print how many bytes a second arrived
    Stream { to: SocketAddr, milliseconds: u64 },
    /// Ask one byte after the other for so long, and print how many answers a second came
    Ask { to: SocketAddr, milliseconds: u64 },
}

/// Is one side.
pub(crate) fn run(load: &Load) -> Result<()> {
    match load {
        Load::Serve => serve(),
        Load::Stream { to, milliseconds } => {
            println!("{}", stream(*to, Duration::from_millis(*milliseconds))?);
            Ok(())
        }
        Load::Ask { to, milliseconds } => {
            println!("{}", ask(*to, Duration::from_millis(*milliseconds))?);
            Ok(())
        }
    }
}

fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).context("listening")?;
    for stream in listener.incoming() {
        let stream = stream.context("accepting")?;
        thread::spawn(move || {
            // The other side says what went wrong.
            let _ = attend(stream);
        });
    }
    Ok(())
}

fn attend(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind == [QUESTIONS] {
        let mut question = [0];
        while stream.read(&mut question)? == 1 {
            stream.write_all(&question)?;
        }
        return Ok(());
    }
    let (mut buffer, mut count) = (vec![0; CHUNK], 0_u64);
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            got => count += got as u64,
        }
    }
    stream.write_all(&count.to_be_bytes())
}

/// Bytes a second, from the first sent to the server's word that all have come.
fn stream(to: SocketAddr, time: Duration) -> Result<f64> {
    let mut stream = connect(to, STREAM)?;
    let (chunk, began) = (vec![7; CHUNK], Instant::now());
    while began.elapsed() < time {
        stream.write_all(&chunk).context("sending")?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut count = [0; 8];
    stream
        .read_exact(&mut count)
        .context("the server's count")?;
    Ok(rate(u64::from_be_bytes(count), began.elapsed()))
}

/// Answers a second, one question at a time.
fn ask(to: SocketAddr, time: Duration) -> Result<f64> {
    let mut stream = connect(to, QUESTIONS)?;
    let (mut count, mut byte, began) = (0_u64, [7], Instant::now());
    while began.elapsed() < time {
        stream.write_all(&byte).context("asking")?;
        stream.read_exact(&mut byte).context("the answer")?;
        count += 1;
    }
    Ok(rate(count, began.elapsed()))
}

fn connect(to: SocketAddr, kind: u8) -> Result<TcpStream> {
    let mut stream =
        TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52 in seconds")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_counted_by_who_gets_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten().take(2) {
                thread::spawn(move || attend(stream));
            }
        });
        let time = Duration::from_millis(50);
        assert!(stream(at, time).unwrap() > 1e6, "a loop of megabytes");
        assert!(ask(at, time).unwrap() > 100.0, "answers in milliseconds");
    }
}
