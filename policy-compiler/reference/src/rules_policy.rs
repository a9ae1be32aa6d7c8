//! Cilium-style policies, own kinds and `cilium.io/v2` alike: subjects, peers and traffic of their rules.

use sluice_crds::parsed::{
    AllowRule, DenyRule, Entity, L4, LabelKey, LabelSource, Peer, Policy, PortProtocol, PortRule,
    Selector, ServiceRef, Spec, Subject,
};
use sluice_world::{Section, Service};

use crate::{
    addresses,
    case::{Case, Direction},
    considered::{Considered, Effect},
    labels,
    miss::{self, Miss},
    names,
    party::{self, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX, Party},
    ports,
};

/// What the specs of one policy that select the subject have for a direction.
#[derive(Debug, Default)]
pub(crate) struct Outcome<'w> {
    /// Some spec has a word on the direction.
    pub(crate) selected: bool,
    /// Some spec denies by default.
    pub(crate) default_denies: bool,
    pub(crate) rules: Vec<Considered<'w>>,
}

/// Holds a policy against a case.
pub(crate) fn consider<'w>(case: &Case<'w, '_>, policy: &'w Policy) -> Outcome<'w> {
    let mut outcome = Outcome::default();
    for (index, spec) in policy.specs.iter().enumerate() {
        if selects(case, policy, &spec.subject) {
            let before = outcome.rules.len();
            add_rules(case, policy, index, spec, &mut outcome.rules);
            let default_denies = match case.direction {
                Direction::Ingress => spec.default_denies_ingress(),
                Direction::Egress => spec.default_denies_egress(),
            };
            outcome.default_denies |= default_denies;
            outcome.selected |= default_denies || outcome.rules.len() > before;
        }
    }
    outcome
}

/// The subject is always in the policy's namespace, whatever its selector says. Nodes are not subjects yet.
fn selects(case: &Case<'_, '_>, policy: &Policy, subject: &Subject) -> bool {
    let Subject::Endpoints(selector) = subject else {
        return false;
    };
    let own = policy.origin.namespace.as_ref();
    own.is_none_or(|own| *own == case.subject.id.namespace)
        && labels::unmet(selector, |key| party::subject_values(case, key)).is_empty()
}

fn add_rules<'w>(
    case: &Case<'w, '_>,
    policy: &'w Policy,
    spec_index: usize,
    spec: &'w Spec,
    rules: &mut Vec<Considered<'w>>,
) {
    let (allows, allow_section, denies, deny_section) = match case.direction {
        Direction::Ingress => (
            &spec.ingress,
            Section::Ingress,
            &spec.ingress_deny,
            Section::IngressDeny,
        ),
        Direction::Egress => (
            &spec.egress,
            Section::Egress,
            &spec.egress_deny,
            Section::EgressDeny,
        ),
    };
    let considered = |section, index, (effect, misses)| Considered {
        origin: &policy.origin,
        spec: spec_index,
        section,
        index,
        tier: "namespace",
        effect,
        misses,
    };
    let own = policy.origin.namespace.as_deref();
    for (index, rule) in allows.iter().flatten().enumerate() {
        rules.push(considered(allow_section, index, allow(case, own, rule)));
    }
    for (index, rule) in denies.iter().flatten().enumerate() {
        rules.push(considered(
            deny_section,
            index,
            (Effect::Deny, deny_misses(case, own, rule)),
        ));
    }
}

fn deny_misses<'w>(case: &Case<'w, '_>, own: Option<&'w str>, rule: &'w DenyRule) -> Vec<Miss<'w>> {
    let traffic = traffic(case, &rule.l4, ports::cilium_miss).err();
    peer_miss(case, own, &rule.peer)
        .into_iter()
        .chain(traffic)
        .collect()
}

fn allow<'w>(
    case: &Case<'w, '_>,
    own: Option<&'w str>,
    rule: &'w AllowRule,
) -> (Effect<'w>, Vec<Miss<'w>>) {
    let mut misses: Vec<_> = peer_miss(case, own, &rule.peer).into_iter().collect();
    let mut proxies = Vec::new();
    match traffic(case, &rule.l4, entry_miss) {
        Ok(entries) => {
            if entries.iter().all(|entry| entry.needs_proxy()) {
                proxies = entries;
            }
        }
        Err(miss) => misses.push(miss),
    }
    (
        Effect::Allow {
            authentication: rule.authentication,
            proxies,
        },
        misses,
    )
}

/// One entry of `toPorts`: any of its ports.
fn entry_miss<'w>(case: &Case<'w, '_>, entry: &'w PortRule) -> Option<Miss<'w>> {
    let ports: &'w [PortProtocol] = &entry.ports;
    miss::nearest(ports.iter().map(|port| ports::cilium_miss(case, port)))
}

/// The entries of `toPorts` that cover the packet (none where there is no `toPorts` and all or ICMP is covered), or the nearest miss.
fn traffic<'w, 's, P>(
    case: &Case<'w, 's>,
    l4: &'w L4<P>,
    entry_miss: impl Fn(&Case<'w, 's>, &'w P) -> Option<Miss<'w>>,
) -> Result<Vec<&'w P>, Miss<'w>> {
    match l4 {
        L4::All => Ok(Vec::new()),
        L4::Ports(entries) => {
            match miss::nearest(entries.iter().map(|entry| entry_miss(case, entry))) {
                None => Ok(entries
                    .iter()
                    .filter(|entry| entry_miss(case, entry).is_none())
                    .collect()),
                Some(miss) => Err(miss),
            }
        }
        L4::Icmps(types) if types.is_empty() => {
            Err(Miss::Nothing("the rule's list of ICMP types is empty"))
        }
        L4::Icmps(types) => miss::nearest(types.iter().map(|entry| ports::icmp_miss(case, *entry)))
            .map_or(Ok(Vec::new()), Err),
    }
}

/// `own` is the policy's namespace; `None` for a cluster-wide one.
fn peer_miss<'w>(case: &Case<'w, '_>, own: Option<&'w str>, peer: &'w Peer) -> Option<Miss<'w>> {
    match peer {
        Peer::Any => None,
        Peer::Nothing => Some(Miss::Nothing(
            "the rule names neither peer nor ports, so it selects nothing",
        )),
        Peer::Endpoints(selectors) => miss::nearest(
            selectors
                .iter()
                .map(|selector| endpoint_miss(case, own, selector)),
        ),
        Peer::Entities(entities) => (!entities.iter().any(|entity| is_entity(case, *entity)))
            .then_some(Miss::Entities(entities)),
        Peer::Cidrs(rules) => match case.peer {
            // Never pods or nodes, 0.0.0.0/0 included.
            Party::Outside(address) => {
                let world = case.setting.world;
                miss::nearest(
                    rules
                        .iter()
                        .map(|rule| addresses::rule_miss(world, address, rule)),
                )
            }
            other => Some(Miss::Kind {
                wanted: "an address outside the cluster",
                found: other.kind(),
            }),
        },
        Peer::Nodes(selectors) => {
            miss::nearest(selectors.iter().map(|selector| node_miss(case, selector)))
        }
        Peer::Services(services) => miss::nearest(
            services
                .iter()
                .map(|service| service_miss(case, own, service)),
        ),
        Peer::Groups(_) => Some(Miss::Nothing(
            "cloud groups select nothing without a provider",
        )),
        Peer::Fqdns(selectors) => match case.peer {
            Party::Outside(address) => {
                let mut learned = case.setting.learned.names_of(address);
                (!learned.any(|name| names::any_matches(selectors, name)))
                    .then_some(Miss::Names(selectors))
            }
            other => Some(Miss::Kind {
                wanted: "an address outside the cluster",
                found: other.kind(),
            }),
        },
    }
}

fn endpoint_miss<'w>(
    case: &Case<'w, '_>,
    own: Option<&'w str>,
    selector: &'w Selector,
) -> Option<Miss<'w>> {
    if !selector.keys().any(reaches_beyond_pods) && !matches!(case.peer, Party::Pod(_)) {
        return Some(Miss::Kind {
            wanted: "a pod",
            found: case.peer.kind(),
        });
    }
    if let Some(own) = own
        && !selector.keys().any(lifts_namespace)
    {
        match case.peer {
            Party::Pod(pod) if pod.id.namespace == own => {}
            Party::Pod(pod) => {
                return Some(Miss::Namespace {
                    wanted: own,
                    found: &pod.id.namespace,
                });
            }
            other => {
                return Some(Miss::Kind {
                    wanted: "a pod",
                    found: other.kind(),
                });
            }
        }
    }
    miss::of_labels(
        "the peer:",
        labels::unmet(selector, |key| party::peer_values(case, key)),
    )
}

/// Whether a selector with this key may also mean nodes and the outside. Without one it means pods, however its `NotIn`s would have it.
fn reaches_beyond_pods(key: &LabelKey) -> bool {
    use LabelSource::{Any, Cidr, CidrGroup, Fqdn, K8s, Node, Reserved};
    match key.source {
        Reserved | Cidr | CidrGroup | Fqdn => true,
        Any | K8s | Node => false,
    }
}

/// Whether a selector with this key is not confined to the policy's own namespace.
fn lifts_namespace(key: &LabelKey) -> bool {
    match key.source {
        LabelSource::Reserved => true,
        LabelSource::Any | LabelSource::K8s => {
            key.key == NAMESPACE_KEY || key.key.starts_with(NAMESPACE_LABELS_PREFIX)
        }
        LabelSource::Cidr | LabelSource::CidrGroup | LabelSource::Fqdn | LabelSource::Node => false,
    }
}

/// Remote nodes by their labels.
fn node_miss<'w>(case: &Case<'w, '_>, selector: &'w Selector) -> Option<Miss<'w>> {
    match case.peer {
        Party::Node(_) if case.peer_is_own_node() => Some(Miss::Kind {
            wanted: "a remote node",
            found: "the pod's own node",
        }),
        Party::Node(node) => {
            let unmet = labels::unmet(selector, |key| party::node_values(case, node, key));
            miss::of_labels("the node:", unmet)
        }
        other => Some(Miss::Kind {
            wanted: "a remote node",
            found: other.kind(),
        }),
    }
}

fn is_entity(case: &Case<'_, '_>, entity: Entity) -> bool {
    match entity {
        Entity::All => true,
        Entity::World => matches!(case.peer, Party::Outside(_)),
        Entity::WorldIpv4 => matches!(case.peer, Party::Outside(address) if address.is_ipv4()),
        Entity::WorldIpv6 => matches!(case.peer, Party::Outside(address) if address.is_ipv6()),
        // One cluster is all the mesh there is; the API server belongs to it also where it runs outside.
        Entity::Cluster | Entity::ClusterMesh => {
            matches!(case.peer, Party::Pod(_) | Party::Node(_))
                || case.setting.is_api_server(case.peer)
        }
        Entity::Host => case.peer_is_own_node(),
        Entity::RemoteNode => matches!(case.peer, Party::Node(_)) && !case.peer_is_own_node(),
        Entity::KubeApiserver => case.setting.is_api_server(case.peer),
        // Nothing that a query can name is one of these.
        Entity::Init | Entity::Ingress | Entity::Unmanaged | Entity::Health | Entity::None => false,
    }
}

fn service_miss<'w>(
    case: &Case<'w, '_>,
    own: Option<&'w str>,
    reference: &'w ServiceRef,
) -> Option<Miss<'w>> {
    let mut services = case.setting.world.services.values();
    let behind = match reference {
        ServiceRef::Named { name, namespace } => {
            let namespace = namespace.as_deref().or(own);
            services.any(|service| {
                service.id.name == *name
                    && Some(&*service.id.namespace) == namespace
                    && is_behind(case, service)
            })
        }
        ServiceRef::Selected {
            selector,
            namespace,
        } => services.any(|service| {
            namespace
                .as_ref()
                .is_none_or(|namespace| service.id.namespace == *namespace)
                && labels::matches(selector, &service.labels)
                && is_behind(case, service)
        }),
    };
    (!behind).then(|| {
        Miss::Service(match reference {
            ServiceRef::Named { name, namespace } => {
                format!(
                    "service {}/{name}",
                    namespace.as_deref().or(own).unwrap_or("(no namespace)")
                )
            }
            ServiceRef::Selected { selector, .. } => format!("any service with labels {selector}"),
        })
    })
}

/// With a selector: the pods it selects in its namespace. Without: its endpoint addresses, as far as they are outside.
fn is_behind(case: &Case<'_, '_>, service: &Service) -> bool {
    match (&service.selector, case.peer) {
        (Some(selector), Party::Pod(pod)) => {
            pod.id.namespace == service.id.namespace
                && selector
                    .iter()
                    .all(|(key, value)| pod.labels.get(key) == Some(value))
        }
        (None, Party::Outside(address)) => service.endpoints.contains(&address),
        _ => false,
    }
}
