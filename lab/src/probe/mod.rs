//! Trying in earnest who reaches whom: all attempts of all pods at once. What should come out may not enter here; that is
//! [`report`]'s, which lays the two side by side.

mod attempt;
pub mod matrix;
pub mod report;

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use sluice_datapath::net::{NetNs, in_namespace};
use tokio::task::JoinSet;

use crate::LabError;

/// What a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// A TCP connection and the responder's greeting.
    Tcp,
    /// A UDP datagram and its answer.
    Udp,
    /// An ICMP or `ICMPv6` echo request and its reply.
    Icmp,
}

/// One try: from whatever namespace it is run in, to there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// How.
    pub transport: Transport,
    /// Whom.
    pub address: IpAddr,
    /// Which port; unused for ICMP.
    pub port: u16,
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "detail")]
pub enum Outcome {
    /// An answer came from the pod of this name; for ICMP the name is empty.
    Answered(String),
    /// The packet arrived, but nobody listens there.
    Refused,
    /// Nothing came back in time.
    Silence,
    /// The try itself could not be made.
    Failed(String),
}

impl Outcome {
    /// Whether packets went there and back.
    #[must_use]
    pub const fn arrived(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::Refused)
    }
}

/// Makes every attempt of every group at once, each group in the network namespace of its name, and waits at most `patience` for
/// each answer. The outcomes come in the order of the attempts.
///
/// # Errors
/// A namespace can't be entered: the lab is going down, or the caller is not root.
///
/// # Panics
/// If a thread of a group does.
pub fn run(
    groups: &[(String, Vec<Attempt>)],
    patience: Duration,
) -> Result<Vec<Vec<Outcome>>, LabError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = groups
            .iter()
            .map(|(namespace, attempts)| {
                scope.spawn(move || run_group(namespace, attempts, patience))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn run_group(
    namespace: &str,
    attempts: &[Attempt],
    patience: Duration,
) -> Result<Vec<Outcome>, LabError> {
    let namespace = NetNs::open(namespace)?;
    in_namespace(&namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(LabError::io("starting a probe"))?;
        Ok(runtime.block_on(run_here(attempts, patience)))
    })?
}

/// Makes every attempt at once from the network namespace of the calling thread; the outcomes come in their order.
pub async fn run_here(attempts: &[Attempt], patience: Duration) -> Vec<Outcome> {
    let mut tasks = JoinSet::new();
    for (index, attempt) in attempts.iter().cloned().enumerate() {
        tasks.spawn(async move { (index, attempt::make(&attempt, patience).await) });
    }
    let mut outcomes = vec![Outcome::Silence; attempts.len()];
    for (index, outcome) in tasks.join_all().await {
        outcomes[index] = outcome;
    }
    outcomes
}
