//! Whether a cluster's network is well, judged from facts, and waiting until it is. Where facts come from, and how the answer is
//! printed, may not enter.

mod judge;
#[cfg(test)]
mod tests;

use std::time::Duration;

use kube::Client;
use serde::Serialize;
use tokio::time::{Instant, sleep};

pub use judge::judge;

use crate::{Error, facts};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// How a cluster's network is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing is wrong.
    pub green: bool,
    /// Where Sluice is installed.
    pub namespace: String,
    /// The operator.
    pub operator: Operator,
    /// The agents.
    pub agents: Pods,
    /// The newest revision that any node has.
    pub revision: Option<String>,
    /// All endpoints.
    pub endpoints: Endpoints,
    /// All policies that have statuses.
    pub policies: Policies,
    /// All nodes, by name.
    pub nodes: Vec<NodeReport>,
    /// What is wrong, then what is worth knowing.
    pub findings: Vec<Finding>,
}

/// Pods of a Deployment or `DaemonSet`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pods {
    /// How many there should be.
    pub desired: i32,
    /// How many are ready.
    pub ready: i32,
}

/// The operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// Its replicas.
    #[serde(flatten)]
    pub replicas: Pods,
    /// The pod that leads.
    pub leader: Option<String>,
    /// Where it serves.
    pub address: Option<String>,
}

/// Endpoints by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// All.
    pub total: u64,
    /// Those whose tables are in force.
    pub ready: u64,
    /// Those without an interface yet.
    pub waiting: u64,
    /// Those whose interface is gone.
    pub disconnected: u64,
}

/// Policies by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policies {
    /// All.
    pub total: usize,
    /// Those that were not understood.
    pub invalid: usize,
    /// Valid ones that not all nodes follow yet.
    pub pending: usize,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Whether its agent follows the operator.
    pub agent: Agent,
    /// The agent's release.
    pub release: Option<String>,
    /// What is in force.
    pub revision: Option<String>,
    /// How far that is behind the newest: steps of the same leader; `None` where that can't be counted.
    pub behind: Option<u64>,
    /// Pods with an interface.
    pub endpoints: u64,
    /// Those of them whose tables are in force.
    pub endpoints_ready: u64,
    /// The map that is fullest, with percent of its room; unknown where the agent was not asked.
    pub fullest_map: Option<(String, u64)>,
    /// What its kernel lacks.
    pub missing_features: Vec<String>,
    /// `direct` or `vxlan`.
    pub routing: Option<String>,
}

/// How an agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agent {
    /// It follows an operator.
    Ready,
    /// It runs, and no operator serves it: what it had last stays in force.
    Alone,
    /// The operator has never heard of it.
    #[default]
    Absent,
}

/// How grave something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something is wrong; nothing is green with it.
    Problem,
    /// Somebody may want to know.
    Notice,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How grave.
    pub level: Level,
    /// What it is about.
    pub subject: String,
    /// What it is, for people.
    pub text: String,
}

/// How the cluster is now. Agents are asked with `ask_agents`.
///
/// # Errors
/// The API server refuses, or Sluice is not installed.
pub async fn status(
    client: &Client,
    namespace: Option<&str>,
    ask_agents: bool,
) -> Result<Report, Error> {
    Ok(judge(
        &Box::pin(facts::gather(client, namespace, ask_agents)).await?,
    ))
}

/// Waits until all is well. `tell` hears of every look. What is not installed yet, or does not answer, is waited for as well; a
/// refusal is not.
///
/// # Errors
/// The API server refuses, or `patience` ends before there was any report at all.
pub async fn wait(
    client: &Client,
    namespace: Option<&str>,
    ask_agents: bool,
    patience: Duration,
    tell: &mut dyn FnMut(&Result<Report, Error>),
) -> Result<Report, Error> {
    let until = Instant::now() + patience;
    loop {
        let seen = status(client, namespace, ask_agents).await;
        tell(&seen);
        let late = Instant::now() + PAUSE > until;
        match seen {
            Ok(report) if report.green || late => return Ok(report),
            Err(error) if late || matches!(error.code(), Some(401 | 403)) => return Err(error),
            _ => sleep(PAUSE).await,
        }
    }
}
