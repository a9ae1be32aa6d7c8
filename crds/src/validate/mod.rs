//! From what is written to what is meant: every rule of the policy language that a type can't hold, checked once, here.
//!
//! Each function takes a written value and its [`Path`], notes every problem it finds in [`Findings`] and gives back the
//! parsed value, or nothing if it noted an error. They go on after an error wherever the rest still makes sense, so that
//! one run shows a person everything. What may not enter: files, lines, positions; those are [`crate::manifest`]'s.

mod cidr;
mod fqdn;
mod group;
mod l7;
mod network;
mod peer;
mod port;
mod rule;
mod selector;
mod tier;

use std::fmt;

pub use group::cidr_group;
pub use network::network_policy;
pub use rule::policy;
pub use tier::{admin_network_policy, baseline_admin_network_policy, cluster_network_policy};

/// Where in an object something is written.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself.
    Root,
    /// A field of what the outer path names.
    Field(&'a Path<'a>, &'a str),
    /// An entry of the list the outer path names.
    Index(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    /// A field of this.
    #[must_use]
    pub const fn field(&'a self, name: &'a str) -> Self {
        Self::Field(self, name)
    }

    /// An entry of this list.
    #[must_use]
    pub const fn index(&'a self, index: usize) -> Self {
        Self::Index(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(outer, name) => write!(f, "{outer}.{name}"),
            Self::Index(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object is not used.
    Error,
    /// The object is used; something about it is worth knowing.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing found in one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// The field path, `spec.ingress[0].toPorts[0].ports[1].endPort`; empty for the object as a whole.
    pub path: String,
    /// What is wrong, the likely cause, and what to do.
    pub message: String,
}

/// All that was found in one object.
#[derive(Clone, Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Notes an error.
    pub fn error(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.0.push(Finding {
            severity: Severity::Error,
            path: path.to_string(),
            message: message.into(),
        });
    }

    /// Notes a warning.
    pub fn warning(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.0.push(Finding {
            severity: Severity::Warning,
            path: path.to_string(),
            message: message.into(),
        });
    }

    /// What was found, in the order of the checks.
    #[must_use]
    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }

    /// Whether something found is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }
}

/// Whether a text can be an object's name: a DNS subdomain.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    selector::is_subdomain(text)
}

/// Whether a text can be a namespace's name: one DNS label.
#[must_use]
pub fn is_namespace_name(text: &str) -> bool {
    text.len() <= 63 && !text.contains('.') && selector::is_subdomain(text)
}

/// Parses every entry of a list, past the first bad one; nothing if any was bad.
fn each<'a, R, P>(
    list: &'a [R],
    path: &Path<'_>,
    findings: &mut Findings,
    parse: impl Fn(&'a R, &Path<'_>, &mut Findings) -> Option<P>,
) -> Option<Vec<P>> {
    let parsed: Vec<Option<P>> = list
        .iter()
        .enumerate()
        .map(|(index, entry)| parse(entry, &path.index(index), findings))
        .collect();
    parsed.into_iter().collect()
}

/// Parses a field that may be absent: absent stays absent, bad becomes nothing.
#[expect(
    clippy::option_option,
    reason = "the outer one is failure, the inner one absence, as everywhere in this room"
)]
fn optional<'a, R: ?Sized, P>(
    field: Option<&'a R>,
    path: &Path<'_>,
    findings: &mut Findings,
    parse: impl FnOnce(&'a R, &Path<'_>, &mut Findings) -> Option<P>,
) -> Option<Option<P>> {
    match field {
        None => Some(None),
        Some(value) => parse(value, path, findings).map(Some),
    }
}

/// One of a closed set of words.
fn word<T: Copy>(
    text: &str,
    words: &[(&str, T)],
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<T> {
    let found = words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        findings.error(
            path,
            format!(
                "{text:?} is not known here: write one of {}",
                known.join(", ")
            ),
        );
    }
    found
}

/// A number that fits `T`, within `1..=max` or `0..=max`.
fn number<T: TryFrom<i64>>(
    value: i64,
    range: std::ops::RangeInclusive<i64>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<T> {
    if range.contains(&value)
        && let Ok(number) = T::try_from(value)
    {
        return Some(number);
    }
    findings.error(
        path,
        format!(
            "{value} is out of range: write a number from {} to {}",
            range.start(),
            range.end()
        ),
    );
    None
}
