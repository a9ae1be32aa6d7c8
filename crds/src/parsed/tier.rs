//! `policy.networking.k8s.io`: `ClusterNetworkPolicy` (v1alpha2) and, in the same form, `AdminNetworkPolicy` and
//! `BaselineAdminNetworkPolicy` (v1alpha1).

use std::fmt;

use ipnet::IpNet;

use super::{FqdnSelector, KubeSelector, PolicyRef, PortRange, Transport};

/// Which side of the namespaced policies a tier policy stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Before them.
    Admin,
    /// After them.
    Baseline,
}

/// A policy's place within its tier; lower is looked at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(u16);

impl Priority {
    /// The highest number the APIs allow.
    pub const MAX: u16 = 1000;
    /// That of a `BaselineAdminNetworkPolicy`, whose API has no priority: after every `ClusterNetworkPolicy` of the
    /// Baseline tier.
    pub const BASELINE_ADMIN: Self = Self(Self::MAX + 1);

    /// A priority of the APIs: 0 to 1000.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number <= Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// What a rule does with traffic it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Let it pass, finally (`Allow` in v1alpha1).
    Accept,
    /// Drop it, finally.
    Deny,
    /// Skip the rest of this tier.
    Pass,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        })
    }
}

/// One tier policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TierPolicy {
    /// Which object.
    pub origin: PolicyRef,
    /// Its tier.
    pub tier: Tier,
    /// Its place there. Equal places go by name.
    pub priority: Priority,
    /// Whom it governs; never host-network pods.
    pub subject: TierSubject,
    /// In order; the first match decides. Empty leaves ingress alone.
    pub ingress: Vec<TierRule>,
    /// In order; the first match decides. Empty leaves egress alone.
    pub egress: Vec<TierRule>,
}

/// Whom a tier policy governs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TierSubject {
    /// All pods of these namespaces.
    Namespaces(KubeSelector),
    /// These pods of these namespaces.
    Pods {
        /// Over namespace labels.
        namespaces: KubeSelector,
        /// Over pod labels.
        pods: KubeSelector,
    },
}

/// One rule: any of its peers AND any of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TierRule {
    /// The author's name for it, at most 100 characters.
    pub name: Option<String>,
    /// What it does.
    pub action: Action,
    /// Who. Never empty.
    pub peers: Vec<TierPeer>,
    /// `None`: all traffic, ICMP included. Never empty.
    pub ports: Option<Vec<TierPort>>,
}

impl TierRule {
    /// Whether some peer of the rule could not be understood, so that the whole rule has to fail closed: an Accept
    /// matches nothing, a Deny or Pass denies all.
    #[must_use]
    pub fn fails_closed(&self) -> bool {
        self.peers.contains(&TierPeer::Unknown)
    }
}

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TierPeer {
    /// All pods (but host-network ones) of these namespaces.
    Namespaces(KubeSelector),
    /// These pods (but host-network ones) of these namespaces.
    Pods {
        /// Over namespace labels.
        namespaces: KubeSelector,
        /// Over pod labels.
        pods: KubeSelector,
    },
    /// Nodes by label. Egress only.
    Nodes(KubeSelector),
    /// Any address of these blocks, pods and nodes included. Egress only.
    Networks(Vec<IpNet>),
    /// Names; here a leading `*.` is one *or more* labels, written `**.` in the pattern. Egress Accept only.
    DomainNames(Vec<FqdnSelector>),
    /// No field, or one this version does not know: see [`TierRule::fails_closed`].
    Unknown,
}

/// One entry of `protocols` (v1alpha2) or `ports` (v1alpha1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TierPort {
    /// Numbers of one transport.
    Range {
        /// The transport.
        transport: Transport,
        /// The ports.
        range: PortRange,
    },
    /// A container port of the destination by name, of whatever transport it has.
    Named(String),
}
