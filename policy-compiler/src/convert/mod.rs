//! From a parsed policy of any API to rule sets: every default that the APIs' texts leave to the reader is filled in here, and nowhere
//! else. Matching and precedence may not enter.

mod labels;
mod network;
mod peers;
mod rules;
mod tier;
mod traffic;

use std::{collections::BTreeMap, sync::Arc};

use sluice_crds::parsed::PolicyRef;
use sluice_world::{CidrGroup, Policy, Service, ServiceRef};

use crate::{
    delta::Warning,
    registry::SelectorId,
    rule::{Place, RuleSet, Scopes, Tier},
    vocabulary::Vocabulary,
};

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

/// Converts one policy.
pub fn convert(policy: &Policy, vocabulary: &mut Vocabulary, world: &Surroundings) -> Converted {
    let mut converter = Converter {
        vocabulary,
        world,
        namespace: policy.origin().namespace.as_deref().map(Arc::from),
        dependencies: Dependencies::default(),
        warnings: Vec::new(),
    };
    let sets = match policy {
        Policy::Network(policy) => converter.network_policy(policy),
        Policy::Rules(policy) => converter.rules_policy(policy),
        Policy::Tier(policy) => converter.tier_policy(policy),
    };
    let Converter {
        dependencies,
        mut warnings,
        ..
    } = converter;
    warnings.sort_unstable();
    warnings.dedup();
    Converted {
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

impl Converter<'_> {
    fn place(&self, origin: &PolicyRef, tier: Tier, priority: u16, spec: u32) -> Place {
        Place {
            tier,
            priority,
            kind: origin.kind.as_str(),
            namespace: self.namespace.clone(),
            name: origin.name.as_str().into(),
            spec,
        }
    }
}
