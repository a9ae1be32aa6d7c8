//! Proxy parts of a rule: HTTP and DNS rules, TLS, listeners, authentication.

use regex::RegexBuilder;

use super::{Findings, Path, each, fqdn, number, optional, word};
use crate::parsed::{
    Authentication, EnvoyConfigRef, Header, HeaderMatch, HttpRegex, HttpRule, L7Rules, Listener,
    Mismatch, SecretRef, TlsContext,
};
use crate::policy;

/// The most memory a compiled expression may take, in bytes: room for any sane path, none for `(.{1000}){1000}`.
const REGEX_SIZE_LIMIT: usize = 256 * 1024;

/// `rules`; absent also where it is written but holds nothing.
#[expect(
    clippy::option_option,
    reason = "the outer one is failure, the inner one absence"
)]
pub(super) fn rules(
    raw: &policy::L7Rules,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Option<L7Rules>> {
    let http = optional(
        raw.http.as_deref(),
        &path.field("http"),
        findings,
        |list, path, findings| {
            let rules = each(list, path, findings, http)?;
            non_empty(rules, "request", path, findings)
        },
    );
    let dns = optional(
        raw.dns.as_deref(),
        &path.field("dns"),
        findings,
        |list, path, findings| {
            let rules = each(list, path, findings, fqdn::dns)?;
            non_empty(rules, "question", path, findings)
        },
    );
    match (http?, dns?) {
        (None, None) => Some(None),
        (Some(http), None) => Some(Some(L7Rules::Http(http))),
        (None, Some(dns)) => Some(Some(L7Rules::Dns(dns))),
        (Some(_), Some(_)) => {
            findings.error(
                path,
                "http and dns rules can't be for the same ports: write two toPorts entries",
            );
            None
        }
    }
}

/// An empty list could be read as everything or as nothing; which of them its author meant can't be known.
fn non_empty<T>(
    rules: Vec<T>,
    unit: &str,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Vec<T>> {
    if rules.is_empty() {
        findings.error(path, format!("the list is empty, which leaves open what is allowed: name each {unit}, or remove the list"));
        return None;
    }
    Some(rules)
}

fn http(raw: &policy::PortRuleHttp, path: &Path<'_>, findings: &mut Findings) -> Option<HttpRule> {
    let mut part = |field: &Option<String>, name: &str| {
        let field = field.as_deref().filter(|text| !text.is_empty());
        optional(field, &path.field(name), findings, regex)
    };
    let (http_path, method, host) = (
        part(&raw.path, "path"),
        part(&raw.method, "method"),
        part(&raw.host, "host"),
    );
    let headers = each(
        raw.headers.as_deref().unwrap_or_default(),
        &path.field("headers"),
        findings,
        |text, path, findings| header(text, path, findings),
    );
    let header_matches = each(
        raw.header_matches.as_deref().unwrap_or_default(),
        &path.field("headerMatches"),
        findings,
        header_match,
    );
    Some(HttpRule {
        path: http_path?,
        method: method?,
        host: host?,
        headers: headers?,
        header_matches: header_matches?,
    })
}

fn regex(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<HttpRegex> {
    let candidate = HttpRegex(text.to_owned());
    // The text alone too: "a)(b" is only well-formed inside the parentheses that the anchored form adds.
    for pattern in [text, &candidate.anchored()] {
        if let Err(error) = RegexBuilder::new(pattern)
            .size_limit(REGEX_SIZE_LIMIT)
            .build()
        {
            findings.error(
                path,
                format!("{text:?} is no usable regular expression: {error}"),
            );
            return None;
        }
    }
    Some(candidate)
}

fn header(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<Header> {
    let (name, value) = match text.split_once(' ') {
        Some((name, value)) => (
            name.strip_suffix(':').unwrap_or(name),
            Some(value.trim().to_owned()),
        ),
        None => (text.strip_suffix(':').unwrap_or(text), None),
    };
    let name = header_name(name, path, findings)?;
    Some(Header { name, value })
}

fn header_match(
    raw: &policy::HeaderMatch,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<HeaderMatch> {
    const MISMATCH: [(&str, Mismatch); 4] = [
        ("LOG", Mismatch::Log),
        ("ADD", Mismatch::Add),
        ("DELETE", Mismatch::Delete),
        ("REPLACE", Mismatch::Replace),
    ];
    let name = header_name(&raw.name, &path.field("name"), findings);
    let secret = optional(raw.secret.as_ref(), &path.field("secret"), findings, secret);
    let mismatch = raw.mismatch.as_deref().filter(|text| !text.is_empty());
    let mismatch = optional(
        mismatch,
        &path.field("mismatch"),
        findings,
        |text, path, findings| word(text, &MISMATCH, path, findings),
    );
    Some(HeaderMatch {
        name: name?,
        value: raw.value.clone(),
        secret: secret?,
        mismatch: mismatch?,
    })
}

/// A token of RFC 9110, section 5.6.2.
fn header_name(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<String> {
    let is_token = |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char);
    if text.is_empty() || !text.chars().all(is_token) {
        findings.error(path, format!("{text:?} is no header name"));
        return None;
    }
    Some(text.to_owned())
}

fn secret(raw: &policy::Secret, path: &Path<'_>, findings: &mut Findings) -> Option<SecretRef> {
    if raw.name.is_empty() {
        findings.error(&path.field("name"), "the secret's name is empty");
        return None;
    }
    Some(SecretRef {
        namespace: raw.namespace.clone().filter(|text| !text.is_empty()),
        name: raw.name.clone(),
    })
}

/// `terminatingTLS` or `originatingTLS`.
pub(super) fn tls(
    raw: &policy::TlsContext,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<TlsContext> {
    Some(TlsContext {
        secret: secret(&raw.secret, &path.field("secret"), findings)?,
        trusted_ca: raw.trusted_ca.clone(),
        certificate: raw.certificate.clone(),
        private_key: raw.private_key.clone(),
    })
}

/// `listener`.
pub(super) fn listener(
    raw: &policy::Listener,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Listener> {
    if raw.name.is_empty() {
        findings.error(&path.field("name"), "the listener's name is empty");
    }
    let config_path = path.field("envoyConfig");
    if raw.envoy_config.name.is_empty() {
        findings.error(
            &config_path.field("name"),
            "the name of the object that defines the listener is empty",
        );
    }
    let priority = match raw.priority {
        None => None,
        Some(value) => Some(number(value, 1..=100, &path.field("priority"), findings)?),
    };
    if raw.name.is_empty() || raw.envoy_config.name.is_empty() {
        return None;
    }
    let envoy_config = EnvoyConfigRef {
        kind: raw.envoy_config.kind.clone(),
        name: raw.envoy_config.name.clone(),
    };
    Some(Listener {
        envoy_config,
        name: raw.name.clone(),
        priority,
    })
}

/// `authentication`.
pub(super) fn authentication(
    raw: &policy::Authentication,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Authentication> {
    const MODES: [(&str, Authentication); 3] = [
        ("disabled", Authentication::Disabled),
        ("required", Authentication::Required),
        ("test-always-fail", Authentication::TestAlwaysFail),
    ];
    word(&raw.mode, &MODES, &path.field("mode"), findings)
}
