//! `sluice policy`: what can be asked about policies, without a cluster and without a kernel.

mod eval;
mod explain;
mod matrix;
mod rule;
mod validate;

use std::process::ExitCode;

use crate::arguments::PolicyCommand;

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
    }
}
