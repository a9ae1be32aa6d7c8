//! `sluice status`: how a cluster's network is, in one screen.

use std::{fmt::Write as _, process::ExitCode, time::Instant};

use anstyle::Style;
use sluice_client::{
    Error,
    status::{self, Agent, Level, NodeReport, Report},
};

use super::{StatusArguments, progress::Progress, with_cluster};
use crate::output::{self, BAD, GOOD, HEADING, NOTICE, Table, styled};

/// Runs the command. Green is 0.
///
/// # Errors
/// The API server refuses, or Sluice is not installed.
pub(crate) fn run(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    with_cluster(&arguments.cluster, async |client| {
        let namespace = arguments.cluster.sluice_namespace.as_deref();
        let ask = !arguments.without_agents;
        let report = if arguments.wait {
            let begin = Instant::now();
            let mut progress = Progress::new();
            let tell = &mut |seen: &Result<Report, Error>| {
                progress.show(&waiting(seen, begin.elapsed().as_secs()));
            };
            status::wait(&client, namespace, ask, arguments.wait_duration, tell).await?
        } else {
            status::status(&client, namespace, ask).await?
        };
        output::document(arguments.output, &report, || {
            table(&report, output::terminal_width())
        })?;
        Ok(if report.green {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

/// One line while waiting.
fn waiting(seen: &Result<Report, Error>, seconds: u64) -> String {
    match seen {
        Ok(report) if report.green => format!("{seconds} s: all is well"),
        Ok(report) => {
            let problems: Vec<_> = report
                .findings
                .iter()
                .filter(|finding| finding.level == Level::Problem)
                .collect();
            let first = problems
                .first()
                .map(|first| format!("{}: {}", first.subject, first.text));
            let more = match problems.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            format!("{seconds} s: {}{more}", first.unwrap_or_default())
        }
        Err(error) => format!("{seconds} s: {error}"),
    }
}

fn table(report: &Report, width: Option<usize>) -> String {
    let mut text = String::new();
    let verdict = if report.green {
        styled(GOOD, "all is well")
    } else {
        styled(BAD, "not well")
    };
    let _ = writeln!(
        text,
        "Sluice in namespace {}: {verdict}\n",
        report.namespace
    );
    text.push_str(&summary(report));
    text.push('\n');
    text.push_str(&nodes(&report.nodes).render_within(width));
    for (level, heading, style) in [
        (Level::Problem, "Problems", BAD),
        (Level::Notice, "Notices", NOTICE),
    ] {
        let mut of_level = report
            .findings
            .iter()
            .filter(|finding| finding.level == level)
            .peekable();
        if of_level.peek().is_some() {
            let _ = writeln!(text, "\n{}", styled(HEADING, heading));
        }
        for finding in of_level {
            let _ = writeln!(
                text,
                "  {}: {}",
                styled(style, &finding.subject),
                finding.text
            );
        }
    }
    text
}

fn summary(report: &Report) -> String {
    let operator = &report.operator;
    let leader = match (&operator.leader, &operator.address) {
        (Some(pod), Some(address)) => format!("{pod} leads at {address}"),
        (Some(pod), None) => format!("{pod} leads"),
        _ => "nobody leads".to_owned(),
    };
    let endpoints = &report.endpoints;
    let mut unready = Vec::new();
    for (count, word) in [
        (endpoints.waiting, "waiting"),
        (endpoints.disconnected, "disconnected"),
    ] {
        if count > 0 {
            unready.push(format!("{count} {word}"));
        }
    }
    let policies = &report.policies;
    let mut wanting = Vec::new();
    for (count, word) in [
        (policies.invalid, "invalid"),
        (policies.pending, "not enforced everywhere"),
    ] {
        if count > 0 {
            wanting.push(format!("{count} {word}"));
        }
    }
    let count = |ready: i64, of: i64| {
        let style = if ready >= of && of > 0 { GOOD } else { BAD };
        styled(style, &format!("{ready}/{of} ready"))
    };
    let lines = [
        (
            "Operator",
            count(
                operator.replicas.ready.into(),
                operator.replicas.desired.into(),
            ),
            leader,
        ),
        (
            "Agents",
            count(report.agents.ready.into(), report.agents.desired.into()),
            String::new(),
        ),
        (
            "Revision",
            report.revision.clone().unwrap_or_else(|| "none".to_owned()),
            String::new(),
        ),
        (
            "Endpoints",
            format!("{}/{} ready", endpoints.ready, endpoints.total),
            unready.join(", "),
        ),
        (
            "Policies",
            format!("{} with a status", policies.total),
            wanting.join(", "),
        ),
    ];
    let mut text = String::new();
    for (name, what, more) in lines {
        let more = if more.is_empty() {
            more
        } else {
            format!("; {more}")
        };
        let _ = writeln!(
            text,
            "{}{:width$}{what}{more}",
            styled(HEADING, name),
            "",
            width = 11 - name.len()
        );
    }
    text
}

fn nodes(nodes: &[NodeReport]) -> Table {
    let mut table = Table::new(&[
        "NODE",
        "AGENT",
        "RELEASE",
        "REVISION",
        "BEHIND",
        "ENDPOINTS",
        "FULLEST MAP",
        "KERNEL LACKS",
    ]);
    for node in nodes {
        let plain = |text: String| (Style::new(), text);
        let or_dash = |text: Option<String>| plain(text.unwrap_or_else(|| "-".to_owned()));
        let agent = match node.agent {
            Agent::Ready => (GOOD, "ready"),
            Agent::Alone => (BAD, "alone"),
            Agent::Absent => (BAD, "absent"),
        };
        table.row(vec![
            plain(node.name.clone()),
            (agent.0, agent.1.to_owned()),
            or_dash(node.release.clone()),
            or_dash(node.revision.clone()),
            or_dash(node.behind.map(|behind| behind.to_string())),
            plain(format!("{}/{}", node.endpoints_ready, node.endpoints)),
            or_dash(
                node.fullest_map
                    .as_ref()
                    .map(|(name, percent)| format!("{name} {percent} %")),
            ),
            plain(if node.missing_features.is_empty() {
                "nothing".to_owned()
            } else {
                node.missing_features.join(", ")
            }),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use sluice_client::status::{Endpoints, Finding, Operator, Pods, Policies};

    use super::*;

    fn report() -> Report {
        let node = |name: &str, agent, behind| NodeReport {
            name: name.to_owned(),
            agent,
            release: Some("0.1.0".to_owned()),
            revision: Some("7.42".to_owned()),
            behind,
            endpoints: 4,
            endpoints_ready: 4,
            fullest_map: Some(("connections".to_owned(), 30)),
            missing_features: Vec::new(),
            routing: Some("direct".to_owned()),
        };
        Report {
            green: false,
            namespace: "kube-system".to_owned(),
            operator: Operator {
                replicas: Pods {
                    desired: 2,
                    ready: 2,
                },
                leader: Some("sluice-operator-5f-abc".to_owned()),
                address: Some("[fd00::1]:4245".to_owned()),
            },
            agents: Pods {
                desired: 2,
                ready: 2,
            },
            revision: Some("7.42".to_owned()),
            endpoints: Endpoints {
                total: 9,
                ready: 8,
                waiting: 1,
                disconnected: 0,
            },
            policies: Policies {
                total: 3,
                invalid: 1,
                pending: 0,
            },
            nodes: vec![
                node("n1", Agent::Ready, Some(0)),
                node("n2", Agent::Alone, None),
            ],
            findings: vec![
                Finding {
                    level: Level::Problem,
                    subject: "node n2".to_owned(),
                    text: "its agent has no operator: refused".to_owned(),
                },
                Finding {
                    level: Level::Notice,
                    subject: "node n1".to_owned(),
                    text: "kernel: geneve: absent".to_owned(),
                },
            ],
        }
    }

    #[test]
    fn one_screen_says_all() {
        let text = anstream::adapter::strip_str(&table(&report(), None)).to_string();
        let wanted = "\
Sluice in namespace kube-system: not well

Operator   2/2 ready; sluice-operator-5f-abc leads at [fd00::1]:4245
Agents     2/2 ready
Revision   7.42
Endpoints  8/9 ready; 1 waiting
Policies   3 with a status; 1 invalid

NODE  AGENT  RELEASE  REVISION  BEHIND  ENDPOINTS  FULLEST MAP       KERNEL LACKS
n1    ready  0.1.0    7.42      0       4/4        connections 30 %  nothing
n2    alone  0.1.0    7.42      -       4/4        connections 30 %  nothing

Problems
  node n2: its agent has no operator: refused

Notices
  node n1: kernel: geneve: absent
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn while_waiting_the_first_problem_is_told() {
        assert_eq!(
            waiting(&Ok(report()), 3),
            "3 s: node n2: its agent has no operator: refused"
        );
        let mut two = report();
        two.findings.push(two.findings[0].clone());
        assert!(waiting(&Ok(two), 3).ends_with("(and 1 more)"));
        let green = Report {
            green: true,
            ..Report::default()
        };
        assert_eq!(waiting(&Ok(green), 9), "9 s: all is well");
    }
}
