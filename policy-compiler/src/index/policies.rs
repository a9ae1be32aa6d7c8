//! Policies in and out of the index: which rule sets they are, which rules of them changed, whom that concerns.

use std::{collections::BTreeMap, sync::Arc};

use rustc_hash::{FxHashMap, FxHashSet};
use sluice_abi::Cookie;
use sluice_crds::parsed::PolicyRef;
use sluice_world::{Policy, RuleRef, ServiceRef};

use super::{Index, Staged};
use crate::{
    convert::{self, Dependencies, Difference, Drafts, Prepared},
    delta::{Delta, Warning},
    identity::IdentityIndex,
    registry::{SelectorId, SetId},
    rule::{Rule, RuleSet, Tier},
    sets::Installed,
    vocabulary::Vocabulary,
};

/// A policy as it was given.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Plain(Arc<Policy>),
    Prepared(Prepared),
}

impl Source {
    const fn policy(&self) -> &Arc<Policy> {
        match self {
            Self::Plain(policy) => policy,
            Self::Prepared(prepared) => prepared.policy(),
        }
    }

    fn differences(&self, new: &Self) -> Option<Vec<Difference>> {
        match (self, new) {
            (Self::Prepared(old), Self::Prepared(new)) => old.differences(new),
            _ => convert::differences(self.policy(), new.policy()),
        }
    }
}

/// A policy in force.
#[derive(Debug)]
pub(super) struct InstalledPolicy {
    source: Source,
    dependencies: Dependencies,
    /// Its author has been told something.
    warned: bool,
    sets: Vec<SetId>,
}

impl InstalledPolicy {
    /// Whether it is this policy, as far as is found without looking at all of its rules, unless they have to be converted anyway.
    fn is_of(&mut self, source: &Source) -> bool {
        let (old, new) = (self.source.policy(), source.policy());
        let same = Arc::ptr_eq(old, new) || !self.is_plain() && old == new;
        if same {
            // It may be prepared now.
            self.source = source.clone();
        }
        same
    }

    /// Each of its rules means something by itself alone, so that one may change without the others being looked at.
    fn is_plain(&self) -> bool {
        !self.warned && self.dependencies == Dependencies::default()
    }
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
    /// Rule sets that are gone, as far as their rules cover no scope.
    pub(super) gone: FxHashMap<SetId, Gone>,
    /// How many peers are in `gone`.
    gone_peers: usize,
}

/// What a rule set that is gone has meant to the tables it was part of.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) default_deny: bool,
    /// Whom its rules named, some perhaps more than once.
    pub(super) peers: Vec<IdentityIndex>,
}

/// Where so many peers are gone, their tables are compiled whole: to remember more would take more room than it is worth.
const MANY_PEERS: usize = 1 << 20;

impl Index {
    pub(super) fn commit_policies(
        &mut self,
        staged: &Staged,
        touched: &mut Touched,
        delta: &mut Delta,
    ) {
        let mut work: BTreeMap<PolicyRef, Option<Source>> = BTreeMap::new();
        if staged.groups_changed || staged.services_changed {
            for (id, installed) in &self.policies {
                let hangs = staged.groups_changed && installed.dependencies.groups
                    || staged.services_changed && installed.dependencies.services;
                if hangs {
                    work.insert(id.clone(), Some(installed.source.clone()));
                }
            }
        }
        for (id, policy) in &staged.policies {
            let same = match (policy, self.policies.get_mut(id)) {
                (None, None) => true,
                (Some(source), Some(installed)) => installed.is_of(source),
                _ => false,
            };
            if !same {
                work.insert(id.clone(), policy.clone());
            }
        }
        for (id, policy) in work {
            match policy {
                Some(policy) => {
                    if !self.edit_policy(&id, &policy, touched, delta) {
                        self.put_policy(id, policy, touched, delta);
                    }
                }
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

    /// Changes single rules of a policy in force, so that what a change costs does not hang on the policy's length; false where more
    /// than rules differ.
    fn edit_policy(
        &mut self,
        id: &PolicyRef,
        source: &Source,
        touched: &mut Touched,
        delta: &mut Delta,
    ) -> bool {
        let Some(installed) = self.policies.get(id).filter(|known| known.is_plain()) else {
            return false;
        };
        let Some(differences) = installed.source.differences(source) else {
            return false;
        };
        let sets = installed.sets.clone();
        let lengths = sets.iter().map(|id| self.sets.get(*id).map_or(0, length));
        let same = lengths.eq(differences.iter().map(|set| set.length))
            && differences.iter().all(|set| set.positions.is_empty());
        if same && installed.source.policy() == source.policy() {
            if let Some(installed) = self.policies.get_mut(id) {
                installed.source = source.clone();
            }
            return true;
        }
        let revised = convert::revise(
            source.policy(),
            &differences,
            &mut self.vocabulary,
            &self.surroundings,
        );
        for (set, drafts) in sets.iter().zip(revised.sets) {
            self.edit_rules(*set, drafts, touched, delta);
        }
        let installed = InstalledPolicy {
            source: source.clone(),
            dependencies: revised.dependencies,
            warned: false,
            sets,
        };
        self.enter(id.clone(), installed, revised.warnings, delta);
        true
    }

    fn put_policy(
        &mut self,
        id: PolicyRef,
        source: Source,
        touched: &mut Touched,
        delta: &mut Delta,
    ) {
        let converted = convert::convert(source.policy(), &mut self.vocabulary, &self.surroundings);
        let mut left = self.leave(&id);
        let mut sets = Vec::with_capacity(converted.sets.len());
        for set in converted.sets {
            let same = |id: &SetId| {
                self.sets.get(*id).is_some_and(|known| {
                    known.set().place == set.place && known.set().direction == set.direction
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
        let installed = InstalledPolicy {
            source,
            dependencies: converted.dependencies,
            warned: false,
            sets,
        };
        self.enter(id, installed, converted.warnings, delta);
    }

    fn remove_policy(&mut self, id: &PolicyRef, touched: &mut Touched, delta: &mut Delta) {
        if self.policies.contains_key(id) {
            for set in self.leave(id) {
                self.uninstall_set(set, touched, delta);
            }
            delta.warnings.push((id.clone(), Vec::new()));
        }
    }

    /// Lists a policy whose rule sets are in place, and tells its author what there is to know.
    fn enter(
        &mut self,
        id: PolicyRef,
        mut installed: InstalledPolicy,
        mut warnings: Vec<Warning>,
        delta: &mut Delta,
    ) {
        if let Some(place) = self.ordered_place(&installed.sets) {
            let here = self.priorities.entry(place).or_default();
            here.insert(id.clone());
            if here.len() > 1 {
                warnings.push(Warning::EqualPriority);
            }
        }
        installed.warned = !warnings.is_empty();
        delta.warnings.push((id.clone(), warnings));
        let old = self.policies.insert(id, installed);
        self.replaced.extend(old.map(|old| old.source));
    }

    /// Takes a policy off the list; the rule sets it has.
    fn leave(&mut self, id: &PolicyRef) -> Vec<SetId> {
        let Some(installed) = self.policies.remove(id) else {
            return Vec::new();
        };
        self.replaced.push(installed.source);
        if let Some(place) = self.ordered_place(&installed.sets)
            && let Some(here) = self.priorities.get_mut(&place)
        {
            here.remove(id);
            if here.is_empty() {
                self.priorities.remove(&place);
            }
        }
        installed.sets
    }

    /// Where in an ordered tier these rule sets of one policy stand.
    fn ordered_place(&self, sets: &[SetId]) -> Option<(Tier, u16)> {
        let place = &self.sets.get(*sets.first()?)?.set().place;
        (place.tier != Tier::Namespace).then_some((place.tier, place.priority))
    }

    fn install_set(&mut self, mut set: RuleSet, touched: &mut Touched, delta: &mut Delta) -> SetId {
        let rules = std::mem::take(&mut set.rules);
        let subject = set.subject;
        let id = self.sets.insert(set, rules.len());
        for (position, rule) in (0..).zip(rules) {
            self.put_rule(id, position, rule, touched, delta);
        }
        self.vocabulary.registry.link_subject(subject, id, true);
        touched.new_subjects.push(id);
        id
    }

    fn uninstall_set(&mut self, id: SetId, touched: &mut Touched, delta: &mut Delta) {
        let Some(set) = self.sets.remove(id) else {
            return;
        };
        touched
            .subjects
            .extend(self.vocabulary.registry.members(set.subject));
        self.vocabulary
            .registry
            .link_subject(set.subject, id, false);
        self.note_gone(id, &set, touched);
        for (position, rule) in (0..).zip(&set.rules) {
            link_rule(&mut self.vocabulary, (id, position), rule, false);
            count_names(&mut self.vocabulary, rule, false);
            self.drop_cookie(rule.cookie, delta);
        }
        self.vocabulary.release(set.subject, &mut self.identities);
        self.release_rules(&set.rules);
    }

    /// Notes whom a rule set names, before it goes.
    fn note_gone(&self, id: SetId, set: &RuleSet, touched: &mut Touched) {
        let covers = set.rules.iter().any(|rule| !rule.scopes.is_empty());
        if covers || touched.gone_peers > MANY_PEERS {
            return;
        }
        let registry = &self.vocabulary.registry;
        let peers: Vec<IdentityIndex> = set
            .rules
            .iter()
            .flat_map(selectors)
            .flat_map(|selector| registry.members(selector))
            .copied()
            .collect();
        touched.gone_peers += peers.len();
        let gone = Gone {
            default_deny: set.default_deny,
            peers,
        };
        touched.gone.insert(id, gone);
    }

    /// Puts new content in a rule set's place: only rules that differ are touched.
    fn update_set(&mut self, id: SetId, new: RuleSet, touched: &mut Touched, delta: &mut Delta) {
        let Some(installed) = self.sets.get_mut(id) else {
            return;
        };
        let set = installed.set_mut();
        let old_subject = std::mem::replace(&mut set.subject, new.subject);
        let old_default = std::mem::replace(&mut set.default_deny, new.default_deny);
        let mut drafts = Drafts {
            rules: Vec::new(),
            length: count(new.rules.len()),
        };
        let mut unchanged = Vec::new();
        for (position, rule) in (0..).zip(new.rules) {
            match set.rules.get(position as usize) {
                Some(before) if before.says_the_same(&rule) => unchanged.push(rule),
                _ => drafts.rules.push((position, rule)),
            }
        }
        if old_default != new.default_deny {
            touched.whole.insert(id);
        }
        if old_subject != new.subject {
            let registry = &mut self.vocabulary.registry;
            touched.subjects.extend(registry.members(old_subject));
            registry.link_subject(old_subject, id, false);
            registry.link_subject(new.subject, id, true);
            touched.new_subjects.push(id);
        }
        self.edit_rules(id, drafts, touched, delta);
        self.vocabulary.release(old_subject, &mut self.identities);
        // What they are made of is held by the rules that stay.
        self.release_rules(&unchanged);
    }

    /// Puts rules in the place of others of a rule set, or behind them.
    fn edit_rules(&mut self, id: SetId, drafts: Drafts, touched: &mut Touched, delta: &mut Delta) {
        let Some(installed) = self.sets.get_mut(id) else {
            return;
        };
        let mut names_changed = false;
        let mut gone = installed.truncate(drafts.length);
        for (position, rule) in (drafts.length..).zip(&gone) {
            self.withdraw_rule(id, position, rule, touched, delta);
            names_changed |= rule.uses_names();
        }
        for (position, rule) in drafts.rules {
            names_changed |= rule.uses_names();
            touched.rules.push((id, position));
            if !rule.scopes.is_empty() {
                touched.whole.insert(id);
            }
            if let Some(before) = self.put_rule(id, position, rule, touched, delta) {
                names_changed |= before.uses_names();
                gone.push(before);
            }
        }
        if names_changed {
            touched.new_subjects.push(id);
        }
        // Last: what goes may be what has come.
        self.release_rules(&gone);
    }

    /// Puts a rule in a rule set, under a new cookie; the rule that was there.
    fn put_rule(
        &mut self,
        id: SetId,
        position: u32,
        mut rule: Rule,
        touched: &mut Touched,
        delta: &mut Delta,
    ) -> Option<Rule> {
        let cookie = Cookie(self.next_cookie);
        self.next_cookie += 1;
        rule.cookie = cookie;
        // The new rule's names first, so that none seems to go that is only named again.
        count_names(&mut self.vocabulary, &rule, true);
        let before = self.sets.get_mut(id)?.put(position, rule);
        if let Some(before) = &before {
            self.withdraw_rule(id, position, before, touched, delta);
        }
        let set = self.sets.get(id)?.set();
        link_rule(
            &mut self.vocabulary,
            (id, position),
            &set.rules[position as usize],
            true,
        );
        self.cookies.insert(cookie, (id, position));
        delta.cookies.push((cookie, rule_ref(set, position)));
        before
    }

    /// Takes a rule that is no longer part of a rule set out of everything else.
    fn withdraw_rule(
        &mut self,
        id: SetId,
        position: u32,
        rule: &Rule,
        touched: &mut Touched,
        delta: &mut Delta,
    ) {
        self.touch_rule(id, rule, touched);
        link_rule(&mut self.vocabulary, (id, position), rule, false);
        count_names(&mut self.vocabulary, rule, false);
        self.drop_cookie(rule.cookie, delta);
    }

    /// Notes whom a rule names now, before it goes.
    fn touch_rule(&self, id: SetId, rule: &Rule, touched: &mut Touched) {
        if !rule.scopes.is_empty() {
            touched.whole.insert(id);
        }
        for selector in selectors(rule) {
            let members = self.vocabulary.registry.members(selector);
            touched
                .peers
                .extend(members.iter().map(|&member| (id, member)));
        }
    }

    fn release_rules(&mut self, rules: &[Rule]) {
        for selector in rules.iter().flat_map(selectors) {
            self.vocabulary.release(selector, &mut self.identities);
        }
    }

    fn drop_cookie(&mut self, cookie: Cookie, delta: &mut Delta) {
        self.cookies.remove(&cookie);
        delta.dropped_cookies.push(cookie);
    }
}

/// Says that a rule is part of a rule set, or no longer is.
fn link_rule(vocabulary: &mut Vocabulary, at: (SetId, u32), rule: &Rule, linked: bool) {
    for selector in selectors(rule) {
        vocabulary.registry.link_peer(selector, at, linked);
    }
}

fn count_names(vocabulary: &mut Vocabulary, rule: &Rule, used: bool) {
    for (name, _) in rule.traffic.iter().flat_map(|traffic| &traffic.names) {
        vocabulary.count_port_name(*name, used);
    }
}

/// The selectors that a rule is listed with: of its peers and of those that have its port names.
pub(super) fn selectors(rule: &Rule) -> impl Iterator<Item = SelectorId> {
    rule.peers.iter().chain(&rule.name_holders).copied()
}

fn length(installed: &Installed) -> u32 {
    count(installed.set().rules.len())
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
