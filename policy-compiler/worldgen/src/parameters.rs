//! What a generated world is like. Every parameter is printed beside each figure that a benchmark gives.

use std::{fmt, ops::RangeInclusive};

/// A share of cases, 0 to 100.
pub type Percent = u32;

/// A policy kind the generator can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// Ours, namespaced.
    SluiceNetworkPolicy,
    /// Ours, cluster-wide.
    SluiceClusterwideNetworkPolicy,
    /// `cilium.io/v2`, namespaced.
    CiliumNetworkPolicy,
    /// `cilium.io/v2`, cluster-wide.
    CiliumClusterwideNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`; there is at most one, named `default`.
    BaselineAdminNetworkPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::NetworkPolicy,
        Self::SluiceNetworkPolicy,
        Self::CiliumNetworkPolicy,
        Self::SluiceClusterwideNetworkPolicy,
        Self::CiliumClusterwideNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
    ];
}

macro_rules! parameters {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// How large a world is and what its policies are made of.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Parameters {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl fmt::Display for Parameters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                $(
                    write!(f, "{separator}{}={:?}", stringify!($name), self.$name)?;
                    separator = " ";
                )+
                let _ = separator;
                Ok(())
            }
        }
    };
}

parameters! {
    /// Namespaces.
    namespaces: RangeInclusive<u32>,
    /// Node objects; with none, the world has the one node that pods without `nodeName` share.
    nodes: RangeInclusive<u32>,
    /// Distinct sets of namespace, labels, service account and ports that pods are made from.
    workloads: RangeInclusive<u32>,
    /// Pods, spread over the workloads.
    pods: RangeInclusive<u32>,
    /// Services besides the API server's.
    services: RangeInclusive<u32>,
    /// CIDR groups.
    cidr_groups: RangeInclusive<u32>,
    /// Policies, where they are drawn from a seed.
    policies: RangeInclusive<u32>,
    /// Queries, where they are drawn from a seed.
    queries: RangeInclusive<u32>,
    /// Rules in each section of a policy.
    rules: RangeInclusive<u32>,
    /// Entries in each list of peers.
    peers: RangeInclusive<u32>,
    /// Entries in each list of ports.
    ports: RangeInclusive<u32>,
    /// Labels on each pod.
    labels: RangeInclusive<u32>,
    /// Distinct values of each label key.
    label_values: u32,
    /// Random prefixes beside the fixed ones.
    random_prefixes: u32,
    /// Kinds of policy written, each as likely as the next.
    kinds: Vec<Kind>,
    /// Label peers that look beyond the policy's namespace.
    cross_namespace: Percent,
    /// Selectors with match expressions.
    expressions: Percent,
    /// Rules whose peers are prefixes.
    cidr: Percent,
    /// Rules whose peers are entities (Cilium-style).
    entities: Percent,
    /// Rules whose peers are nodes.
    node_peers: Percent,
    /// Rules whose peers are services (Cilium-style egress).
    service_peers: Percent,
    /// Rules whose peers are DNS names (egress).
    fqdn: Percent,
    /// Rules without a restriction of ports.
    all_ports: Percent,
    /// Ports that are ranges.
    port_ranges: Percent,
    /// Ports written by name.
    named_ports: Percent,
    /// Ports of protocols other than TCP.
    other_protocols: Percent,
    /// Rules over ICMP types (Cilium-style).
    icmp: Percent,
    /// Port rules with L7 rules, server names or a listener (Cilium-style).
    l7: Percent,
    /// Allow rules that ask for authentication (Cilium-style).
    authentication: Percent,
    /// Deny sections (Cilium-style) and Deny or Pass actions (tiers).
    deny: Percent,
    /// Policies that set `enableDefaultDeny`.
    default_deny_set: Percent,
    /// Pods on the node's own network.
    host_network: Percent,
    /// Pods with an address of one family only.
    single_stack: Percent,
    /// Pods that stand for the outside.
    external: Percent,
    /// Pods whose addresses the manifest gives.
    given_addresses: Percent,
    /// Corner cases: empty lists, rules that select nothing, unknown peers, missing groups, labels of odd sources.
    corners: Percent,
}

impl Parameters {
    /// Small worlds of every kind, for differential tests.
    #[must_use]
    pub fn small() -> Self {
        Self {
            namespaces: 1..=3,
            nodes: 0..=3,
            workloads: 1..=5,
            pods: 2..=7,
            services: 0..=3,
            cidr_groups: 0..=3,
            policies: 1..=6,
            queries: 20..=40,
            rules: 1..=3,
            peers: 1..=2,
            ports: 1..=3,
            labels: 0..=3,
            label_values: 2,
            random_prefixes: 0,
            kinds: Kind::ALL.to_vec(),
            cross_namespace: 40,
            expressions: 35,
            cidr: 20,
            entities: 12,
            node_peers: 6,
            service_peers: 8,
            fqdn: 6,
            all_ports: 40,
            port_ranges: 25,
            named_ports: 20,
            other_protocols: 35,
            icmp: 12,
            l7: 15,
            authentication: 6,
            deny: 35,
            default_deny_set: 20,
            host_network: 10,
            single_stack: 15,
            external: 5,
            given_addresses: 50,
            corners: 8,
        }
    }

    /// Small worlds of several kinds: the broad one first, then ones that dwell on what is rare there.
    #[must_use]
    pub fn small_worlds() -> [Self; 3] {
        [
            Self::small(),
            Self::small_with_proxies(),
            Self::small_with_tiers(),
        ]
    }

    /// Small worlds whose policies ask for proxies and authentication wherever they can, so that such rules meet.
    fn small_with_proxies() -> Self {
        Self {
            namespaces: 1..=2,
            pods: 2..=4,
            kinds: vec![
                Kind::SluiceNetworkPolicy,
                Kind::CiliumClusterwideNetworkPolicy,
                Kind::NetworkPolicy,
            ],
            labels: 0..=1,
            all_ports: 10,
            port_ranges: 15,
            l7: 65,
            authentication: 20,
            deny: 10,
            cidr: 10,
            corners: 3,
            ..Self::small()
        }
    }

    /// Small worlds in which the tiers decide most.
    fn small_with_tiers() -> Self {
        Self {
            pods: 2..=5,
            kinds: vec![
                Kind::ClusterNetworkPolicy,
                Kind::AdminNetworkPolicy,
                Kind::BaselineAdminNetworkPolicy,
                Kind::NetworkPolicy,
                Kind::SluiceNetworkPolicy,
            ],
            labels: 0..=2,
            deny: 45,
            fqdn: 12,
            ..Self::small()
        }
    }

    /// A large cluster of plain policies, for benchmarks: this many policies over this many identities and pods, label peers with
    /// some prefixes and ranges, nothing that asks for a proxy.
    #[must_use]
    pub fn scale(policies: u32, workloads: u32, pods: u32) -> Self {
        Self {
            namespaces: exactly((workloads / 20).max(1)),
            nodes: exactly((pods / 100).max(1)),
            workloads: exactly(workloads),
            pods: exactly(pods),
            services: 0..=0,
            cidr_groups: 0..=0,
            policies: exactly(policies),
            queries: exactly(10_000),
            rules: 1..=2,
            peers: 1..=2,
            ports: 1..=2,
            labels: 2..=3,
            label_values: (workloads / 20).clamp(4, 500),
            random_prefixes: (policies / 4).max(1),
            kinds: vec![Kind::NetworkPolicy, Kind::SluiceNetworkPolicy],
            cross_namespace: 30,
            expressions: 10,
            cidr: 10,
            entities: 3,
            node_peers: 0,
            service_peers: 0,
            fqdn: 0,
            all_ports: 25,
            port_ranges: 10,
            named_ports: 5,
            other_protocols: 15,
            icmp: 0,
            l7: 0,
            authentication: 0,
            deny: 10,
            default_deny_set: 0,
            host_network: 0,
            single_stack: 0,
            external: 0,
            given_addresses: 100,
            corners: 0,
        }
    }
}

/// A range of one number.
fn exactly(number: u32) -> RangeInclusive<u32> {
    number..=number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_printed() {
        let text = Parameters::small().to_string();
        for name in [
            "namespaces=1..=3",
            "corners=8",
            "cross_namespace=40",
            "kinds=[",
        ] {
            assert!(text.contains(name), "{name} is missing from: {text}");
        }
    }
}
