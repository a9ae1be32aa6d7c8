//! A rule that was held against a case, whatever came of it.

use sluice_crds::parsed::{Authentication, PolicyRef, PortRule};
use sluice_world::{RuleRef, Section};

use crate::miss::Miss;

/// One rule of a policy that selects the subject, and what it has to say.
#[derive(Clone, Debug)]
pub(crate) struct Considered<'w> {
    pub(crate) origin: &'w PolicyRef,
    pub(crate) spec: usize,
    pub(crate) section: Section,
    pub(crate) index: usize,
    pub(crate) tier: &'static str,
    pub(crate) effect: Effect<'w>,
    /// For what it does not match; empty where it does.
    pub(crate) misses: Vec<Miss<'w>>,
}

/// What a rule does with traffic it matches.
#[derive(Clone, Debug)]
pub(crate) enum Effect<'w> {
    /// Lets it pass.
    Allow {
        authentication: Option<Authentication>,
        /// The entries by which a proxy takes it; empty where a plain entry matches too, which lifts what these would restrict.
        proxies: Vec<&'w PortRule>,
    },
    /// Drops it.
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

impl Considered<'_> {
    pub(crate) fn matches(&self) -> bool {
        self.misses.is_empty()
    }

    pub(crate) fn is_allow(&self) -> bool {
        matches!(self.effect, Effect::Allow { .. })
    }

    pub(crate) fn is_deny(&self) -> bool {
        matches!(self.effect, Effect::Deny)
    }

    /// Its name in answers.
    pub(crate) fn rule(&self) -> RuleRef {
        RuleRef {
            kind: self.origin.kind.to_string(),
            namespace: self.origin.namespace.clone(),
            name: self.origin.name.clone(),
            spec: u32::try_from(self.spec).unwrap_or(u32::MAX),
            section: self.section,
            index: u32::try_from(self.index).unwrap_or(u32::MAX),
            tier: self.tier.to_owned(),
            action: self.effect.action().to_owned(),
        }
    }
}

impl Effect<'_> {
    /// A plain allow.
    pub(crate) const ALLOW: Self = Self::Allow {
        authentication: None,
        proxies: Vec::new(),
    };

    pub(crate) const fn action(&self) -> &'static str {
        match self {
            Self::Allow { .. } => "allow",
            Self::Deny => "deny",
            Self::Pass => "pass",
        }
    }
}
