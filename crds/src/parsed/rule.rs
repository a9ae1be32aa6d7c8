//! The Cilium-style policy: own kinds and `cilium.io/v2` alike.

use super::{Authentication, L4, Peer, PolicyRef, PortProtocol, PortRule, Selector};

/// One policy object: its `spec` (index 0, where there is one) and then its `specs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Which object. Its namespace is the scope of subjects and, by default, of peers.
    pub origin: PolicyRef,
    /// At least one.
    pub specs: Vec<Spec>,
}

/// One rule set: a subject and what it may receive and send.
///
/// Over the four sections there is at least one rule. A section may be present and empty; it then does not make its
/// direction default-deny.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Whom it governs.
    pub subject: Subject,
    /// Allowed to the subject.
    pub ingress: Option<Vec<AllowRule>>,
    /// Denied to the subject.
    pub ingress_deny: Option<Vec<DenyRule>>,
    /// Allowed from the subject.
    pub egress: Option<Vec<AllowRule>>,
    /// Denied from the subject.
    pub egress_deny: Option<Vec<DenyRule>>,
    /// Whether it makes ingress default-deny; `None`: exactly where it has an ingress or ingress-deny rule.
    pub enable_default_deny_ingress: Option<bool>,
    /// Whether it makes egress default-deny; `None`: exactly where it has an egress or egress-deny rule.
    pub enable_default_deny_egress: Option<bool>,
    /// Shown in flows that this rule set decided. At most 32 characters.
    pub log: Option<String>,
    /// The author's labels for the rule; no meaning.
    pub labels: Vec<RuleLabel>,
    /// The author's words; no meaning.
    pub description: Option<String>,
}

impl Spec {
    /// Whether this rule set makes ingress default-deny for its subject.
    #[must_use]
    pub fn default_denies_ingress(&self) -> bool {
        self.enable_default_deny_ingress.unwrap_or_else(|| {
            has_rules(self.ingress.as_ref()) || has_rules(self.ingress_deny.as_ref())
        })
    }

    /// Whether this rule set makes egress default-deny for its subject.
    #[must_use]
    pub fn default_denies_egress(&self) -> bool {
        self.enable_default_deny_egress.unwrap_or_else(|| {
            has_rules(self.egress.as_ref()) || has_rules(self.egress_deny.as_ref())
        })
    }
}

fn has_rules<T>(section: Option<&Vec<T>>) -> bool {
    section.is_some_and(|rules| !rules.is_empty())
}

/// Whom a rule set governs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Pods by label, in the policy's namespace; of every namespace where the kind is cluster-wide.
    Endpoints(Selector),
    /// Nodes by label (host policy). Only in cluster-wide kinds.
    Nodes(Selector),
}

/// One entry of `ingress` or `egress`: peer AND traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllowRule {
    /// Who.
    pub peer: Peer,
    /// What.
    pub l4: L4<PortRule>,
    /// Mutual authentication, where asked for.
    pub authentication: Option<Authentication>,
}

/// One entry of `ingressDeny` or `egressDeny`: peer AND traffic. Never [`Peer::Fqdns`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DenyRule {
    /// Who.
    pub peer: Peer,
    /// What. The entries of all its `toPorts`, flattened: they are OR'd either way.
    pub l4: L4<PortProtocol>,
}

/// An author's label on a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleLabel {
    /// Its source, `unspec` where none is written.
    pub source: String,
    /// Its key.
    pub key: String,
    /// Its value, empty where none is written.
    pub value: String,
}
