//! Rules and what a proxy has to see to, as messages.

use std::sync::Arc;

use sluice_abi::Cookie;
use sluice_crds::parsed::{
    EnvoyConfigRef, FqdnName, FqdnPattern, FqdnSelector, Header, HeaderMatch, HttpRegex, HttpRule,
    L7Rules, Listener, Mismatch, SecretRef, TlsContext,
};
use sluice_policy::{RedirectSet, rule::ProxyRule};
use sluice_world::{RuleRef, Section};

use super::{
    decode::{all, invalid, required},
    proto,
};
use crate::error::DecodeError;

type Result<T> = std::result::Result<T, DecodeError>;

/// In the order of their numbers.
const SECTIONS: [Section; 4] = [
    Section::Ingress,
    Section::IngressDeny,
    Section::Egress,
    Section::EgressDeny,
];

/// In the order of their numbers, from 1.
const MISMATCHES: [Mismatch; 4] = [
    Mismatch::Log,
    Mismatch::Add,
    Mismatch::Delete,
    Mismatch::Replace,
];

pub(super) fn rule(cookie: Cookie, rule: &RuleRef) -> proto::Rule {
    proto::Rule {
        cookie: cookie.0,
        kind: rule.kind.clone(),
        namespace: rule.namespace.clone(),
        name: rule.name.clone(),
        spec: rule.spec,
        section: place(&SECTIONS, &rule.section),
        index: rule.index,
        tier: rule.tier.clone(),
        action: rule.action.clone(),
    }
}

pub(super) fn rule_of(message: proto::Rule) -> Result<(Cookie, RuleRef)> {
    let rule = RuleRef {
        kind: message.kind,
        namespace: message.namespace,
        name: message.name,
        spec: message.spec,
        section: at("cookies.section", &SECTIONS, message.section)?,
        index: message.index,
        tier: message.tier,
        action: message.action,
    };
    Ok((Cookie(message.cookie), rule))
}

pub(super) fn redirect(id: u32, set: &RedirectSet) -> proto::Redirect {
    let rules = set.rules.iter();
    proto::Redirect {
        id,
        rules: rules
            .map(|(cookie, rule)| proxy_rule(*cookie, rule))
            .collect(),
        pass_unmatched: set.pass_unmatched,
    }
}

pub(super) fn redirect_of(message: proto::Redirect) -> Result<(u32, Arc<RedirectSet>)> {
    let set = RedirectSet {
        rules: all(message.rules, proxy_rule_of)?,
        pass_unmatched: message.pass_unmatched,
    };
    Ok((message.id, Arc::new(set)))
}

fn proxy_rule(cookie: Cookie, rule: &ProxyRule) -> proto::ProxyRule {
    use proto::proxy_rule::L7;
    let l7 = rule.l7.as_ref().map(|rules| match rules {
        L7Rules::Http(rules) => L7::Http(proto::HttpRules {
            rules: rules.iter().map(http_rule).collect(),
        }),
        L7Rules::Dns(names) => L7::Dns(proto::DnsRules {
            names: names.iter().map(name).collect(),
        }),
    });
    proto::ProxyRule {
        cookie: cookie.0,
        l7,
        terminating_tls: rule.terminating_tls.as_ref().map(tls),
        originating_tls: rule.originating_tls.as_ref().map(tls),
        server_names: rule.server_names.iter().map(name).collect(),
        listener: rule.listener.as_ref().map(|listener| proto::Listener {
            config_kind: listener.envoy_config.kind.clone(),
            config_name: listener.envoy_config.name.clone(),
            name: listener.name.clone(),
            priority: listener.priority.map(u32::from),
        }),
    }
}

fn proxy_rule_of(message: proto::ProxyRule) -> Result<(Cookie, Arc<ProxyRule>)> {
    use proto::proxy_rule::L7;
    let l7 = match message.l7 {
        None => None,
        Some(L7::Http(rules)) => Some(L7Rules::Http(all(rules.rules, http_rule_of)?)),
        Some(L7::Dns(rules)) => Some(L7Rules::Dns(all(rules.names, name_of)?)),
    };
    let rule = ProxyRule {
        l7,
        terminating_tls: message.terminating_tls.map(tls_of).transpose()?,
        originating_tls: message.originating_tls.map(tls_of).transpose()?,
        server_names: all(message.server_names, name_of)?,
        listener: message.listener.map(listener_of).transpose()?,
    };
    Ok((Cookie(message.cookie), Arc::new(rule)))
}

fn listener_of(message: proto::Listener) -> Result<Listener> {
    let priority = message.priority.map(|priority| {
        u8::try_from(priority).map_err(|_| invalid("listener.priority", priority.to_string()))
    });
    Ok(Listener {
        envoy_config: EnvoyConfigRef {
            kind: message.config_kind,
            name: message.config_name,
        },
        name: message.name,
        priority: priority.transpose()?,
    })
}

fn http_rule(rule: &HttpRule) -> proto::HttpRule {
    let text = |regex: &Option<HttpRegex>| regex.as_ref().map(|regex| regex.as_str().to_owned());
    let header = |header: &Header| proto::Header {
        name: header.name.clone(),
        value: header.value.clone(),
    };
    let header_match = |header: &HeaderMatch| proto::HeaderMatch {
        name: header.name.clone(),
        value: header.value.clone(),
        secret: header.secret.as_ref().map(secret),
        mismatch: header
            .mismatch
            .map_or(0, |known| place(&MISMATCHES, &known) + 1),
    };
    proto::HttpRule {
        path: text(&rule.path),
        method: text(&rule.method),
        host: text(&rule.host),
        headers: rule.headers.iter().map(header).collect(),
        header_matches: rule.header_matches.iter().map(header_match).collect(),
    }
}

fn http_rule_of(message: proto::HttpRule) -> Result<HttpRule> {
    let header = |header: proto::Header| Header {
        name: header.name,
        value: header.value,
    };
    let header_match = |header: proto::HeaderMatch| {
        let mismatch = header.mismatch.checked_sub(1);
        let known = |number| at("header_matches.mismatch", &MISMATCHES, number);
        Ok(HeaderMatch {
            name: header.name,
            value: header.value,
            secret: header.secret.map(secret_of),
            mismatch: mismatch.map(known).transpose()?,
        })
    };
    Ok(HttpRule {
        path: message.path.map(HttpRegex::accepted),
        method: message.method.map(HttpRegex::accepted),
        host: message.host.map(HttpRegex::accepted),
        headers: message.headers.into_iter().map(header).collect(),
        header_matches: all(message.header_matches, header_match)?,
    })
}

fn name(selector: &FqdnSelector) -> proto::Name {
    use proto::name::Form;
    let form = match selector {
        FqdnSelector::Name(name) => Form::Name(name.as_str().to_owned()),
        FqdnSelector::Pattern(pattern) => Form::Pattern(pattern.as_str().to_owned()),
    };
    proto::Name { form: Some(form) }
}

fn name_of(message: proto::Name) -> Result<FqdnSelector> {
    use proto::name::Form;
    Ok(match required("Name.form", message.form)? {
        Form::Name(text) => FqdnSelector::Name(FqdnName::accepted(text)),
        Form::Pattern(text) => FqdnSelector::Pattern(FqdnPattern::accepted(text)),
    })
}

fn secret(secret: &SecretRef) -> proto::Secret {
    proto::Secret {
        namespace: secret.namespace.clone(),
        name: secret.name.clone(),
    }
}

fn secret_of(message: proto::Secret) -> SecretRef {
    SecretRef {
        namespace: message.namespace,
        name: message.name,
    }
}

fn tls(context: &TlsContext) -> proto::TlsContext {
    proto::TlsContext {
        secret: Some(secret(&context.secret)),
        trusted_ca: context.trusted_ca.clone(),
        certificate: context.certificate.clone(),
        private_key: context.private_key.clone(),
    }
}

fn tls_of(message: proto::TlsContext) -> Result<TlsContext> {
    Ok(TlsContext {
        secret: secret_of(required("TlsContext.secret", message.secret)?),
        trusted_ca: message.trusted_ca,
        certificate: message.certificate,
        private_key: message.private_key,
    })
}

/// The number of a value in a fixed list of all values.
fn place<T: PartialEq>(all: &[T], value: &T) -> u32 {
    let numbered = (0..).zip(all);
    numbered
        .filter(|(_, known)| *known == value)
        .map(|(number, _)| number)
        .next()
        .unwrap_or(u32::MAX)
}

fn at<T: Copy>(field: &'static str, all: &[T], number: u32) -> Result<T> {
    usize::try_from(number)
        .ok()
        .and_then(|number| all.get(number))
        .copied()
        .ok_or_else(|| invalid(field, format!("{number} stands for nothing")))
}
