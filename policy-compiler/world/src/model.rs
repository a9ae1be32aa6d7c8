//! The normalised items of a world. Plain data; how it is read from manifests is in the builder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use sluice_crds::parsed::{self, PolicyRef};

/// Kubernetes labels as written, without a source prefix.
pub type Labels = BTreeMap<String, String>;

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels; `kubernetes.io/metadata.name` is always among them.
    pub labels: Labels,
}

/// Names a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Tells a pod from others of the same name, before it and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub [u8; 16]);

impl PodUid {
    /// Of an object's UID as its text; `None` for an empty one. UIDs are UUIDs, and of static pods 32 hexadecimal digits: these are kept
    /// as they are, and of any other text a digest.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let number = (digits.len() == 32)
            .then(|| u128::from_str_radix(&digits, 16).ok())
            .flatten()
            .unwrap_or_else(|| fnv(text.as_bytes()));
        Some(Self(number.to_be_bytes()))
    }

    /// Whether both can be the same pod's: an unknown one may be anyone's.
    #[must_use]
    pub fn may_be(one: Option<Self>, other: Option<Self>) -> bool {
        one.is_none() || other.is_none() || one == other
    }
}

/// FNV-1a of 128 bits.
fn fnv(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
        })
}

/// Names a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub String);

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A named container port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// Its name.
    pub name: String,
    /// Port number.
    pub port: u16,
    /// IP protocol number (6, 17 or 132).
    pub protocol: u8,
}

/// A pod, with node and addresses assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub id: PodRef,
    /// Labels.
    pub labels: Labels,
    /// Service account; `default` where none is given.
    pub service_account: String,
    /// The node it runs on.
    pub node: NodeName,
    /// Shares the node's network: for policy it *is* the node.
    pub host_network: bool,
    /// Its addresses, at most one of each family, IPv4 first or as `status.podIPs` orders them.
    pub addresses: Vec<IpAddr>,
    /// Named ports of its containers.
    pub named_ports: BTreeSet<ContainerPort>,
    /// Ports the lab's responder listens on: every container port, named or not: (protocol, port).
    pub listens: BTreeSet<(u8, u16)>,
    /// Stands for a host outside the cluster (lab annotation): never a subject, no pod identity.
    pub external: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Labels,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Prefixes its pods' addresses are taken from.
    pub pod_cidrs: Vec<IpNet>,
}

/// Names a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A service and the addresses behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub id: ServiceRef,
    /// Its labels.
    pub labels: Labels,
    /// Its pod selector; `None` for a service without one, whose endpoints are given by hand.
    pub selector: Option<Labels>,
    /// Endpoint addresses from its endpoint slices.
    pub endpoints: BTreeSet<IpAddr>,
    /// Its `clusterIPs`, so that a query to one can be refused with a clear error.
    pub cluster_ips: BTreeSet<IpAddr>,
}

/// A named list of outside prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrGroup {
    /// Which kind defined it (the kinds have separate name spaces).
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its prefixes.
    pub cidrs: BTreeSet<IpNet>,
}

/// A policy of any of the three API families, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// `networking.k8s.io/v1`.
    Network(parsed::NetworkPolicy),
    /// Cilium-style rules, own kinds and `cilium.io/v2`.
    Rules(parsed::Policy),
    /// `policy.networking.k8s.io`.
    Tier(parsed::TierPolicy),
}

impl Policy {
    /// Which object it came from.
    #[must_use]
    pub const fn origin(&self) -> &PolicyRef {
        match self {
            Self::Network(policy) => &policy.origin,
            Self::Rules(policy) => &policy.origin,
            Self::Tier(policy) => &policy.origin,
        }
    }
}

/// One item that can be put into or taken out of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorldItem {
    /// A namespace.
    Namespace(Namespace),
    /// A pod.
    Pod(Pod),
    /// A node.
    Node(Node),
    /// A service with its endpoints.
    Service(Service),
    /// A CIDR group.
    CidrGroup(CidrGroup),
    /// A policy of any API, parsed.
    Policy(Arc<Policy>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_kept_exactly_where_they_are_uuids() {
        let uid = PodUid::of("6f1c2a0e-0000-4000-8000-0000000000ff").unwrap();
        assert_eq!(uid.0[..4], [0x6f, 0x1c, 0x2a, 0x0e]);
        assert_eq!(uid.0[15], 0xff);
        assert_eq!(PodUid::of("6F1C2A0E0000400080000000000000FF"), Some(uid));
        assert_eq!(PodUid::of(""), None);
        let odd = PodUid::of("uid-of-web-0");
        assert!(odd.is_some() && odd != PodUid::of("uid-of-web-1"));
    }

    #[test]
    fn an_unknown_pod_may_be_any() {
        let [one, other] = ["a", "b"].map(PodUid::of);
        assert!(PodUid::may_be(one, one) && !PodUid::may_be(one, other));
        assert!(PodUid::may_be(None, one) && PodUid::may_be(one, None));
    }
}
