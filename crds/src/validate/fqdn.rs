//! DNS names and patterns: characters, lengths, normal form.

use super::{Findings, Path};
use crate::parsed::{FqdnName, FqdnPattern, FqdnSelector};
use crate::policy;

/// The longest name the API takes.
const MAX_LENGTH: usize = 255;

/// An entry of `toFQDNs`.
pub(super) fn fqdn(
    raw: &policy::FqdnSelector,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<FqdnSelector> {
    name_or_pattern(
        raw.match_name.as_deref(),
        raw.match_pattern.as_deref(),
        path,
        findings,
    )
}

/// An entry of `rules.dns`.
pub(super) fn dns(
    raw: &policy::PortRuleDns,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<FqdnSelector> {
    name_or_pattern(
        raw.match_name.as_deref(),
        raw.match_pattern.as_deref(),
        path,
        findings,
    )
}

/// An entry of `serverNames`.
pub(super) fn server_name(
    text: &str,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<FqdnSelector> {
    if text.contains('*') {
        Some(FqdnSelector::Pattern(FqdnPattern(pattern_text(
            text, path, findings,
        )?)))
    } else {
        Some(FqdnSelector::Name(FqdnName(name_text(
            text, path, findings,
        )?)))
    }
}

/// An entry of `domainNames`, where a leading `*.` is one or more labels and no other `*` is allowed.
pub(super) fn domain_name(
    text: &str,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<FqdnSelector> {
    let (wildcard, rest) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let name = name_text(rest, path, findings)?;
    if !name.contains('.') {
        findings.error(
            path,
            format!("{text:?} needs at least two labels, like example.com"),
        );
        return None;
    }
    Some(if wildcard {
        FqdnSelector::Pattern(FqdnPattern(format!("**.{name}")))
    } else {
        FqdnSelector::Name(FqdnName(name))
    })
}

/// A pattern in normal form.
pub(super) fn pattern_text(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<String> {
    let normal = normal_text(text, "-_.*", path, findings)?;
    let stars = normal.strip_prefix("**.").unwrap_or(&normal);
    if stars.contains("**") {
        findings.error(
            path,
            format!("{text:?}: `**` may only stand at the front, before a dot"),
        );
        return None;
    }
    Some(normal)
}

fn name_or_pattern(
    name: Option<&str>,
    pattern: Option<&str>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<FqdnSelector> {
    match (name, pattern) {
        (Some(name), None) => Some(FqdnSelector::Name(FqdnName(name_text(
            name,
            &path.field("matchName"),
            findings,
        )?))),
        (None, Some(pattern)) => Some(FqdnSelector::Pattern(FqdnPattern(pattern_text(
            pattern,
            &path.field("matchPattern"),
            findings,
        )?))),
        (None, None) => {
            findings.error(
                path,
                "nothing is named: write matchName or matchPattern (\"*\" is every name)",
            );
            None
        }
        (Some(_), Some(_)) => {
            findings.error(
                path,
                "matchName and matchPattern exclude each other: write two entries",
            );
            None
        }
    }
}

fn name_text(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<String> {
    if text.contains('*') {
        findings.error(
            path,
            format!("{text:?} has a `*`, which only a matchPattern may have"),
        );
        return None;
    }
    normal_text(text, "-_.", path, findings)
}

fn normal_text(
    text: &str,
    extra: &str,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<String> {
    if text.len() > MAX_LENGTH {
        findings.error(
            path,
            format!(
                "a DNS name has at most {MAX_LENGTH} characters, this has {}",
                text.len()
            ),
        );
        return None;
    }
    if let Some(bad) = text
        .chars()
        .find(|char| !char.is_ascii_alphanumeric() && !extra.contains(*char))
    {
        findings.error(path, format!("{text:?} has the character {bad:?}: letters, digits and `{extra}` are allowed; write non-ASCII names in punycode"));
        return None;
    }
    let normal = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if normal.is_empty() || normal.split('.').any(str::is_empty) {
        findings.error(
            path,
            format!("{text:?} has an empty label: remove the extra dot"),
        );
        return None;
    }
    Some(normal)
}
