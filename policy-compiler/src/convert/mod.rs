//! From a parsed policy of any API to rule sets: every default that the APIs' texts leave to the reader is filled in here, and nowhere
//! else. Matching and precedence may not enter.

mod labels;
mod network;
mod outline;
mod peers;
mod prepared;
mod rules;
mod tier;
mod traffic;

use std::{collections::BTreeMap, sync::Arc};

use sluice_crds::parsed::KubeSelector;
use sluice_world::{CidrGroup, Policy, Section, Service, ServiceRef};

use crate::{
    delta::Warning,
    registry::SelectorId,
    rule::{Direction, Place, Rule, RuleSet, Scopes},
    vocabulary::Vocabulary,
};
use outline::{Outline, Rules, Subject};

pub use outline::Difference;
pub use prepared::Prepared;

/// Objects that rules refer to by name.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// CIDR groups by kind and name.
    pub groups: BTreeMap<(String, String), CidrGroup>,
    /// Services.
    pub services: BTreeMap<ServiceRef, Service>,
}

/// What of the surroundings a policy's meaning hangs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// Names or selects CIDR groups.
    pub groups: bool,
    /// Names or selects services.
    pub services: bool,
}

/// A policy as rule sets. Its selectors are acquired; whoever drops it releases them.
#[derive(Debug, Default)]
pub struct Converted {
    /// One per spec and direction that has something to say.
    pub sets: Vec<RuleSet>,
    /// What to read anew when surroundings change.
    pub dependencies: Dependencies,
    /// What the author should know.
    pub warnings: Vec<Warning>,
}

/// Peers of one rule.
#[derive(Debug, Default)]
struct Peers {
    scopes: Scopes,
    selectors: Vec<SelectorId>,
}

/// Some rules of a rule set. Their selectors are acquired.
#[derive(Debug, Default)]
pub struct Drafts {
    /// With their positions, ascending.
    pub rules: Vec<(u32, Rule)>,
    /// How many rules the set has with them.
    pub length: u32,
}

/// What differs in a policy, converted. What it hangs on and what its author should know are of these rules alone.
#[derive(Debug, Default)]
pub struct Revised {
    /// For each rule set that [`convert`] makes of the policy, in its order.
    pub sets: Vec<Drafts>,
    /// What to read anew when surroundings change.
    pub dependencies: Dependencies,
    /// What the author should know.
    pub warnings: Vec<Warning>,
}

/// Converts one policy.
pub fn convert(policy: &Policy, vocabulary: &mut Vocabulary, world: &Surroundings) -> Converted {
    let mut converter = Converter::new(policy, vocabulary, world);
    let sets = outline::outlines(policy)
        .iter()
        .map(|outline| converter.rule_set(policy, outline))
        .collect();
    let (dependencies, warnings) = converter.finish();
    Converted {
        sets,
        dependencies,
        warnings,
    }
}

/// What of a policy's rules is not as in another; `None` where they differ in more than rules.
#[must_use]
pub fn differences(old: &Policy, new: &Policy) -> Option<Vec<Difference>> {
    outline::differences(old, new)
}

/// Converts the rules of a policy that [`differences`] found.
pub fn revise(
    policy: &Policy,
    differences: &[Difference],
    vocabulary: &mut Vocabulary,
    world: &Surroundings,
) -> Revised {
    let mut converter = Converter::new(policy, vocabulary, world);
    let sets = outline::outlines(policy)
        .iter()
        .zip(differences)
        .map(|(outline, difference)| Drafts {
            rules: difference
                .positions
                .iter()
                .map(|&position| (position, converter.rule_at(outline, position as usize)))
                .collect(),
            length: difference.length,
        })
        .collect();
    let (dependencies, warnings) = converter.finish();
    Revised {
        sets,
        dependencies,
        warnings,
    }
}

struct Converter<'a> {
    vocabulary: &'a mut Vocabulary,
    world: &'a Surroundings,
    /// The policy's own.
    namespace: Option<Arc<str>>,
    dependencies: Dependencies,
    warnings: Vec<Warning>,
}

impl<'a> Converter<'a> {
    fn new(policy: &Policy, vocabulary: &'a mut Vocabulary, world: &'a Surroundings) -> Self {
        Self {
            vocabulary,
            world,
            namespace: policy.origin().namespace.as_deref().map(Arc::from),
            dependencies: Dependencies::default(),
            warnings: Vec::new(),
        }
    }

    fn finish(mut self) -> (Dependencies, Vec<Warning>) {
        self.warnings.sort_unstable();
        self.warnings.dedup();
        (self.dependencies, self.warnings)
    }

    fn rule_set(&mut self, policy: &Policy, outline: &Outline<'_>) -> RuleSet {
        let origin = policy.origin();
        RuleSet {
            policy: origin.clone(),
            place: Place {
                tier: outline.tier,
                priority: outline.priority,
                kind: origin.kind.as_str(),
                namespace: self.namespace.clone(),
                name: origin.name.as_str().into(),
                spec: outline.spec,
            },
            direction: outline.direction,
            subject: self.subject_of(&outline.subject),
            default_deny: outline.default_deny,
            rules: (0..outline.rules.len())
                .map(|position| self.rule_at(outline, position))
                .collect(),
        }
    }

    fn subject_of(&mut self, subject: &Subject<'_>) -> SelectorId {
        match *subject {
            Subject::Kube { namespaces, pods } => {
                let all = KubeSelector::default();
                let selector = self.kube_pods(namespaces, pods.unwrap_or(&all));
                self.vocabulary.acquire(&selector)
            }
            Subject::Rules(subject) => self.spec_subject(subject),
        }
    }

    /// The rule at a position, which must be one of the outline's.
    fn rule_at(&mut self, outline: &Outline<'_>, position: usize) -> Rule {
        let (plain, deny) = match outline.direction {
            Direction::Ingress => (Section::Ingress, Section::IngressDeny),
            Direction::Egress => (Section::Egress, Section::EgressDeny),
        };
        // Four billion rules do not fit into memory.
        let index = |position: usize| u32::try_from(position).unwrap_or(u32::MAX);
        let rule = match outline.rules {
            Rules::Network(rules) => self.network_rule(&rules[position], plain, index(position)),
            Rules::Tier(rules) => self.tier_rule(&rules[position], plain, index(position)),
            Rules::Sections {
                allow,
                deny: denies,
            } => match position.checked_sub(allow.len()) {
                None => self.allow_rule(&allow[position], plain, index(position)),
                Some(behind) => self.deny_rule(&denies[behind], deny, index(behind)),
            },
        };
        Rule {
            log: outline.log,
            ..rule
        }
    }
}
