//! Names of policies and CIDR groups, and of the objects that are written about them.

use sluice_crds::parsed::{CidrGroupKind, PolicyKind, PolicyRef};

use crate::core::{endpoints::fnv, write::Object};

/// Names a policy or a CIDR group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKey {
    /// A policy.
    Policy(PolicyRef),
    /// A CIDR group.
    Group(CidrGroupKind, String),
}

impl PolicyKey {
    /// Its kind as manifests spell it.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Policy(id) => id.kind.to_string(),
            Self::Group(kind, _) => kind.to_string(),
        }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Policy(id) => id.namespace.as_deref(),
            Self::Group(..) => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Policy(id) => &id.name,
            Self::Group(_, name) => name,
        }
    }

    /// Whether it is a CIDR group.
    #[must_use]
    pub const fn is_group(&self) -> bool {
        matches!(self, Self::Group(..))
    }

    /// Its object, where its status is written: Sluice's own kinds, and those whose API asks implementations to.
    pub(super) fn status_object(&self) -> Option<Object> {
        let own = |kind, plural| {
            let namespace = self.namespace().map(str::to_owned);
            Object::own(kind, plural, namespace, self.name().to_owned())
        };
        let tier = |version, kind, plural| Object {
            group: "policy.networking.k8s.io",
            version,
            kind,
            plural,
            namespace: None,
            name: self.name().to_owned(),
        };
        Some(match self {
            Self::Group(CidrGroupKind::Sluice, _) => own("SluiceCIDRGroup", "sluicecidrgroups"),
            Self::Group(CidrGroupKind::Cilium, _) => return None,
            Self::Policy(id) => match id.kind {
                PolicyKind::SluiceNetworkPolicy => {
                    own("SluiceNetworkPolicy", "sluicenetworkpolicies")
                }
                PolicyKind::SluiceClusterwideNetworkPolicy => own(
                    "SluiceClusterwideNetworkPolicy",
                    "sluiceclusterwidenetworkpolicies",
                ),
                PolicyKind::ClusterNetworkPolicy => {
                    tier("v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies")
                }
                PolicyKind::AdminNetworkPolicy => {
                    tier("v1alpha1", "AdminNetworkPolicy", "adminnetworkpolicies")
                }
                PolicyKind::BaselineAdminNetworkPolicy => tier(
                    "v1alpha1",
                    "BaselineAdminNetworkPolicy",
                    "baselineadminnetworkpolicies",
                ),
                PolicyKind::NetworkPolicy
                | PolicyKind::CiliumNetworkPolicy
                | PolicyKind::CiliumClusterwideNetworkPolicy => return None,
            },
        })
    }

    /// Whether the status has room for what was valid last.
    pub(super) const fn is_own(&self) -> bool {
        match self {
            Self::Group(kind, _) => matches!(kind, CidrGroupKind::Sluice),
            Self::Policy(id) => matches!(
                id.kind,
                PolicyKind::SluiceNetworkPolicy | PolicyKind::SluiceClusterwideNetworkPolicy
            ),
        }
    }

    /// The `ConfigMap` that holds what was valid last, for a kind that needs one.
    pub(super) fn config_map(&self, namespace: &str) -> Option<Object> {
        let networking = matches!(self, Self::Policy(id) if id.kind == PolicyKind::NetworkPolicy);
        if self.is_own() || networking {
            return None;
        }
        let text = format!(
            "{}/{}/{}",
            self.kind(),
            self.namespace().unwrap_or_default(),
            self.name()
        );
        Some(Object {
            group: "",
            version: "v1",
            kind: "ConfigMap",
            plural: "configmaps",
            namespace: Some(namespace.to_owned()),
            name: format!("sluice-policy-{:016x}", fnv(text.as_bytes())),
        })
    }
}
