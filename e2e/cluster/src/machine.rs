//! A running machine: its first process, commands inside it, its services, and its end.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    cgroups, command,
    control::{Control, Service, Want},
    error::{Doing as _, Error, Result},
    init::{Root, Spec},
    plan::{self, Machine, Name},
    program,
};

/// `PATH` inside a machine.
pub(crate) const PATH: &str =
    "/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A machine that was started.
#[derive(Debug)]
pub(crate) struct Running {
    machine: Machine,
    control: Control,
    started: Started,
}

/// What is remembered of a started machine, in `started.json` of its folder.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Started {
    /// The process that waits for the first process; when it dies, so does the machine.
    launcher: i32,
    /// The first process.
    first: i32,
    /// Control groups that a command inside joins.
    groups: Vec<PathBuf>,
}

/// Starts a machine in its network namespace. `folder` is where its state goes.
pub(crate) fn start(
    name: &Name,
    machine: Machine,
    folder: &Path,
    programs: Option<&Path>,
) -> Result<Running> {
    let control = Control::new(folder.join("control"));
    control.create()?;
    let groups = cgroups::create(&plan::namespace(name, machine))?;
    let root = programs.map(|programs| Root {
        folder: folder.join("root"),
        programs: programs.to_owned(),
        controllers: groups.controllers.clone(),
    });
    let spec = Spec {
        hostname: machine.to_string(),
        control: control.folder().to_owned(),
        root,
    };
    let spec_file = folder.join("init.json");
    write_json(&spec_file, &spec)?;
    let mut launch = joining(&groups.folders);
    launch
        .arg("nsenter")
        .arg(format!(
            "--net=/run/netns/{}",
            plan::namespace(name, machine)
        ))
        .args([
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--cgroup",
            "--fork",
            "--kill-child",
        ])
        .arg(program::path()?)
        .arg("init")
        .arg(&spec_file);
    let log_file = folder.join("init.log");
    let log = fs::File::create(&log_file).map_err(Error::at("creating", &log_file))?;
    let errors = log.try_clone().map_err(Error::at("opening", &log_file))?;
    let child = launch
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // Ctrl-C at the terminal is for the command, not for the cluster.
        .process_group(0)
        .spawn()
        .map_err(|source| Error::Start {
            command: command::shown(&launch),
            source,
        })?;
    let launcher = pid(child.id())?;
    let first = first_process(child, &control, &log_file)?;
    let started = Started {
        launcher,
        first,
        groups: groups.folders,
    };
    write_json(&folder.join("started.json"), &started)?;
    Ok(Running {
        machine,
        control,
        started,
    })
}

/// The machine that was started in this folder, if its first process lives.
pub(crate) fn open(machine: Machine, folder: &Path) -> Result<Option<Running>> {
    let path = folder.join("started.json");
    let Ok(text) = fs::read(&path) else {
        return Ok(None);
    };
    let started: Started = serde_json::from_slice(&text).map_err(|error| Error::Unreadable {
        what: path.display().to_string(),
        why: error.to_string(),
    })?;
    // A process id may be another program's by now.
    let ours = children(started.launcher).contains(&started.first);
    Ok(ours.then(|| Running {
        machine,
        control: Control::new(folder.join("control")),
        started,
    }))
}

/// Waits until the machine is made; its log tells why if it isn't.
fn first_process(mut child: std::process::Child, control: &Control, log: &Path) -> Result<i32> {
    let launcher = pid(child.id())?;
    command::wait(
        "the start of a machine's first process",
        &format!("see {}", log.display()),
        Duration::from_secs(30),
        || match child.try_wait() {
            Ok(None) if control.is_ready() => children(launcher).first().copied().map(Ok),
            Ok(None) => None,
            Ok(Some(status)) => Some(Err(Error::Failed {
                command: "the first process of a machine".to_owned(),
                status,
                stderr: fs::read_to_string(log)
                    .unwrap_or_default()
                    .trim_end()
                    .to_owned(),
            })),
            Err(source) => Some(Err(Error::System {
                doing: "waiting for a machine's start".to_owned(),
                source,
            })),
        },
    )?
}

impl Running {
    /// A command inside the machine, in all its namespaces and control groups.
    pub(crate) fn command(&self, argv: &[String]) -> Command {
        let mut command = joining(&self.started.groups);
        command
            .arg("nsenter")
            .args(["--target", &self.started.first.to_string()]);
        command.args([
            "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
        ]);
        command
            .args(["--", "env", &format!("PATH={PATH}")])
            .args(argv);
        command
    }

    /// Runs a command inside and gives what it prints.
    pub(crate) fn exec(&self, argv: &[&str]) -> Result<String> {
        command::output(&mut self.command(&owned(argv)))
    }

    /// As [`Self::exec`], with something to read.
    pub(crate) fn exec_fed(&self, argv: &[&str], input: Stdio) -> Result<String> {
        let mut command = self.command(&owned(argv));
        let done = command
            .stdin(input)
            .output()
            .map_err(|source| Error::Start {
                command: command::shown(&command),
                source,
            })?;
        command::finish(&command, &done)
    }

    /// Adds a service that shall run.
    pub(crate) fn add(&self, name: &str, service: &Service) -> Result<()> {
        self.control.add(name, service)
    }

    /// Says whether a service shall run, and waits until it does or doesn't.
    pub(crate) fn set(&self, name: &str, want: Want) -> Result<()> {
        self.known(name)?;
        self.control.set(name, want)?;
        let what = format!(
            "{} of {name} on {}",
            if want == Want::Up {
                "the start"
            } else {
                "the end"
            },
            self.machine
        );
        command::wait(&what, &self.hint(name), Duration::from_secs(30), || {
            (self.control.running(name).is_some() == (want == Want::Up)).then_some(())
        })
    }

    /// Kills a service's process with SIGKILL. It comes back after a second, as under any service manager.
    pub(crate) fn kill(&self, name: &str) -> Result<()> {
        self.known(name)?;
        let Some(pid) = self.control.running(name) else {
            return Err(Error::Missing {
                what: format!("the process of {name} on {}", self.machine),
                hint: format!("it ended already or was stopped; {}", self.hint(name)),
            });
        };
        self.exec(&["kill", "-KILL", &pid.to_string()]).map(drop)
    }

    /// The service's process id, as the machine counts, while it runs.
    pub(crate) fn pid_of(&self, name: &str) -> Option<u32> {
        self.control.running(name)
    }

    /// Where a service's output is.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.control.log(name)
    }

    fn hint(&self, name: &str) -> String {
        format!("see {}", self.log(name).display())
    }

    fn known(&self, name: &str) -> Result<()> {
        let services = self.control.services()?;
        if services.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(Error::Argument {
            what: format!("the service `{name}` of {}", self.machine),
            why: format!("its services are {}", services.join(", ")),
        })
    }
}

/// A shell that enters control groups and becomes what is added as arguments.
fn joining(groups: &[PathBuf]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "n=$1; shift; while [ \"$n\" -gt 0 ]; do echo $$ > \"$1/cgroup.procs\" || exit; shift; n=$((n-1)); done; exec \"$@\""]);
    command
        .arg("enter")
        .arg(groups.len().to_string())
        .args(groups);
    command
}

/// Ends every one of these processes at once. One that is gone already is as wanted.
pub(crate) fn kill_all(pids: impl IntoIterator<Item = i32>) -> Result<()> {
    for pid in pids {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).doing(|| format!("killing the process {pid}")),
        }
    }
    Ok(())
}

fn children(pid: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

fn pid(id: u32) -> Result<i32> {
    i32::try_from(id).map_err(|_| Error::Unreadable {
        what: format!("the process id {id}"),
        why: "it is out of range".to_owned(),
    })
}

fn owned(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::Unreadable {
        what: path.display().to_string(),
        why: error.to_string(),
    })?;
    fs::write(path, text).map_err(Error::at("writing", path))
}
