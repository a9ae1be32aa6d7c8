//! How a node is, as its agent tells: its conditions, how full the kernel's maps are, and which of it a user must hear of. What a node
//! holds may not enter.

use std::collections::BTreeMap;

use sluice_stream::{AgentStatus, Condition, MapUse};

/// The condition of an agent that could not put in force what it was told: a map is full, or the kernel refuses.
const TABLES: &str = "TablesReady";
/// The condition of a node whose maps are nearly full.
const PRESSURE: &str = "MapPressure";
/// A map this full is told of, in percent: what comes next may not fit.
const NEARLY_FULL: u64 = 90;

/// Something that has begun or ended, for an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) reason: String,
    pub(super) note: String,
    pub(super) warning: bool,
}

/// All conditions that an agent's word leads to.
pub(super) fn conditions(agent: &AgentStatus) -> Vec<Condition> {
    let mut all = agent.conditions.clone();
    if !agent.maps.is_empty() {
        all.push(pressure(&agent.maps));
    }
    all
}

/// Why a node does not follow, where its agent says so.
pub(super) fn failure(agent: &AgentStatus) -> Option<&str> {
    let tables = |condition: &&Condition| condition.kind == TABLES && !condition.holds;
    let found = agent.conditions.iter().find(tables)?;
    Some(&found.message)
}

/// What is wrong now and was not before, and what is well again.
pub(super) fn turns(before: &AgentStatus, after: &AgentStatus) -> Vec<Turn> {
    let (old, new) = (wrong(before), wrong(after));
    let begun = new.iter().filter(|(kind, _)| !old.contains_key(*kind));
    let ended = old.keys().filter(|kind| !new.contains_key(*kind));
    let begun = begun.map(|(kind, message)| Turn {
        reason: negated(kind),
        note: message.clone(),
        warning: true,
    });
    let ended = ended.map(|kind| Turn {
        reason: affirmed(kind),
        note: "it is well again".to_owned(),
        warning: false,
    });
    begun.chain(ended).collect()
}

fn pressure(maps: &[MapUse]) -> Condition {
    let is_full = |map: &&MapUse| map.used * 100 >= map.size.max(1) * NEARLY_FULL;
    let full: Vec<String> = maps
        .iter()
        .filter(is_full)
        .map(|map| format!("{} holds {} of {} entries", map.name, map.used, map.size))
        .collect();
    let (reason, message) = if full.is_empty() {
        (
            "RoomLeft",
            format!("no map is {NEARLY_FULL} % full or more"),
        )
    } else {
        let what = full.join(", ");
        (
            "NearlyFull",
            format!("{what}: what comes next may not fit, and then changes nothing"),
        )
    };
    Condition {
        kind: PRESSURE.to_owned(),
        holds: !full.is_empty(),
        reason: reason.to_owned(),
        message,
    }
}

/// Kinds of conditions that are not as they should be, with why.
fn wrong(agent: &AgentStatus) -> BTreeMap<String, String> {
    let all = conditions(agent).into_iter();
    all.filter(|condition| condition.holds == (condition.kind == PRESSURE))
        .map(|condition| (condition.kind, condition.message))
        .collect()
}

/// `TablesReady` that does not hold is `TablesNotReady`.
fn negated(kind: &str) -> String {
    match kind.strip_suffix("Ready") {
        Some(subject) => format!("{subject}NotReady"),
        None => kind.to_owned(),
    }
}

fn affirmed(kind: &str) -> String {
    match kind {
        PRESSURE => "MapPressureGone".to_owned(),
        other => other.to_owned(),
    }
}
