//! From all rules held against a case to what the side decides: the order of the tiers, modes, the local host.

use sluice_crds::parsed::{Authentication, L7Rules, PortRule, Tier};
use sluice_world::{Mode, Policy, Query, Reason, RuleRef, Side, SideVerdict};

use crate::{
    case::{Case, Direction},
    considered::{Considered, Effect},
    l7::{self, Patterns},
    network_policy, rules_policy, tier_policy,
};

/// Every rule that has a word on a case.
#[derive(Debug, Default)]
pub(crate) struct Tiers<'w> {
    /// In the order in which they are asked.
    pub(crate) admin: Vec<Considered<'w>>,
    /// In order of their names.
    pub(crate) namespace: Vec<Considered<'w>>,
    /// In the order in which they are asked.
    pub(crate) baseline: Vec<Considered<'w>>,
    /// Some rule of any tier selects the subject in this direction.
    pub(crate) selected: bool,
    /// Some policy of the namespace tier makes the direction default-deny.
    pub(crate) default_denies: bool,
}

impl<'w> Tiers<'w> {
    pub(crate) fn of(case: &Case<'w, '_>) -> Self {
        let (admin, baseline) = (
            tier_policy::consider(case, Tier::Admin),
            tier_policy::consider(case, Tier::Baseline),
        );
        let mut tiers = Self {
            selected: !admin.is_empty() || !baseline.is_empty(),
            admin,
            baseline,
            ..Self::default()
        };
        for policy in case.setting.world.policies.values() {
            match &**policy {
                Policy::Network(policy) => {
                    if let Some(rules) = network_policy::consider(case, policy) {
                        tiers.selected = true;
                        tiers.default_denies = true;
                        tiers.namespace.extend(rules);
                    }
                }
                Policy::Rules(policy) => {
                    let outcome = rules_policy::consider(case, policy);
                    tiers.selected |= outcome.selected;
                    tiers.default_denies |= outcome.default_denies;
                    tiers.namespace.extend(outcome.rules);
                }
                Policy::Tier(_) => {}
            }
        }
        tiers
    }
}

/// What the side decides. Its subject is a pod that is not also the peer, the peer is known, and policy is not switched off.
pub(crate) fn decide(
    case: &Case<'_, '_>,
    tiers: &Tiers<'_>,
    mode: Mode,
    query: &Query,
    patterns: &Patterns,
) -> Side {
    if let Some(side) = first_match(&tiers.admin) {
        return side;
    }
    match namespace_tier(&tiers.namespace) {
        Decision::Allow(rule) => return by_rule(SideVerdict::Allowed, rule),
        Decision::Deny(rule) => return by_rule(SideVerdict::Denied, rule),
        Decision::Redirect(rule, entries) => {
            return match l7::passes(patterns, &entries, query) {
                None => by_rule(SideVerdict::Redirected, rule),
                Some(true) => by_rule(SideVerdict::Allowed, rule),
                // Where nothing is denied by default, neither are requests that no rule names.
                Some(false) if !tiers.default_denies && mode != Mode::Always => {
                    without_rule(SideVerdict::Allowed, Reason::DefaultAllow)
                }
                Some(false) => by_rule(SideVerdict::Denied, rule),
            };
        }
        Decision::Nothing => {}
    }
    if !tiers.default_denies
        && mode != Mode::Always
        && let Some(side) = first_match(&tiers.baseline)
    {
        return side;
    }
    // The allow of lowest precedence: the node may probe a pod that some ingress rule selects.
    if case.direction == Direction::Ingress && case.peer_is_own_node() && tiers.selected {
        return without_rule(SideVerdict::Allowed, Reason::LocalHost);
    }
    if tiers.default_denies {
        return without_rule(SideVerdict::Denied, Reason::DefaultDeny);
    }
    if mode == Mode::Always {
        return without_rule(SideVerdict::Denied, Reason::Mode);
    }
    without_rule(SideVerdict::Allowed, Reason::DefaultAllow)
}

/// The first rule of a tier that matches; nothing where it passes on or there is none.
fn first_match(rules: &[Considered<'_>]) -> Option<Side> {
    let first = rules.iter().find(|considered| considered.matches())?;
    match first.effect {
        Effect::Allow { .. } => Some(by_rule(SideVerdict::Allowed, first.rule())),
        Effect::Deny => Some(by_rule(SideVerdict::Denied, first.rule())),
        Effect::Pass => None,
    }
}

/// What the namespace tier says.
enum Decision<'w> {
    Allow(RuleRef),
    Deny(RuleRef),
    Redirect(RuleRef, Vec<&'w PortRule>),
    Nothing,
}

/// All policies of the tier together: any deny beats any allow; an allow that asks for authentication can't be honoured; a plain allow
/// lifts what proxies would restrict; proxies that contradict each other get nothing.
fn namespace_tier<'w>(rules: &[Considered<'w>]) -> Decision<'w> {
    let matching: Vec<_> = rules
        .iter()
        .filter(|considered| considered.matches())
        .collect();
    if let Some(rule) = first(matching.iter().filter(|considered| considered.is_deny())) {
        return Decision::Deny(rule);
    }
    let strictest = matching
        .iter()
        .filter_map(|considered| authentication(considered))
        .max();
    if let Some(strictest) = strictest
        && strictest >= Authentication::Required
    {
        let asking = matching
            .iter()
            .filter(|considered| authentication(considered) == Some(strictest));
        return first(asking).map_or(Decision::Nothing, Decision::Deny);
    }
    if let Some(rule) = first(matching.iter().filter(|considered| is_plain(considered))) {
        return Decision::Allow(rule);
    }
    let entries: Vec<&PortRule> = matching
        .iter()
        .flat_map(|considered| proxies(considered))
        .copied()
        .collect();
    match first(matching.iter()) {
        None => Decision::Nothing,
        Some(rule) if contradict(&entries) => Decision::Deny(rule),
        Some(rule) => Decision::Redirect(rule, entries),
    }
}

/// The first by the order of names.
fn first<'a, 'w: 'a>(rules: impl Iterator<Item = &'a &'a Considered<'w>>) -> Option<RuleRef> {
    rules.map(|considered| considered.rule()).min()
}

fn authentication(considered: &Considered<'_>) -> Option<Authentication> {
    match considered.effect {
        Effect::Allow { authentication, .. } => authentication,
        Effect::Deny | Effect::Pass => None,
    }
}

fn is_plain(considered: &Considered<'_>) -> bool {
    considered.is_allow() && proxies(considered).is_empty()
}

fn proxies<'a, 'w>(considered: &'a Considered<'w>) -> &'a [&'w PortRule] {
    match &considered.effect {
        Effect::Allow { proxies, .. } => proxies,
        Effect::Deny | Effect::Pass => &[],
    }
}

/// One proxy can't parse two protocols on one port, nor hold two certificates there.
fn contradict(entries: &[&PortRule]) -> bool {
    let http = entries
        .iter()
        .any(|entry| matches!(entry.l7, Some(L7Rules::Http(_))));
    let dns = entries
        .iter()
        .any(|entry| matches!(entry.l7, Some(L7Rules::Dns(_))));
    (http && dns)
        || differ(
            entries
                .iter()
                .filter_map(|entry| entry.terminating_tls.as_ref()),
        )
        || differ(
            entries
                .iter()
                .filter_map(|entry| entry.originating_tls.as_ref()),
        )
}

fn differ<T: PartialEq>(mut values: impl Iterator<Item = T>) -> bool {
    let first = values.next();
    first.is_some_and(|first| values.any(|value| value != first))
}

const fn by_rule(verdict: SideVerdict, rule: RuleRef) -> Side {
    Side {
        verdict,
        reason: Reason::Rule,
        rule: Some(rule),
    }
}

/// A side that no rule decided.
pub(crate) const fn without_rule(verdict: SideVerdict, reason: Reason) -> Side {
    Side {
        verdict,
        reason,
        rule: None,
    }
}
