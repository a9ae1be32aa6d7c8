//! Cilium-style policies, own kinds and `cilium.io` alike.

use sluice_crds::parsed::{AllowRule, DenyRule, Policy, Spec, Subject};
use sluice_world::Section;

use super::{Converter, Peers};
use crate::{
    delta::Warning,
    rule::{Action, Direction, Rule, RuleSet, Tier, Traffic},
    selector::{Domain, Selector},
};
use sluice_abi::Cookie;

impl Converter<'_> {
    pub(super) fn rules_policy(&mut self, policy: &Policy) -> Vec<RuleSet> {
        let mut sets = Vec::new();
        for (index, spec) in (0..).zip(&policy.specs) {
            for direction in [Direction::Ingress, Direction::Egress] {
                sets.extend(self.spec(policy, spec, index, direction));
            }
        }
        sets
    }

    /// One direction of one spec; `None` where it has no rule and no default deny, so that it selects nothing.
    fn spec(
        &mut self,
        policy: &Policy,
        spec: &Spec,
        index: u32,
        direction: Direction,
    ) -> Option<RuleSet> {
        let (allow, deny, sections, default_deny) = match direction {
            Direction::Ingress => (
                &spec.ingress,
                &spec.ingress_deny,
                (Section::Ingress, Section::IngressDeny),
                spec.default_denies_ingress(),
            ),
            Direction::Egress => (
                &spec.egress,
                &spec.egress_deny,
                (Section::Egress, Section::EgressDeny),
                spec.default_denies_egress(),
            ),
        };
        let allow = allow.as_deref().unwrap_or_default();
        let deny = deny.as_deref().unwrap_or_default();
        if allow.is_empty() && deny.is_empty() && !default_deny {
            return None;
        }
        let log = spec.log.as_ref().is_some_and(|value| !value.is_empty());
        let mut rules = Vec::with_capacity(allow.len() + deny.len());
        for (index, rule) in (0..).zip(allow) {
            rules.push(Rule {
                log,
                ..self.allow_rule(rule, sections.0, index)
            });
        }
        for (index, rule) in (0..).zip(deny) {
            rules.push(Rule {
                log,
                ..self.deny_rule(rule, sections.1, index)
            });
        }
        Some(RuleSet {
            policy: policy.origin.clone(),
            place: self.place(&policy.origin, Tier::Namespace, 0, index),
            direction,
            subject: self.spec_subject(&spec.subject),
            default_deny,
            rules,
        })
    }

    fn spec_subject(&mut self, subject: &Subject) -> crate::registry::SelectorId {
        let selector: Selector = match subject {
            Subject::Endpoints(selector) => self.subject(selector),
            Subject::Nodes(selector) => {
                self.warnings.push(Warning::HostPolicy);
                self.nodes(selector, Domain::Nodes)
            }
        };
        self.vocabulary.acquire(&selector)
    }

    fn allow_rule(&mut self, rule: &AllowRule, section: Section, index: u32) -> Rule {
        let peers = self.peers(&rule.peer);
        let traffic = self.allowed(&rule.l4);
        if rule
            .authentication
            .is_some_and(|mode| mode != sluice_crds::parsed::Authentication::Disabled)
        {
            self.warnings.push(Warning::AuthenticationNotServed);
        }
        Rule {
            authentication: rule.authentication,
            ..self.rule(section, index, Action::Allow, peers, traffic)
        }
    }

    fn deny_rule(&mut self, rule: &DenyRule, section: Section, index: u32) -> Rule {
        let peers = self.peers(&rule.peer);
        let traffic = self.denied(&rule.l4);
        self.rule(section, index, Action::Deny, peers, traffic)
    }

    /// A rule; its cookie is given when it is installed.
    pub(super) fn rule(
        &mut self,
        section: Section,
        index: u32,
        action: Action,
        peers: Peers,
        traffic: Vec<Traffic>,
    ) -> Rule {
        let mut name_holders = Vec::new();
        if section == Section::Egress || section == Section::EgressDeny {
            let mut names: Vec<_> = traffic
                .iter()
                .flat_map(|t| t.names.iter().map(|name| name.0))
                .collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                name_holders.push(self.vocabulary.acquire(&Selector::PortName(name)));
            }
        }
        Rule {
            section,
            index,
            action,
            scopes: peers.scopes,
            peers: peers.selectors,
            name_holders,
            traffic,
            log: false,
            authentication: None,
            cookie: Cookie::NONE,
        }
    }
}
