//! HTTP and DNS rules, as a proxy would judge one request.

use std::collections::HashMap;

use regex::Regex;
use sluice_crds::parsed::{AllowRule, HeaderMatch, HttpRegex, HttpRule, L4, L7Rules, PortRule};
use sluice_world::{HttpRequest, Policy, Query, World};

use crate::names;

/// Every regular expression of a world's HTTP rules, compiled once.
#[derive(Debug, Default)]
pub(crate) struct Patterns(HashMap<String, Regex>);

impl Patterns {
    pub(crate) fn of(world: &World) -> Self {
        let mut patterns = Self::default();
        for policy in world.policies.values() {
            if let Policy::Rules(policy) = &**policy {
                let rules = policy
                    .specs
                    .iter()
                    .flat_map(|spec| spec.ingress.iter().chain(&spec.egress).flatten());
                rules
                    .flat_map(http_rules)
                    .for_each(|rule| patterns.add(rule));
            }
        }
        patterns
    }

    fn add(&mut self, rule: &HttpRule) {
        for pattern in [&rule.path, &rule.method, &rule.host].into_iter().flatten() {
            if let Ok(compiled) = Regex::new(&pattern.anchored()) {
                self.0.insert(pattern.as_str().to_owned(), compiled);
            }
        }
    }

    /// An expression that does not compile matches nothing.
    fn matches(&self, pattern: &HttpRegex, text: &str) -> bool {
        self.0
            .get(pattern.as_str())
            .is_some_and(|compiled| compiled.is_match(text))
    }
}

fn http_rules(rule: &AllowRule) -> impl Iterator<Item = &HttpRule> {
    let entries: &[PortRule] = match &rule.l4 {
        L4::Ports(entries) => entries,
        L4::All | L4::Icmps(_) => &[],
    };
    entries.iter().flat_map(|entry| match &entry.l7 {
        Some(L7Rules::Http(rules)) => rules.as_slice(),
        Some(L7Rules::Dns(_)) | None => &[],
    })
}

/// Whether one of the entries that redirect lets the request pass; `None` where the query gives no request.
pub(crate) fn passes(patterns: &Patterns, entries: &[&PortRule], query: &Query) -> Option<bool> {
    if query.http.is_none() && query.dns.is_none() {
        return None;
    }
    Some(entries.iter().any(|entry| {
        match (&entry.l7, &query.http, &query.dns) {
            // A listener or TLS alone: the proxy restricts no request.
            (None, _, _) => true,
            (Some(L7Rules::Http(rules)), Some(request), _) => rules
                .iter()
                .any(|rule| http_matches(patterns, rule, request)),
            (Some(L7Rules::Dns(selectors)), _, Some(name)) => {
                names::any_matches(selectors, &names::normalise(name))
            }
            _ => false,
        }
    }))
}

/// Everything given has to hold.
fn http_matches(patterns: &Patterns, rule: &HttpRule, request: &HttpRequest) -> bool {
    let regex = |pattern: &Option<HttpRegex>, text: &str| {
        pattern
            .as_ref()
            .is_none_or(|pattern| patterns.matches(pattern, text))
    };
    regex(&rule.path, &request.path)
        && regex(&rule.method, &request.method)
        && regex(&rule.host, &request.host)
        && rule
            .headers
            .iter()
            .all(|header| has_header(request, &header.name, header.value.as_deref()))
        && rule
            .header_matches
            .iter()
            .all(|wanted| header_match_holds(wanted, request))
}

fn header_match_holds(wanted: &HeaderMatch, request: &HttpRequest) -> bool {
    if wanted.mismatch.is_some() {
        // The request passes either way; the proxy logs or rewrites.
        return true;
    }
    match (&wanted.value, &wanted.secret) {
        // What the secret holds is not known here.
        (None, Some(_)) => false,
        (value, _) => has_header(request, &wanted.name, value.as_deref()),
    }
}

fn has_header(request: &HttpRequest, name: &str, value: Option<&str>) -> bool {
    let mut found = request
        .headers
        .iter()
        .filter(|(found, _)| found.eq_ignore_ascii_case(name));
    found.any(|(_, found)| value.is_none_or(|value| found == value))
}
