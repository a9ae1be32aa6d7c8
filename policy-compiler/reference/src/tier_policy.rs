//! `policy.networking.k8s.io`: the tiers before and after the namespaced policies.

use sluice_crds::parsed::{
    Action, KubeSelector, Tier, TierPeer, TierPolicy, TierRule, TierSubject,
};
use sluice_world::{Labels, Policy, Section};

use crate::{
    addresses,
    case::{Case, Direction},
    considered::{Considered, Effect},
    labels,
    miss::{self, Miss},
    names,
    party::Party,
    ports,
};

/// Every rule of the tier for the case, in the order in which they are asked: by priority, then kind, then name.
pub(crate) fn consider<'w>(case: &Case<'w, '_>, tier: Tier) -> Vec<Considered<'w>> {
    let policies = case
        .setting
        .world
        .policies
        .values()
        .filter_map(|policy| match &**policy {
            Policy::Tier(policy) if policy.tier == tier => Some(policy),
            _ => None,
        });
    let mut policies: Vec<_> = policies
        .filter(|policy| selects(case, &policy.subject))
        .collect();
    policies.sort_by_key(|policy| {
        (
            policy.priority,
            policy.origin.kind.as_str(),
            &policy.origin.name,
        )
    });
    policies
        .into_iter()
        .flat_map(|policy| rules(case, policy))
        .collect()
}

fn selects(case: &Case<'_, '_>, subject: &TierSubject) -> bool {
    let namespace = case.subject_namespace_labels();
    match subject {
        TierSubject::Namespaces(selector) => labels::matches(selector, namespace),
        TierSubject::Pods { namespaces, pods } => {
            labels::matches(namespaces, namespace) && labels::matches(pods, &case.subject.labels)
        }
    }
}

fn rules<'w>(case: &Case<'w, '_>, policy: &'w TierPolicy) -> Vec<Considered<'w>> {
    let (rules, section) = match case.direction {
        Direction::Ingress => (&policy.ingress, Section::Ingress),
        Direction::Egress => (&policy.egress, Section::Egress),
    };
    let considered = rules.iter().enumerate().map(|(index, rule)| Considered {
        origin: &policy.origin,
        spec: 0,
        section,
        index,
        tier: match policy.tier {
            Tier::Admin => "admin",
            Tier::Baseline => "baseline",
        },
        effect: effect(rule),
        misses: misses(case, rule),
    });
    considered.collect()
}

/// The API's text on a peer that is not understood: an Accept is a rule that matches nothing, a Deny or Pass is one that denies all.
fn effect<'w>(rule: &TierRule) -> Effect<'w> {
    match rule.action {
        Action::Accept => Effect::ALLOW,
        Action::Pass if !rule.fails_closed() => Effect::Pass,
        Action::Pass | Action::Deny => Effect::Deny,
    }
}

fn misses<'w>(case: &Case<'w, '_>, rule: &'w TierRule) -> Vec<Miss<'w>> {
    if rule.fails_closed() {
        return match rule.action {
            Action::Accept => vec![Miss::Nothing(
                "a peer of the rule is of a form that is not known, so it accepts nothing",
            )],
            Action::Deny | Action::Pass => Vec::new(),
        };
    }
    let peer = miss::nearest(rule.peers.iter().map(|peer| peer_miss(case, peer)));
    let port = rule
        .ports
        .as_ref()
        .and_then(|ports| miss::nearest(ports.iter().map(|port| ports::tier_miss(case, port))));
    peer.into_iter().chain(port).collect()
}

fn peer_miss<'w>(case: &Case<'w, '_>, peer: &'w TierPeer) -> Option<Miss<'w>> {
    match peer {
        TierPeer::Namespaces(namespaces) => pods_miss(case, namespaces, None),
        TierPeer::Pods { namespaces, pods } => pods_miss(case, namespaces, Some(pods)),
        TierPeer::Nodes(selector) => match case.peer {
            Party::Node(node) => {
                miss::of_labels("the node:", labels::unmet_by(selector, &node.labels))
            }
            other => Some(Miss::Kind {
                wanted: "a node",
                found: other.kind(),
            }),
        },
        TierPeer::Networks(blocks) => miss::nearest(
            blocks
                .iter()
                .map(|block| addresses::block_miss(case.address, *block, &[])),
        ),
        TierPeer::DomainNames(selectors) => match case.peer {
            Party::Outside(address) => {
                let mut learned = case.setting.learned.names_of(address);
                (!learned.any(|name| names::any_matches(selectors, name)))
                    .then_some(Miss::Names(selectors))
            }
            other => Some(Miss::Kind {
                wanted: "an address outside the cluster",
                found: other.kind(),
            }),
        },
        TierPeer::Unknown => Some(Miss::Nothing("the peer is of a form that is not known")),
    }
}

fn pods_miss<'w>(
    case: &Case<'w, '_>,
    namespaces: &'w KubeSelector,
    pods: Option<&'w KubeSelector>,
) -> Option<Miss<'w>> {
    let Party::Pod(pod) = case.peer else {
        return Some(Miss::Kind {
            wanted: "a pod",
            found: case.peer.kind(),
        });
    };
    let namespace: &'w Labels = case.setting.namespace_labels(&pod.id.namespace);
    miss::of_labels(
        "the peer's namespace:",
        labels::unmet_by(namespaces, namespace),
    )
    .or_else(|| {
        pods.and_then(|pods| miss::of_labels("the peer:", labels::unmet_by(pods, &pod.labels)))
    })
}
