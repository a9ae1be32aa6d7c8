//! What is tried, with what, and what should come of it. Written by hand against the policy language; nothing here is computed from
//! policies, or it would be wrong where Sluice is.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};
use sluice_lab::probe::Transport;

use super::place::Place;

/// The port, of TCP and UDP, that pods answer on.
pub(super) const PORT: u16 = 8080;
/// Another one, of TCP alone.
pub(super) const OTHER_PORT: u16 = 8081;

/// What a pod is there for. Node A has all but two, node B has those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Asks; `app: client`.
    Client,
    /// Asks as well, and is not the client; `app: guest`.
    Guest,
    /// Has the client's labels, in the other namespace.
    Stranger,
    /// Answers on the client's node; `app: server`.
    Near,
    /// Answers on the other node; `app: server`.
    Far,
    /// In the host network of the client's node.
    HostNear,
    /// In the host network of the other node.
    HostFar,
}

impl Role {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Client,
        Self::Guest,
        Self::Stranger,
        Self::Near,
        Self::Far,
        Self::HostNear,
        Self::HostFar,
    ];

    /// The pod's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Guest => "guest",
            Self::Stranger => "stranger",
            Self::Near => "server-near",
            Self::Far => "server-far",
            Self::HostNear => "host-near",
            Self::HostFar => "host-far",
        }
    }

    /// Its label `app`.
    pub(super) const fn app(self) -> &'static str {
        match self {
            Self::Client | Self::Stranger => "client",
            Self::Guest => "guest",
            Self::Near | Self::Far => "server",
            Self::HostNear | Self::HostFar => "host",
        }
    }

    /// Whether it is on the second node.
    pub(super) const fn is_far(self) -> bool {
        matches!(self, Self::Far | Self::HostFar)
    }

    /// Whether it is in the host's network.
    pub(super) const fn is_host(self) -> bool {
        matches!(self, Self::HostNear | Self::HostFar)
    }
}

/// Whom a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// A pod, at its own addresses.
    Pod(Role),
    /// The servers, at their service's addresses.
    Service,
    /// The service's name, to be looked up.
    Name,
}

/// One line of the suite; it is tried over every family that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) from: Role,
    pub(super) to: Aim,
    pub(super) transport: Transport,
    pub(super) port: u16,
    /// Whether an answer should come.
    pub(super) answered: bool,
}

/// Some policies, and what holds with them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) policies: Vec<Value>,
    pub(super) checks: Vec<Check>,
    /// Kubelets' probes of the servers must go on succeeding.
    pub(super) probed: bool,
}

/// Every scenario.
pub(super) fn scenarios(place: &Place) -> Vec<Scenario> {
    vec![
        open(place.host_port()),
        deny_all(place),
        by_label(place),
        by_port(place),
        by_block(place),
        by_namespace(place),
        deny_before_allow(place),
    ]
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

fn checks(
    from: &[Role],
    to: &[Aim],
    transports: &[Transport],
    port: u16,
    answered: bool,
) -> Vec<Check> {
    let mut all = Vec::new();
    for &from in from {
        for &to in to {
            all.extend(transports.iter().map(|&transport| Check {
                from,
                to,
                transport,
                port,
                answered,
            }));
        }
    }
    all
}

const SERVERS: [Aim; 2] = [Aim::Pod(Role::Near), Aim::Pod(Role::Far)];
const SERVERS_AND_SERVICE: [Aim; 3] = [Aim::Pod(Role::Near), Aim::Pod(Role::Far), Aim::Service];
const HOSTS: [Aim; 2] = [Aim::Pod(Role::HostNear), Aim::Pod(Role::HostFar)];

/// Without a policy everything is open.
fn open(host_port: u16) -> Scenario {
    let name = Check {
        from: Role::Client,
        to: Aim::Name,
        transport: Transport::Udp,
        port: 53,
        answered: true,
    };
    Scenario {
        name: "no policy",
        policies: Vec::new(),
        checks: [
            checks(
                &[Role::Client, Role::Stranger],
                &SERVERS_AND_SERVICE,
                &BOTH,
                PORT,
                true,
            ),
            checks(
                &[Role::Far],
                &[Aim::Pod(Role::Client), Aim::Pod(Role::Near), Aim::Service],
                &BOTH,
                PORT,
                true,
            ),
            checks(&[Role::Near, Role::Client], &HOSTS, &BOTH, host_port, true),
            checks(
                &[Role::HostNear, Role::HostFar],
                &SERVERS,
                &BOTH,
                PORT,
                true,
            ),
            vec![name],
        ]
        .concat(),
        probed: true,
    }
}

/// Nobody reaches the servers, and they reach others as before.
fn deny_all(place: &Place) -> Scenario {
    Scenario {
        name: "ingress of servers denied",
        policies: vec![network_policy(place, json!({"policyTypes": ["Ingress"]}))],
        checks: [
            checks(
                &[Role::Client, Role::Stranger],
                &SERVERS_AND_SERVICE,
                &BOTH,
                PORT,
                false,
            ),
            checks(&[Role::Near], &[Aim::Pod(Role::Far)], &BOTH, PORT, false),
            checks(
                &[Role::Near, Role::Far],
                &[Aim::Pod(Role::Client)],
                &BOTH,
                PORT,
                true,
            ),
        ]
        .concat(),
        probed: true,
    }
}

/// The client reaches the servers; its namesake in another namespace doesn't.
fn by_label(place: &Place) -> Scenario {
    let peer = json!({"podSelector": {"matchLabels": {"app": "client"}}});
    let refused = [Role::Guest, Role::Stranger];
    by_peer(
        "ingress allowed by label",
        place,
        &peer,
        Role::Client,
        refused,
    )
}

/// One peer of the servers is let in, on all ports.
fn by_peer(
    name: &'static str,
    place: &Place,
    peer: &Value,
    allowed: Role,
    refused: [Role; 2],
) -> Scenario {
    let ingress = json!([{"from": [peer]}]);
    Scenario {
        name,
        policies: vec![network_policy(
            place,
            json!({"policyTypes": ["Ingress"], "ingress": ingress}),
        )],
        checks: [
            checks(&[allowed], &SERVERS_AND_SERVICE, &BOTH, PORT, true),
            checks(&refused, &SERVERS_AND_SERVICE, &BOTH, PORT, false),
        ]
        .concat(),
        probed: true,
    }
}

/// One port of one protocol is open, to everybody.
fn by_port(place: &Place) -> Scenario {
    let ingress = json!([{"ports": [{"protocol": "TCP", "port": PORT}]}]);
    Scenario {
        name: "ingress allowed by port",
        policies: vec![network_policy(
            place,
            json!({"policyTypes": ["Ingress"], "ingress": ingress}),
        )],
        checks: [
            checks(
                &[Role::Client, Role::Stranger],
                &SERVERS_AND_SERVICE,
                &[Transport::Tcp],
                PORT,
                true,
            ),
            checks(
                &[Role::Client, Role::Stranger],
                &SERVERS_AND_SERVICE,
                &[Transport::Udp],
                PORT,
                false,
            ),
            checks(
                &[Role::Client],
                &SERVERS,
                &[Transport::Tcp],
                OTHER_PORT,
                false,
            ),
        ]
        .concat(),
        probed: true,
    }
}

/// The client may open connections to the near server's addresses alone.
fn by_block(place: &Place) -> Scenario {
    let blocks: Vec<Value> = place
        .addresses(Role::Near)
        .iter()
        .map(|address| json!({"ipBlock": {"cidr": host_prefix(*address)}}))
        .collect();
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [{"to": blocks}],
    });
    Scenario {
        name: "egress allowed by address block",
        policies: vec![network_policy(place, spec)],
        checks: [
            checks(&[Role::Client], &[Aim::Pod(Role::Near)], &BOTH, PORT, true),
            checks(
                &[Role::Client],
                &[Aim::Pod(Role::Far), Aim::Pod(Role::Guest)],
                &BOTH,
                PORT,
                false,
            ),
            checks(
                &[Role::Client],
                &HOSTS,
                &[Transport::Tcp],
                place.host_port(),
                false,
            ),
            checks(&[Role::Guest], &SERVERS, &BOTH, PORT, true),
        ]
        .concat(),
        probed: false,
    }
}

/// A namespace is let in, its namesakes by label at home are not.
fn by_namespace(place: &Place) -> Scenario {
    let other = json!({"matchLabels": {"kubernetes.io/metadata.name": place.other_namespace()}});
    let peer = json!({ "namespaceSelector": other });
    let refused = [Role::Client, Role::Guest];
    by_peer(
        "ingress allowed by namespace",
        place,
        &peer,
        Role::Stranger,
        refused,
    )
}

/// Sluice's own kind: what is denied stays so whatever is allowed beside it.
fn deny_before_allow(place: &Place) -> Scenario {
    let policy = json!({
        "apiVersion": "sluice.io/v1", "kind": "SluiceNetworkPolicy",
        "metadata": {"name": "under-test", "namespace": place.namespace()},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": PORT.to_string(), "protocol": "ANY"}]}]}],
            "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "guest"}}]}],
        },
    });
    Scenario {
        name: "SluiceNetworkPolicy: denied before allowed",
        policies: vec![policy],
        checks: [
            checks(&[Role::Client], &SERVERS_AND_SERVICE, &BOTH, PORT, true),
            checks(&[Role::Guest], &SERVERS_AND_SERVICE, &BOTH, PORT, false),
            checks(&[Role::Stranger], &SERVERS, &BOTH, PORT, false),
            checks(
                &[Role::Client],
                &SERVERS,
                &[Transport::Tcp],
                OTHER_PORT,
                false,
            ),
        ]
        .concat(),
        probed: true,
    }
}

/// A policy of the standard kind, for the servers unless `spec` selects others.
fn network_policy(place: &Place, mut spec: Value) -> Value {
    if spec["podSelector"].is_null() {
        spec["podSelector"] = json!({"matchLabels": {"app": "server"}});
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "under-test", "namespace": place.namespace()}, "spec": spec,
    })
}

fn host_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_policy_is_valid() {
        for scenario in scenarios(&Place::numbered()) {
            for policy in &scenario.policies {
                let (objects, problems) = sluice_crds::manifest::read("", &policy.to_string());
                assert_eq!(objects.len(), 1, "{}", scenario.name);
                assert!(problems.is_empty(), "{}: {problems:?}", scenario.name);
            }
        }
    }

    #[test]
    fn no_scenario_with_a_policy_is_without_a_permit_and_a_denial() {
        for scenario in scenarios(&Place::numbered())
            .iter()
            .filter(|scenario| !scenario.policies.is_empty())
        {
            for answered in [true, false] {
                assert!(
                    scenario
                        .checks
                        .iter()
                        .any(|check| check.answered == answered),
                    "{}",
                    scenario.name
                );
            }
        }
    }

    #[test]
    fn nothing_is_tried_twice_in_a_scenario() {
        for scenario in scenarios(&Place::numbered()) {
            let tries: BTreeSet<String> = scenario
                .checks
                .iter()
                .map(|check| {
                    format!(
                        "{:?} {:?} {:?} {}",
                        check.from, check.to, check.transport, check.port
                    )
                })
                .collect();
            assert_eq!(tries.len(), scenario.checks.len(), "{}", scenario.name);
        }
    }

    #[test]
    fn blocks_are_of_both_families() {
        let policy = by_block(&Place::numbered()).policies.remove(0).to_string();
        assert!(
            policy.contains("10.0.0.4/32") && policy.contains("fd00::4/128"),
            "{policy}"
        );
    }

    /// The place's objects and a scenario's policies.
    fn manifests(place: &Place, scenario: &Scenario) -> String {
        let namespace = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
        };
        let node = |name: &String, last: u8| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.0.{last}")},
                {"type": "InternalIP", "address": format!("fd01::{last}")}]}})
        };
        let pod = |role: Role| {
            let addresses: Vec<Value> = place
                .addresses(role)
                .iter()
                .map(|address| json!({"ip": address}))
                .collect();
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": role.name(), "namespace": place.namespace_of(role), "labels": {"app": role.app()}},
                "spec": {"nodeName": place.nodes[usize::from(role.is_far())], "containers": []},
                "status": {"podIPs": addresses}})
        };
        let mut objects = vec![
            namespace(place.namespace()),
            namespace(&place.other_namespace()),
        ];
        objects.extend(
            place
                .nodes
                .iter()
                .zip(1..)
                .map(|(name, last)| node(name, last)),
        );
        objects.extend(
            Role::ALL
                .into_iter()
                .filter(|role| !role.is_host())
                .map(pod),
        );
        objects.extend(scenario.policies.clone());
        objects
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join("\n---\n")
    }

    /// What is written down by hand here is what the reference evaluator says; hosts and services, which it knows otherwise, aside.
    #[test]
    fn the_reference_evaluator_agrees_with_every_expectation() {
        let place = Place::numbered();
        for scenario in scenarios(&place) {
            let (objects, problems) =
                sluice_crds::manifest::read("", &manifests(&place, &scenario));
            assert!(problems.is_empty(), "{problems:?}");
            let world =
                sluice_world::build(objects.into_iter().collect::<sluice_world::Inputs>()).unwrap();
            let learned = sluice_world::Learned::default();
            let judge =
                sluice_reference::Evaluator::new(&world, &learned, sluice_world::Mode::Default);
            let mut judged = 0;
            for check in &scenario.checks {
                let Aim::Pod(to) = check.to else { continue };
                if to.is_host() || check.from.is_host() {
                    continue;
                }
                let end = |role: Role| format!("pod:{}/{}", place.namespace_of(role), role.name());
                for family in ["IPv4", "IPv6"] {
                    let protocol = if check.transport == Transport::Tcp {
                        "TCP"
                    } else {
                        "UDP"
                    };
                    let query = json!({"id": "1", "from": end(check.from), "to": end(to), "protocol": protocol,
                        "port": check.port, "family": family});
                    let query = sluice_world::query::parse(&query.to_string(), &world)
                        .unwrap()
                        .remove(0)
                        .unwrap();
                    let verdict = judge.evaluate(&query).verdict;
                    assert_eq!(
                        verdict == sluice_world::SideVerdict::Allowed,
                        check.answered,
                        "{}: {check:?} {family}",
                        scenario.name
                    );
                    judged += 1;
                }
            }
            assert!(judged >= 8, "{}: {judged}", scenario.name);
        }
    }
}
