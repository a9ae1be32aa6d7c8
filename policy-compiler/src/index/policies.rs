//! Policies in and out of the index: which rule sets they are, which rules of them changed, whom that concerns.

use std::{collections::BTreeMap, sync::Arc};

use rustc_hash::FxHashSet;
use sluice_abi::Cookie;
use sluice_crds::parsed::PolicyRef;
use sluice_world::{Policy, RuleRef, ServiceRef};

use super::{Index, Staged};
use crate::{
    convert::{self, Dependencies},
    delta::{Delta, Warning},
    identity::IdentityIndex,
    registry::SetId,
    rule::{Place, Rule, RuleSet, Tier},
    table::Installed,
};

/// A policy in force.
#[derive(Debug)]
pub(super) struct InstalledPolicy {
    policy: Arc<Policy>,
    dependencies: Dependencies,
    sets: Vec<SetId>,
}

/// What a commit has to look at again.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Identities whose rule sets may be others than before.
    pub(super) subjects: FxHashSet<IdentityIndex>,
    /// Rule sets that select subjects anew.
    pub(super) new_subjects: Vec<SetId>,
    /// Rule sets all of whose tables are to be compiled anew.
    pub(super) whole: FxHashSet<SetId>,
    /// Peers whose entries in a rule set's tables may differ.
    pub(super) peers: Vec<(SetId, IdentityIndex)>,
    /// Rules whose peers, once known, are such.
    pub(super) rules: Vec<(SetId, u32)>,
    /// Identities that no address had before.
    pub(super) made: FxHashSet<IdentityIndex>,
}

impl Index {
    pub(super) fn commit_policies(
        &mut self,
        staged: &Staged,
        touched: &mut Touched,
        delta: &mut Delta,
    ) {
        let mut work: BTreeMap<PolicyRef, Option<Arc<Policy>>> = BTreeMap::new();
        for (id, installed) in &self.policies {
            let hangs = staged.groups_changed && installed.dependencies.groups
                || staged.services_changed && installed.dependencies.services;
            if hangs {
                work.insert(id.clone(), Some(Arc::clone(&installed.policy)));
            }
        }
        for (id, policy) in &staged.policies {
            let installed = self.policies.get(id).map(|installed| &installed.policy);
            if policy.as_ref() != installed {
                work.insert(id.clone(), policy.clone());
            }
        }
        for (id, policy) in work {
            match policy {
                Some(policy) => self.put_policy(id, policy, touched, delta),
                None => self.remove_policy(&id, touched, delta),
            }
        }
        let api_server = ServiceRef {
            namespace: "default".into(),
            name: "kubernetes".into(),
        };
        let addresses: Vec<_> = self
            .surroundings
            .services
            .get(&api_server)
            .filter(|_| self.vocabulary.sees_api_server())
            .map(|service| service.endpoints.iter().copied().collect())
            .unwrap_or_default();
        self.vocabulary.prefixes.set_api_server(&addresses);
    }

    fn put_policy(
        &mut self,
        id: PolicyRef,
        policy: Arc<Policy>,
        touched: &mut Touched,
        delta: &mut Delta,
    ) {
        let mut converted = convert::convert(&policy, &mut self.vocabulary, &self.surroundings);
        let old = self
            .policies
            .remove(&id)
            .map(|installed| installed.sets)
            .unwrap_or_default();
        let mut left = old;
        let mut sets = Vec::with_capacity(converted.sets.len());
        for set in converted.sets {
            let same = |id: &SetId| {
                self.sets.get(id).is_some_and(|known| {
                    known.set.place == set.place && known.set.direction == set.direction
                })
            };
            match left.iter().position(same) {
                Some(position) => {
                    let id = left.swap_remove(position);
                    self.update_set(id, set, touched, delta);
                    sets.push(id);
                }
                None => sets.push(self.install_set(set, touched, delta)),
            }
        }
        for id in left {
            self.uninstall_set(id, touched, delta);
        }
        if self.shares_priority(&sets) {
            converted.warnings.push(Warning::EqualPriority);
        }
        delta.warnings.push((id.clone(), converted.warnings));
        let dependencies = converted.dependencies;
        self.policies.insert(
            id,
            InstalledPolicy {
                policy,
                dependencies,
                sets,
            },
        );
    }

    fn remove_policy(&mut self, id: &PolicyRef, touched: &mut Touched, delta: &mut Delta) {
        if let Some(installed) = self.policies.remove(id) {
            for set in installed.sets {
                self.uninstall_set(set, touched, delta);
            }
            delta.warnings.push((id.clone(), Vec::new()));
        }
    }

    /// Whether another policy stands at the very place of one of these in an ordered tier.
    fn shares_priority(&self, sets: &[SetId]) -> bool {
        let place = |set: &SetId| self.sets.get(set).map(|known| &known.set.place);
        let clash = |own: &Place, other: &Place| {
            own.tier != Tier::Namespace
                && (own.tier, own.priority) == (other.tier, other.priority)
                && (own.kind, &own.name) != (other.kind, &other.name)
        };
        let Some(own) = sets
            .first()
            .and_then(place)
            .filter(|own| own.tier != Tier::Namespace)
        else {
            return false;
        };
        self.policies
            .values()
            .filter(|other| matches!(*other.policy, Policy::Tier(_)))
            .any(|other| {
                other
                    .sets
                    .first()
                    .and_then(place)
                    .is_some_and(|place| clash(own, place))
            })
    }

    fn install_set(&mut self, mut set: RuleSet, touched: &mut Touched, delta: &mut Delta) -> SetId {
        let id = SetId(self.next_set);
        self.next_set += 1;
        for index in 0..count(set.rules.len()) {
            self.new_cookie(id, &mut set, index, delta);
            self.link_rule(id, index, &set.rules[index as usize], true);
        }
        self.vocabulary.registry.link_subject(set.subject, id, true);
        self.sets.insert(
            id,
            Installed {
                set,
                tables: FxHashSet::default(),
            },
        );
        touched.new_subjects.push(id);
        id
    }

    fn uninstall_set(&mut self, id: SetId, touched: &mut Touched, delta: &mut Delta) {
        let Some(installed) = self.sets.remove(&id) else {
            return;
        };
        let set = installed.set;
        touched
            .subjects
            .extend(self.vocabulary.registry.members(set.subject));
        self.vocabulary
            .registry
            .link_subject(set.subject, id, false);
        for (index, rule) in (0..).zip(&set.rules) {
            self.link_rule(id, index, rule, false);
            self.drop_cookie(rule.cookie, delta);
        }
        self.release_set(&set);
    }

    /// Puts new content in a rule set's place: only rules that differ are touched.
    fn update_set(&mut self, id: SetId, new: RuleSet, touched: &mut Touched, delta: &mut Delta) {
        let Some(mut installed) = self.sets.remove(&id) else {
            return;
        };
        let old = std::mem::replace(&mut installed.set, new);
        let new = &mut installed.set;
        if old.subject != new.subject {
            touched
                .subjects
                .extend(self.vocabulary.registry.members(old.subject));
            self.vocabulary
                .registry
                .link_subject(old.subject, id, false);
            self.vocabulary.registry.link_subject(new.subject, id, true);
            touched.new_subjects.push(id);
        }
        if old.default_deny != new.default_deny {
            touched.whole.insert(id);
        }
        let mut names_changed = false;
        for index in 0..count(old.rules.len().max(new.rules.len())) {
            let before = old.rules.get(index as usize);
            let after = new.rules.get_mut(index as usize);
            if let (Some(before), Some(after)) = (before, after) {
                after.cookie = before.cookie;
                if before == after {
                    continue;
                }
            }
            if let Some(before) = before {
                self.touch_rule(id, before, touched);
                self.link_rule(id, index, before, false);
                self.drop_cookie(before.cookie, delta);
                names_changed |= before.uses_names();
            }
            if (index as usize) < new.rules.len() {
                self.new_cookie(id, new, index, delta);
                let after = &new.rules[index as usize];
                self.link_rule(id, index, after, true);
                names_changed |= after.uses_names();
                touched.rules.push((id, index));
                if !after.scopes.is_empty() {
                    touched.whole.insert(id);
                }
            }
        }
        if names_changed {
            touched.new_subjects.push(id);
        }
        self.sets.insert(id, installed);
        self.release_set(&old);
    }

    /// Notes whom a rule names now, before it goes.
    fn touch_rule(&self, id: SetId, rule: &Rule, touched: &mut Touched) {
        if !rule.scopes.is_empty() {
            touched.whole.insert(id);
        }
        for &selector in rule.peers.iter().chain(&rule.name_holders) {
            let members = self.vocabulary.registry.members(selector);
            touched
                .peers
                .extend(members.iter().map(|&member| (id, member)));
        }
    }

    fn link_rule(&mut self, id: SetId, index: u32, rule: &Rule, linked: bool) {
        for &selector in rule.peers.iter().chain(&rule.name_holders) {
            self.vocabulary
                .registry
                .link_peer(selector, (id, index), linked);
        }
        for traffic in &rule.traffic {
            for (name, _) in &traffic.names {
                self.vocabulary.count_port_name(*name, linked);
            }
        }
    }

    fn release_set(&mut self, set: &RuleSet) {
        self.vocabulary.release(set.subject, &mut self.identities);
        for rule in &set.rules {
            for &selector in rule.peers.iter().chain(&rule.name_holders) {
                self.vocabulary.release(selector, &mut self.identities);
            }
        }
    }

    fn new_cookie(&mut self, id: SetId, set: &mut RuleSet, index: u32, delta: &mut Delta) {
        let cookie = Cookie(self.next_cookie);
        self.next_cookie += 1;
        set.rules[index as usize].cookie = cookie;
        self.cookies.insert(cookie, (id, index));
        delta.cookies.push((cookie, rule_ref(set, index)));
    }

    fn drop_cookie(&mut self, cookie: Cookie, delta: &mut Delta) {
        self.cookies.remove(&cookie);
        delta.dropped_cookies.push(cookie);
    }
}

/// The name of a rule. The index must be one of the set's.
pub(super) fn rule_ref(set: &RuleSet, index: u32) -> RuleRef {
    let rule = &set.rules[index as usize];
    RuleRef {
        kind: set.place.kind.to_owned(),
        namespace: set.place.namespace.as_deref().map(str::to_owned),
        name: (*set.place.name).to_owned(),
        spec: set.place.spec,
        section: rule.section,
        index: rule.index,
        tier: set.place.tier.as_str().to_owned(),
        action: rule.action.as_str().to_owned(),
    }
}

fn count(length: usize) -> u32 {
    // Four billion rules do not fit into memory.
    u32::try_from(length).unwrap_or(u32::MAX)
}
