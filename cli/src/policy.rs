//! `sluice policy`: what can be asked about policies. All but `wait` do without a cluster.

mod eval;
mod explain;
mod matrix;
mod rule;
mod validate;

use std::process::ExitCode;

use crate::{arguments::PolicyCommand, cluster};

/// Runs one of the commands.
///
/// # Errors
/// What the person has to put right, in one message.
pub(crate) fn run(command: PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Validate(arguments) => validate::run(&arguments),
        PolicyCommand::Eval(arguments) => eval::run(&arguments),
        PolicyCommand::Explain(arguments) => explain::run(&arguments),
        PolicyCommand::Matrix(arguments) => matrix::run(&arguments),
        PolicyCommand::Wait(arguments) => cluster::policy_wait(&arguments),
    }
}
