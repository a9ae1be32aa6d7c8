//! DNS names and patterns, normalised: lower case, no trailing dot. What they match is for the evaluators to say.

use std::fmt;

/// A DNS name, lower case, without the trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FqdnName(pub(crate) String);

/// A DNS pattern, lower case, without the trailing dot. `*` stops at a dot, `**.` at the front is one or more labels, and
/// the pattern `*` alone is every name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FqdnPattern(pub(crate) String);

impl FqdnName {
    /// A name that a reader has accepted before, as another process sent it.
    #[must_use]
    pub const fn accepted(text: String) -> Self {
        Self(text)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FqdnPattern {
    /// A pattern that a reader has accepted before, as another process sent it.
    #[must_use]
    pub const fn accepted(text: String) -> Self {
        Self(text)
    }

    /// The pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One entry of `toFQDNs`, `rules.dns` or `serverNames`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FqdnSelector {
    /// `matchName`: this name.
    Name(FqdnName),
    /// `matchPattern`: names of this form.
    Pattern(FqdnPattern),
}

impl fmt::Display for FqdnSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name(name) => name.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        })
    }
}
