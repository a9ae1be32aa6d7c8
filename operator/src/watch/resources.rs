//! Resources with policies and CIDR groups: which there are, in which versions, and what their objects are called. Watching them may not
//! enter.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ApiResource;
use sluice_crds::parsed::{CidrGroupKind, PolicyKind, PolicyRef};

use crate::core::PolicyKey;

/// What a policy resource stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Policy(PolicyKind),
    Group(CidrGroupKind),
}

/// A resource with policies or CIDR groups.
#[derive(Clone, Copy, Debug)]
pub struct PolicyResource {
    pub(super) group: &'static str,
    /// The first that the server has is watched.
    pub(super) versions: &'static [&'static str],
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    what: What,
    /// Not there, it is nothing to worry about.
    pub(super) optional: bool,
}

/// Every resource with policies or CIDR groups.
pub const POLICY_RESOURCES: [PolicyResource; 10] = {
    use CidrGroupKind as Groups;
    use PolicyKind as Kinds;
    const fn policy(
        group: &'static str,
        versions: &'static [&'static str],
        kind: PolicyKind,
        plural: &'static str,
        optional: bool,
    ) -> PolicyResource {
        PolicyResource {
            group,
            versions,
            kind: kind.as_str(),
            plural,
            what: What::Policy(kind),
            optional,
        }
    }
    const TIERS: &str = "policy.networking.k8s.io";
    const CILIUM: &str = "cilium.io";
    const OWN: &str = "sluice.io";
    [
        policy(
            "networking.k8s.io",
            &["v1"],
            Kinds::NetworkPolicy,
            "networkpolicies",
            false,
        ),
        policy(
            OWN,
            &["v1"],
            Kinds::SluiceNetworkPolicy,
            "sluicenetworkpolicies",
            false,
        ),
        policy(
            OWN,
            &["v1"],
            Kinds::SluiceClusterwideNetworkPolicy,
            "sluiceclusterwidenetworkpolicies",
            false,
        ),
        PolicyResource {
            group: OWN,
            versions: &["v1"],
            kind: "SluiceCIDRGroup",
            plural: "sluicecidrgroups",
            what: What::Group(Groups::Sluice),
            optional: false,
        },
        policy(
            CILIUM,
            &["v2"],
            Kinds::CiliumNetworkPolicy,
            "ciliumnetworkpolicies",
            true,
        ),
        policy(
            CILIUM,
            &["v2"],
            Kinds::CiliumClusterwideNetworkPolicy,
            "ciliumclusterwidenetworkpolicies",
            true,
        ),
        PolicyResource {
            group: CILIUM,
            versions: &["v2", "v2alpha1"],
            kind: "CiliumCIDRGroup",
            plural: "ciliumcidrgroups",
            what: What::Group(Groups::Cilium),
            optional: true,
        },
        policy(
            TIERS,
            &["v1alpha2"],
            Kinds::ClusterNetworkPolicy,
            "clusternetworkpolicies",
            true,
        ),
        policy(
            TIERS,
            &["v1alpha1"],
            Kinds::AdminNetworkPolicy,
            "adminnetworkpolicies",
            true,
        ),
        policy(
            TIERS,
            &["v1alpha1"],
            Kinds::BaselineAdminNetworkPolicy,
            "baselineadminnetworkpolicies",
            true,
        ),
    ]
};

impl PolicyResource {
    /// The key of an object of this resource.
    pub(super) fn key(&self, metadata: &ObjectMeta) -> PolicyKey {
        let name = metadata.name.clone().unwrap_or_default();
        match self.what {
            What::Policy(kind) => PolicyKey::Policy(PolicyRef {
                kind,
                namespace: kind
                    .is_namespaced()
                    .then(|| metadata.namespace.clone().unwrap_or_default()),
                name,
            }),
            What::Group(kind) => PolicyKey::Group(kind, name),
        }
    }

    /// The key of an object by its kind's name, as a stored last valid version tells it.
    pub(super) fn key_of(kind: &str, namespace: Option<String>, name: String) -> Option<PolicyKey> {
        let resource = POLICY_RESOURCES
            .iter()
            .find(|resource| resource.kind == kind)?;
        Some(resource.key(&ObjectMeta {
            name: Some(name),
            namespace,
            ..ObjectMeta::default()
        }))
    }

    /// The version to watch: the one that is watched, or the first, of those the server has.
    pub(super) fn served_version(
        &self,
        running: Option<&'static str>,
        served: &HashMap<String, Vec<String>>,
    ) -> Option<&'static str> {
        let candidates = running.into_iter().chain(self.versions.iter().copied());
        for version in candidates {
            let kinds = served.get(&format!("{}/{version}", self.group));
            if kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == self.kind)) {
                return Some(version);
            }
        }
        None
    }

    pub(super) fn api(&self, version: &str) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: version.to_owned(),
            api_version: format!("{}/{version}", self.group),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}
