//! `sluice connectivity`: the test's words, and what its pods are started with.

use std::{fmt::Write as _, process::ExitCode};

use sluice_client::{
    connectivity::{self, Options, Summary, pod},
    facts,
};

use super::{ConnectivityCommand, arguments::TestArguments, block_on, with_cluster};
use crate::output::{self, BAD, GOOD, NOTICE, styled};

/// Runs one of the commands.
///
/// # Errors
/// What the library says.
pub(crate) fn run(command: ConnectivityCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConnectivityCommand::Test(arguments) => test(&arguments),
        ConnectivityCommand::Serve(arguments) => block_on(async {
            pod::serve(arguments.name, &arguments.ports).await?;
            Ok(ExitCode::SUCCESS)
        }),
        ConnectivityCommand::Probe { order } => block_on(async {
            let answer = pod::carry_out(&serde_json::from_str(&order)?).await;
            output::print(&serde_json::to_string(&answer)?);
            Ok(ExitCode::SUCCESS)
        }),
    }
}

fn test(arguments: &TestArguments) -> anyhow::Result<ExitCode> {
    with_cluster(&arguments.cluster, async |client| {
        let image = if let Some(image) = &arguments.image {
            image.clone()
        } else {
            let namespace = match &arguments.cluster.sluice_namespace {
                Some(namespace) => namespace.clone(),
                None => facts::find_namespace(&client).await,
            };
            connectivity::default_image(&client, &namespace).await?
        };
        let options = Options {
            image,
            namespace: arguments.namespace.clone(),
            host_port: arguments.host_port,
            start: arguments.start_timeout,
            settle: arguments.settle_timeout,
        };
        let summary = tokio::select! {
            summary = connectivity::run(&client, &options, &output::remark) => summary.map_err(anyhow::Error::from),
            // What was made is removed all the same.
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        let cleaned = if arguments.keep {
            output::remark(&format!(
                "namespaces {0} and {0}-other stay",
                options.namespace
            ));
            Ok(())
        } else {
            connectivity::clean_up(&client, &options.namespace, true).await
        };
        let summary = summary?;
        output::document(arguments.output, &summary, || report(&summary))?;
        cleaned?;
        Ok(if summary.passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

fn report(summary: &Summary) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\nNodes {}; {}\n",
        summary.nodes.join(", "),
        summary.families.join(" and ")
    );
    for scenario in &summary.scenarios {
        let settled = match scenario.settled_ms {
            Some(ms) if scenario.passed => format!(", settled within {ms} ms"),
            _ => String::new(),
        };
        let verdict = if scenario.passed {
            styled(GOOD, "ok    ")
        } else {
            styled(BAD, "FAILED")
        };
        let right = scenario.tries.saturating_sub(scenario.failures.len());
        let _ = writeln!(
            text,
            "{verdict}  {}: {right} of {} tries{settled}",
            scenario.name, scenario.tries
        );
        for failure in &scenario.failures {
            let _ = writeln!(
                text,
                "          {}: expected {}, found {}",
                failure.what, failure.expected, failure.found
            );
        }
    }
    for skipped in &summary.skipped {
        let _ = writeln!(text, "{}  {skipped}", styled(NOTICE, "not tried"));
    }
    text
}

#[cfg(test)]
mod tests {
    use sluice_client::connectivity::{Failure, ScenarioResult};

    use super::*;

    #[test]
    fn the_report_names_what_failed_and_what_was_not_tried() {
        let scenario = |name, failures: Vec<Failure>| ScenarioResult {
            name,
            passed: failures.is_empty(),
            tries: 8,
            settled_ms: failures.is_empty().then_some(120),
            failures,
        };
        let failure = Failure {
            what: "guest to server-near (10.0.0.4, TCP 8080)".to_owned(),
            expected: "silence",
            found: "answered by t/server-near".to_owned(),
        };
        let summary = Summary {
            passed: false,
            nodes: vec!["n1".to_owned(), "n2".to_owned()],
            families: vec!["IPv4", "IPv6"],
            scenarios: vec![
                scenario("no policy", vec![]),
                scenario("by label", vec![failure]),
            ],
            skipped: vec!["names: no DNS".to_owned()],
        };
        let wanted = "
Nodes n1, n2; IPv4 and IPv6

ok      no policy: 8 of 8 tries, settled within 120 ms
FAILED  by label: 7 of 8 tries
          guest to server-near (10.0.0.4, TCP 8080): expected silence, found answered by t/server-near
not tried  names: no DNS
";
        assert_eq!(
            anstream::adapter::strip_str(&report(&summary)).to_string(),
            wanted
        );
    }
}
