//! Worlds with one server that N rules guard, each rule naming a peer of its own; and packets that such peers send.
//!
//! ```text
//! bench-node: bench/client, bench/server        ◀── policy "ladder": N ingress rules, rule i admits peer i, the last one the client
//! peer-node:  peer-0 … (label rules)  or  blocks outside the cluster (CIDR rules)
//! ```

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use sluice_agent::packet::{self, Wanted};
use sluice_crds::validate::Severity;
use sluice_world::{Inputs, PodRef, World, build};
use sluice_worldgen::{Choices, manifest};

/// Who the rules' peers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Pods of other nodes, each with a label of its own and hence an identity of its own.
    Labels,
    /// So many pods of other nodes at every number of rules (or one for each rule, if that is more), spread evenly over the rules, each
    /// of which names its pods' label: the cluster stays as large as it is, and only the rules grow.
    Groups {
        /// The pods.
        pods: u32,
    },
    /// Blocks outside the cluster, one of each family for each rule.
    Cidrs,
}

/// The parameters of such a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// How many ingress rules guard the server.
    pub rules: u32,
    /// Who they name.
    pub peers: Peers,
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rules, peers } = self;
        let cidr = if *peers == Peers::Cidrs { 100 } else { 0 };
        if let Peers::Groups { pods } = peers {
            write!(f, "pods={pods} ")?;
        }
        write!(
            f,
            "policies=3 rules={rules} subjects=1 namespaces={} cross_namespace={} cidr={cidr} cidr_bits=28..=32,64..=128 \
             expressions={} port_ranges=10 several_ports=10",
            1 + NAMESPACES,
            50 - cidr / 2,
            (100 - cidr) / 5
        )
    }
}

/// The server, guarded by the rules.
pub const SERVER: [IpAddr; 2] = pod_addresses(2);
/// The client on the same node, which the last rule admits.
pub const CLIENT: [IpAddr; 2] = pod_addresses(1);
/// The node of both.
pub const NODE: &str = "bench-node";
/// The port that every rule opens.
pub const OPEN: u16 = 80;
/// A port that no rule opens to its peer.
pub const CLOSED: u16 = 81;

const NAMESPACES: u32 = 10;

const fn pod_addresses(host: u16) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::from_bits(0xac18_0000 + host as u32)),
        IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, host)),
    ]
}

/// One of the two pods.
#[must_use]
pub fn pod(name: &str) -> PodRef {
    PodRef {
        namespace: "bench".to_owned(),
        name: name.to_owned(),
    }
}

/// The world that manifests describe.
///
/// # Errors
/// The manifests are wrong.
pub fn world(documents: &[Value]) -> Result<World> {
    let (objects, problems) = sluice_crds::manifest::read("generated", &manifest(documents));
    if let Some(problem) = problems
        .iter()
        .find(|problem| problem.severity == Severity::Error)
    {
        bail!("a generated manifest: {problem:?}");
    }
    Ok(build(objects.into_iter().collect::<Inputs>())?)
}

impl Ladder {
    /// Everything as manifests.
    #[must_use]
    pub fn documents(&self) -> Vec<Value> {
        let mut documents: Vec<Value> = (0..NAMESPACES)
            .map(|number| namespace(&format!("peers-{number}")))
            .chain([namespace("bench")])
            .collect();
        documents.push(node(NODE, 1, "172.24.0.0/24", "fd99::/64"));
        documents.push(node("peer-node", 2, "172.16.0.0/13", "fd99:1::/64"));
        documents.push(pod_document("bench", "client", NODE, "client", CLIENT));
        documents.push(pod_document("bench", "server", NODE, "server", SERVER));
        if self.peers != Peers::Cidrs {
            documents.extend((0..self.peer_pods()).map(|pod| {
                let number = pod % self.named();
                pod_document(
                    &home(number),
                    &format!("peer-{pod}"),
                    "peer-node",
                    &format!("peer-{number}"),
                    pod_peer(pod),
                )
            }));
        }
        documents.push(self.policy(None));
        documents.push(both_ways("client", "server"));
        documents.push(answers("server", "client"));
        documents
    }

    /// The policy of N rules; one of its rules may open [`CLOSED`] in place of [`OPEN`].
    #[must_use]
    pub fn policy(&self, changed: Option<u32>) -> Value {
        let rules: Vec<Value> = (0..self.rules)
            .map(|number| json!({"from": self.from(number), "ports": self.ports(number, changed == Some(number))}))
            .collect();
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "ladder", "namespace": "bench"},
            "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": rules},
        })
    }

    /// How many rules name a peer other than the client.
    const fn named(&self) -> u32 {
        self.rules.saturating_sub(1)
    }

    /// How many pods the rules name, the client apart.
    fn peer_pods(&self) -> u32 {
        match self.peers {
            Peers::Groups { pods } if self.named() > 0 => pods.max(self.named()),
            _ => self.named(),
        }
    }

    /// The addresses of the `number`th rule's peer; of a rule's pods, or a block's addresses, the `host`th, modulo how many it has.
    #[must_use]
    pub fn peer(&self, number: u32, host: u32) -> [IpAddr; 2] {
        let bits = u128::from(number);
        match self.peers {
            Peers::Labels => pod_peer(number),
            Peers::Groups { .. } => {
                let named = self.named().max(1);
                let pods = self.peer_pods().saturating_sub(number).div_ceil(named);
                pod_peer(number + named * (host % pods.max(1)))
            }
            Peers::Cidrs => {
                // The bits of both blocks' addresses that are free; see `from` for the blocks.
                let step = number % 5;
                let within = host & ((1 << (4 - step)) - 1);
                let far = u128::from(host) & ((1 << (64 - 16 * step)) - 1);
                [
                    IpAddr::V4(Ipv4Addr::from_bits(0x6440_0000 + number * 16 + within)),
                    IpAddr::V6(Ipv6Addr::from_bits(
                        (0x2001_0db8 << 96) + (bits << 64) + far,
                    )),
                ]
            }
        }
    }

    fn from(self, number: u32) -> Value {
        let name = format!("peer-{number}");
        if number + 1 == self.rules {
            return json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
        }
        if self.peers == Peers::Cidrs {
            let [v4, v6] = self.peer(number, 0);
            let (bits_v4, bits_v6) = (28 + number % 5, 64 + 16 * (number % 5));
            return json!([{"ipBlock": {"cidr": format!("{v4}/{bits_v4}")}}, {"ipBlock": {"cidr": format!("{v6}/{bits_v6}")}}]);
        }
        let pods = if number % 5 == 1 {
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": [name]}]})
        } else {
            json!({"matchLabels": {"app": name}})
        };
        if home(number) == "bench" {
            return json!([{"podSelector": pods}]);
        }
        let namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": home(number)}});
        json!([{"podSelector": pods, "namespaceSelector": namespace}])
    }

    fn ports(self, number: u32, changed: bool) -> Value {
        let open = json!({"protocol": "TCP", "port": if changed { CLOSED } else { OPEN }});
        match number % 10 {
            // The client's load chooses its ports freely.
            _ if number + 1 == self.rules => {
                json!([{"protocol": "TCP", "port": 1, "endPort": 65535}])
            }
            0 => json!([open, {"protocol": "TCP", "port": 8000, "endPort": 8100}]),
            5 => json!([open, {"protocol": "TCP", "port": 443}]),
            _ => json!([open]),
        }
    }
}

/// The addresses of a pod that a rule names.
fn pod_peer(pod: u32) -> [IpAddr; 2] {
    let far = u128::from(pod);
    [
        IpAddr::V4(Ipv4Addr::from_bits(0xac10_0100 + pod)),
        IpAddr::V6(Ipv6Addr::from_bits((0xfd99_0001 << 96) + 0x100 + far)),
    ]
}

/// Where a peer lives: half of them in the server's own namespace.
fn home(number: u32) -> String {
    if number.is_multiple_of(2) {
        "bench".to_owned()
    } else {
        format!("peers-{}", number / 2 % NAMESPACES)
    }
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
}

fn node(name: &str, number: u32, v4: &str, v6: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDR": v4, "podCIDRs": [v4, v6]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.0.2.{number}")},
            {"type": "InternalIP", "address": format!("fd98::{number}")},
        ]},
    })
}

fn pod_document(
    namespace: &str,
    name: &str,
    node: &str,
    app: &str,
    addresses: [IpAddr; 2],
) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": app, "tier": "gold"}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"podIPs": [{"ip": addresses[0]}, {"ip": addresses[1]}]},
    })
}

/// A policy that restricts both directions of a pod to another, whatever the port.
fn both_ways(subject: &str, other: &str) -> Value {
    let mut policy = answers(subject, other);
    policy["spec"]["policyTypes"] = json!(["Ingress", "Egress"]);
    policy["spec"]["ingress"] =
        json!([{"from": [{"podSelector": {"matchLabels": {"app": other}}}]}]);
    policy
}

/// A policy that restricts what a pod sends to another pod.
fn answers(subject: &str, other: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("of-{subject}"), "namespace": "bench"},
        "spec": {
            "podSelector": {"matchLabels": {"app": subject}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": other}}}]}],
        },
    })
}

/// A TCP packet's flags (RFC 9293).
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const ACK: u8 = 0x10;

/// One end of a flow.
pub type End = (IpAddr, u16, [u8; 6]);

/// A TCP segment. Ports and flags are put in afterwards, so that the checksum does not hold; nothing that is measured reads it.
///
/// # Errors
/// The ends are of different families.
pub fn segment(from: End, to: End, flags: u8) -> Result<Vec<u8>> {
    let wanted = Wanted {
        macs: (from.2, to.2),
        source: from.0,
        destination: to.0,
        protocol: 6,
        port: to.1,
    };
    let Some(mut frame) = packet::frame(&wanted) else {
        bail!("{} and {} are of different families", from.0, to.0);
    };
    let tcp = 14 + if from.0.is_ipv4() { 20 } else { 40 };
    frame[tcp..tcp + 2].copy_from_slice(&from.1.to_be_bytes());
    frame[tcp + 13] = flags;
    Ok(frame)
}

/// Draws peers uniformly over all rules but the client's: (address of the family, source port). No two are alike.
#[must_use]
pub fn draw(ladder: Ladder, family: usize, amount: u32, seed: u64) -> Vec<(IpAddr, u16)> {
    let mut choices = Choices::seeded(seed);
    let peers = ladder.rules.saturating_sub(1).max(1);
    let mut drawn = std::collections::BTreeSet::new();
    let mut flows = Vec::new();
    while flows.len() < amount as usize {
        let address = ladder.peer(choices.below(peers), choices.below(u32::MAX))[family];
        // Below the ports that the other measurements use.
        let port = u16::try_from(1024 + choices.below(40_000)).unwrap_or(1024);
        if drawn.insert((address, port)) {
            flows.push((address, port));
        }
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every peer's addresses lie in the block that its rule names, for all lengths of block.
    #[test]
    fn addresses_of_a_block_are_inside_it() {
        let ladder = Ladder {
            rules: 50,
            peers: Peers::Cidrs,
        };
        for number in 0..49 {
            let blocks = ladder.from(number);
            for host in [0, 1, 7, u32::MAX] {
                for (family, address) in ladder.peer(number, host).into_iter().enumerate() {
                    let block: ipnet::IpNet = blocks[family]["ipBlock"]["cidr"]
                        .as_str()
                        .unwrap()
                        .parse()
                        .unwrap();
                    assert!(block.contains(&address), "{block} {address}");
                    assert_eq!(block, block.trunc());
                }
            }
        }
    }

    #[test]
    fn the_world_is_accepted_and_has_a_policy_for_each_direction() {
        for peers in [Peers::Labels, Peers::Cidrs] {
            let ladder = Ladder { rules: 20, peers };
            let world = world(&ladder.documents()).unwrap();
            assert_eq!(world.policies.len(), 3);
            assert_eq!(
                world.pods.len(),
                if peers == Peers::Labels { 21 } else { 2 }
            );
        }
    }

    /// Each rule's pods are its own, and all rules' together are all there are.
    #[test]
    fn every_pod_of_a_group_is_some_rule_s_peer() {
        let ladder = Ladder {
            rules: 8,
            peers: Peers::Groups { pods: 100 },
        };
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..7 {
            let pods = if number < 2 { 15 } else { 14 };
            for host in 0..pods {
                assert!(seen.insert(ladder.peer(number, host)), "{number} {host}");
            }
            assert_eq!(ladder.peer(number, pods), ladder.peer(number, 0));
        }
        assert_eq!(seen.len(), 100);
        let world = world(&ladder.documents()).unwrap();
        assert_eq!(world.pods.len(), 102);
    }

    #[test]
    fn flows_are_all_different() {
        let ladder = Ladder {
            rules: 10,
            peers: Peers::Labels,
        };
        let flows = draw(ladder, 0, 1000, 1);
        let different: std::collections::BTreeSet<_> = flows.iter().collect();
        assert_eq!(different.len(), 1000);
    }
}
