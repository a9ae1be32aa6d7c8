//! Three loads on TCP: request/response, connect-and-close, and a stream. Each is bounded in time and pinned to CPUs.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::socket::sockopt::TcpCongestion,
    unistd::Pid,
};
use sluice_datapath::net::{NetError, NetNs, in_namespace};

/// A namespace and the address that is reached in it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Name of the network namespace.
    pub namespace: String,
    /// Its address.
    pub address: std::net::IpAddr,
}

/// What went wrong with a load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NetError),
    /// A socket failed; if it timed out, the path under test drops the traffic.
    #[error("{what}: {source}")]
    Socket {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// One byte there and back over one connection for `duration`, both ends on one CPU; the latencies in nanoseconds, ascending.
///
/// # Errors
/// If a namespace can't be entered or a socket fails.
pub fn request_response(
    client: &Endpoint,
    server: &Endpoint,
    duration: Duration,
) -> Result<Vec<u64>, LoadError> {
    let (listener, address) = listen(server)?;
    let echo = thread::spawn(move || -> io::Result<()> {
        pin(0)?;
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let latencies = inside(client, format!("request/response to {address}"), || {
        pin(0)?;
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut latencies = Vec::with_capacity(1 << 16);
        let (start, mut byte) = (Instant::now(), [1]);
        while start.elapsed() < duration {
            let before = Instant::now();
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
            latencies.push(nanoseconds(before.elapsed()));
        }
        Ok(latencies)
    })?;
    finish(echo.join(), "echo server")?;
    Ok(sorted(latencies))
}

/// Connects and closes for `duration`, both ends on one CPU; the times of `connect()` in nanoseconds, ascending.
///
/// # Errors
/// If a namespace can't be entered or a socket fails.
pub fn connects(
    client: &Endpoint,
    server: &Endpoint,
    duration: Duration,
) -> Result<Vec<u64>, LoadError> {
    let (listener, address) = listen(server)?;
    let last = AtomicBool::new(false);
    thread::scope(|scope| {
        let last = &last;
        let acceptor = scope.spawn(move || -> io::Result<()> {
            pin(0)?;
            while !last.load(Ordering::Acquire) {
                drop(listener.accept()?);
            }
            Ok(())
        });
        let latencies = inside(client, format!("connect to {address}"), || {
            pin(0)?;
            let mut latencies = Vec::with_capacity(1 << 14);
            let start = Instant::now();
            while start.elapsed() < duration {
                latencies.push(connect_once(address)?);
            }
            last.store(true, Ordering::Release);
            TcpStream::connect_timeout(&address, TIMEOUT)?;
            Ok(latencies)
        })?;
        finish(acceptor.join(), "accepting")?;
        Ok(sorted(latencies))
    })
}

/// One connection; waits for the server to close it, so that the accept queue never fills. Returns the time of `connect()` alone.
fn connect_once(address: SocketAddr) -> io::Result<u64> {
    let before = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    let took = nanoseconds(before.elapsed());
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut remainder = Vec::new();
    stream.read_to_end(&mut remainder)?;
    // A reset instead of TIME_WAIT, so that the ports last.
    let reset = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &reset)?;
    Ok(took)
}

/// Sends for `duration` from CPU 0 to a receiver on CPU 1; gigabits per second as received.
///
/// # Errors
/// If a namespace can't be entered or a socket fails.
pub fn stream(client: &Endpoint, server: &Endpoint, duration: Duration) -> Result<f64, LoadError> {
    let (listener, address) = listen(server)?;
    let receiver = thread::spawn(move || -> io::Result<(u64, Duration)> {
        pin(1)?;
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; 1 << 18];
        let (mut received, start) = (0, Instant::now());
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok((received, start.elapsed())),
                count => received += count as u64,
            }
        }
    });
    inside(client, format!("stream to {address}"), || {
        pin(0)?;
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        // The kernel's own default, whatever the machine's is: one that paces (BBR) would be measured in place of the path.
        nix::sys::socket::setsockopt(&stream, TcpCongestion, &OsString::from("cubic"))?;
        let buffer = vec![0; 1 << 17];
        let start = Instant::now();
        while start.elapsed() < duration {
            stream.write_all(&buffer)?;
        }
        Ok(())
    })?;
    let (bytes, took) = finish(receiver.join(), "stream receiver")?;
    #[allow(clippy::cast_precision_loss, reason = "byte counts are far below 2^52")]
    Ok(bytes as f64 * 8.0 / took.as_secs_f64() / 1e9)
}

fn listen(server: &Endpoint) -> Result<(TcpListener, SocketAddr), LoadError> {
    let wanted = SocketAddr::new(server.address, 0);
    let listener = inside(server, format!("listening on {wanted}"), || {
        TcpListener::bind(wanted)
    })?;
    let address = listener.local_addr().map_err(|source| LoadError::Socket {
        what: format!("listening on {wanted}"),
        source,
    })?;
    Ok((listener, address))
}

fn inside<T: Send>(
    endpoint: &Endpoint,
    what: String,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, LoadError> {
    let namespace = NetNs::open(&endpoint.namespace)?;
    in_namespace(&namespace, work)?.map_err(|source| LoadError::Socket { what, source })
}

fn finish<T>(ended: thread::Result<io::Result<T>>, what: &str) -> Result<T, LoadError> {
    ended
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .map_err(|source| LoadError::Socket {
            what: what.to_owned(),
            source,
        })
}

/// Pins the calling thread to `cpu` modulo the CPUs there are.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let count = thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(cpu % count)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn sorted(mut latencies: Vec<u64>) -> Vec<u64> {
    latencies.sort_unstable();
    latencies
}
