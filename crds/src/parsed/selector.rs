//! Label selectors, parsed and checked but never matched here: each evaluator brings its own matching.

use std::collections::BTreeMap;
use std::fmt;

/// Where a label comes from: the prefix before the colon in a Cilium-style selector key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelSource {
    /// No prefix, or `any:`: a label of that key from any source.
    Any,
    /// `k8s:`: labels of pods and, derived, of their namespace, service account and cluster.
    K8s,
    /// `reserved:`: Sluice's own identities (host, world, …).
    Reserved,
    /// `cidr:`: the prefixes an outside address lies in.
    Cidr,
    /// `cidrgroup:`: the CIDR groups an outside address belongs to.
    CidrGroup,
    /// `fqdn:`: the DNS selectors an outside address was learned for.
    Fqdn,
    /// `node:`: labels of a node.
    Node,
}

impl LabelSource {
    /// Every source, in the order of this enum.
    pub const ALL: [Self; 7] = [
        Self::Any,
        Self::K8s,
        Self::Reserved,
        Self::Cidr,
        Self::CidrGroup,
        Self::Fqdn,
        Self::Node,
    ];

    /// The prefix as policies spell it, without the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::K8s => "k8s",
            Self::Reserved => "reserved",
            Self::Cidr => "cidr",
            Self::CidrGroup => "cidrgroup",
            Self::Fqdn => "fqdn",
            Self::Node => "node",
        }
    }
}

/// A label key with its source: `k8s:io.kubernetes.pod.namespace`, `reserved:host`, `app`.
///
/// Keys of source [`LabelSource::Cidr`] are kept as the masked prefix in its usual spelling (`10.0.0.0/8`, `fd00::/8`),
/// also where the policy used the dashed spelling that label syntax needs for IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelKey {
    /// Its source.
    pub source: LabelSource,
    /// The key without its source.
    pub key: String,
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            LabelSource::Any => f.write_str(&self.key),
            source => write!(f, "{}:{}", source.as_str(), self.key),
        }
    }
}

/// What an expression asks of a key. `In` and `NotIn` hold at least one value; the others hold none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// The label exists and its value is one of these.
    In(Vec<String>),
    /// The label is absent, or its value is none of these.
    NotIn(Vec<String>),
    /// The label exists.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// One entry of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expression<K = LabelKey> {
    /// The label's key.
    pub key: K,
    /// What is asked of it.
    pub operator: Operator,
}

/// A label selector: all of its labels and expressions must hold. The empty selector asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector<K: Ord = LabelKey> {
    /// Labels that must be there with exactly this value.
    pub match_labels: BTreeMap<K, String>,
    /// Further requirements, in the order written.
    pub match_expressions: Vec<Expression<K>>,
}

/// A selector of the Kubernetes APIs: keys are plain, without a source.
pub type KubeSelector = Selector<String>;

impl<K: Ord> Default for Selector<K> {
    fn default() -> Self {
        Self {
            match_labels: BTreeMap::new(),
            match_expressions: Vec::new(),
        }
    }
}

impl<K: Ord> Selector<K> {
    /// Whether it asks for nothing (`{}`).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Every key the selector names, labels first; a key named twice is given twice.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.match_labels.keys().chain(
            self.match_expressions
                .iter()
                .map(|expression| &expression.key),
        )
    }
}

impl<K: Ord + fmt::Display> fmt::Display for Selector<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("{}");
        }
        let mut separator = "";
        for (key, value) in &self.match_labels {
            write!(f, "{separator}{key}={value}")?;
            separator = ",";
        }
        for Expression { key, operator } in &self.match_expressions {
            match operator {
                Operator::In(values) => write!(f, "{separator}{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => {
                    write!(f, "{separator}{key} notin ({})", values.join(","))?;
                }
                Operator::Exists => write!(f, "{separator}{key}")?,
                Operator::DoesNotExist => write!(f, "{separator}!{key}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}
