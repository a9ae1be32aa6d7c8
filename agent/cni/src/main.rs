#![forbid(unsafe_code)]
//! The CNI plugin as a program: environment and standard input in, standard output and exit code out. Nothing else may enter.

use std::{
    env,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use serde_json::Value;
use sluice_cni::{
    invocation::{Config, Environment},
    output, plugin,
    protocol::{Code, Failure},
};

fn main() -> ExitCode {
    let environment =
        Environment::new(env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
    let mut stdin = Vec::new();
    let read = io::stdin().read_to_end(&mut stdin).map_err(|error| {
        Failure::new(
            Code::IO,
            "reading the network configuration",
            error.to_string(),
        )
    });
    match read.and_then(|_| plugin::run(&environment, &stdin)) {
        Ok(printed) => printed.as_ref().map_or(ExitCode::SUCCESS, print),
        Err(failure) => {
            // The version an error is told in is the one asked for, where that much can be read.
            let version = Config::parse(&stdin).unwrap_or_default().version;
            print(&output::failure(&version, &failure));
            ExitCode::FAILURE
        }
    }
}

fn print(value: &Value) -> ExitCode {
    match writeln!(io::stdout(), "{value}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
