//! The four Cilium-style policy objects. They carry `spec` *and* `specs`, which the derive for custom resources can't
//! express; a small macro writes what it would.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ClusterResourceScope, NamespaceResourceScope, TypeMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{PolicyRule, PolicyStatus};

/// What the four kinds share.
pub trait PolicyObject: Resource<DynamicType = ()> {
    /// Its `spec`.
    fn spec(&self) -> Option<&PolicyRule>;
    /// Its `specs`.
    fn specs(&self) -> Option<&[PolicyRule]>;
    /// Its status.
    fn status_mut(&mut self) -> &mut Option<PolicyStatus>;
}

macro_rules! policy_object {
    ($(#[$doc:meta])* $name:ident, $scope:ty, $group:literal, $version:literal, $plural:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// apiVersion and kind.
            #[serde(flatten)]
            #[schemars(skip)]
            pub types: Option<TypeMeta>,
            /// Standard metadata.
            #[schemars(skip)]
            pub metadata: ObjectMeta,
            /// A rule set.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub spec: Option<PolicyRule>,
            /// Further rule sets.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(max = 1000))]
            pub specs: Option<Vec<PolicyRule>>,
            /// What the operator reports back.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub status: Option<PolicyStatus>,
        }

        impl $name {
            /// A new object, not yet known to any cluster.
            #[must_use]
            pub fn new(metadata: ObjectMeta, spec: Option<PolicyRule>, specs: Option<Vec<PolicyRule>>) -> Self {
                Self { types: Some(TypeMeta::resource::<Self>()), metadata, spec, specs, status: None }
            }
        }

        impl Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($name).into()
            }
            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }
            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl PolicyObject for $name {
            fn spec(&self) -> Option<&PolicyRule> {
                self.spec.as_ref()
            }
            fn specs(&self) -> Option<&[PolicyRule]> {
                self.specs.as_deref()
            }
            fn status_mut(&mut self) -> &mut Option<PolicyStatus> {
                &mut self.status
            }
        }
    };
}

policy_object!(
    /// A network policy for pods of its namespace.
    SluiceNetworkPolicy, NamespaceResourceScope, "sluice.io", "v1", "sluicenetworkpolicies"
);
policy_object!(
    /// A network policy for pods of all namespaces, or for nodes.
    SluiceClusterwideNetworkPolicy, ClusterResourceScope, "sluice.io", "v1", "sluiceclusterwidenetworkpolicies"
);
policy_object!(
    /// Cilium's policy for pods of its namespace.
    CiliumNetworkPolicy, NamespaceResourceScope, "cilium.io", "v2", "ciliumnetworkpolicies"
);
policy_object!(
    /// Cilium's policy for pods of all namespaces, or for nodes.
    CiliumClusterwideNetworkPolicy, ClusterResourceScope, "cilium.io", "v2", "ciliumclusterwidenetworkpolicies"
);
