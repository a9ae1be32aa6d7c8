//! Policies as they are meant: the validated form that both evaluators read.
//!
//! A value of these types has passed every rule of the language: there is one subject, one kind of peer per rule, no port
//! range upside down, no L7 rule under a deny. What may not enter: matching, namespace defaults, anything that needs to
//! know a pod. Two evaluators share these types and nothing else.
//!
//! ```text
//! Policy ── Spec ── Subject                      Cilium-style rules (own kinds and cilium.io)
//!              └─── AllowRule / DenyRule ── Peer, L4
//! NetworkPolicy ── NetworkRule ── NetworkPeer    networking.k8s.io/v1
//! TierPolicy ── TierRule ── TierPeer             policy.networking.k8s.io
//! CidrGroup                                      named sets of prefixes
//! ```

mod cidr;
mod fqdn;
mod l7;
mod network;
mod origin;
mod peer;
mod port;
mod rule;
mod selector;
mod tier;

pub use cidr::{CidrGroup, CidrGroupKind, CidrRule, CidrSource};
pub use fqdn::{FqdnName, FqdnPattern, FqdnSelector};
pub use l7::{
    Authentication, EnvoyConfigRef, Header, HeaderMatch, HttpRegex, HttpRule, L7Rules, Listener,
    Mismatch, SecretRef, TlsContext,
};
pub use network::{NetworkPeer, NetworkPolicy, NetworkPort, NetworkRule};
pub use origin::{PolicyKind, PolicyRef};
pub use peer::{CloudGroup, Entity, Peer, ServiceRef};
pub use port::{
    Family, IcmpMatch, L4, PortProtocol, PortRange, PortRule, PortSpec, Protocol, Transport,
};
pub use rule::{AllowRule, DenyRule, Policy, RuleLabel, Spec, Subject};
pub use selector::{Expression, KubeSelector, LabelKey, LabelSource, Operator, Selector};
pub use tier::{Action, Priority, Tier, TierPeer, TierPolicy, TierPort, TierRule, TierSubject};
