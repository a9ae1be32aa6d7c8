//! The other side of a Cilium-style rule. One rule has one kind of peer, which is why this is an enum.

use std::collections::BTreeMap;
use std::fmt;

use super::{CidrRule, FqdnSelector, KubeSelector, Selector};

/// Who a rule is about. An empty list in any variant selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// No peer field, but `toPorts` or `icmps`: anyone.
    Any,
    /// Neither a peer nor `toPorts` nor `icmps` (`- {}`): nobody; the rule only makes its direction default-deny.
    Nothing,
    /// `fromEndpoints` / `toEndpoints`: pods and reserved identities by label, OR'd.
    Endpoints(Vec<Selector>),
    /// `fromEntities` / `toEntities`, OR'd.
    Entities(Vec<Entity>),
    /// `fromCIDR` / `toCIDR` or `fromCIDRSet` / `toCIDRSet`, OR'd: addresses outside the cluster.
    Cidrs(Vec<CidrRule>),
    /// `fromNodes` / `toNodes`: nodes by label, OR'd.
    Nodes(Vec<Selector>),
    /// `toServices`, OR'd. Egress only.
    Services(Vec<ServiceRef>),
    /// `fromGroups` / `toGroups`: cloud groups. Without a provider they select nothing.
    Groups(Vec<CloudGroup>),
    /// `toFQDNs`, OR'd. Egress allow only.
    Fqdns(Vec<FqdnSelector>),
}

/// A well-known group of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entity {
    /// Everyone.
    All,
    /// Everything outside the cluster.
    World,
    /// IPv4 addresses outside the cluster.
    WorldIpv4,
    /// IPv6 addresses outside the cluster.
    WorldIpv6,
    /// All local-cluster pods, host, remote nodes, init, ingress, health, unmanaged, kube-apiserver.
    Cluster,
    /// The same over all connected clusters.
    ClusterMesh,
    /// The local node.
    Host,
    /// The other nodes.
    RemoteNode,
    /// Endpoints whose labels are not known yet.
    Init,
    /// The ingress proxy.
    Ingress,
    /// Pods that Sluice does not manage.
    Unmanaged,
    /// Health-check endpoints.
    Health,
    /// The API server, wherever it runs.
    KubeApiserver,
    /// Nobody.
    None,
}

impl Entity {
    /// Every entity, in the order of this enum.
    pub const ALL: [Self; 14] = [
        Self::All,
        Self::World,
        Self::WorldIpv4,
        Self::WorldIpv6,
        Self::Cluster,
        Self::ClusterMesh,
        Self::Host,
        Self::RemoteNode,
        Self::Init,
        Self::Ingress,
        Self::Unmanaged,
        Self::Health,
        Self::KubeApiserver,
        Self::None,
    ];

    /// The entity as policies spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::World => "world",
            Self::WorldIpv4 => "world-ipv4",
            Self::WorldIpv6 => "world-ipv6",
            Self::Cluster => "cluster",
            Self::ClusterMesh => "cluster-mesh",
            Self::Host => "host",
            Self::RemoteNode => "remote-node",
            Self::Init => "init",
            Self::Ingress => "ingress",
            Self::Unmanaged => "unmanaged",
            Self::Health => "health",
            Self::KubeApiserver => "kube-apiserver",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of `toServices`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceRef {
    /// `k8sService`: one service by name. No namespace written means the policy's own.
    Named {
        /// The service's name.
        name: String,
        /// Its namespace, where written.
        namespace: Option<String>,
    },
    /// `k8sServiceSelector`: services by their labels. No namespace written means all.
    Selected {
        /// Over the labels of Service objects.
        selector: KubeSelector,
        /// The only namespace looked at, where written.
        namespace: Option<String>,
    },
}

/// One entry of `fromGroups` / `toGroups`: a set of machines only the cloud knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CloudGroup {
    /// EC2 instances; the fields AND'd, as the reference implementation does.
    Aws {
        /// Instance tags.
        labels: BTreeMap<String, String>,
        /// Security group ids.
        security_group_ids: Vec<String>,
        /// Security group names.
        security_group_names: Vec<String>,
        /// The region, where not the cluster's own.
        region: Option<String>,
    },
}
