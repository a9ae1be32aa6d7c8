//! Who is at one end of a packet, and which labels it carries for Cilium-style selectors.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_crds::parsed::{LabelKey, LabelSource};
use sluice_world::{Node, Pod, Target, World};

use crate::{case::Case, names};

/// One end of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Party<'w> {
    /// A managed pod.
    Pod(&'w Pod),
    /// A node, or a pod in its network.
    Node(&'w Node),
    /// An address outside the cluster.
    Outside(IpAddr),
    /// Something inside the cluster that nothing is known of.
    Unknown,
}

impl<'w> Party<'w> {
    /// Who a target is in this world, `address` being its own in the packet.
    pub(crate) fn of(world: &'w World, target: &Target, address: IpAddr) -> Self {
        match target {
            Target::Pod(id) => match world.pods.get(id) {
                Some(pod) if pod.external => Self::Outside(address),
                Some(pod) if pod.host_network => {
                    world.nodes.get(&pod.node).map_or(Self::Unknown, Self::Node)
                }
                Some(pod) => Self::Pod(pod),
                None => Self::Unknown,
            },
            Target::Node(name) => world.nodes.get(name).map_or(Self::Unknown, Self::Node),
            Target::Outside(address) => Self::Outside(*address),
            Target::Unknown(_) => Self::Unknown,
        }
    }

    /// For people.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Pod(_) => "a pod",
            Self::Node(_) => "a node",
            Self::Outside(_) => "an address outside the cluster",
            Self::Unknown => "unknown",
        }
    }
}

/// The values the peer has under a key of an endpoint selector. Several where labels of several sources share the key.
pub(crate) fn peer_values<'w>(case: &Case<'w, '_>, key: &LabelKey) -> Vec<&'w str> {
    let mut values = Vec::new();
    if reads(key, LabelSource::K8s)
        && let Party::Pod(pod) = case.peer
    {
        values.extend(pod_value(case, pod, &key.key));
    }
    if reads(key, LabelSource::Reserved) && is_reserved(case, &key.key) {
        values.push("");
    }
    if let Party::Outside(address) = case.peer {
        outside_values(case, address, key, &mut values);
    }
    values
}

/// The values of a subject under a key of an endpoint selector.
pub(crate) fn subject_values<'w>(case: &Case<'w, '_>, key: &LabelKey) -> Vec<&'w str> {
    peer_values(
        &Case {
            peer: Party::Pod(case.subject),
            ..*case
        },
        key,
    )
}

/// The values a node has under a key of a node selector.
pub(crate) fn node_values<'w>(case: &Case<'w, '_>, node: &'w Node, key: &LabelKey) -> Vec<&'w str> {
    let mut values = Vec::new();
    if reads(key, LabelSource::Node) {
        values.extend(node.labels.get(&key.key).map(String::as_str));
    }
    if reads(key, LabelSource::Reserved) && is_reserved(case, &key.key) {
        values.push("");
    }
    values
}

/// Whether a key reads labels of this source. `any:` reads what objects carry, not what is derived from rules.
fn reads(key: &LabelKey, source: LabelSource) -> bool {
    key.source == LabelSource::Any || key.source == source
}

/// Key of the label that holds a pod's namespace.
pub(crate) const NAMESPACE_KEY: &str = "io.kubernetes.pod.namespace";
/// How keys of labels begin that hold the labels of a pod's namespace.
pub(crate) const NAMESPACE_LABELS_PREFIX: &str = "io.cilium.k8s.namespace.labels.";
const SERVICE_ACCOUNT_KEY: &str = "io.cilium.k8s.policy.serviceaccount";
const CLUSTER_KEY: &str = "io.cilium.k8s.policy.cluster";
/// The only cluster there is.
const CLUSTER: &str = "default";
/// How keys of labels begin that name the CIDR groups an address belongs to.
const GROUP_NAME_PREFIX: &str = "io.cilium.policy.cidrgroupname/";

/// Derived labels come before what a pod wrote under the same key: no pod gives itself another namespace.
fn pod_value<'w>(case: &Case<'w, '_>, pod: &'w Pod, key: &str) -> Option<&'w str> {
    if let Some(key) = key.strip_prefix(NAMESPACE_LABELS_PREFIX) {
        return case
            .setting
            .namespace_labels(&pod.id.namespace)
            .get(key)
            .map(String::as_str);
    }
    match key {
        NAMESPACE_KEY => Some(&pod.id.namespace),
        SERVICE_ACCOUNT_KEY => Some(&pod.service_account),
        CLUSTER_KEY => Some(CLUSTER),
        _ => pod.labels.get(key).map(String::as_str),
    }
}

fn is_reserved(case: &Case<'_, '_>, name: &str) -> bool {
    match (name, case.peer) {
        ("host", Party::Node(_)) => case.peer_is_own_node(),
        ("remote-node", Party::Node(_)) => !case.peer_is_own_node(),
        ("world", Party::Outside(_)) => true,
        ("world-ipv4", Party::Outside(address)) => address.is_ipv4(),
        ("world-ipv6", Party::Outside(address)) => address.is_ipv6(),
        ("kube-apiserver", peer) => case.setting.is_api_server(peer),
        _ => false,
    }
}

fn outside_values<'w>(
    case: &Case<'w, '_>,
    address: IpAddr,
    key: &LabelKey,
    values: &mut Vec<&'w str>,
) {
    match key.source {
        LabelSource::Cidr => {
            let prefix = key.key.parse::<IpNet>();
            if prefix.is_ok_and(|prefix| prefix.contains(&address)) {
                values.push("");
            }
        }
        LabelSource::CidrGroup => {
            let groups = case.setting.world.cidr_groups.values();
            for group in
                groups.filter(|group| group.cidrs.iter().any(|prefix| prefix.contains(&address)))
            {
                if key.key.strip_prefix(GROUP_NAME_PREFIX) == Some(&group.name) {
                    values.push("");
                }
                values.extend(group.labels.get(&key.key).map(String::as_str));
            }
        }
        LabelSource::Fqdn => {
            if case
                .setting
                .learned
                .names_of(address)
                .any(|name| names::text_matches(&key.key, name))
            {
                values.push("");
            }
        }
        LabelSource::Any | LabelSource::K8s | LabelSource::Reserved | LabelSource::Node => {}
    }
}
