//! Every developer command: `cargo xtask …`. What a user of Sluice needs at run time may not enter.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod machine;
mod packages;
mod process;
mod programs;
mod stages;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{cli::Cli, workspace::Workspace};

fn main() -> ExitCode {
    match Workspace::find().and_then(|workspace| commands::run(Cli::parse().command, &workspace)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
