//! What a node holds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sluice_abi::policy::judge;
use sluice_policy::{Delta, MemTables};
use sluice_world::NodeName;

use super::history::{Edit, edits, history};
use crate::{
    catalog::{Catalog, Held, View},
    hub::{log::Log, split},
    types::{Batch, Revision, Update},
};

/// (protocol, port or type) at which verdicts are compared.
const POINTS: [(u8, u16); 6] = [(6, 80), (6, 443), (6, 8080), (17, 53), (1, 8), (47, 0)];

/// A node's agent: fed by its view only.
struct Agent {
    view: View,
    catalog: Catalog,
    tables: MemTables,
    held: Held,
}

impl Agent {
    fn new(node: &NodeName, cluster: &Catalog) -> Self {
        let (view, update) = fresh(node, cluster);
        let mut agent = Self {
            view,
            catalog: Catalog::default(),
            tables: MemTables::default(),
            held: Held::default(),
        };
        agent.take(&update);
        agent
    }

    fn take(&mut self, update: &Update) {
        let arrived = Update::decode(&update.encode()).expect("what was encoded");
        assert_eq!(arrived, *update);
        self.catalog.apply(&arrived);
        self.tables.apply(&arrived.delta);
        self.held.note(&arrived);
    }
}

fn fresh(node: &NodeName, cluster: &Catalog) -> (View, Update) {
    let (view, need) = View::new(node.clone(), cluster);
    let update = need.update(cluster, &cluster.shared());
    (view, update)
}

/// All that a fresh agent of the node would hold, in a fixed order.
fn should_hold(node: &NodeName, cluster: &Catalog) -> Update {
    let mut catalog = Catalog::default();
    catalog.apply(&fresh(node, cluster).1);
    catalog.snapshot()
}

fn check(seed: u64, edits: &[Edit], away: usize, late: usize) -> Result<(), TestCaseError> {
    let (deltas, mut nodes) = history(seed, edits);
    nodes.push(NodeName("nowhere".to_owned()));
    let mut cluster = Catalog::default();
    let mut full = MemTables::default();
    let mut log = Log::default();
    let mut agents: BTreeMap<NodeName, Agent> = BTreeMap::new();
    let mut left: Vec<(NodeName, Catalog, MemTables, Held)> = Vec::new();
    // The last node's agent comes late, so that its view begins in the middle.
    let (early, after) = nodes.split_at(nodes.len() - 2);
    agents.extend(
        early
            .iter()
            .map(|node| (node.clone(), Agent::new(node, &cluster))),
    );
    let mut number = 0;
    for (at, delta) in deltas.into_iter().enumerate() {
        full.apply(&delta);
        if at == late % (edits.len() + 1) {
            agents.extend(
                after
                    .iter()
                    .map(|node| (node.clone(), Agent::new(node, &cluster))),
            );
        }
        if at == away % (edits.len() + 1) {
            left = agents
                .iter()
                .map(|(node, agent)| {
                    let Agent {
                        catalog,
                        tables,
                        held,
                        ..
                    } = agent;
                    (node.clone(), catalog.clone(), tables.clone(), held.clone())
                })
                .collect();
        }
        let batch = Batch {
            delta,
            ..Batch::default()
        };
        for mut update in split::split(batch, &cluster) {
            number += 1;
            update.revision = Revision { epoch: 1, number };
            let step = cluster.apply(&update);
            for agent in agents.values_mut() {
                let need = agent.view.step(&cluster, &update, &step);
                agent.take(&need.update(&cluster, &update));
            }
            log.push(update.into(), step.endpoints);
        }
        compare(&agents, &cluster, &full)?;
    }
    for (node, mut catalog, mut tables, held) in left {
        let span = log.span(held.revision, cluster.revision());
        let Some((view, update)) = span.and_then(|span| span.resume(&node, &cluster, &held)) else {
            continue;
        };
        catalog.apply(&update);
        tables.apply(&update.delta);
        let mut wanted = should_hold(&node, &cluster);
        wanted.revision = catalog.revision();
        prop_assert_eq!(catalog.snapshot(), wanted, "{} came back", node);
        judged_alike((&catalog, &tables), &full, &node, &cluster)?;
        let (agent, mut ours, mut theirs) = (
            &agents[&node],
            view.tables().collect::<Vec<_>>(),
            agents[&node].view.tables().collect::<Vec<_>>(),
        );
        ours.sort_unstable();
        theirs.sort_unstable();
        prop_assert_eq!(ours, theirs);
        prop_assert_eq!(view.number(), agent.view.number());
    }
    Ok(())
}

fn compare(
    agents: &BTreeMap<NodeName, Agent>,
    cluster: &Catalog,
    full: &MemTables,
) -> Result<(), TestCaseError> {
    for (node, agent) in agents {
        let mut wanted = should_hold(node, cluster);
        wanted.revision = agent.catalog.revision();
        prop_assert_eq!(
            agent.catalog.snapshot(),
            wanted,
            "{} holds what it needs",
            node
        );
        prop_assert_eq!(&agent.catalog.held(), &agent.held);
        judged_alike((&agent.catalog, &agent.tables), full, node, cluster)?;
    }
    Ok(())
}

/// A node's own tables judge its endpoints as the cluster's tables do, and the node knows every rule that decides.
fn judged_alike(
    (known, own): (&Catalog, &MemTables),
    full: &MemTables,
    node: &NodeName,
    cluster: &Catalog,
) -> Result<(), TestCaseError> {
    let number = cluster.numbers.get(node).copied().unwrap_or(0);
    let endpoints: Vec<_> = cluster.endpoints_of(number).collect();
    let peers: Vec<_> = cluster.snapshot().delta.identities;
    for (pod, endpoint) in &endpoints {
        prop_assert_eq!(own.endpoint(pod), Some(*endpoint));
        for table in [endpoint.egress, endpoint.ingress] {
            for (peer, _) in &peers {
                for (protocol, port) in POINTS {
                    let [own, full] = [own, full].map(|tables| {
                        let word = judge(tables, table, *peer, protocol, port);
                        (word.verdict, word.reason, word.cookie, word.log)
                    });
                    prop_assert_eq!(own, full, "{} to {:?} at {}/{}", pod, peer, protocol, port);
                    let rule = own.2;
                    prop_assert!(
                        !rule.is_rule() || known.cookies.contains_key(&rule),
                        "{} knows rule {:?}",
                        node,
                        rule
                    );
                }
            }
        }
    }
    prop_assert_eq!(own.endpoints().count(), endpoints.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_node_holds_what_it_needs(
        seed in 0_u64..100_000,
        edits in edits(),
        away in any::<usize>(),
        late in any::<usize>(),
    ) {
        check(seed, &edits, away, late)?;
    }
}

/// The cases above would show nothing if no world had anything to hold, or nobody could ever come back.
#[test]
fn histories_have_something_in_them() {
    let (mut tables, mut redirects, mut steps, mut resumed) = (0, 0, 0, 0);
    for seed in 0..40 {
        let edits = [
            Edit::Import(seed),
            Edit::Relabel(0, 1),
            Edit::Delete(3 * seed),
            Edit::Move(seed, 1),
        ];
        let (deltas, nodes) = history(seed as u64, &edits);
        let mut cluster = Catalog::default();
        let mut log = Log::default();
        let mut held = None;
        let mut number = 0;
        for delta in deltas {
            let batch = Batch {
                delta,
                ..Batch::default()
            };
            let split = split::split(batch, &cluster);
            steps = steps.max(split.len());
            for mut update in split {
                number += 1;
                update.revision = Revision { epoch: 1, number };
                let step = cluster.apply(&update);
                log.push(update.into(), step.endpoints);
            }
            held.get_or_insert_with(|| {
                let mut held = Held::default();
                held.note(&fresh(&nodes[0], &cluster).1);
                held
            });
        }
        let held = held.expect("a first delta");
        let span = log
            .span(held.revision, cluster.revision())
            .expect("a short log");
        resumed += usize::from(span.resume(&nodes[0], &cluster, &held).is_some());
        let delta = fresh(&nodes[0], &cluster).1.delta;
        tables += delta.tables.len();
        redirects += delta.redirects.len();
        assert_eq!(cluster.snapshot().delta.warnings, Delta::default().warnings);
    }
    assert!(
        tables > 40 && redirects > 0 && steps == 3 && resumed > 20,
        "{tables} tables, {redirects} redirects, {steps} steps, {resumed} of 40 came back"
    );
}
