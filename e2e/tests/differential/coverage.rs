//! What a run of the test has met, so that one can see that it met everything.

use std::{collections::BTreeMap, fmt};

use sluice_world::{Answer, Side};

/// How often each kind of answer was met.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    worlds: u32,
    counts: BTreeMap<String, u32>,
}

impl Coverage {
    /// Answers that a long run has to meet.
    const CORNERS: [&'static str; 28] = [
        "reason rule: allowed",
        "reason rule: denied",
        "reason rule: redirected",
        "reason default-deny: denied",
        "reason default-allow: allowed",
        "reason default-allow: not-enforced",
        "reason local-host: allowed",
        "reason self: allowed",
        "reason mode: allowed",
        "reason mode: denied",
        "reason unknown: denied",
        "rule NetworkPolicy ingress allow",
        "rule NetworkPolicy egress allow",
        "rule SluiceNetworkPolicy ingress allow",
        "rule SluiceNetworkPolicy ingressDeny deny",
        "rule CiliumNetworkPolicy egress allow",
        "rule CiliumNetworkPolicy egressDeny deny",
        "rule SluiceClusterwideNetworkPolicy ingress allow",
        "rule SluiceClusterwideNetworkPolicy egressDeny deny",
        "rule CiliumClusterwideNetworkPolicy egress allow",
        "rule CiliumClusterwideNetworkPolicy ingressDeny deny",
        "rule ClusterNetworkPolicy ingress allow",
        "rule ClusterNetworkPolicy egress deny",
        "rule AdminNetworkPolicy egress allow",
        "rule AdminNetworkPolicy ingress deny",
        "rule BaselineAdminNetworkPolicy ingress allow",
        "rule BaselineAdminNetworkPolicy egress deny",
        "answer denied",
    ];

    /// Checks that a run over at least `worlds` worlds met every corner: a test that judges little, or always the same, shows nothing.
    ///
    /// # Panics
    /// Names a corner that was not met.
    pub(crate) fn expect_corners(&self, worlds: u32) {
        if self.worlds < worlds {
            return;
        }
        for corner in Self::CORNERS {
            let count = self.counts.get(corner).copied().unwrap_or(0);
            assert!(count >= 5, "{corner} was met {count} times only:\n{self}");
        }
    }

    /// Counts a world.
    pub(crate) const fn world(&mut self) {
        self.worlds += 1;
    }

    /// Counts an answer.
    pub(crate) fn answer(&mut self, answer: &Answer) {
        self.add(format!("answer {}", word(&answer.verdict)));
        for side in [&answer.egress, &answer.ingress] {
            self.side(side);
        }
    }

    /// Adds what another thread met.
    pub(crate) fn merge(&mut self, other: Self) {
        self.worlds += other.worlds;
        for (corner, count) in other.counts {
            *self.counts.entry(corner).or_default() += count;
        }
    }

    fn side(&mut self, side: &Side) {
        self.add(format!(
            "reason {}: {}",
            word(&side.reason),
            word(&side.verdict)
        ));
        if let Some(rule) = &side.rule {
            self.add(format!(
                "rule {} {} {}",
                rule.kind,
                word(&rule.section),
                rule.action
            ));
            self.add(format!("tier {}", rule.tier));
        }
    }

    fn add(&mut self, corner: String) {
        *self.counts.entry(corner).or_default() += 1;
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} worlds", self.worlds)?;
        for (corner, count) in &self.counts {
            writeln!(f, "{count:>9}  {corner}")?;
        }
        Ok(())
    }
}

/// The word that answers use for a value.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
