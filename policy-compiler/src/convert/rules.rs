//! Subjects and rules of Cilium-style policies, own kinds and `cilium.io` alike.

use sluice_crds::parsed::{AllowRule, DenyRule, Subject};
use sluice_world::Section;

use super::{Converter, Peers};
use crate::{
    delta::Warning,
    registry::SelectorId,
    rule::{Action, Rule, Traffic},
    selector::{Domain, Selector},
};
use sluice_abi::Cookie;

impl Converter<'_> {
    pub(super) fn spec_subject(&mut self, subject: &Subject) -> SelectorId {
        let selector: Selector = match subject {
            Subject::Endpoints(selector) => self.subject(selector),
            Subject::Nodes(selector) => {
                self.warnings.push(Warning::HostPolicy);
                self.nodes(selector, Domain::Nodes)
            }
        };
        self.vocabulary.acquire(&selector)
    }

    pub(super) fn allow_rule(&mut self, rule: &AllowRule, section: Section, index: u32) -> Rule {
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

    pub(super) fn deny_rule(&mut self, rule: &DenyRule, section: Section, index: u32) -> Rule {
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
