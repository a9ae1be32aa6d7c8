//! `networking.k8s.io/v1` `NetworkPolicy`, with every default of its API text filled in.

use ipnet::IpNet;

use super::{KubeSelector, PolicyRef, PortSpec, Transport};

/// One `NetworkPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkPolicy {
    /// Which object.
    pub origin: PolicyRef,
    /// Its namespace, where its subjects live.
    pub namespace: String,
    /// Over the pods of its namespace.
    pub subject: KubeSelector,
    /// `None`: the policy leaves ingress alone (`policyTypes` already applied). Empty: nothing is allowed in.
    pub ingress: Option<Vec<NetworkRule>>,
    /// `None`: the policy leaves egress alone (`policyTypes` already applied). Empty: nothing is allowed out.
    pub egress: Option<Vec<NetworkRule>>,
}

/// One entry of `ingress` or `egress`: any of its peers AND any of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkRule {
    /// `None` (missing or empty list): anyone. Never empty.
    pub peers: Option<Vec<NetworkPeer>>,
    /// `None` (missing or empty list): all traffic. Never empty.
    pub ports: Option<Vec<NetworkPort>>,
}

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NetworkPeer {
    /// Pods by label.
    Pods {
        /// Over namespace labels; `None`: the policy's own namespace.
        namespaces: Option<KubeSelector>,
        /// Over pod labels; empty where the peer names namespaces only.
        pods: KubeSelector,
    },
    /// Any address of a block: pods and nodes too.
    IpBlock {
        /// The block, masked.
        cidr: IpNet,
        /// Carved out of it; each inside.
        except: Vec<IpNet>,
    },
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkPort {
    /// TCP where not written.
    pub transport: Transport,
    /// Every port where not written.
    pub port: PortSpec,
}
