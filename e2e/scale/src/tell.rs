//! What was measured, as text, and what of it must hold.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use sluice_figures::report::Table;

use crate::{
    Measure,
    stages::{Changes, Loaded, Outage, TakeOver},
    times::Times,
};

/// Requests by verb and resource.
pub(crate) type Requests = BTreeMap<(String, String), u64>;

/// What only an operator writes.
const OWN: &[&str] = &[
    "identities",
    "identities/status",
    "sluicenodes",
    "sluicenodes/status",
    "sluiceendpoints",
    "sluicenetworkpolicies/status",
    "sluiceclusterwidenetworkpolicies/status",
];

/// What came in between.
pub(crate) fn difference(before: &Requests, after: &Requests) -> Requests {
    let more = |(key, count): (&(String, String), &u64)| {
        let count = count - before.get(key).copied().unwrap_or_default();
        (count > 0).then(|| (key.clone(), count))
    };
    after.iter().filter_map(more).collect()
}

/// All that was measured.
pub(crate) struct Told {
    pub(crate) idle: (u64, u64),
    pub(crate) memory: (u64, u64),
    pub(crate) processor: Duration,
    pub(crate) requests: Requests,
    pub(crate) loaded: Loaded,
    pub(crate) few: Changes,
    pub(crate) all: Changes,
    pub(crate) identities: Times,
    pub(crate) addresses: Times,
    pub(crate) relabelled: Changes,
    pub(crate) take_over: TakeOver,
    pub(crate) outage: Outage,
    pub(crate) compared: usize,
}

impl Told {
    /// As a section of the benchmarks.
    pub(crate) fn text(&self, given: &Measure, machine: &str, took: Duration) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "`cargo xtask cluster scale`, {:.0} s; {machine}.\n",
            took.as_secs_f64()
        );
        let _ = writeln!(
            text,
            "{} nodes with an agent each, {} pods, {} policies; two replicas of the operator. \
             Every change is timed from the client's write to the last acknowledgement of the agents that it concerns.\n",
            given.fake_nodes, given.pods, given.policies
        );
        let _ = writeln!(text, "{}", self.at_once());
        let _ = writeln!(text, "{}", self.changes());
        let _ = writeln!(text, "{}", self.trouble());
        text
    }

    fn at_once(&self) -> Table {
        let mut table = Table::new(&["all policies and pods at once", ""]);
        table.row(&[
            &"the API server has taken the last",
            &seconds(self.loaded.written),
        ]);
        table.row(&[
            &"every agent has acknowledged everything",
            &seconds(self.loaded.enforced),
        ]);
        table.row(&[
            &"every policy's status says `Enforced`",
            &seconds(self.loaded.told),
        ]);
        table.row(&[
            &"memory of the leader: before, after, at most",
            &format!("{}, {}, {} MiB", self.idle.0, self.memory.0, self.memory.1),
        ]);
        table.row(&[&"processor time of the leader", &seconds(self.processor)]);
        for ((verb, resource), count) in self.own_requests() {
            table.row(&[&format!("requests: {verb} {resource}"), &count]);
        }
        table
    }

    fn own_requests(&self) -> impl Iterator<Item = (&(String, String), &u64)> {
        let is_write = |verb: &str| matches!(verb, "POST" | "PATCH" | "PUT" | "APPLY" | "DELETE");
        self.requests
            .iter()
            .filter(move |((verb, resource), _)| OWN.contains(&resource.as_str()) && is_write(verb))
    }

    fn changes(&self) -> Table {
        let mut table = Table::new(&[
            "change",
            "p50 ms",
            "p99 ms",
            "most ms",
            "of it the API server's answer p50 / p99 ms",
            "changes",
        ]);
        let mut row = |name: &str, times: &Times, answered: Option<&Times>| {
            let answered = answered.map_or_else(
                || "–".to_owned(),
                |times| format!("{:.1} / {:.1}", times.ms(50), times.ms(99)),
            );
            table.row(&[
                &name,
                &format!("{:.1}", times.ms(50)),
                &format!("{:.1}", times.ms(99)),
                &format!("{:.1}", times.ms(100)),
                &answered,
                &times.count(),
            ]);
        };
        row(
            "a policy of 5 pods",
            &self.few.enforced,
            Some(&self.few.answered),
        );
        row(
            "a policy of all pods",
            &self.all.enforced,
            Some(&self.all.answered),
        );
        row(
            "a policy that divides identities",
            &self.relabelled.enforced,
            Some(&self.relabelled.answered),
        );
        row(
            "a pod with a new identity: every agent knows the identity",
            &self.identities,
            None,
        );
        row(
            "its agent's report: every agent knows the address",
            &self.addresses,
            None,
        );
        table
    }

    fn trouble(&self) -> Table {
        let mut table = Table::new(&["trouble", ""]);
        let (killed, outage) = (&self.take_over, &self.outage);
        table.row(&[
            &format!(
                "leader killed after {} of all policies were changed: the other one leads",
                killed.written_before
            ),
            &seconds(killed.leads),
        ]);
        table.row(&[&"… every agent has every change", &seconds(killed.enforced)]);
        table.row(&[&"… every policy's status says so", &seconds(killed.told)]);
        table.row(&[&"API server away for", &seconds(outage.lasted)]);
        table.row(&[
            &"… from its return until an operator leads",
            &seconds(outage.leads),
        ]);
        table.row(&[
            &"… the first change after that, in force everywhere",
            &seconds(outage.enforced),
        ]);
        table.row(&[&"… connections that agents made anew", &outage.connections]);
        table.row(&[
            &"agents compared with newly started ones, all equal",
            &self.compared,
        ]);
        table
    }

    /// What must hold of the figures.
    pub(crate) fn judge(&self) -> Result<()> {
        for (name, changes) in [("of some pods", &self.few), ("of all pods", &self.all)] {
            let p99 = changes.enforced.ms(99);
            ensure!(
                p99 <= 100.0,
                "a changed policy {name} takes {p99:.1} ms to be enforced at the 99th percentile, not 100"
            );
        }
        Ok(())
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_more_is_told() {
        let key = |verb: &str| (verb.to_owned(), "leases".to_owned());
        let before = [(key("PUT"), 3), (key("POST"), 1)].into();
        let after = [(key("PUT"), 5), (key("POST"), 1), (key("GET"), 2)].into();
        assert_eq!(
            difference(&before, &after),
            [(key("GET"), 2), (key("PUT"), 2)].into()
        );
    }
}
