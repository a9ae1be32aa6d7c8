//! The socket that the plugin talks to: a thread for each request, in which its manager's work is done. What a request means may not enter.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sluice_cni::{
    protocol::{Code, Envelope, Failure, Reply, Request, VERSION},
    wire,
};
use sluice_datapath::net::NetNs;
use tracing::{debug, warn};

use super::Manager;

/// Requests at once. A kubelet starts at most some dozens of pods at a time; the rest wait in the socket's queue.
const MOST: usize = 64;
/// A plugin sends its request at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a request, for the metrics: its name, how long it took, whether it failed.
pub type Observe = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

/// Listens at `path`, which only root may write to, and serves until the process ends.
///
/// # Errors
/// The path can't be listened at.
pub fn serve(path: &Path, manager: Arc<Manager>, observe: Observe) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Made under another name, so that nobody connects before the permissions are right, and the old one goes in the same step.
    let half = path.with_extension("new");
    remove_if_there(&half)?;
    let listener = UnixListener::bind(&half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o600))?;
    fs::rename(&half, path)?;
    thread::Builder::new()
        .name("cni".to_owned())
        .spawn(move || accept(&listener, &manager, &observe))?;
    Ok(())
}

fn accept(listener: &UnixListener, manager: &Arc<Manager>, observe: &Observe) {
    let running = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        while running.load(Ordering::Acquire) >= MOST {
            thread::sleep(Duration::from_millis(1));
        }
        let Ok(stream) = stream else {
            continue;
        };
        running.fetch_add(1, Ordering::AcqRel);
        let (manager, observe, done) = (
            Arc::clone(manager),
            Arc::clone(observe),
            Arc::clone(&running),
        );
        let begun = thread::Builder::new()
            .name("cni-request".to_owned())
            .spawn(move || {
                answer(stream, &manager, &observe);
                done.fetch_sub(1, Ordering::AcqRel);
            });
        if let Err(error) = begun {
            running.fetch_sub(1, Ordering::AcqRel);
            warn!(%error, "no thread for a request of the container runtime");
        }
    }
}

fn answer(mut stream: UnixStream, manager: &Manager, observe: &Observe) {
    let received = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| wire::receive::<Envelope>(&mut stream));
    let (envelope, descriptor) = match received {
        Ok(received) => received,
        Err(error) => {
            debug!(%error, "a connection of the container runtime without a request");
            return;
        }
    };
    let began = Instant::now();
    let name = name(&envelope.request);
    let reply = if envelope.version == VERSION {
        dispatch(envelope.request, descriptor, manager).unwrap_or_else(Reply::Failed)
    } else {
        Reply::Failed(Failure::new(
            Code::TRY_AGAIN,
            "plugin and agent are of different releases",
            "the agent installs its own plugin when it starts",
        ))
    };
    if let Reply::Failed(failure) = &reply {
        warn!(request = name, code = failure.code.0, %failure, "a request of the container runtime failed");
    }
    observe(name, began.elapsed(), matches!(reply, Reply::Failed(_)));
    if let Err(error) = wire::send(&mut stream, &reply, None) {
        // The runtime gave up: it deletes, or asks again and finds what was made.
        warn!(request = name, %error, "the container runtime did not wait for the answer");
    }
}

fn dispatch(
    request: Request,
    descriptor: Option<OwnedFd>,
    manager: &Manager,
) -> Result<Reply, Failure> {
    match request {
        Request::Add(wanted) => {
            let namespace = namespace(descriptor)?;
            Ok(Reply::Added(manager.add(&wanted, &namespace)?))
        }
        Request::Del(id) => manager.del(&id).map(|()| Reply::Done),
        Request::Check(wanted) => {
            let namespace = namespace(descriptor)?;
            manager.check(&wanted, &namespace).map(|()| Reply::Done)
        }
        Request::Gc(valid) => manager.gc(&valid).map(|_| Reply::Done),
        Request::Status => manager.status().map(|()| Reply::Done),
    }
}

fn namespace(descriptor: Option<OwnedFd>) -> Result<NetNs, Failure> {
    descriptor
        .map(|descriptor| NetNs::adopt("of the pod", descriptor))
        .ok_or_else(|| {
            Failure::new(
                Code::DECODING,
                "a request without its network namespace",
                "the plugin sends its descriptor along",
            )
        })
}

const fn name(request: &Request) -> &'static str {
    match request {
        Request::Add(_) => "add",
        Request::Del(_) => "del",
        Request::Check(_) => "check",
        Request::Gc(_) => "gc",
        Request::Status => "status",
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
