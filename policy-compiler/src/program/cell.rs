//! What the rules that match say at one point: one word per tier, and how words join.
//!
//! Rules are known here only by rank, a number that orders the rules of one table; names and cookies are the table's.

use sluice_crds::parsed::Authentication;

/// A rule's place among the rules of its table: tier by precedence, then the order in which the first of several deciding rules is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

/// Which `toPorts` entry of a rule.
pub type Part = u16;

/// What a rule of the Admin or Baseline tier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierAction {
    /// Denies, finally.
    Deny,
    /// Skips the rest of the tier.
    Pass,
    /// Allows, finally.
    Accept,
}

/// The word of an ordered tier: its first matching rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TierWord {
    /// The rule.
    pub rank: Rank,
    /// What it does.
    pub action: TierAction,
}

/// How strict a demanded authentication is; the greater is the stricter. `Authentication` of the rules, as an order.
pub type Strictness = Authentication;

/// The word of the namespace tier, where all matching rules have equal precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NamespaceWord {
    /// The first denying rule.
    pub deny: Option<Rank>,
    /// A denying rule asks to be logged.
    pub deny_log: bool,
    /// The first rule that allows without a proxy.
    pub allow: Option<Rank>,
    /// Every allow that needs a proxy, sorted. Whether they contradict each other is seen in lowering.
    pub redirects: Vec<(Rank, Part)>,
    /// The strictest authentication any allow asks for, and the first allow that does.
    pub authentication: Option<(Strictness, Rank)>,
    /// An allowing rule asks to be logged.
    pub allow_log: bool,
}

/// One word per tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    /// The Admin tier's.
    pub admin: Option<TierWord>,
    /// The namespace tier's.
    pub namespace: NamespaceWord,
    /// The Baseline tier's.
    pub baseline: Option<TierWord>,
}

impl Cell {
    /// The word of both together.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        Self {
            admin: first(self.admin, other.admin),
            namespace: self.namespace.join(&other.namespace),
            baseline: first(self.baseline, other.baseline),
        }
    }
}

impl NamespaceWord {
    fn join(&self, other: &Self) -> Self {
        Self {
            deny: first(self.deny, other.deny),
            deny_log: self.deny_log || other.deny_log,
            allow: first(self.allow, other.allow),
            redirects: union(&self.redirects, &other.redirects),
            authentication: strictest(self.authentication, other.authentication),
            allow_log: self.allow_log || other.allow_log,
        }
    }
}

fn first<T: Ord>(left: Option<T>, right: Option<T>) -> Option<T> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (word, None) | (None, word) => word,
    }
}

fn union(left: &[(Rank, Part)], right: &[(Rank, Part)]) -> Vec<(Rank, Part)> {
    if left.is_empty() || right.is_empty() {
        return [left, right].concat();
    }
    let mut all = [left, right].concat();
    all.sort_unstable();
    all.dedup();
    all
}

fn strictest(
    left: Option<(Strictness, Rank)>,
    right: Option<(Strictness, Rank)>,
) -> Option<(Strictness, Rank)> {
    let (Some(a), Some(b)) = (left, right) else {
        return left.or(right);
    };
    Some(match a.0.cmp(&b.0) {
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Equal => (a.0, a.1.min(b.1)),
    })
}
