//! Label selectors: keys with their sources, values, operators.

use std::collections::BTreeMap;

use super::{Findings, Path, cidr, each, fqdn};
use crate::parsed::{Expression, KubeSelector, LabelKey, LabelSource, Operator, Selector};
use crate::policy::{LabelSelector, LabelSelectorRequirement};

/// A selector whose keys may carry a source.
pub(super) fn selector(
    raw: &LabelSelector,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Selector> {
    parse(raw, path, findings, label_key)
}

/// A selector over Kubernetes labels, keys without a source.
pub(super) fn kube_selector(
    raw: &LabelSelector,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<KubeSelector> {
    parse(raw, path, findings, |key, path, findings| {
        qualified_name(key, path, findings).then(|| key.to_owned())
    })
}

/// A selector of a Cilium-style rule over objects that have Kubernetes labels only (services, CIDR groups).
pub(super) fn object_selector(
    raw: &LabelSelector,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<KubeSelector> {
    parse(raw, path, findings, |key, path, findings| {
        let key = label_key(key, path, findings)?;
        if matches!(key.source, LabelSource::Any | LabelSource::K8s) {
            return Some(key.key);
        }
        findings.error(
            path,
            format!(
                "`{}:` labels are of peers, not of Kubernetes objects: drop the prefix",
                key.source.as_str()
            ),
        );
        None
    })
}

fn parse<K: Ord>(
    raw: &LabelSelector,
    path: &Path<'_>,
    findings: &mut Findings,
    parse_key: impl Fn(&str, &Path<'_>, &mut Findings) -> Option<K>,
) -> Option<Selector<K>> {
    let match_labels = labels(
        raw.match_labels.as_ref(),
        &path.field("matchLabels"),
        findings,
        &parse_key,
    );
    let match_expressions = each(
        raw.match_expressions.as_deref().unwrap_or_default(),
        &path.field("matchExpressions"),
        findings,
        |raw, path, findings| expression(raw, path, findings, &parse_key),
    );
    Some(Selector {
        match_labels: match_labels?,
        match_expressions: match_expressions?,
    })
}

fn labels<K: Ord>(
    raw: Option<&BTreeMap<String, String>>,
    path: &Path<'_>,
    findings: &mut Findings,
    parse_key: impl Fn(&str, &Path<'_>, &mut Findings) -> Option<K>,
) -> Option<BTreeMap<K, String>> {
    let mut parsed = Some(BTreeMap::new());
    for (raw_key, raw_value) in raw.into_iter().flatten() {
        let path = path.field(raw_key);
        let key = parse_key(raw_key, &path, findings);
        let value = label_value(raw_value, &path, findings).then(|| raw_value.clone());
        let (Some(key), Some(value)) = (key, value) else {
            parsed = None;
            continue;
        };
        if let Some(map) = &mut parsed
            && let Some(other) = map.insert(key, value)
            && other != *raw_value
        {
            findings.error(
                &path,
                "the same label is asked for with two values: no peer can have both",
            );
            parsed = None;
        }
    }
    parsed
}

fn expression<K>(
    raw: &LabelSelectorRequirement,
    path: &Path<'_>,
    findings: &mut Findings,
    parse_key: impl Fn(&str, &Path<'_>, &mut Findings) -> Option<K>,
) -> Option<Expression<K>> {
    let key = parse_key(&raw.key, &path.field("key"), findings);
    let values_path = path.field("values");
    let values = raw.values.as_deref().unwrap_or_default();
    let values_are_valid = values
        .iter()
        .enumerate()
        .fold(true, |valid, (index, value)| {
            label_value(value, &values_path.index(index), findings) && valid
        });
    let takes_values = match raw.operator.as_str() {
        "In" | "NotIn" => true,
        "Exists" | "DoesNotExist" => false,
        other => {
            findings.error(
                &path.field("operator"),
                format!("{other:?} is no operator: write In, NotIn, Exists or DoesNotExist"),
            );
            return None;
        }
    };
    if takes_values && values.is_empty() {
        findings.error(
            &values_path,
            format!("{} needs at least one value", raw.operator),
        );
        return None;
    }
    if !takes_values && !values.is_empty() {
        findings.error(
            &values_path,
            format!(
                "{} takes no values: remove them, or write In or NotIn",
                raw.operator
            ),
        );
        return None;
    }
    let operator = match raw.operator.as_str() {
        "In" => Operator::In(values.to_vec()),
        "NotIn" => Operator::NotIn(values.to_vec()),
        "Exists" => Operator::Exists,
        _ => Operator::DoesNotExist,
    };
    if values_are_valid {
        Some(Expression {
            key: key?,
            operator,
        })
    } else {
        None
    }
}

fn label_key(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<LabelKey> {
    let (prefix, key) = text
        .split_once(':')
        .unwrap_or((LabelSource::Any.as_str(), text));
    let Some(source) = LabelSource::ALL
        .into_iter()
        .find(|source| source.as_str() == prefix)
    else {
        let known: Vec<String> = LabelSource::ALL
            .iter()
            .map(|source| format!("{}:", source.as_str()))
            .collect();
        findings.error(
            path,
            format!(
                "`{prefix}:` is no label source: write one of {} or no prefix",
                known.join(" ")
            ),
        );
        return None;
    };
    let key = match source {
        // Label syntax has no colon, so the reference implementation spells IPv6 prefixes with dashes.
        LabelSource::Cidr => cidr::prefix(&key.replace('-', ":"), path, findings)?.to_string(),
        LabelSource::Fqdn => fqdn::pattern_text(key, path, findings)?,
        _ => qualified_name(key, path, findings).then(|| key.to_owned())?,
    };
    Some(LabelKey { source, key })
}

/// A label key as Kubernetes defines it: an optional DNS subdomain, a slash, a name of at most 63 characters.
fn qualified_name(text: &str, path: &Path<'_>, findings: &mut Findings) -> bool {
    let (prefix, name) = match text.rsplit_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let valid = prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_text(name);
    if !valid {
        findings.error(
            path,
            format!(
                "{text:?} is no label key: at most 63 letters, digits, `-`, `_` or `.`, beginning and ending with a \
                 letter or digit, optionally after a DNS name and a slash"
            ),
        );
    }
    valid
}

fn label_value(text: &str, path: &Path<'_>, findings: &mut Findings) -> bool {
    let valid = is_label_text(text);
    if !valid {
        findings.error(
            path,
            format!(
                "{text:?} is no label value: at most 63 letters, digits, `-`, `_` or `.`, beginning and ending with a \
                 letter or digit"
            ),
        );
    }
    valid
}

/// The empty text is a valid label value.
fn is_label_text(text: &str) -> bool {
    text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && text
            .bytes()
            .next()
            .is_none_or(|byte| byte.is_ascii_alphanumeric())
        && text
            .bytes()
            .last()
            .is_none_or(|byte| byte.is_ascii_alphanumeric())
}

/// A DNS subdomain as RFC 1123 and Kubernetes have it.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}
