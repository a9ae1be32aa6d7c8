//! Rules of `ClusterNetworkPolicy`, `AdminNetworkPolicy` and `BaselineAdminNetworkPolicy`.

use sluice_crds::parsed::{self, KubeSelector, TierPeer, TierRule};
use sluice_world::Section;

use super::{Converter, Peers, traffic::everything};
use crate::{
    delta::Warning,
    rule::{Action, Rule, Scopes},
};

impl Converter<'_> {
    pub(super) fn tier_rule(&mut self, rule: &TierRule, section: Section, index: u32) -> Rule {
        let action = match rule.action {
            parsed::Action::Accept => Action::Allow,
            parsed::Action::Deny => Action::Deny,
            parsed::Action::Pass => Action::Pass,
        };
        if rule.fails_closed() {
            return self.failed_closed(action, section, index);
        }
        let mut peers = Peers::default();
        let mut blocks = Vec::new();
        let all = KubeSelector::default();
        for peer in &rule.peers {
            match peer {
                TierPeer::Namespaces(namespaces) => {
                    let selector = self.kube_pods(Some(namespaces), &all);
                    self.add(&mut peers, &selector);
                }
                TierPeer::Pods { namespaces, pods } => {
                    let selector = self.kube_pods(Some(namespaces), pods);
                    self.add(&mut peers, &selector);
                }
                TierPeer::Nodes(selector) => {
                    let selector = self.kube_nodes(selector);
                    self.add(&mut peers, &selector);
                }
                TierPeer::Networks(networks) => {
                    blocks.extend(networks.iter().map(|net| (*net, Vec::new())));
                }
                TierPeer::DomainNames(names) => self.fqdns(&mut peers, names),
                TierPeer::Unknown => {}
            }
        }
        self.add_addresses(&mut peers, true, blocks);
        let traffic = self.tier_ports(rule.ports.as_deref());
        self.rule(section, index, action, peers, traffic)
    }

    /// A rule with a peer that is not understood: an Accept matches nothing, a Deny or Pass denies all.
    fn failed_closed(&mut self, action: Action, section: Section, index: u32) -> Rule {
        self.warnings.push(Warning::PeerNotUnderstood);
        let peers = match action {
            Action::Allow => Peers::default(),
            Action::Deny | Action::Pass => Peers {
                scopes: Scopes::ALL,
                selectors: Vec::new(),
            },
        };
        let action = if action == Action::Allow {
            action
        } else {
            Action::Deny
        };
        self.rule(section, index, action, peers, everything())
    }
}
