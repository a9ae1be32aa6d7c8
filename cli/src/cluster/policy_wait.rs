//! `sluice policy wait`: until every node follows a policy.

use std::process::ExitCode;

use sluice_client::policy::{self, Progress as Step, Wanted};

use super::{WaitArguments, progress::Progress, with_cluster};
use crate::{
    arguments::TableOrJson,
    output::{self, GOOD, styled},
};

/// Runs the command.
///
/// # Errors
/// There is no such policy, it is not valid, or time is over.
pub(crate) fn run(arguments: &WaitArguments) -> anyhow::Result<ExitCode> {
    with_cluster(&arguments.cluster, async |client| {
        let wanted = Wanted {
            kind: arguments.kind,
            namespace: arguments
                .namespace
                .clone()
                .unwrap_or_else(|| client.default_namespace().to_owned()),
            name: arguments.name.clone(),
        };
        let mut progress = Progress::new();
        let state = policy::wait(&client, &wanted, arguments.timeout, &mut |state| {
            let how = match &state.progress {
                Step::Unseen => "not seen by the operator yet",
                Step::Pending(message) | Step::Enforced(message) | Step::Invalid(message) => {
                    message
                }
            };
            progress.show(&format!("{state}: {how}"));
        })
        .await;
        progress.clear();
        let state = state?;
        match arguments.output {
            TableOrJson::Json => output::print(&(serde_json::to_string_pretty(&state)? + "\n")),
            TableOrJson::Table => {
                let how = match &state.progress {
                    Step::Enforced(message) if !message.is_empty() => message,
                    _ => "enforced",
                };
                output::print(&format!("{state}: {}\n", styled(GOOD, how)));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
