//! What a policy of any API is made of, read off without converting anything: its rule sets, and the rules of each by position. Two
//! policies are compared by it, so that of a long policy only the rules that differ are converted.

use std::hash::Hash;

use sluice_crds::parsed::{
    self, AllowRule, DenyRule, KubeSelector, NetworkRule, Spec, TierRule, TierSubject,
};
use sluice_world::Policy;

use crate::rule::{Direction, Tier};

/// A rule set to be.
#[derive(Debug)]
pub(super) struct Outline<'a> {
    pub(super) tier: Tier,
    pub(super) priority: u16,
    pub(super) spec: u32,
    pub(super) direction: Direction,
    pub(super) subject: Subject<'a>,
    pub(super) default_deny: bool,
    pub(super) log: bool,
    pub(super) rules: Rules<'a>,
}

/// Whom a rule set governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject<'a> {
    /// Pods, of the policy's own namespace where none are given.
    Kube {
        namespaces: Option<&'a KubeSelector>,
        /// Every pod where not given.
        pods: Option<&'a KubeSelector>,
    },
    Rules(&'a parsed::Subject),
}

/// The rules of a rule set, in order of position.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rules<'a> {
    Network(&'a [NetworkRule]),
    /// The denies stand behind the allows.
    Sections {
        allow: &'a [AllowRule],
        deny: &'a [DenyRule],
    },
    Tier(&'a [TierRule]),
}

/// Which rules of a rule set differ from those before.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// Positions of rules that are new or others, ascending.
    pub positions: Vec<u32>,
    /// How many rules there are.
    pub length: u32,
}

/// The rule sets of a policy.
pub(super) fn outlines(policy: &Policy) -> Vec<Outline<'_>> {
    match policy {
        Policy::Network(policy) => network(policy),
        Policy::Rules(policy) => (0..)
            .zip(&policy.specs)
            .flat_map(|(index, spec)| {
                let directions = [Direction::Ingress, Direction::Egress];
                directions.map(|direction| sections(spec, index, direction))
            })
            .flatten()
            .collect(),
        Policy::Tier(policy) => tier(policy),
    }
}

/// What is different in each rule set; `None` where the policies differ in more than their rules.
pub(super) fn differences(old: &Policy, new: &Policy) -> Option<Vec<Difference>> {
    let (old, new) = (outlines(old), outlines(new));
    if old.len() != new.len() {
        return None;
    }
    old.iter()
        .zip(&new)
        .map(|(old, new)| old.difference(new))
        .collect()
}

impl<'a> Outline<'a> {
    /// All but the rules.
    pub(super) const fn form(&self) -> impl Eq + Hash + use<'a> {
        let Self {
            tier,
            priority,
            spec,
            direction,
            subject,
            default_deny,
            log,
            rules: _,
        } = *self;
        (tier, priority, spec, direction, subject, default_deny, log)
    }

    fn difference(&self, new: &Self) -> Option<Difference> {
        if self.form() != new.form() {
            return None;
        }
        Some(Difference {
            positions: self.rules.differing(new.rules)?,
            length: count(new.rules.len()),
        })
    }
}

impl Rules<'_> {
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Network(rules) => rules.len(),
            Self::Sections { allow, deny } => allow.len() + deny.len(),
            Self::Tier(rules) => rules.len(),
        }
    }

    fn differing(self, new: Self) -> Option<Vec<u32>> {
        match (self, new) {
            (Self::Network(old), Self::Network(new)) => Some(differing(old, new, 0)),
            (Self::Tier(old), Self::Tier(new)) => Some(differing(old, new, 0)),
            (
                Self::Sections { allow, deny },
                Self::Sections {
                    allow: new_allow,
                    deny: new_deny,
                },
            ) => {
                let mut positions = differing(allow, new_allow, 0);
                positions.extend(differing_behind(
                    (allow.len(), deny),
                    (new_allow.len(), new_deny),
                ));
                Some(positions)
            }
            _ => None,
        }
    }
}

/// Positions, counted from `first`, at which the new list has another rule than the old one, or one where that has none.
pub(super) fn differing<T: PartialEq>(old: &[T], new: &[T], first: usize) -> Vec<u32> {
    (0..new.len())
        .filter(|&position| old.get(position) != Some(&new[position]))
        .map(|position| count(first + position))
        .collect()
}

/// The same for rules that stand behind so many others, and move with their number.
pub(super) fn differing_behind<T: PartialEq>(
    (before, old): (usize, &[T]),
    (new_before, new): (usize, &[T]),
) -> Vec<u32> {
    let old = if before == new_before { old } else { &[] };
    differing(old, new, new_before)
}

fn network(policy: &parsed::NetworkPolicy) -> Vec<Outline<'_>> {
    let directions = [
        (Direction::Ingress, &policy.ingress),
        (Direction::Egress, &policy.egress),
    ];
    directions
        .into_iter()
        .filter_map(|(direction, rules)| {
            Some(Outline {
                tier: Tier::Namespace,
                priority: 0,
                spec: 0,
                direction,
                subject: Subject::Kube {
                    namespaces: None,
                    pods: Some(&policy.subject),
                },
                default_deny: true,
                log: false,
                rules: Rules::Network(rules.as_deref()?),
            })
        })
        .collect()
}

/// One direction of one spec; `None` where it has no rule and no default deny, so that it selects nothing.
fn sections(spec: &Spec, index: u32, direction: Direction) -> Option<Outline<'_>> {
    let (allow, deny, default_deny) = match direction {
        Direction::Ingress => (
            &spec.ingress,
            &spec.ingress_deny,
            spec.default_denies_ingress(),
        ),
        Direction::Egress => (
            &spec.egress,
            &spec.egress_deny,
            spec.default_denies_egress(),
        ),
    };
    let allow = allow.as_deref().unwrap_or_default();
    let deny = deny.as_deref().unwrap_or_default();
    let speaks = !allow.is_empty() || !deny.is_empty() || default_deny;
    speaks.then(|| Outline {
        tier: Tier::Namespace,
        priority: 0,
        spec: index,
        direction,
        subject: Subject::Rules(&spec.subject),
        default_deny,
        log: spec.log.as_ref().is_some_and(|value| !value.is_empty()),
        rules: Rules::Sections { allow, deny },
    })
}

fn tier(policy: &parsed::TierPolicy) -> Vec<Outline<'_>> {
    let tier = match policy.tier {
        parsed::Tier::Admin => Tier::Admin,
        parsed::Tier::Baseline => Tier::Baseline,
    };
    let directions = [
        (Direction::Ingress, &policy.ingress),
        (Direction::Egress, &policy.egress),
    ];
    directions
        .into_iter()
        .filter(|(_, rules)| !rules.is_empty())
        .map(|(direction, rules)| Outline {
            tier,
            priority: policy.priority.number(),
            spec: 0,
            direction,
            subject: match &policy.subject {
                TierSubject::Namespaces(namespaces) => Subject::Kube {
                    namespaces: Some(namespaces),
                    pods: None,
                },
                TierSubject::Pods { namespaces, pods } => Subject::Kube {
                    namespaces: Some(namespaces),
                    pods: Some(pods),
                },
            },
            default_deny: false,
            log: false,
            rules: Rules::Tier(rules),
        })
        .collect()
}

pub(super) fn count(length: usize) -> u32 {
    // Four billion rules do not fit into memory.
    u32::try_from(length).unwrap_or(u32::MAX)
}
