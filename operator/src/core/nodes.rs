//! Nodes: their objects, their stored numbers and prefixes, and what their agents tell. Numbers are the index's to give out, prefixes
//! the pools'.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sluice_crds::resources::{GROUP, VERSION};
use sluice_stream::{AgentStatus, Condition, NodeInfo, Overlay, Revision};
use sluice_world::{Node, NodeName};

use super::{
    health,
    input::{NodeInput, RecordInput},
    ipam::Pools,
    write::{Change, MAX_MESSAGE, MAX_NOTE, Notice, Object, Write, shortened},
};

/// What is stored of a node.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    number: u32,
    pod_cidrs: Vec<IpNet>,
}

#[derive(Debug, Default)]
struct NodeState {
    object: Option<NodeInput>,
    /// As stored, or on its way to be.
    record: Option<Record>,
    /// The object exists, as far as the watch has told.
    stored: bool,
    number: Option<u32>,
    agent: Option<AgentStatus>,
    agent_seen: bool,
    /// UID of the stored object.
    uid: String,
    /// Each condition as last told, and since when.
    since: BTreeMap<String, (bool, Timestamp)>,
    written_status: Option<Value>,
}

/// All nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    all: BTreeMap<NodeName, NodeState>,
    pools: Pools,
    /// Prefixes come from `spec.podCIDRs` of the node, not from pools.
    from_objects: bool,
    pub(super) dirty: BTreeSet<NodeName>,
    /// Nodes whose stored object is to be made or deleted.
    unwritten: BTreeSet<NodeName>,
    told: BTreeMap<NodeName, NodeInfo>,
    notices: Vec<Notice>,
}

/// A node that has to follow what is published.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    pub(super) name: NodeName,
    /// What its agent has acknowledged.
    pub(super) acknowledged: Option<Revision>,
    /// Why it does not follow, where its agent says so.
    pub(super) failure: Option<String>,
}

impl Nodes {
    pub(super) fn new(pools: Pools, from_objects: bool) -> Self {
        Self {
            pools,
            from_objects,
            ..Self::default()
        }
    }

    pub(super) fn put(&mut self, name: NodeName, input: Option<NodeInput>) {
        if input.is_none() && !self.all.contains_key(&name) {
            return;
        }
        let state = self.all.entry(name.clone()).or_default();
        // A kubelet writes its node's status every few seconds; mostly nothing here has changed.
        if state.object != input {
            state.object = input;
            self.dirty.insert(name);
        }
    }

    pub(super) fn put_record(&mut self, name: NodeName, input: Option<RecordInput>) {
        let state = self.all.entry(name.clone()).or_default();
        state.stored = input.is_some();
        let Some(input) = input else {
            if state.object.is_some() {
                // Somebody deleted it under a living node: it is made again as it was.
                self.unwritten.insert(name);
            } else if let Some(record) = state.record.take() {
                self.release(&record.pod_cidrs);
                self.all.remove(&name);
            }
            return;
        };
        state.agent_seen |= input.seen;
        state.uid = input.uid;
        if state.record.is_none() {
            for &share in &input.pod_cidrs {
                self.pools.hold(share);
            }
            state.number.get_or_insert(input.number);
            state.record = Some(Record {
                number: input.number,
                pod_cidrs: input.pod_cidrs,
            });
            self.dirty.insert(name.clone());
        }
        if state.object.is_none() {
            self.dirty.insert(name);
        }
    }

    pub(super) fn report(&mut self, name: &NodeName, status: AgentStatus) {
        let Some(state) = self.all.get_mut(name) else {
            return;
        };
        let before = state.agent.take().unwrap_or_default();
        let turns = health::turns(&before, &status);
        let notices = turns.into_iter().map(|turn| Notice {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "SluiceNode".to_owned(),
            namespace: None,
            name: name.0.clone(),
            uid: Some(state.uid.clone()).filter(|uid| !uid.is_empty()),
            action: "Enforce",
            reason: turn.reason,
            note: shortened(&turn.note, MAX_NOTE),
            warning: turn.warning,
        });
        self.notices.extend(notices);
        state.agent_seen = true;
        state.agent = Some(status);
    }

    /// What users must know of nodes since it was asked last.
    pub(super) fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    pub(super) fn seen(&mut self, name: &NodeName) {
        if let Some(state) = self.all.get_mut(name) {
            state.agent_seen = true;
        }
    }

    /// Numbers that are stored, for an index that goes on with them.
    pub(super) fn numbers(&self) -> BTreeMap<NodeName, u32> {
        let number = |(name, state): (&NodeName, &NodeState)| Some((name.clone(), state.number?));
        self.all.iter().filter_map(number).collect()
    }

    /// Marks every node, for another index.
    pub(super) fn dirty_all(&mut self) {
        self.told.clear();
        self.dirty.extend(self.all.keys().cloned());
    }

    /// Nodes that have, or had, an agent: those that have to follow what is published.
    pub(super) fn followers(
        &self,
        sessions: &BTreeMap<NodeName, Option<Revision>>,
    ) -> Vec<Follower> {
        let counts = |state: &NodeState| state.object.is_some() && state.agent_seen;
        let counted = self.all.iter().filter(|(_, state)| counts(state));
        let follower = |(name, state): (&NodeName, &NodeState)| Follower {
            name: name.clone(),
            acknowledged: sessions.get(name).copied().flatten(),
            failure: state
                .agent
                .as_ref()
                .and_then(health::failure)
                .map(str::to_owned),
        };
        counted.map(follower).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.all
            .values()
            .filter(|state| state.object.is_some())
            .count()
    }

    /// The prefixes of a node.
    pub(super) fn pod_cidrs(&self, name: &NodeName) -> &[IpNet] {
        let record = self.all.get(name).and_then(|state| state.record.as_ref());
        record.map_or(&[], |record| &record.pod_cidrs)
    }

    /// Every prefix that pods' addresses are from.
    pub(super) fn all_pod_cidrs(&self) -> Vec<IpNet> {
        if !self.from_objects {
            return self.pools.prefixes();
        }
        let records = self.all.values().filter_map(|state| state.record.as_ref());
        let mut all: Vec<IpNet> = records
            .flat_map(|record| record.pod_cidrs.clone())
            .collect();
        all.sort_unstable();
        all
    }

    /// Gives a node the prefixes it lacks. Its item for the index; `None` where the node is gone.
    pub(super) fn settle(&mut self, name: &NodeName) -> Option<Node> {
        let state = self.all.get_mut(name)?;
        let Some(object) = &state.object else {
            if state.stored {
                self.unwritten.insert(name.clone());
            }
            return None;
        };
        let (pools, given) = (&mut self.pools, &object.node.pod_cidrs);
        let had = state.record.as_ref().map(|record| record.pod_cidrs.clone());
        let mut have = had.clone().unwrap_or_default();
        if self.from_objects {
            if have.is_empty() {
                have.clone_from(given);
            }
        } else if !pools.served_by(&have) {
            let families: Vec<bool> = have.iter().map(|share| share.addr().is_ipv4()).collect();
            for share in pools.draw() {
                if families.contains(&share.addr().is_ipv4()) {
                    pools.give_back(share);
                } else {
                    have.push(share);
                }
            }
        }
        let mut node = object.node.clone();
        node.pod_cidrs.clone_from(&have);
        if had.as_ref() != Some(&have) || !state.stored {
            // The number follows with the commit.
            let number = state.number.unwrap_or_default();
            state.record = Some(Record {
                number,
                pod_cidrs: have,
            });
            self.unwritten.insert(name.clone());
        }
        Some(node)
    }

    /// Takes in a number that the index gave out.
    pub(super) fn number(&mut self, name: &NodeName, number: u32) {
        let state = self.all.entry(name.clone()).or_default();
        state.number = Some(number);
        if let Some(record) = &mut state.record {
            record.number = number;
        }
    }

    /// What agents are to be told of nodes.
    pub(super) fn changes(
        &mut self,
        dirty: &BTreeSet<NodeName>,
    ) -> Vec<(NodeName, Option<NodeInfo>)> {
        let mut changes = Vec::new();
        for name in dirty {
            let state = self.all.get(name);
            let info = state.and_then(|state| {
                Some(NodeInfo {
                    name: name.clone(),
                    number: state.number?,
                    addresses: state.object.as_ref()?.node.addresses.clone(),
                    pod_cidrs: state.record.as_ref()?.pod_cidrs.clone(),
                })
            });
            let before = match &info {
                Some(info) => self.told.insert(name.clone(), info.clone()),
                None => self.told.remove(name),
            };
            if before != info {
                changes.push((name.clone(), info));
            }
        }
        changes
    }

    /// Stored objects to make, change or delete before what hangs on them is published.
    pub(super) fn writes(&mut self) -> Vec<Write> {
        let names = std::mem::take(&mut self.unwritten);
        let mut writes = Vec::new();
        for name in names {
            let Some(state) = self.all.get(&name) else {
                continue;
            };
            let change = match (&state.object, &state.record) {
                (Some(node), Some(record)) if record.number != 0 => {
                    let cidrs: Vec<String> =
                        record.pod_cidrs.iter().map(ToString::to_string).collect();
                    // The API server's garbage collection takes it away with its node even if no operator is there to.
                    let owner = json!([{ "apiVersion": "v1", "kind": "Node", "name": name.0, "uid": node.uid }]);
                    Change::Apply(json!({
                        "apiVersion": format!("{GROUP}/{VERSION}"),
                        "kind": "SluiceNode",
                        "metadata": { "name": name.0, "ownerReferences": owner },
                        "spec": { "number": record.number, "podCIDRs": cidrs },
                    }))
                }
                (None, _) => Change::Delete,
                _ => continue,
            };
            writes.push(Write {
                object: object(&name),
                change,
            });
        }
        writes
    }

    /// Statuses that differ from what was written. `sessions` are agents that are connected, with what they acknowledged.
    pub(super) fn statuses(
        &mut self,
        sessions: &BTreeMap<NodeName, Option<Revision>>,
        overlay: Overlay,
        now: Timestamp,
    ) -> Vec<Write> {
        let mut writes = Vec::new();
        for (name, state) in &mut self.all {
            if state.object.is_none() || !state.stored || !state.agent_seen {
                continue;
            }
            let status = status(state, sessions.get(name).copied(), overlay, now);
            if state.written_status.as_ref() == Some(&status) {
                continue;
            }
            state.written_status = Some(status.clone());
            writes.push(Write {
                object: object(name),
                change: Change::ApplyStatus(json!({
                    "apiVersion": format!("{GROUP}/{VERSION}"),
                    "kind": "SluiceNode",
                    "metadata": { "name": name.0 },
                    "status": status,
                })),
            });
        }
        writes
    }

    fn release(&mut self, shares: &[IpNet]) {
        for &share in shares {
            self.pools.give_back(share);
        }
    }
}

fn object(name: &NodeName) -> Object {
    Object::own("SluiceNode", "sluicenodes", None, name.0.clone())
}

/// `session` is `None` where the agent is not connected, else what it acknowledged.
#[expect(
    clippy::option_option,
    reason = "no session, a session without acknowledgement, one with"
)]
fn status(
    state: &mut NodeState,
    session: Option<Option<Revision>>,
    overlay: Overlay,
    now: Timestamp,
) -> Value {
    let connected = session.is_some();
    let agent = state.agent.clone().unwrap_or_default();
    let (reason, message) = if connected {
        ("AgentConnected", "the agent follows what is published")
    } else {
        (
            "AgentNotConnected",
            "the agent is not connected: what it had last stays in force on the node",
        )
    };
    let ready = Condition {
        kind: "Ready".to_owned(),
        holds: connected,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let since = std::mem::take(&mut state.since);
    let mut conditions = Vec::new();
    for condition in std::iter::once(ready).chain(health::conditions(&agent)) {
        // Kinds are unique in a list-map: one that repeats would be refused with the whole status.
        if state.since.contains_key(&condition.kind) {
            continue;
        }
        let known = since.get(&condition.kind);
        let known = known.filter(|(held, _)| *held == condition.holds);
        let since = known.map_or(now, |(_, since)| *since);
        conditions.push(json!({
            "type": condition.kind,
            "status": if condition.holds { "True" } else { "False" },
            "reason": condition.reason,
            "message": shortened(&condition.message, MAX_MESSAGE),
            "lastTransitionTime": since.to_string(),
        }));
        state.since.insert(condition.kind, (condition.holds, since));
    }
    let features: BTreeMap<String, String> = agent.features.into_iter().collect();
    let features: Vec<Value> = features
        .into_iter()
        .map(|(name, state)| json!({ "name": name, "state": state }))
        .collect();
    let mut status = json!({
        "routingMode": match overlay { Overlay::Direct => "direct", Overlay::Vxlan { .. } => "vxlan" },
        "release": agent.release,
        "endpoints": agent.endpoints,
        "ready": agent.ready,
        "features": features,
        "conditions": conditions,
    });
    if let Some(revision) = session.flatten().or(agent.revision) {
        status["revision"] = json!(revision.to_string());
    }
    status
}
