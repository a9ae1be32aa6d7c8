//! `networking.k8s.io/v1` `NetworkPolicy`, as its API text says.

use sluice_crds::parsed::{KubeSelector, NetworkPeer, NetworkPolicy, NetworkRule};
use sluice_world::Section;

use crate::{
    addresses,
    case::{Case, Direction},
    considered::{Considered, Effect},
    labels,
    miss::{self, Miss},
    party::Party,
    ports,
};

/// The policy's rules for the case; `None` where it does not select the subject in this direction.
pub(crate) fn consider<'w>(
    case: &Case<'w, '_>,
    policy: &'w NetworkPolicy,
) -> Option<Vec<Considered<'w>>> {
    let (rules, section) = match case.direction {
        Direction::Ingress => (policy.ingress.as_ref()?, Section::Ingress),
        Direction::Egress => (policy.egress.as_ref()?, Section::Egress),
    };
    let selected = policy.namespace == case.subject.id.namespace
        && labels::matches(&policy.subject, &case.subject.labels);
    selected.then(|| {
        let considered = rules.iter().enumerate().map(|(index, rule)| Considered {
            origin: &policy.origin,
            spec: 0,
            section,
            index,
            tier: "namespace",
            effect: Effect::ALLOW,
            misses: misses(case, policy, rule),
        });
        considered.collect()
    })
}

/// Any of its peers and any of its ports; what is not given is not asked.
fn misses<'w>(
    case: &Case<'w, '_>,
    policy: &'w NetworkPolicy,
    rule: &'w NetworkRule,
) -> Vec<Miss<'w>> {
    let peer = rule
        .peers
        .as_ref()
        .and_then(|peers| miss::nearest(peers.iter().map(|peer| peer_miss(case, policy, peer))));
    let port = rule
        .ports
        .as_ref()
        .and_then(|ports| miss::nearest(ports.iter().map(|port| ports::network_miss(case, port))));
    peer.into_iter().chain(port).collect()
}

fn peer_miss<'w>(
    case: &Case<'w, '_>,
    policy: &'w NetworkPolicy,
    peer: &'w NetworkPeer,
) -> Option<Miss<'w>> {
    match peer {
        NetworkPeer::Pods { namespaces, pods } => {
            pods_miss(case, namespaces.as_ref(), &policy.namespace, pods)
        }
        NetworkPeer::IpBlock { cidr, except } => addresses::block_miss(case.address, *cidr, except),
    }
}

/// Both selectors have to match; without one over namespaces the policy's own is meant. Nodes, and pods in their network, have no labels here.
fn pods_miss<'w>(
    case: &Case<'w, '_>,
    namespaces: Option<&'w KubeSelector>,
    own: &'w str,
    pods: &'w KubeSelector,
) -> Option<Miss<'w>> {
    let Party::Pod(pod) = case.peer else {
        return Some(Miss::Kind {
            wanted: "a pod",
            found: case.peer.kind(),
        });
    };
    let namespace = match namespaces {
        None if pod.id.namespace == own => None,
        None => Some(Miss::Namespace {
            wanted: own,
            found: &pod.id.namespace,
        }),
        Some(selector) => {
            let labels = case.setting.namespace_labels(&pod.id.namespace);
            miss::of_labels("the peer's namespace:", labels::unmet_by(selector, labels))
        }
    };
    namespace.or_else(|| miss::of_labels("the peer:", labels::unmet_by(pods, &pod.labels)))
}
