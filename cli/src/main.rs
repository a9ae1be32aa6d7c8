//! `sluice`: what a person types. Arguments in, a library's answer out; no logic that a library should own.
//!
//! Exit codes: 0 done; 1 an invalid policy, a cluster that is not well, a wrong argument or any other error; 2 `policy eval` met a query
//! that can't be judged.
#![forbid(unsafe_code)]

mod arguments;
mod cluster;
mod engine;
mod identities;
mod lab;
mod manifests;
mod output;
mod plugin;
mod policy;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches as _};

use crate::arguments::{Command, Sluice};

fn main() -> ExitCode {
    let words = plugin::command(Sluice::command(), std::env::args_os().next().as_deref());
    let parsed = words
        .try_get_matches()
        .and_then(|matches| Sluice::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors; 2 is left to `policy eval`.
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Policy(command) => policy::run(command),
        Command::Lab(command) => lab::run(command),
        Command::Identities(arguments) => identities::run(&arguments),
        Command::Status(arguments) => cluster::status(&arguments),
        Command::Endpoints(arguments) => cluster::endpoints(&arguments),
        Command::Nodes(arguments) => cluster::nodes(&arguments),
        Command::Connectivity(command) => cluster::connectivity(command),
        Command::Sysdump(arguments) => cluster::sysdump(&arguments),
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Sluice::command(),
                "sluice",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}
