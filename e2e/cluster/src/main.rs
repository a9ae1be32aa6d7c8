//! `sluice-cluster`: the test cluster at a terminal, and the first process of every machine of one.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod commands;
mod stages;
mod test;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match commands::run(cli::Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
