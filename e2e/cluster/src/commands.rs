//! One function per command of the terminal.

use std::process::{ExitCode, ExitStatus};

use anyhow::{Context as _, Result, bail};
use sluice_cluster::{Cluster, init, upstream::Report};

use crate::{
    bench,
    cli::{Command, Service, Tool, Upstream},
    test,
};

/// Runs a command.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Build => Cluster::build(&mut say)?,
        Command::Up(up) => {
            let cluster = Cluster::up(up.into(), &mut say)?;
            println!(
                "the cluster is up; its logs are in {}/*/control/log",
                cluster.folder().display()
            );
        }
        Command::Down { which } => Cluster::down(&which.name)?,
        Command::Exec {
            which,
            machine,
            command,
        } => {
            return Ok(code(Cluster::open(&which.name)?.attend(machine, &command)?));
        }
        Command::Kubectl(tool) => return attend("kubectl", &tool),
        Command::Helm(tool) => return attend("helm", &tool),
        Command::Kill(service) => open(&service)?.kill(service.machine, &service.unit)?,
        Command::Stop(service) => open(&service)?.stop(service.machine, &service.unit)?,
        Command::Start(service) => open(&service)?.start(service.machine, &service.unit)?,
        Command::Upstream(upstream) => run_upstream(&upstream)?,
        Command::Install(install) => {
            let cluster = Cluster::open(&install.which.name)?;
            for image in test::sluice::images(install.sluice.profile)? {
                for number in 1..=cluster.options().nodes {
                    cluster.load_image(number, &image)?;
                }
            }
            test::sluice::install(&cluster, install.sluice.routing, &install.helm)?;
        }
        Command::Check(check) => test::check(&check)?,
        Command::Test(test) => test::run(&test)?,
        Command::Scale(scale) => test::scale::run(&scale)?,
        Command::Bench(bench) => bench::run(&bench)?,
        Command::Load(load) => bench::load::run(&load)?,
        Command::Init { spec } => match init::run(&spec)? {},
    }
    Ok(ExitCode::SUCCESS)
}

/// Progress, apart from what commands print.
pub(crate) fn say(message: &str) {
    eprintln!("==> {message}");
}

fn open(service: &Service) -> Result<Cluster> {
    Ok(Cluster::open(&service.which.name)?)
}

fn attend(program: &str, tool: &Tool) -> Result<ExitCode> {
    Ok(code(
        Cluster::open(&tool.which.name)?
            .kubectl()
            .attended(program, &tool.arguments)?,
    ))
}

fn run_upstream(upstream: &Upstream) -> Result<()> {
    let cluster = Cluster::open(&upstream.which.name)?;
    let report = cluster
        .run_e2e(&upstream.selection())
        .context("running the upstream tests")?;
    judge(&report)
}

/// Shows a report; an error if it is not good.
pub(crate) fn judge(report: &Report) -> Result<()> {
    for (name, why) in &report.skipped {
        println!("left out: {name}: {}", first_line(why));
    }
    for (name, why) in &report.failed {
        println!("FAILED: {name}: {}", first_line(why));
    }
    println!(
        "{} passed, {} failed, {} left themselves out, in {:.0} s",
        report.passed.len(),
        report.failed.len(),
        report.skipped.len(),
        report.time.as_secs_f64()
    );
    if !report.is_good() {
        bail!("the upstream tests did not pass");
    }
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// As a shell has it: a signal's number above 128.
fn code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
