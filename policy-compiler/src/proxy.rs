//! What a proxy would say: whether proxy rules contradict each other, and whether they let a request pass. No proxy is here; the
//! engines judge a query's request with this after the packet's verdict.

use regex::Regex;
use sluice_crds::parsed::{HeaderMatch, HttpRegex, HttpRule, L7Rules};
use sluice_world::HttpRequest;

use crate::{delta::RedirectSet, fqdn::NamePattern, rule::ProxyRule};

/// Whether no single proxy could serve all of these: two L7 protocols, or two TLS contexts for one side, on the same traffic.
#[must_use]
pub fn conflict(rules: &[&ProxyRule]) -> bool {
    rules.iter().enumerate().any(|(index, one)| {
        rules[index + 1..].iter().any(|other| {
            let parsers = match (&one.l7, &other.l7) {
                (Some(one), Some(other)) => {
                    std::mem::discriminant(one) != std::mem::discriminant(other)
                }
                _ => false,
            };
            parsers
                || both_and_different(one.terminating_tls.as_ref(), other.terminating_tls.as_ref())
                || both_and_different(one.originating_tls.as_ref(), other.originating_tls.as_ref())
        })
    })
}

fn both_and_different<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    one.is_some() && other.is_some() && one != other
}

impl RedirectSet {
    /// Whether some rule lets the request pass; `None` where there is no request to judge.
    #[must_use]
    pub fn passes(&self, http: Option<&HttpRequest>, dns: Option<&str>) -> Option<bool> {
        if http.is_none() && dns.is_none() {
            return None;
        }
        Some(self.rules.iter().any(|(_, rule)| match &rule.l7 {
            // TLS, server names or a listener alone restrict no request.
            None => true,
            Some(L7Rules::Http(rules)) => {
                http.is_some_and(|request| rules.iter().any(|rule| http_passes(rule, request)))
            }
            Some(L7Rules::Dns(selectors)) => dns.is_some_and(|name| {
                selectors
                    .iter()
                    .any(|selector| NamePattern::from(selector).matches(name))
            }),
        }))
    }
}

/// Every condition that is given has to hold.
fn http_passes(rule: &HttpRule, request: &HttpRequest) -> bool {
    let conditions = [
        (&rule.method, &request.method),
        (&rule.path, &request.path),
        (&rule.host, &request.host),
    ];
    conditions.into_iter().all(|(regex, text)| {
        regex
            .as_ref()
            .is_none_or(|regex| whole(regex).is_some_and(|regex| regex.is_match(text)))
    }) && rule
        .headers
        .iter()
        .all(|header| carries(request, &header.name, header.value.as_deref()))
        && rule
            .header_matches
            .iter()
            .all(|header| header_passes(header, request))
}

/// The expression over the whole text. The reader has compiled it once, so `None`, which matches nothing, does not occur.
fn whole(regex: &HttpRegex) -> Option<Regex> {
    Regex::new(&regex.anchored()).ok()
}

/// A mismatch that is to be mended or logged lets the request pass. A value that only a secret holds is not known here: no match.
fn header_passes(header: &HeaderMatch, request: &HttpRequest) -> bool {
    header.mismatch.is_some()
        || match (&header.value, &header.secret) {
            (None, Some(_)) => false,
            (value, _) => carries(request, &header.name, value.as_deref()),
        }
}

/// Header names compare without case (RFC 9110, 5.1), values exactly.
fn carries(request: &HttpRequest, name: &str, value: Option<&str>) -> bool {
    request.headers.iter().any(|(known, actual)| {
        known.eq_ignore_ascii_case(name) && value.is_none_or(|value| value == actual)
    })
}
