//! Policies as they are written: the types serde reads and the API server's schema is made from.
//!
//! These types are loose on purpose (ports are strings, lists may be empty) but closed: a field that is not here is an
//! error. Presence is kept apart from emptiness, since `fromEndpoints: []` and no `fromEndpoints` mean opposite things.
//! What may not enter: meaning. That is [`crate::parsed`], reached through [`crate::validate`].

mod l7;
#[allow(
    unreachable_pub,
    reason = "the KubeSchema derive makes a public helper beside each type"
)]
mod rule;
mod selector;
mod status;
mod tier;

pub use l7::{
    Authentication, EnvoyConfigRef, FqdnSelector, HeaderMatch, L7Rules, Listener, PortRuleDns,
    PortRuleHttp, Secret, TlsContext,
};
pub use rule::{
    AwsGroup, CidrRule, CloudGroup, DefaultDeny, EgressDenyRule, EgressRule, IcmpField, IcmpRule,
    IngressDenyRule, IngressRule, K8sService, K8sServiceSelector, LogConfig, PolicyRule,
    PortDenyRule, PortProtocol, PortRule, RuleLabel, Service,
};
pub use selector::{LabelSelector, LabelSelectorRequirement};
pub use status::{NodeCounts, PolicyStatus};
pub use tier::{
    AdminEgressRule, AdminIngressRule, AdminNetworkPolicySpec, AdminPort, AdminPortNumber,
    AdminPortRange, BaselineAdminNetworkPolicySpec, ClusterEgressRule, ClusterIngressRule,
    ClusterNetworkPolicySpec, ClusterPort, ClusterPortRange, ClusterProtocol, ClusterTransport,
    EgressPeer, IngressPeer, NamespacedPod, TierSubject,
};
