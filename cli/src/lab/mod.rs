//! `sluice lab`: pods on this machine's kernel. Everything is `sluice-lab`'s; here are only words in and words out.

mod arguments;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use sluice_lab::{
    LabError, LabName, Options, Supervisor, cleanup,
    control::{self, Named, Request, Response, Status},
    demo::{self, DemoOptions},
    exec, objects,
    probe::{
        matrix::{self, Style},
        report::Options as ProbeOptions,
    },
    record::{self, Record},
    serve,
    store::{self, Store},
    supervisor,
};

pub(crate) use arguments::LabCommand;
use arguments::{
    DeleteArguments, DemoArguments, DownArguments, ExecArguments, FlowsArguments, LabFormat,
    ProbeArguments, StatusArguments, UpArguments,
};

use crate::output;

const READY: &str = "ready";

/// Runs a command of the lab.
///
/// # Errors
/// What the library says.
pub(crate) fn run(command: LabCommand) -> anyhow::Result<ExitCode> {
    match command {
        LabCommand::Up(arguments) => up(&arguments),
        LabCommand::Status(arguments) => status(&arguments),
        LabCommand::Exec(arguments) => run_in(&arguments),
        LabCommand::Probe(arguments) => probe(&arguments),
        LabCommand::Apply(arguments) => {
            let manifests = store::read_paths(&arguments.paths)?;
            changed(&control::ask(
                &arguments.lab.name,
                &Request::Apply(manifests),
            )?)
        }
        LabCommand::Delete(arguments) => delete(arguments),
        LabCommand::Flows(arguments) => flows(&arguments),
        LabCommand::Down(arguments) => down(&arguments),
        LabCommand::Demo(arguments) => show(&arguments),
        LabCommand::Serve { job } => {
            serve::run(&job)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn up(arguments: &UpArguments) -> anyhow::Result<ExitCode> {
    if arguments.detach && !arguments.in_background {
        return detach(&arguments.lab.name);
    }
    let options = Options {
        name: arguments.lab.name.clone(),
        sources: if arguments.resume {
            Vec::new()
        } else {
            arguments.paths.clone()
        },
        mode: arguments.policy_mode.map(Into::into),
        watch: arguments.watch,
        program: std::env::current_exe().context("finding the own program")?,
    };
    let mut running = Supervisor::up(&options)?;
    let warnings = running.take_warnings();
    let name = running.name().clone();
    if arguments.in_background {
        // The parent passes these lines on, waits for the last one and goes; nobody reads what comes after.
        let ready = || {
            let mut out = std::io::stdout().lock();
            for line in warnings.iter().map(String::as_str).chain([READY]) {
                let _ = writeln!(out, "{line}");
            }
        };
        log_errors(&name)?;
        supervisor::run(running, ready, &output::remark)?;
        return Ok(ExitCode::SUCCESS);
    }
    remark_on(&warnings);
    print_status(&running.status());
    let ready = || {
        output::remark(&format!(
            "lab {name} is up; Ctrl-C or `sluice lab down --name {name}` ends it"
        ));
    };
    let removed = supervisor::run(running, ready, &output::remark)?;
    output::remark(&format!(
        "lab {name} is gone: {} network namespaces removed",
        removed.namespaces
    ));
    Ok(ExitCode::SUCCESS)
}

/// Says what the authors of manifests should know.
fn remark_on(warnings: &[String]) {
    for warning in warnings {
        output::remark(warning);
    }
}

/// Sends this process's errors, panics included, to the lab's log: the pipe to the parent breaks when that goes, and whoever writes to a broken
/// pipe ends.
fn log_errors(name: &LabName) -> anyhow::Result<()> {
    let path = name.directory().join("log");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    nix::unistd::dup2_stderr(&log).context("sending errors to the log")
}

/// Starts this very command again in the background and waits until the lab is up.
fn detach(name: &LabName) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("finding the own program")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--in-background")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Not the own one: whoever reads that to its end would wait for the lab's.
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting the lab in the background")?;
    let mut ready = false;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.context("waiting for the lab")?;
            ready = line == READY;
            if ready {
                break;
            }
            output::remark(&line);
        }
    }
    if ready {
        output::remark(&format!(
            "lab {name} is up in the background; `sluice lab down --name {name}` ends it"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let failed = child.wait_with_output().context("waiting for the lab")?;
    output::remark(String::from_utf8_lossy(&failed.stderr).trim_end());
    Ok(exit_code(failed.status))
}

fn status(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let Some(name) = &arguments.name else {
        for name in record::all()? {
            let state = if control::is_attended(&name) {
                "up"
            } else {
                "without supervisor"
            };
            let pods = Record::read(&name)?.map_or(0, |record| record.pods.len());
            output::print(&format!("{name}\t{state}\t{pods} pods\n"));
        }
        return Ok(ExitCode::SUCCESS);
    };
    match control::ask(name, &Request::Status)? {
        Response::Status(status) if arguments.output == LabFormat::Json => {
            output::print(&(serde_json::to_string(&status)? + "\n"));
        }
        Response::Status(status) => print_status(&status),
        other => anyhow::bail!("the lab answered {other:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_status(status: &Status) {
    let width = status
        .pods
        .iter()
        .map(|pod| pod.pod.len())
        .max()
        .unwrap_or(0);
    for pod in &status.pods {
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        let who = pod.identity.map_or_else(
            || "outside".to_owned(),
            |identity| format!("identity {identity}"),
        );
        output::print(&format!(
            "{:width$}  {}  {who}  {}\n",
            pod.pod,
            addresses.join(" "),
            pod.listens.join(" ")
        ));
    }
    let figures: Vec<String> = status
        .tables
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    output::print(&format!(
        "{} policies; in the kernel: {}\n",
        status.policies,
        figures.join(", ")
    ));
}

fn run_in(arguments: &ExecArguments) -> anyhow::Result<ExitCode> {
    let name = &arguments.lab.name;
    let record = Record::read(name)?.ok_or_else(|| LabError::Absent(name.clone()))?;
    let namespace = record.namespace_of(name, &arguments.pod)?;
    Ok(exit_code(exec::run(&namespace, &arguments.command)?))
}

/// As a shell does: the code, or 128 and the signal.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn probe(arguments: &ProbeArguments) -> anyhow::Result<ExitCode> {
    let name = &arguments.lab.name;
    let record = Record::read(name)?.ok_or_else(|| LabError::Absent(name.clone()))?;
    let store = Store::open(&name.directory().join("manifests"))?;
    let world = objects::world(store.objects(), record.addresses())?;
    let options = ProbeOptions {
        patience: Duration::from_millis(arguments.timeout),
        ping: arguments.ping,
    };
    let cells = demo::probe_in_mode(name, &world, record.enforcement_mode(), options)?;
    if arguments.output == LabFormat::Json {
        for cell in &cells {
            output::print(&(serde_json::to_string(cell)? + "\n"));
        }
    } else {
        output::print(&matrix::render(&cells, Style { colour: true }));
    }
    let wrong: Vec<String> = cells
        .iter()
        .filter(|cell| !cell.agrees())
        .map(demo::describe)
        .collect();
    if wrong.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    output::error(&format!(
        "{} tries went not as policy says:\n  {}",
        wrong.len(),
        wrong.join("\n  ")
    ));
    Ok(ExitCode::FAILURE)
}

fn delete(arguments: DeleteArguments) -> anyhow::Result<ExitCode> {
    let request = match (arguments.kind, arguments.object) {
        (Some(kind), Some(name)) => Request::DeleteNames(vec![Named {
            kind,
            namespace: arguments.namespace,
            name,
        }]),
        _ => Request::DeleteManifests(store::read_paths(&arguments.paths)?),
    };
    changed(&control::ask(&arguments.lab.name, &request)?)
}

fn changed(response: &Response) -> anyhow::Result<ExitCode> {
    match response {
        Response::Changed {
            objects,
            micros,
            warnings,
        } => {
            remark_on(warnings);
            for line in objects {
                output::print(&format!("{line}\n"));
            }
            let what = if objects.is_empty() {
                "nothing to change"
            } else {
                "in force"
            };
            output::remark(&format!("{what} after {micros} µs"));
            Ok(ExitCode::SUCCESS)
        }
        other => anyhow::bail!("the lab answered {other:?}"),
    }
}

fn flows(arguments: &FlowsArguments) -> anyhow::Result<ExitCode> {
    let mut left = arguments.count.unwrap_or(usize::MAX);
    control::follow(&arguments.lab.name, |flow| {
        if arguments.drops && flow.reason.is_none() {
            return true;
        }
        let line = match arguments.output {
            LabFormat::Table => flow.to_string(),
            LabFormat::Json => serde_json::to_string(&flow).unwrap_or_default(),
        };
        left = left.saturating_sub(1);
        // A reader that has gone ends the following.
        writeln!(std::io::stdout(), "{line}").is_ok() && left > 0
    })?;
    Ok(ExitCode::SUCCESS)
}

fn down(arguments: &DownArguments) -> anyhow::Result<ExitCode> {
    let names = if arguments.all {
        cleanup::everything()?
    } else {
        vec![arguments.lab.name.clone()]
    };
    for name in names {
        let removed = cleanup::down(&name)?;
        if removed.is_empty() {
            output::remark(&format!("there is no lab {name}; nothing to remove"));
        } else {
            output::remark(&format!("lab {name} is gone"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let options = DemoOptions {
        shop: arguments.shop.clone(),
        // Its own name, so that it runs beside labs and other demonstrations.
        name: format!("demo{}", std::process::id()).parse()?,
        program: std::env::current_exe().context("finding the own program")?,
        style: Style { colour: true },
    };
    let outcome = demo::run(&options, &|text| output::print(&format!("{text}\n")))?;
    if outcome.wrong == 0 && !outcome.leftovers {
        output::print(&format!(
            "All {} tries went as the reference evaluator says.\n",
            outcome.cells
        ));
        return Ok(ExitCode::SUCCESS);
    }
    output::error(&format!(
        "{} of {} tries went not as the reference evaluator says{}",
        outcome.wrong,
        outcome.cells,
        if outcome.leftovers {
            ", and something was left on the machine (removed now)"
        } else {
            ""
        }
    ));
    Ok(ExitCode::FAILURE)
}
