//! Who reaches whom, as tried and as judged: the cells of the matrix. How they are printed may not enter.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Serialize;
use sluice_world::{AddressBook, Answer, Pod, PodRef, Query, SideVerdict, World, query::Holder};

use super::{Attempt, Outcome, Transport, run};
use crate::{LabError, name::LabName};

/// Judges one flow: an evaluator of policy.
pub type Judge<'a> = dyn Fn(&Query) -> Answer + Sync + 'a;

/// One try between two pods, over one family.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// `namespace/name` of the pod that tries.
    pub from: String,
    /// `namespace/name` of the pod that is tried.
    pub to: String,
    /// How.
    pub transport: Transport,
    /// The port; 0 for ICMP.
    pub port: u16,
    /// The destination address, which says the family too.
    pub address: IpAddr,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Whether packets went there and back, and from the right pod.
    pub reached: bool,
    /// Whether policy says that they should.
    pub expected: bool,
    /// What each side decided, and by which rule.
    pub answer: Answer,
}

impl Cell {
    /// Whether reality is what policy says.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.reached == self.expected
    }
}

/// What to try.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long to wait for each answer.
    pub patience: Duration,
    /// Ping every pod too.
    pub ping: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(1),
            ping: false,
        }
    }
}

/// Tries every pod against every port that every other pod listens on, over both families, all at once, and sets beside each outcome
/// what `judge` says of it.
///
/// # Errors
/// A pod's namespace can't be entered.
pub fn probe(
    lab: &LabName,
    world: &World,
    judge: &Judge<'_>,
    options: Options,
) -> Result<Vec<Cell>, LabError> {
    let tries = tries(world, options.ping);
    let groups: Vec<(String, Vec<Attempt>)> = tries
        .iter()
        .map(|(from, tries)| {
            (
                lab.pod_namespace(from),
                tries.iter().map(|t| t.attempt.clone()).collect(),
            )
        })
        .collect();
    let outcomes = run(&groups, options.patience)?;
    let flat = tries
        .into_values()
        .flatten()
        .zip(outcomes.into_iter().flatten());
    Ok(flat
        .map(|(made, outcome)| made.cell(outcome, judge))
        .collect())
}

/// A try before it is made.
struct Try {
    from: PodRef,
    to: PodRef,
    attempt: Attempt,
    query: Query,
}

impl Try {
    fn cell(self, outcome: Outcome, judge: &Judge<'_>) -> Cell {
        let answer = judge(&self.query);
        let to = self.to.to_string();
        let reached = match &outcome {
            // An answer from somebody else is no answer: addresses or routes are mixed up.
            Outcome::Answered(name) => name.is_empty() || *name == to,
            other => other.arrived(),
        };
        Cell {
            from: self.from.to_string(),
            to,
            transport: self.attempt.transport,
            port: self.attempt.port,
            address: self.attempt.address,
            outcome,
            reached,
            expected: passes_live(&answer),
            answer,
        }
    }
}

/// Whether the live datapath lets the flow through: a redirect has no proxy yet and drops.
fn passes_live(answer: &Answer) -> bool {
    answer.verdict == SideVerdict::Allowed
        && [&answer.egress, &answer.ingress]
            .iter()
            .all(|side| side.verdict != SideVerdict::Redirected)
}

/// All tries by the pod that makes them. Host-network pods have no namespace of their own and make none.
fn tries(world: &World, ping: bool) -> BTreeMap<PodRef, Vec<Try>> {
    let book = AddressBook::new(world);
    let pods: Vec<&Pod> = world
        .pods
        .values()
        .filter(|pod| !pod.host_network)
        .collect();
    let mut all = BTreeMap::new();
    for from in &pods {
        let mut own = Vec::new();
        for to in pods.iter().filter(|to| to.id != from.id) {
            for (transport, port) in goals(to, ping) {
                own.extend(
                    to.addresses
                        .iter()
                        .filter_map(|address| one(&book, from, to, transport, port, *address)),
                );
            }
        }
        all.insert(from.id.clone(), own);
    }
    all
}

fn goals(to: &Pod, ping: bool) -> Vec<(Transport, u16)> {
    let listened = to
        .listens
        .iter()
        .filter_map(|(protocol, port)| match protocol {
            6 => Some((Transport::Tcp, *port)),
            17 => Some((Transport::Udp, *port)),
            _ => None,
        });
    listened
        .chain(ping.then_some((Transport::Icmp, 0)))
        .collect()
}

fn one(
    book: &AddressBook,
    from: &Pod,
    to: &Pod,
    transport: Transport,
    port: u16,
    address: IpAddr,
) -> Option<Try> {
    let source = *from
        .addresses
        .iter()
        .find(|own| own.is_ipv4() == address.is_ipv4())?;
    let target = |address| match book.holder(address) {
        Holder::Target(target) => Some(target),
        Holder::Service(_) => None,
    };
    // Numbers of protocols by IANA; echo request types by RFC 792 and RFC 4443.
    let (protocol, point) = match (transport, address) {
        (Transport::Tcp, _) => (6, port),
        (Transport::Udp, _) => (17, port),
        (Transport::Icmp, IpAddr::V4(_)) => (1, 8),
        (Transport::Icmp, IpAddr::V6(_)) => (58, 128),
    };
    Some(Try {
        from: from.id.clone(),
        to: to.id.clone(),
        attempt: Attempt {
            transport,
            address,
            port,
        },
        query: Query {
            id: format!("{} {} {address} {transport:?} {port}", from.id, to.id),
            from: target(source)?,
            to: target(address)?,
            source,
            destination: address,
            protocol,
            port: point,
            http: None,
            dns: None,
        },
    })
}
