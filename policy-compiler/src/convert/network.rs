//! `networking.k8s.io/v1` `NetworkPolicy`.

use sluice_crds::parsed::{NetworkPeer, NetworkPolicy, NetworkRule};
use sluice_world::Section;

use super::{Converter, Peers};
use crate::rule::{Action, Direction, Rule, RuleSet, Scopes, Tier};

impl Converter<'_> {
    pub(super) fn network_policy(&mut self, policy: &NetworkPolicy) -> Vec<RuleSet> {
        let mut sets = Vec::new();
        let directions = [
            (Direction::Ingress, Section::Ingress, &policy.ingress),
            (Direction::Egress, Section::Egress, &policy.egress),
        ];
        for (direction, section, rules) in directions {
            let Some(rules) = rules else { continue };
            let subject = self.kube_pods(None, &policy.subject);
            sets.push(RuleSet {
                policy: policy.origin.clone(),
                place: self.place(&policy.origin, Tier::Namespace, 0, 0),
                direction,
                subject: self.vocabulary.acquire(&subject),
                default_deny: true,
                rules: (0..)
                    .zip(rules)
                    .map(|(index, rule)| self.network_rule(rule, section, index))
                    .collect(),
            });
        }
        sets
    }

    fn network_rule(&mut self, rule: &NetworkRule, section: Section, index: u32) -> Rule {
        let mut peers = Peers::default();
        match &rule.peers {
            None => peers.scopes = Scopes::ALL,
            Some(list) => {
                let mut blocks = Vec::new();
                for peer in list {
                    match peer {
                        NetworkPeer::Pods { namespaces, pods } => {
                            let selector = self.kube_pods(namespaces.as_ref(), pods);
                            self.add(&mut peers, &selector);
                        }
                        NetworkPeer::IpBlock { cidr, except } => {
                            blocks.push((*cidr, except.clone()));
                        }
                    }
                }
                self.add_addresses(&mut peers, true, blocks);
            }
        }
        let traffic = self.network_ports(rule.ports.as_deref());
        self.rule(section, index, Action::Allow, peers, traffic)
    }
}
