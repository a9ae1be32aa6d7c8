//! Names behind numbers: rules by cookie, identities' labels, holders of addresses. Kept beside the tables, by the same deltas.

use std::{collections::HashMap, net::IpAddr};

use sluice_abi::{Cookie, Identity};
use sluice_crds::parsed::Policy;
use sluice_policy::Delta;
use sluice_world::RuleRef;

use crate::flow::Names;

/// Kind, namespace and name of a policy, and which of its rule sets.
type RuleSet = (String, Option<String>, String, u32);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Book {
    rules: HashMap<Cookie, RuleRef>,
    identities: HashMap<Identity, Vec<String>>,
    /// `namespace/pod`, or a node's name, by address.
    pub(crate) holders: HashMap<IpAddr, String>,
    /// `log.value` of rule sets that have one.
    log_texts: HashMap<RuleSet, String>,
    /// What the last delta took out: packets judged before it are still told of.
    parting: (Vec<Cookie>, Vec<Identity>),
}

impl Book {
    /// Takes a delta's names in.
    pub(crate) fn note(&mut self, delta: &Delta) {
        for cookie in self.parting.0.drain(..) {
            self.rules.remove(&cookie);
        }
        for identity in self.parting.1.drain(..) {
            self.identities.remove(&identity);
        }
        self.rules.extend(delta.cookies.iter().cloned());
        self.identities.extend(delta.identities.iter().cloned());
        self.parting = (
            delta.dropped_cookies.clone(),
            delta.dropped_identities.clone(),
        );
    }
}

impl Book {
    /// Takes in what a policy's author wants flows to say, in place of what the policy said before.
    pub(crate) fn note_log_texts(&mut self, policy: &Policy) {
        let origin = &policy.origin;
        for (spec, number) in policy.specs.iter().zip(0..) {
            let rule_set = (
                origin.kind.to_string(),
                origin.namespace.clone(),
                origin.name.clone(),
                number,
            );
            match &spec.log {
                Some(text) => self.log_texts.insert(rule_set, text.clone()),
                None => self.log_texts.remove(&rule_set),
            };
        }
    }
}

impl Names for Book {
    fn holder(&self, address: IpAddr) -> Option<String> {
        self.holders.get(&address).cloned()
    }

    fn labels(&self, identity: Identity) -> Vec<String> {
        self.identities.get(&identity).cloned().unwrap_or_default()
    }

    fn rule(&self, cookie: Cookie) -> Option<RuleRef> {
        self.rules.get(&cookie).cloned()
    }

    fn log_text(&self, rule: &RuleRef) -> Option<String> {
        if self.log_texts.is_empty() {
            return None;
        }
        let rule_set = (
            rule.kind.clone(),
            rule.namespace.clone(),
            rule.name.clone(),
            rule.spec,
        );
        self.log_texts.get(&rule_set).cloned()
    }
}
