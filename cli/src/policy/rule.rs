//! How a side of an answer is shown to people.

use anstyle::Style;
use sluice_world::{Reason, RuleRef, Section, Side, SideVerdict};

use crate::output::{BAD, GOOD, NOTICE};

/// A rule's name: `SluiceNetworkPolicy shop/web ingress[0]`.
pub(crate) fn name(rule: &RuleRef) -> String {
    let namespace = rule
        .namespace
        .as_ref()
        .map_or_else(String::new, |namespace| format!("{namespace}/"));
    let spec = if rule.spec > 0 {
        format!("spec {} ", rule.spec)
    } else {
        String::new()
    };
    format!(
        "{} {namespace}{} {spec}{}[{}]",
        rule.kind,
        rule.name,
        section(rule.section),
        rule.index
    )
}

/// By what a side decided: the rule, or the circumstance.
pub(crate) fn decided_by(side: &Side) -> String {
    side.rule
        .as_ref()
        .map_or_else(|| reason(side.reason).to_owned(), name)
}

/// The word for a verdict.
pub(crate) const fn verdict(verdict: SideVerdict) -> &'static str {
    match verdict {
        SideVerdict::Allowed => "allowed",
        SideVerdict::Denied => "denied",
        SideVerdict::Redirected => "redirected",
        SideVerdict::NotEnforced => "not-enforced",
    }
}

/// The style for a verdict.
pub(crate) const fn style(verdict: SideVerdict) -> Style {
    match verdict {
        SideVerdict::Allowed => GOOD,
        SideVerdict::Denied => BAD,
        SideVerdict::Redirected => NOTICE,
        SideVerdict::NotEnforced => Style::new(),
    }
}

const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Rule => "rule",
        Reason::DefaultDeny => "default-deny",
        Reason::DefaultAllow => "default-allow",
        Reason::LocalHost => "local-host",
        Reason::Itself => "self",
        Reason::Mode => "mode",
        Reason::Unknown => "unknown",
    }
}

const fn section(section: Section) -> &'static str {
    match section {
        Section::Ingress => "ingress",
        Section::IngressDeny => "ingressDeny",
        Section::Egress => "egress",
        Section::EgressDeny => "egressDeny",
    }
}
