//! The loop of a supervisor: one thing after another, whoever asks. Doing them may not enter.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use notify::Watcher;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use sluice_agent::{FlowReader, FlowRecord};

use super::Supervisor;
use crate::{
    LabError, cleanup,
    control::{self, Request, Response},
};

/// How often connections that are over are removed.
const COLLECTION: Duration = Duration::from_secs(5);
/// How long files are left in peace after a change: editors write several times.
const REST: Duration = Duration::from_millis(150);
/// How long the reader of events waits before it looks whether the lab is ending.
const GLANCE: Duration = Duration::from_millis(200);

/// What the loop is told.
enum News {
    Asked(Request, Sender<Response>),
    FilesChanged,
    /// A signal, or nobody left to ask.
    End,
}

/// Who follows flows.
type Followers = Arc<Mutex<Vec<Sender<FlowRecord>>>>;

/// Looks after a lab until it is told to end, and removes it. Calls `ready` once commands are answered; each message for the person in front
/// of the terminal goes to `say`.
///
/// # Errors
/// The control socket or the signals can't be listened to; the lab is left in force then, for another supervisor.
pub fn run(
    mut supervisor: Supervisor,
    ready: impl FnOnce(),
    say: &dyn Fn(&str),
) -> Result<cleanup::Removed, LabError> {
    let (tell, news) = mpsc::channel();
    let followers = Followers::default();
    let ending = Arc::new(AtomicBool::new(false));
    let reader = supervisor.agent().flows()?;
    let flows = thread::spawn({
        let (followers, ending) = (Arc::clone(&followers), Arc::clone(&ending));
        move || spread(reader, &followers, &ending)
    });
    listen_to_signals(tell.clone())?;
    listen_to_commands(&supervisor, tell.clone(), followers)?;
    let _watcher = supervisor
        .record
        .watch
        .then(|| watch(&supervisor, tell))
        .transpose()?;
    ready();
    let answer = supervise(&mut supervisor, &news, say);
    ending.store(true, Ordering::Relaxed);
    // The reader holds nothing that outlives it.
    let _ = flows.join();
    let removed = supervisor.down();
    if let Some(answer) = answer {
        let _ = answer.send(match &removed {
            Ok(_) => Response::Done,
            Err(error) => Response::Error(error.to_string()),
        });
        // The thread that writes the answer ends with the process; give it the moment it needs.
        thread::sleep(Duration::from_millis(50));
    }
    removed
}

/// Works until told to end; returns whom to tell that it has.
fn supervise(
    supervisor: &mut Supervisor,
    news: &mpsc::Receiver<News>,
    say: &dyn Fn(&str),
) -> Option<Sender<Response>> {
    let mut collected = Instant::now();
    let mut kept = VecDeque::new();
    loop {
        let next = kept
            .pop_front()
            .map_or_else(|| news.recv_timeout(COLLECTION), Ok);
        match next {
            Ok(News::Asked(Request::Down, answer)) => return Some(answer),
            Ok(News::Asked(request, answer)) => {
                // Whoever asked may be gone.
                let _ = answer.send(respond(supervisor, request));
            }
            Ok(News::FilesChanged) => kept.extend(follow(supervisor, news, say)),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(News::End) | Err(RecvTimeoutError::Disconnected) => return None,
        }
        if let Err(error) = supervisor.settle() {
            say(&format!("tidying up after a change: {error}"));
        }
        if collected.elapsed() >= COLLECTION {
            collected = Instant::now();
            if let Err(error) = supervisor.collect_connections() {
                say(&format!("removing connections that are over: {error}"));
            }
        }
    }
}

fn respond(supervisor: &mut Supervisor, request: Request) -> Response {
    let result = match request {
        Request::Apply(manifests) => supervisor.apply(&manifests),
        Request::DeleteManifests(manifests) => supervisor.delete_manifests(&manifests),
        Request::DeleteNames(names) => supervisor.delete_names(&names),
        Request::Status => Ok(Response::Status(Box::new(supervisor.status()))),
        Request::Flows => Ok(Response::Flows),
        Request::Down => Ok(Response::Done),
    };
    result.unwrap_or_else(|error| Response::Error(error.to_string()))
}

/// Waits until the files rest, then makes the lab what they say. Returns the other news that came meanwhile.
fn follow(
    supervisor: &mut Supervisor,
    news: &mpsc::Receiver<News>,
    say: &dyn Fn(&str),
) -> Vec<News> {
    let mut others = Vec::new();
    loop {
        match news.recv_timeout(REST) {
            Ok(News::FilesChanged) => {}
            Ok(other) => others.push(other),
            Err(_) => break,
        }
    }
    match supervisor.follow_sources() {
        Ok(Response::Changed {
            objects,
            micros,
            warnings,
        }) if !objects.is_empty() => {
            for warning in &warnings {
                say(warning);
            }
            say(&format!(
                "files changed: {} (in force after {micros} µs)",
                objects.join(", ")
            ));
        }
        Ok(_) => {}
        Err(error) => say(&format!(
            "files changed, but what they say is not in force: {error}"
        )),
    }
    others
}

fn listen_to_signals(tell: Sender<News>) -> Result<(), LabError> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(LabError::io("listening to signals"))?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if tell.send(News::End).is_err() {
                break;
            }
        }
    });
    Ok(())
}

fn listen_to_commands(
    supervisor: &Supervisor,
    tell: Sender<News>,
    followers: Followers,
) -> Result<(), LabError> {
    let listener = control::listen(supervisor.name())?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (tell, followers) = (tell.clone(), Arc::clone(&followers));
            thread::spawn(move || converse(stream, &tell, &followers));
        }
    });
    Ok(())
}

/// One command: its request, its answer. Errors are the other side's going away.
fn converse(mut stream: UnixStream, tell: &Sender<News>, followers: &Followers) {
    let mut line = String::new();
    let Ok(read) = stream.try_clone() else { return };
    if BufReader::new(read).read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let _ = control::send(
                &mut stream,
                &Response::Error(format!("a request that can't be read: {error}")),
            );
            return;
        }
    };
    if request == Request::Flows {
        return send_flows(stream, followers);
    }
    let (answer, answered) = mpsc::channel();
    if tell.send(News::Asked(request, answer)).is_ok()
        && let Ok(response) = answered.recv()
    {
        let _ = control::send(&mut stream, &response);
    }
}

fn send_flows(mut stream: UnixStream, followers: &Followers) {
    let (tell, told) = mpsc::channel();
    followers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(tell);
    if control::send(&mut stream, &Response::Flows).is_err() {
        return;
    }
    for flow in told {
        if control::send(&mut stream, &flow).is_err() {
            return;
        }
    }
}

/// Gives every flow to all who follow.
fn spread(mut reader: FlowReader, followers: &Followers, ending: &AtomicBool) {
    while !ending.load(Ordering::Relaxed) {
        let Ok(flows) = reader.read(GLANCE) else {
            return;
        };
        let mut followers = followers.lock().unwrap_or_else(PoisonError::into_inner);
        for flow in flows {
            followers.retain(|follower| follower.send(flow.clone()).is_ok());
        }
    }
}

fn watch(
    supervisor: &Supervisor,
    tell: Sender<News>,
) -> Result<notify::RecommendedWatcher, LabError> {
    let failed = |error: notify::Error| LabError::Refused(format!("watching files: {error}"));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = tell.send(News::FilesChanged);
        }
    })
    .map_err(failed)?;
    for source in &supervisor.record.sources {
        watcher
            .watch(source, notify::RecursiveMode::Recursive)
            .map_err(failed)?;
    }
    Ok(watcher)
}
