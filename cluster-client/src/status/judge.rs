//! The judgement: facts in, report out, nothing else.

use std::fmt::Write as _;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::SignedDuration};
use sluice_crds::resources::EndpointState;

use super::{Agent, Endpoints, Finding, Level, NodeReport, Operator, Pods, Policies, Report};
use crate::{
    agent::AgentStatus,
    facts::{Facts, Rollout},
    objects::NodeRow,
    policy::{PolicyState, Progress},
};

/// A map so full, in percent, leaves no room for a bad day.
const NEARLY_FULL: u64 = 75;
/// One so full will soon refuse.
const FULL: u64 = 90;
/// Steps that a node may be behind while many changes are on their way.
const FEW_STEPS: u64 = 50;
/// A pod gets its interface in seconds; one that waits for longer is stuck.
const STUCK: SignedDuration = SignedDuration::from_secs(60);
/// Beyond a lease's duration: clocks of machines differ.
const CLOCKS: SignedDuration = SignedDuration::from_secs(30);
/// Objects that a finding names before it counts the rest.
const NAMED: usize = 5;

/// A revision: epoch and number.
type Revision = (u64, u64);

/// What the facts come to.
#[must_use]
pub fn judge(facts: &Facts) -> Report {
    let mut findings = Findings::default();
    let newest = newest(facts);
    let operator = operator(facts, &mut findings);
    let agents = agents(facts, &mut findings);
    let nodes = nodes(facts, newest, &mut findings);
    let endpoints = endpoints(facts, &mut findings);
    let policies = policies(facts, &mut findings);
    let mut findings = findings.0;
    findings.sort();
    findings.dedup();
    Report {
        green: findings
            .iter()
            .all(|finding| finding.level != Level::Problem),
        namespace: facts.namespace.clone(),
        operator,
        agents,
        revision: newest.map(|(epoch, number)| format!("{epoch}.{number}")),
        endpoints,
        policies,
        nodes,
        findings,
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn problem(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.push(Level::Problem, subject.into(), text.into());
    }

    fn notice(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.push(Level::Notice, subject.into(), text.into());
    }

    fn push(&mut self, level: Level, subject: String, text: String) {
        self.0.push(Finding {
            level,
            subject,
            text,
        });
    }
}

fn operator(facts: &Facts, findings: &mut Findings) -> Operator {
    let replicas = rollout(
        "operator",
        facts.operator,
        "Deployment sluice-operator",
        findings,
    );
    let mut operator = Operator {
        replicas,
        ..Operator::default()
    };
    let Some(lease) = &facts.lease else {
        findings.problem(
            "operator",
            "no replica has ever led: there is no Lease sluice-operator",
        );
        return operator;
    };
    let Some(holder) = &lease.holder else {
        findings.problem("operator", "no replica leads now");
        return operator;
    };
    // `<pod>_<start>@<address>`; whoever takes the lease by hand may write otherwise.
    let (identity, address) = holder
        .rsplit_once('@')
        .map_or((&holder[..], None), |(identity, address)| {
            (identity, Some(address))
        });
    let pod = identity.rsplit_once('_').map_or(identity, |(pod, _)| pod);
    operator.leader = Some(pod.to_owned());
    operator.address = address.map(str::to_owned);
    if let Some(renewed) = lease.renewed {
        let silent = facts.at.duration_since(renewed);
        if silent > SignedDuration::from_secs(lease.seconds.into()) + CLOCKS {
            findings.problem(
                "operator",
                format!(
                    "{pod} leads by the Lease, and has not renewed it for {} s",
                    silent.as_secs()
                ),
            );
        }
    }
    operator
}

fn agents(facts: &Facts, findings: &mut Findings) -> Pods {
    rollout("agents", facts.agents, "DaemonSet sluice-agent", findings)
}

fn rollout(subject: &str, rollout: Option<Rollout>, object: &str, findings: &mut Findings) -> Pods {
    let Some(rollout) = rollout else {
        findings.problem(subject, format!("there is no {object} in the namespace"));
        return Pods::default();
    };
    if rollout.desired == 0 {
        findings.problem(subject, format!("{object} wants no pods"));
    } else if rollout.ready < rollout.desired {
        findings.problem(
            subject,
            format!("{} of {} pods are ready", rollout.ready, rollout.desired),
        );
    }
    if !rollout.current {
        findings.problem(
            subject,
            format!("a change of {object} has not been taken up yet"),
        );
    } else if rollout.updated < rollout.desired {
        findings.notice(
            subject,
            format!(
                "{} of {} pods are of the newest template",
                rollout.updated, rollout.desired
            ),
        );
    }
    Pods {
        desired: rollout.desired,
        ready: rollout.ready,
    }
}

fn nodes(facts: &Facts, newest: Option<Revision>, findings: &mut Findings) -> Vec<NodeReport> {
    if facts.nodes.is_empty() {
        findings.problem("nodes", "the cluster has none");
    }
    let mut names: Vec<&String> = facts.nodes.iter().collect();
    names.sort();
    names
        .into_iter()
        .map(|name| node(name, facts, newest, findings))
        .collect()
}

fn node(
    name: &str,
    facts: &Facts,
    newest: Option<Revision>,
    findings: &mut Findings,
) -> NodeReport {
    let subject = format!("node {name}");
    let record = facts.records.get(name);
    let answer = facts.answers.as_ref().and_then(|answers| answers.get(name));
    let mut report = NodeReport {
        name: name.to_owned(),
        ..NodeReport::default()
    };
    match record {
        None => findings.problem(
            &subject,
            "the operator knows nothing of it: there is no SluiceNode",
        ),
        Some(record) => from_record(
            &mut report,
            record,
            matches!(answer, Some(Ok(_))),
            &subject,
            findings,
        ),
    }
    match answer {
        Some(Ok(agent)) => from_agent(&mut report, agent, &subject, findings),
        // Who may not run programs in pods sees what the operator knows, and is told so.
        Some(Err(why)) if why.contains("forbidden") => {
            findings.notice(
                "agents",
                format!(
                    "they can't be asked, so that maps are not judged: {}",
                    last_part(why)
                ),
            );
        }
        Some(Err(why)) => findings.problem(&subject, format!("its agent can't be asked: {why}")),
        None if facts.answers.is_some() => {
            findings.problem(&subject, "no pod of an agent runs on it");
        }
        None => {}
    }
    lag(&mut report, newest, &subject, findings);
    report
}

/// `running … in pod …: why` without its first part, which differs from node to node.
fn last_part(why: &str) -> &str {
    why.find("forbidden").map_or(why, |at| &why[at..])
}

/// What the operator knows; `answered` by the agent itself, its troubles are not told twice.
fn from_record(
    report: &mut NodeReport,
    record: &NodeRow,
    answered: bool,
    subject: &str,
    findings: &mut Findings,
) {
    report.release.clone_from(&record.release);
    report.revision.clone_from(&record.revision);
    report.routing.clone_from(&record.routing);
    report.endpoints = u64::try_from(record.endpoints).unwrap_or(0);
    report.endpoints_ready = u64::try_from(record.endpoints_ready).unwrap_or(0);
    report.agent = match (record.ready, record.conditions.is_empty()) {
        (true, _) => Agent::Ready,
        (false, true) => Agent::Absent,
        (false, false) => Agent::Alone,
    };
    match report.agent {
        Agent::Absent => findings.problem(subject, "its agent has never reached an operator"),
        Agent::Ready | Agent::Alone => {}
    }
    let fails = |condition: &&Condition| {
        condition.status != "True" && (condition.type_ == "Ready" || !answered)
    };
    for condition in record.conditions.iter().filter(fails) {
        findings.problem(
            subject,
            format!("{}: {}", condition.reason, condition.message),
        );
    }
    report.missing_features = record
        .features
        .iter()
        .filter(|feature| feature.state != "present")
        .map(|feature| feature.name.clone())
        .collect();
    for feature in record
        .features
        .iter()
        .filter(|feature| feature.state != "present")
    {
        findings.notice(
            subject,
            format!("kernel: {}: {}", feature.name, feature.state),
        );
    }
}

fn from_agent(
    report: &mut NodeReport,
    agent: &AgentStatus,
    subject: &str,
    findings: &mut Findings,
) {
    report.release = Some(agent.release.clone());
    report.endpoints = agent.endpoints;
    report.endpoints_ready = agent.ready;
    if agent.revision.is_some() {
        report.revision.clone_from(&agent.revision);
    }
    if !agent.operator.connected {
        report.agent = Agent::Alone;
        let why = agent
            .operator
            .why
            .as_deref()
            .unwrap_or("for no known reason");
        findings.problem(subject, format!("its agent has no operator: {why}"));
    }
    if agent.ready < agent.endpoints {
        findings.problem(
            subject,
            format!("{} of {} endpoints are ready", agent.ready, agent.endpoints),
        );
    }
    for (about, what) in &agent.troubles {
        findings.problem(subject, format!("{about}: {}", what.join("; ")));
    }
    for map in &agent.maps {
        let (percent, figures) = (
            map.percent(),
            format!(
                "map {} holds {} of {} entries",
                map.name, map.used, map.size
            ),
        );
        if percent >= FULL {
            findings.problem(subject, figures);
        } else if percent >= NEARLY_FULL {
            findings.notice(subject, figures);
        }
    }
    // The first of equals, so that the answer does not flicker.
    let fullest = agent.maps.iter().rev().max_by_key(|map| map.percent());
    report.fullest_map = fullest.map(|map| (map.name.clone(), map.percent()));
    for feature in agent
        .features
        .iter()
        .filter(|feature| feature.required && !feature.present)
    {
        findings.problem(subject, format!("kernel: {}", feature.text));
    }
}

fn lag(report: &mut NodeReport, newest: Option<Revision>, subject: &str, findings: &mut Findings) {
    let (Some(newest), Some(own)) = (newest, report.revision.as_deref().and_then(revision)) else {
        return;
    };
    if own.0 != newest.0 {
        findings.problem(
            subject,
            format!(
                "it follows the leader of epoch {}, and {} leads",
                own.0, newest.0
            ),
        );
        return;
    }
    let behind = newest.1 - own.1;
    report.behind = Some(behind);
    if behind > FEW_STEPS {
        findings.problem(subject, format!("it is {behind} revisions behind"));
    } else if behind > 0 {
        findings.notice(
            subject,
            format!("it is {behind} {} behind", plural(behind, "revision")),
        );
    }
}

fn newest(facts: &Facts) -> Option<Revision> {
    let recorded = facts
        .records
        .values()
        .filter_map(|record| record.revision.as_deref());
    let answered = facts
        .answers
        .iter()
        .flat_map(|answers| answers.values().flatten())
        .filter_map(|agent| agent.revision.as_deref());
    recorded.chain(answered).filter_map(revision).max()
}

fn revision(text: &str) -> Option<Revision> {
    let (epoch, number) = text.split_once('.')?;
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

fn endpoints(facts: &Facts, findings: &mut Findings) -> Endpoints {
    let count = |state| facts.endpoints.get(state).copied().unwrap_or(0);
    let endpoints = Endpoints {
        total: facts.endpoints.values().sum(),
        ready: count("ready"),
        waiting: count("waiting"),
        disconnected: count("disconnected"),
    };
    let named = |wanted, long: bool| -> Vec<String> {
        let long_enough = |since: Option<_>| {
            since.is_some_and(|since| facts.at.duration_since(since) > STUCK) == long
        };
        let of = facts
            .unready
            .iter()
            .filter(|(_, state, since)| *state == wanted && long_enough(*since));
        of.map(|(name, ..)| name.clone()).collect()
    };
    let stuck = named(EndpointState::Waiting, true);
    if !stuck.is_empty() {
        let who = some_of(&stuck);
        findings.problem(
            "endpoints",
            format!(
                "without an interface for more than {} s: {who}",
                STUCK.as_secs()
            ),
        );
    }
    let fresh = named(EndpointState::Waiting, false);
    if !fresh.is_empty() {
        findings.notice(
            "endpoints",
            format!("about to get their interfaces: {}", some_of(&fresh)),
        );
    }
    let gone = [
        named(EndpointState::Disconnected, true),
        named(EndpointState::Disconnected, false),
    ]
    .concat();
    if !gone.is_empty() {
        findings.notice(
            "endpoints",
            format!(
                "their interfaces are gone, and their pods are not yet: {}",
                some_of(&gone)
            ),
        );
    }
    endpoints
}

fn policies(facts: &Facts, findings: &mut Findings) -> Policies {
    let (mut invalid, mut pending) = (0, Vec::new());
    for state in &facts.policies {
        match &state.progress {
            Progress::Invalid(why) => {
                invalid += 1;
                findings.problem(state.to_string(), format!("is not valid: {why}"));
            }
            Progress::Pending(_) | Progress::Unseen => pending.push(state),
            Progress::Enforced(_) => {}
        }
    }
    for (name, why) in &facts.invalid_groups {
        findings.problem(
            format!("SluiceCIDRGroup {name}"),
            format!("is not valid: {why}"),
        );
    }
    for state in pending.iter().take(NAMED) {
        findings.problem(state.to_string(), unenforced(state));
    }
    if let Some(rest) = pending.len().checked_sub(NAMED).filter(|rest| *rest > 0) {
        findings.problem(
            "policies",
            format!("{rest} more are not enforced everywhere yet"),
        );
    }
    Policies {
        total: facts.policies.len(),
        invalid,
        pending: pending.len(),
    }
}

fn unenforced(state: &PolicyState) -> String {
    match &state.progress {
        Progress::Pending(message) => message.clone(),
        _ => "the operator has not spoken of it yet".to_owned(),
    }
}

fn some_of(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > NAMED {
        let _ = write!(text, " and {} more", names.len() - NAMED);
    }
    text
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}
