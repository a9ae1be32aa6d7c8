//! Keeps services as the control folder wants them: starts what shall run, restarts what ended, ends what shall not run, and
//! reaps whatever else loses its parent.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    control::{Control, Service, Want},
    error::{Error, Result},
};

const TICK: Duration = Duration::from_millis(50);
/// As a service manager would: an ended service comes back after a moment.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How long a service that shall end may take before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<String, Running>,
    ended: BTreeMap<String, Instant>,
    reported: BTreeSet<String>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    told_to_end: Option<Instant>,
}

/// Never returns while the control folder can be read.
pub(super) fn supervise(folder: &Path) -> Result<Infallible> {
    let control = Control::new(folder);
    let mut state = State::default();
    control.write_ready()?;
    loop {
        state.reap(&control)?;
        for name in control.services()? {
            match control.want(&name)? {
                Want::Up => state.start(&control, &name),
                Want::Down => state.end(&name),
            }
        }
        thread::sleep(TICK);
    }
}

impl State {
    fn start(&mut self, control: &Control, name: &str) {
        let waits = self
            .ended
            .get(name)
            .is_some_and(|at| at.elapsed() < RESTART_AFTER);
        if waits || self.running.contains_key(name) {
            return;
        }
        match control
            .service(name)
            .and_then(|service| launch(control, name, &service))
        {
            Ok(pid) => {
                self.reported.remove(name);
                self.running.insert(
                    name.to_owned(),
                    Running {
                        pid,
                        told_to_end: None,
                    },
                );
            }
            Err(error) => {
                // Once: this is tried again every second.
                if self.reported.insert(name.to_owned()) {
                    eprintln!("error: {error}");
                }
                self.ended.insert(name.to_owned(), Instant::now());
            }
        }
    }

    fn end(&mut self, name: &str) {
        self.ended.remove(name);
        let Some(running) = self.running.get_mut(name) else {
            return;
        };
        let signal = match running.told_to_end {
            None => {
                running.told_to_end = Some(Instant::now());
                Signal::SIGTERM
            }
            Some(at) if at.elapsed() > PATIENCE => Signal::SIGKILL,
            Some(_) => return,
        };
        // It may be gone already: then it is reaped at the next turn.
        kill(running.pid, signal).unwrap_or_default();
    }

    fn reap(&mut self, control: &Control) -> Result<()> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    let found = self.running.iter().find(|(_, running)| running.pid == pid);
                    if let Some(name) = found.map(|(name, _)| name.clone()) {
                        self.running.remove(&name);
                        control.forget_pid(&name)?;
                        self.ended.insert(name, Instant::now());
                    }
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    return Err(Error::System {
                        doing: "waiting for children".to_owned(),
                        source: error.into(),
                    });
                }
            }
        }
    }
}

fn launch(control: &Control, name: &str, service: &Service) -> Result<Pid> {
    let path = control.log(name);
    let log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(Error::at("opening", &path))?;
    let errors = log.try_clone().map_err(Error::at("opening", &path))?;
    let (program, arguments) = service
        .argv
        .split_first()
        .ok_or_else(|| Error::Unreadable {
            what: format!("the service {name}"),
            why: "it has no command".to_owned(),
        })?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&service.env)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| Error::Start {
            command: service.argv.join(" "),
            source,
        })?;
    let id = child.id();
    fs::write(control.pid(name), id.to_string())
        .map_err(Error::at("writing", control.pid(name)))?;
    let id = i32::try_from(id).map_err(|_| Error::Unreadable {
        what: format!("the process id {id}"),
        why: "it is out of range".to_owned(),
    })?;
    Ok(Pid::from_raw(id))
}
