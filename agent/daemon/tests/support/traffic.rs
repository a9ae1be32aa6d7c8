//! Traffic between namespaces: whoever answers, whoever asks, and a connection that must not stall.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sluice_datapath::net::{NetNs, in_namespace};

/// Answers every byte with itself, at one address and port of a namespace, until it is dropped.
pub(crate) struct Echo {
    stop: Arc<AtomicBool>,
    at: SocketAddr,
}

impl Echo {
    pub(crate) fn start(namespace: &NetNs, address: IpAddr, port: u16) -> Self {
        let at = SocketAddr::new(address, port);
        let listener = in_namespace(namespace, || TcpListener::bind(at).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    thread::spawn(move || answer(stream));
                } else {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Self { stop, at }
    }

    pub(crate) const fn at(&self) -> SocketAddr {
        self.at
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}

/// Whether a connection from a namespace is made and answered.
pub(crate) fn reaches(namespace: &NetNs, to: SocketAddr) -> bool {
    in_namespace(namespace, || {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_millis(700)) else {
            return false;
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
    })
    .unwrap()
}

/// Whether an address answers a ping from a namespace.
pub(crate) fn ping(namespace: &NetNs, to: IpAddr) -> bool {
    ping_with(namespace, &[], to)
}

/// As [`ping`], from one of the namespace's addresses.
pub(crate) fn ping_from(namespace: &NetNs, own: IpAddr, to: IpAddr) -> bool {
    ping_with(namespace, &["-I", &own.to_string()], to)
}

fn ping_with(namespace: &NetNs, more: &[&str], to: IpAddr) -> bool {
    let run = || {
        Command::new("ping")
            .args(["-n", "-c", "1", "-W", "1"])
            .args(more)
            .arg(to.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    in_namespace(namespace, run).unwrap()
}

/// A connection that says a byte every few milliseconds, and remembers the longest wait for an answer.
pub(crate) struct Talker {
    stop: Arc<AtomicBool>,
    said: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Duration, String>>>,
}

impl Talker {
    pub(crate) fn start(namespace: &NetNs, to: SocketAddr) -> Self {
        let mut stream = in_namespace(namespace, || {
            TcpStream::connect_timeout(&to, Duration::from_secs(3)).unwrap()
        })
        .unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let (stop, said) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&said));
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                stream.write_all(b"x").map_err(|e| e.to_string())?;
                stream.read_exact(&mut [0]).map_err(|e| e.to_string())?;
                longest = longest.max(began.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            Ok(longest)
        });
        Self {
            stop,
            said,
            thread: Some(thread),
        }
    }

    /// Bytes that were answered.
    pub(crate) fn said(&self) -> u64 {
        self.said.load(Ordering::Relaxed)
    }

    /// Ends it: the longest wait. It must not have been cut.
    pub(crate) fn end(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
