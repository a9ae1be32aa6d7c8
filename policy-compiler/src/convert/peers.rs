//! Peers of Cilium-style rules.

use ipnet::IpNet;
use sluice_abi::{Identity, Scope};
use sluice_crds::parsed::{
    CidrRule, CidrSource, Entity, FqdnSelector, KubeSelector, Operator, Peer, ServiceRef,
};
use sluice_world::Labels;

use super::{Converter, Peers};
use crate::{
    delta::Warning,
    fqdn::NamePattern,
    prefix::{AddressSet, PrefixBook},
    properties::Family,
    rule::Scopes,
    selector::{Domain, Reserved, Selector},
};

impl Converter<'_> {
    pub(super) fn peers(&mut self, peer: &Peer) -> Peers {
        let mut peers = Peers::default();
        match peer {
            Peer::Any => peers.scopes = Scopes::ALL,
            Peer::Nothing => {}
            Peer::Endpoints(selectors) => {
                for selector in selectors {
                    let selector = self.endpoints(selector);
                    self.add(&mut peers, &selector);
                }
            }
            Peer::Entities(entities) => {
                for entity in entities {
                    self.entity(&mut peers, *entity);
                }
            }
            Peer::Cidrs(rules) => {
                let entries = rules
                    .iter()
                    .flat_map(|rule| self.cidr_entries(rule))
                    .collect();
                self.add_addresses(&mut peers, false, entries);
            }
            Peer::Nodes(selectors) => {
                for selector in selectors {
                    let selector = self.nodes(selector, Domain::RemoteNodes);
                    self.add(&mut peers, &selector);
                }
            }
            Peer::Services(services) => self.services(&mut peers, services),
            Peer::Groups(_) => self.warnings.push(Warning::CloudGroups),
            Peer::Fqdns(selectors) => self.fqdns(&mut peers, selectors),
        }
        peers
    }

    /// Adds a selector, or the scope it covers by definition.
    pub(super) fn add(&mut self, peers: &mut Peers, selector: &Selector) {
        let covered = match selector {
            Selector::Labels(Domain::Pods, requirements) if requirements.is_empty() => Scope::Pods,
            Selector::Labels(Domain::Nodes, requirements) if requirements.is_empty() => {
                Scope::Nodes
            }
            _ => {
                let id = self.vocabulary.acquire(selector);
                if peers.selectors.contains(&id) {
                    // The same selector twice in a rule is one peer, held once: give the second hold back by not keeping it.
                    self.vocabulary.drop_duplicate(id);
                } else {
                    peers.selectors.push(id);
                }
                return;
            }
        };
        peers.scopes = peers.scopes.union(Scopes::of(&[covered]));
    }

    pub(super) fn add_addresses(
        &mut self,
        peers: &mut Peers,
        any_address: bool,
        entries: Vec<(IpNet, Vec<IpNet>)>,
    ) {
        if !entries.is_empty() {
            let set = AddressSet::new(any_address, entries);
            let atom = self.vocabulary.prefixes.acquire(set);
            self.add(peers, &Selector::Atom(atom));
        }
    }

    pub(super) fn fqdns(&mut self, peers: &mut Peers, selectors: &[FqdnSelector]) {
        if !selectors.is_empty() {
            self.warnings.push(Warning::FqdnNotLearned);
            let patterns = selectors.iter().map(NamePattern::from).collect();
            let fqdn = self.vocabulary.fqdns.acquire(patterns);
            self.add(peers, &Selector::Fqdn(fqdn));
        }
    }

    fn entity(&mut self, peers: &mut Peers, entity: Entity) {
        let (scopes, label): (&[Scope], Option<Reserved>) = match entity {
            Entity::All => (&Scope::ALL, None),
            Entity::World => (&[Scope::World], None),
            Entity::WorldIpv4 => (&[], Some(Reserved::WorldOf(Family::V4))),
            Entity::WorldIpv6 => (&[], Some(Reserved::WorldOf(Family::V6))),
            // The API server belongs to the cluster wherever it runs.
            Entity::Cluster => (
                &[Scope::Pods, Scope::Nodes, Scope::Special],
                Some(Reserved::ApiServer(PrefixBook::API_SERVER)),
            ),
            Entity::ClusterMesh => (
                &[
                    Scope::Pods,
                    Scope::OtherClusters,
                    Scope::Nodes,
                    Scope::Special,
                ],
                Some(Reserved::ApiServer(PrefixBook::API_SERVER)),
            ),
            Entity::Host => (&[], Some(Reserved::Host)),
            Entity::RemoteNode => (&[], Some(Reserved::RemoteNode)),
            Entity::Init => (&[], Some(Reserved::Special(Identity::INIT))),
            Entity::Ingress => (&[], Some(Reserved::Special(Identity::INGRESS))),
            Entity::Unmanaged => (&[], Some(Reserved::Special(Identity::UNMANAGED))),
            Entity::Health => (&[], Some(Reserved::Special(Identity::HEALTH))),
            Entity::KubeApiserver => (&[], Some(Reserved::ApiServer(PrefixBook::API_SERVER))),
            Entity::None => (&[], None),
        };
        peers.scopes = peers.scopes.union(Scopes::of(scopes));
        if let Some(label) = label {
            self.add(peers, &Selector::Reserved(label));
        }
    }

    fn cidr_entries(&mut self, rule: &CidrRule) -> Vec<(IpNet, Vec<IpNet>)> {
        match &rule.source {
            CidrSource::Cidr(net) => vec![(*net, rule.except.clone())],
            CidrSource::Group(name) => self.group(name, &rule.except),
            CidrSource::GroupSelector(selector) => {
                self.dependencies.groups = true;
                let groups = self.world.groups.values();
                groups
                    .filter(|group| kube_matches(selector, &group.labels))
                    .flat_map(|group| group.cidrs.iter().map(|net| (*net, rule.except.clone())))
                    .collect()
            }
        }
    }

    /// The prefixes of the groups of this name, of either kind, each less `except`.
    pub(super) fn group(&mut self, name: &str, except: &[IpNet]) -> Vec<(IpNet, Vec<IpNet>)> {
        self.dependencies.groups = true;
        let groups = self
            .world
            .groups
            .values()
            .filter(|group| group.name == name);
        groups
            .flat_map(|group| group.cidrs.iter().map(|net| (*net, except.to_vec())))
            .collect()
    }

    /// A service with a selector stands for its pods, one without for those of its endpoints that are outside.
    fn services(&mut self, peers: &mut Peers, references: &[ServiceRef]) {
        self.dependencies.services = true;
        let own = self.namespace.clone().unwrap_or_default();
        let meant = |service: &&sluice_world::Service| {
            references.iter().any(|reference| match reference {
                ServiceRef::Named { name, namespace } => {
                    service.id.name == *name
                        && service.id.namespace == namespace.as_deref().unwrap_or(&own)
                }
                ServiceRef::Selected {
                    selector,
                    namespace,
                } => {
                    namespace
                        .as_ref()
                        .is_none_or(|namespace| service.id.namespace == *namespace)
                        && kube_matches(selector, &service.labels)
                }
            })
        };
        let world = self.world;
        let mut outside = Vec::new();
        for service in world.services.values().filter(meant) {
            match service
                .selector
                .as_ref()
                .filter(|selector| !selector.is_empty())
            {
                Some(labels) => {
                    let selector = self.service_pods(&service.id.namespace, labels);
                    self.add(peers, &selector);
                }
                None => outside.extend(
                    service
                        .endpoints
                        .iter()
                        .map(|&ip| (IpNet::from(ip), Vec::new())),
                ),
            }
        }
        self.add_addresses(peers, false, outside);
    }
}

/// Matches labels of objects that are no peers (services, CIDR groups).
fn kube_matches(selector: &KubeSelector, labels: &Labels) -> bool {
    selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            match &expression.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
}
