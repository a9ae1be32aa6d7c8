//! Answers: what each side of a flow decided and by which rule. Every engine gives these, and they are compared whole.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The policy enforcement mode of the whole installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A direction is enforced once a policy selects the endpoint in it.
    #[default]
    Default,
    /// Every direction of every endpoint is enforced.
    Always,
    /// Nothing is enforced, denies included.
    Never,
}

/// What one side decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SideVerdict {
    /// Passes.
    Allowed,
    /// Dropped.
    Denied,
    /// Passes to a proxy.
    Redirected,
    /// The side is no policy subject (a node, the outside, an external pod).
    NotEnforced,
}

/// By what kind of circumstance a side decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A rule of a policy.
    Rule,
    /// Selected, and no rule allows it.
    DefaultDeny,
    /// Nothing selects it, or it is no subject.
    DefaultAllow,
    /// The node reaches its own pods.
    LocalHost,
    /// A pod reaches itself.
    #[serde(rename = "self")]
    Itself,
    /// The enforcement mode: `never` allows, `always` denies what nothing selects.
    Mode,
    /// The peer is an address inside the cluster that nothing is known of.
    Unknown,
}

/// The section of a policy that holds a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Section {
    /// `ingress`.
    Ingress,
    /// `ingressDeny`.
    IngressDeny,
    /// `egress`.
    Egress,
    /// `egressDeny`.
    EgressDeny,
}

/// Names one rule of one policy. The order of the fields is the order in which "the first" of several deciding rules is chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleRef {
    /// Kind of the policy as written.
    pub kind: String,
    /// Its namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Which of `specs`, counting from 0 (`spec` is 0; with both, `spec` comes first).
    pub spec: u32,
    /// Which list of rules.
    pub section: Section,
    /// Which entry of the list, counting from 0.
    pub index: u32,
    /// `admin`, `namespace` or `baseline`.
    pub tier: String,
    /// `allow`, `deny` or `pass`.
    pub action: String,
}

impl Section {
    /// The section as manifests spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::IngressDeny => "ingressDeny",
            Self::Egress => "egress",
            Self::EgressDeny => "egressDeny",
        }
    }
}

/// As people find it: `ClusterNetworkPolicy quarantine ingress[0] (deny, admin tier)`.
impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        if self.spec > 0 {
            write!(f, " specs[{}]", self.spec)?;
        }
        write!(
            f,
            " {}[{}] ({}",
            self.section.as_str(),
            self.index,
            self.action
        )?;
        if self.tier != "namespace" {
            write!(f, ", {} tier", self.tier)?;
        }
        f.write_str(")")
    }
}

/// What one side decided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The verdict.
    pub verdict: SideVerdict,
    /// By what.
    pub reason: Reason,
    /// The deciding rule, where a rule decided.
    pub rule: Option<RuleRef>,
}

/// The answer to one query. Denied if either side denies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The query's id.
    pub id: String,
    /// `allowed` or `denied`.
    pub verdict: SideVerdict,
    /// The source's side.
    pub egress: Side,
    /// The destination's side.
    pub ingress: Side,
}
