//! What the counts of traffic must say. Reading them and doing anything to the cluster may not enter.

use std::collections::BTreeMap;

use sluice_cluster::traffic::{Counts, Report};

/// What must become of a flow's requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expected {
    /// Every one is answered.
    Passes,
    /// Nothing comes through, in either direction.
    Nothing,
}

/// The counts of all pods at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    flows: BTreeMap<String, Counts>,
    arrived: BTreeMap<String, u64>,
}

impl Counted {
    pub(super) fn add(&mut self, report: Report) {
        self.flows.extend(report.flows);
        for (flow, count) in report.arrived {
            *self.arrived.entry(flow).or_default() += count;
        }
    }

    fn flow(&self, name: &str) -> Counts {
        self.flows.get(name).cloned().unwrap_or_default()
    }

    fn arrived(&self, name: &str) -> u64 {
        self.arrived.get(name).copied().unwrap_or_default()
    }

    /// Requests that were made and those that were answered, of flows of which this is expected.
    pub(super) fn sums(
        &self,
        expected: &BTreeMap<String, Expected>,
        which: Expected,
    ) -> (u64, u64) {
        let of_kind = self
            .flows
            .iter()
            .filter(|(name, _)| expected.get(*name) == Some(&which));
        of_kind.fold((0, 0), |(sent, answered), (_, counts)| {
            (sent + counts.sent, answered + counts.answered)
        })
    }

    /// The slowest answer, in milliseconds.
    pub(super) fn worst_ms(&self) -> u64 {
        self.flows
            .values()
            .map(|counts| counts.worst_ms)
            .max()
            .unwrap_or_default()
    }
}

/// What went otherwise than expected between two times: a line for each flow.
pub(super) fn faults(
    before: &Counted,
    after: &Counted,
    expected: &BTreeMap<String, Expected>,
) -> Vec<String> {
    expected
        .iter()
        .filter_map(|(name, &expected)| {
            let (then, now) = (before.flow(name), after.flow(name));
            let arrived = after.arrived(name).saturating_sub(before.arrived(name));
            let wrong = match expected {
                Expected::Passes => wrong_of_passing(&then, &now),
                Expected::Nothing => wrong_of_denied(&then, &now, arrived),
            }?;
            let trouble = match now.last_trouble {
                Some(trouble) => format!("; last at {}: {}", trouble.at_ms, trouble.what),
                None => String::new(),
            };
            Some(format!("{name}: {wrong}{trouble}"))
        })
        .collect()
}

fn wrong_of_passing(then: &Counts, now: &Counts) -> Option<String> {
    let sent = now.sent - then.sent.min(now.sent);
    let answered = now.answered - then.answered.min(now.answered);
    let troubles = [
        ("lost", now.lost, then.lost),
        ("refused", now.refused, then.refused),
        ("not sent", now.failed, then.failed),
        ("connections broken", now.broken, then.broken),
    ];
    let troubles: Vec<String> = troubles
        .iter()
        .filter(|(_, now, then)| now != then)
        .map(|(what, now, then)| format!("{} {what}", now.saturating_sub(*then)))
        .collect();
    if !troubles.is_empty() {
        return Some(format!("of {sent} requests {}", troubles.join(", ")));
    }
    (answered == 0).then(|| format!("no answer to {sent} requests"))
}

fn wrong_of_denied(then: &Counts, now: &Counts, arrived: u64) -> Option<String> {
    let through = [
        ("answered", now.answered, then.answered),
        ("refused by the server's host", now.refused, then.refused),
        ("not sent", now.failed, then.failed),
    ];
    let mut through: Vec<String> = through
        .iter()
        .filter(|(_, now, then)| now != then)
        .map(|(what, now, then)| format!("{} {what}", now.saturating_sub(*then)))
        .collect();
    if arrived > 0 {
        through.push(format!("{arrived} came to the server"));
    }
    if !through.is_empty() {
        return Some(format!("against policy {}", through.join(", ")));
    }
    // What is not tried is not denied.
    (now.sent <= then.sent).then(|| "nothing was tried".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: Counts, arrived: u64) -> Counted {
        Counted {
            flows: [("f".to_owned(), counts)].into(),
            arrived: [("f".to_owned(), arrived)].into(),
        }
    }

    fn judged(expected: Expected, before: &Counted, after: &Counted) -> Vec<String> {
        faults(before, after, &[("f".to_owned(), expected)].into())
    }

    fn counts(sent: u64, answered: u64) -> Counts {
        Counts {
            sent,
            answered,
            ..Counts::default()
        }
    }

    #[test]
    fn a_flow_that_shall_pass_must_be_answered_and_lose_nothing() {
        let judged = |after: Counts| {
            judged(
                Expected::Passes,
                &counted(counts(10, 10), 10),
                &counted(after, 20),
            )
            .join("")
        };
        assert_eq!(judged(counts(20, 19)), "");
        assert!(judged(counts(20, 10)).contains("no answer to 10 requests"));
        let lost = Counts {
            lost: 2,
            ..counts(20, 18)
        };
        assert!(judged(lost).contains("2 lost"));
        let broken = Counts {
            broken: 1,
            ..counts(20, 18)
        };
        assert!(judged(broken).contains("1 connections broken"));
        assert!(judged(Counts::default()).contains("no answer"));
    }

    #[test]
    fn of_a_denied_flow_nothing_may_come_through_and_something_must_be_tried() {
        let judged = |sent, answered, arrived| {
            let after = counted(counts(sent, answered), arrived);
            judged(Expected::Nothing, &counted(counts(10, 0), 0), &after).join("")
        };
        assert_eq!(judged(20, 0, 0), "");
        assert!(judged(20, 1, 0).contains("1 answered"));
        assert!(judged(20, 0, 1).contains("1 came to the server"));
        assert!(judged(10, 0, 0).contains("nothing was tried"));
    }

    #[test]
    fn what_arrives_is_added_up_over_all_servers() {
        let mut counted = Counted::default();
        for _ in 0..2 {
            counted.add(Report {
                arrived: [("f".to_owned(), 3)].into(),
                ..Report::default()
            });
        }
        assert_eq!(counted.arrived("f"), 6);
    }
}
