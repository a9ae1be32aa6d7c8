//! Nodes whose agents are not heard of. What that means for pods is the endpoints'.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sluice_world::NodeName;

/// An agent that restarts, or moves to another replica, is back long before; so are all agents after a change of leader.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// An agent that no replica hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absence {
    since: Timestamp,
    /// It has been away for long enough to be told of.
    pub(super) noted: bool,
}

/// Notes which nodes' agents are there; the nodes of whom something else is to be told now.
pub(super) fn note<'a>(
    absent: &mut BTreeMap<NodeName, Absence>,
    nodes: impl Iterator<Item = &'a NodeName>,
    is_there: impl Fn(&NodeName) -> bool,
    now: Timestamp,
) -> Vec<NodeName> {
    let away: BTreeSet<&NodeName> = nodes.filter(|name| !is_there(name)).collect();
    let mut changed = Vec::new();
    absent.retain(|name, absence| {
        let stays = away.contains(name);
        if !stays && absence.noted {
            changed.push(name.clone());
        }
        stays
    });
    for name in away {
        let absence = absent.entry(name.clone()).or_insert(Absence {
            since: now,
            noted: false,
        });
        if !absence.noted && now.duration_since(absence.since) >= GRACE {
            absence.noted = true;
            changed.push(name.clone());
        }
    }
    changed
}
