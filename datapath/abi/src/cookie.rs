//! Cookies: what a verdict was decided by, as one number that fits a map value and an event.

/// Names the rule, or the built-in circumstance, that decided a verdict.
///
/// Numbers below [`Cookie::FIRST_RULE`] are built in; the others are given to rules by the compiler, which can tell policy, section and
/// index from the number.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u32);

impl Cookie {
    /// Nothing decided: the side was not judged, or is no policy subject.
    pub const NONE: Self = Self(0);
    /// A policy selects the subject in this direction and no rule allows the traffic.
    pub const DEFAULT_DENY: Self = Self(1);
    /// No policy selects the subject in this direction.
    pub const DEFAULT_ALLOW: Self = Self(2);
    /// The node may reach its own pods.
    pub const LOCAL_HOST: Self = Self(3);
    /// A pod always reaches itself.
    pub const SELF: Self = Self(4);
    /// The enforcement mode `never` switched policy off.
    pub const MODE_NEVER: Self = Self(5);
    /// The enforcement mode `always` denies what no policy selects.
    pub const MODE_ALWAYS: Self = Self(6);
    /// The peer is an address inside the cluster that nothing is known of.
    pub const UNKNOWN: Self = Self(7);
    /// The first number given to a rule.
    pub const FIRST_RULE: u32 = 1024;

    /// Whether the number stands for a rule of a policy.
    #[must_use]
    #[inline(always)]
    pub const fn is_rule(self) -> bool {
        self.0 >= Self::FIRST_RULE
    }
}

crate::map_data!(Cookie);
