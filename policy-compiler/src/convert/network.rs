//! Rules of `networking.k8s.io/v1` `NetworkPolicy`.

use sluice_crds::parsed::{NetworkPeer, NetworkRule};
use sluice_world::Section;

use super::{Converter, Peers};
use crate::rule::{Action, Rule, Scopes};

impl Converter<'_> {
    pub(super) fn network_rule(
        &mut self,
        rule: &NetworkRule,
        section: Section,
        index: u32,
    ) -> Rule {
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
