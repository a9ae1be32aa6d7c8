//! `NetworkPolicy` and the `policy.networking.k8s.io` kinds: what is refused, what fails closed, what the defaults are.
#![allow(
    clippy::too_many_lines,
    clippy::items_after_statements,
    reason = "tables are long, and their words stand beside them"
)]

use sluice_crds::manifest::{Object, Problem, read};
use sluice_crds::parsed::{
    Action, NetworkPeer, NetworkPolicy, PortSpec, Priority, Tier, TierPeer, TierPolicy, TierPort,
    Transport,
};
use sluice_crds::validate::Severity;

fn object(api_version: &str, kind: &str, name: &str, spec: &str) -> (Option<Object>, Vec<Problem>) {
    let text = format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    );
    let (objects, problems) = read("u.yaml", &text);
    (objects.into_iter().next(), problems)
}

fn network(spec: &str) -> Result<NetworkPolicy, Vec<Problem>> {
    match object("networking.k8s.io/v1", "NetworkPolicy", "p", spec) {
        (Some(Object::NetworkPolicy(policy)), _) => Ok(policy),
        (_, problems) => Err(problems),
    }
}

fn tier(kind: &str, name: &str, spec: &str) -> Result<(TierPolicy, Vec<Problem>), Vec<Problem>> {
    let version = if kind == "ClusterNetworkPolicy" {
        "v1alpha2"
    } else {
        "v1alpha1"
    };
    match object(
        &format!("policy.networking.k8s.io/{version}"),
        kind,
        name,
        spec,
    ) {
        (Some(Object::TierPolicy(policy)), problems) => Ok((policy, problems)),
        (_, problems) => Err(problems),
    }
}

fn cnp(rules: &str) -> Result<(TierPolicy, Vec<Problem>), Vec<Problem>> {
    tier(
        "ClusterNetworkPolicy",
        "p",
        &format!("{{tier: Admin, priority: 10, subject: {{namespaces: {{}}}}, {rules}}}"),
    )
}

fn anp(rules: &str) -> Result<(TierPolicy, Vec<Problem>), Vec<Problem>> {
    tier(
        "AdminNetworkPolicy",
        "p",
        &format!("{{priority: 10, subject: {{namespaces: {{}}}}, {rules}}}"),
    )
}

/// The one error, by path and words.
fn assert_refused<T: std::fmt::Debug>(
    name: &str,
    result: Result<T, Vec<Problem>>,
    path: &str,
    words: &str,
) {
    let problems = result.expect_err(name);
    let errors: Vec<&Problem> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .collect();
    assert_eq!(errors.len(), 1, "{name}: {errors:#?}");
    assert_eq!(errors[0].path, path, "{name}: {errors:#?}");
    assert!(errors[0].message.contains(words), "{name}: {errors:#?}");
}

#[test]
fn network_policy_types() {
    let directions = |spec: &str| {
        let policy = network(spec).unwrap();
        (
            policy.ingress.map(|rules| rules.len()),
            policy.egress.map(|rules| rules.len()),
        )
    };
    assert_eq!(
        directions("{podSelector: {}}"),
        (Some(0), None),
        "absent policyTypes: ingress"
    );
    assert_eq!(
        directions("{podSelector: {}, egress: [{}]}"),
        (Some(0), Some(1)),
        "plus egress where egress rules exist"
    );
    assert_eq!(
        directions("{podSelector: {}, egress: []}"),
        (Some(0), None),
        "an empty list is no rule"
    );
    assert_eq!(
        directions("{podSelector: {}, policyTypes: [Egress]}"),
        (None, Some(0)),
        "one direction leaves the other alone"
    );
    assert_eq!(
        directions("{}"),
        (Some(0), None),
        "podSelector may be left out"
    );
}

#[test]
fn network_policy_peers_and_ports() {
    let rule = |text: &str| {
        network(&format!("{{podSelector: {{}}, ingress: [{text}]}}"))
            .unwrap()
            .ingress
            .unwrap()
            .remove(0)
    };
    assert_eq!(
        (rule("{}").peers, rule("{}").ports),
        (None, None),
        "missing: anyone, everything"
    );
    assert_eq!(
        (
            rule("{from: [], ports: []}").peers,
            rule("{from: [], ports: []}").ports
        ),
        (None, None),
        "empty: the same"
    );
    let peers = rule("{from: [{podSelector: {}}, {namespaceSelector: {}}, {ipBlock: {cidr: \"fd00::1/8\", except: [\"fd00::/16\"]}}]}").peers.unwrap();
    assert!(
        matches!(
            &peers[0],
            NetworkPeer::Pods {
                namespaces: None,
                ..
            }
        ),
        "own namespace"
    );
    assert!(matches!(&peers[1], NetworkPeer::Pods { namespaces: Some(all), .. } if all.is_empty()));
    assert!(
        matches!(&peers[2], NetworkPeer::IpBlock { cidr, except } if cidr.to_string() == "fd00::/8" && except.len() == 1)
    );
    let ports = rule("{ports: [{}, {port: web}, {protocol: SCTP, port: 80, endPort: 90}]}")
        .ports
        .unwrap();
    assert_eq!(
        (ports[0].transport, &ports[0].port),
        (Transport::Tcp, &PortSpec::All)
    );
    assert_eq!(ports[1].port, PortSpec::Name("web".to_owned()));
    assert!(
        matches!(ports[2].port, PortSpec::Range(range) if (range.first(), range.last()) == (80, 90))
    );
    assert_eq!(ports[2].transport, Transport::Sctp);
}

#[test]
fn network_policy_refusals() {
    let rule = |text: &str| network(&format!("{{podSelector: {{}}, ingress: [{text}]}}"));
    for (name, result, path, words) in [
        (
            "empty peer",
            rule("{from: [{}]}"),
            "spec.ingress[0].from[0]",
            "empty",
        ),
        (
            "ipBlock and podSelector",
            rule("{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}"),
            "spec.ingress[0].from[0]",
            "two peers",
        ),
        (
            "ipBlock without length",
            rule("{from: [{ipBlock: {cidr: 10.0.0.1}}]}"),
            "spec.ingress[0].from[0].ipBlock.cidr",
            "10.0.0.1/32",
        ),
        (
            "except outside",
            rule("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}"),
            "spec.ingress[0].from[0].ipBlock.except[0]",
            "not inside",
        ),
        (
            "endPort < port",
            rule("{ports: [{port: 80, endPort: 79}]}"),
            "spec.ingress[0].ports[0].endPort",
            "below",
        ),
        (
            "endPort without port",
            rule("{ports: [{endPort: 79}]}"),
            "spec.ingress[0].ports[0].endPort",
            "needs port",
        ),
        (
            "endPort with a name",
            rule("{ports: [{port: web, endPort: 79}]}"),
            "spec.ingress[0].ports[0].endPort",
            "named port",
        ),
        (
            "port 0",
            rule("{ports: [{port: 0}]}"),
            "spec.ingress[0].ports[0].port",
            "1 to 65535",
        ),
        (
            "port in quotes",
            rule("{ports: [{port: \"80\"}]}"),
            "spec.ingress[0].ports[0].port",
            "quotes",
        ),
        (
            "ICMP",
            rule("{ports: [{protocol: ICMP}]}"),
            "spec.ingress[0].ports[0].protocol",
            "SCTP",
        ),
        (
            "operator",
            network("{podSelector: {matchExpressions: [{key: a, operator: Is}]}}"),
            "spec.podSelector.matchExpressions[0].operator",
            "NotIn",
        ),
        (
            "unknown field in a peer",
            rule("{from: [{serviceAccount: {}}]}"),
            "spec.ingress[0].from[0].serviceAccount",
            "unknown field",
        ),
    ] {
        // An unknown peer field also leaves the peer empty: two findings for one slip, both true.
        if name == "unknown field in a peer" {
            assert!(
                result
                    .unwrap_err()
                    .iter()
                    .any(|problem| problem.path == path && problem.message.contains(words)),
                "{name}"
            );
        } else {
            assert_refused(name, result, path, words);
        }
    }
}

#[test]
fn cluster_network_policy() {
    let (policy, problems) = cnp(
        "ingress: [{name: a, action: Accept, from: [{namespaces: {}}, {pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 9}}}}, {destinationNamedPort: web}]}], \
         egress: [{action: Pass, to: [{networks: [10.0.0.0/8, \"fd00::/8\"]}, {nodes: {}}]}, {action: Deny, to: [{pods: {podSelector: {}}}]}]",
    )
    .unwrap();
    assert!(problems.is_empty(), "{problems:#?}");
    assert_eq!((policy.tier, policy.priority.number()), (Tier::Admin, 10));
    assert_eq!(policy.ingress[0].action, Action::Accept);
    assert_eq!(
        policy.ingress[0].ports.as_ref().unwrap()[2],
        TierPort::Named("web".to_owned())
    );
    assert_eq!(policy.egress[0].ports, None);
    assert_eq!(policy.egress.len(), 2);
    assert!(
        matches!(&policy.egress[1].peers[0], TierPeer::Pods { namespaces, .. } if namespaces.is_empty())
    );
}

#[test]
fn an_unknown_peer_fails_closed() {
    for (action, words) in [
        ("Accept", "matches nothing"),
        ("Deny", "denies all"),
        ("Pass", "denies all"),
    ] {
        for peer in ["{}", "{fromTheFuture: {a: b}}"] {
            let (policy, problems) =
                cnp(&format!("ingress: [{{action: {action}, from: [{peer}]}}]")).unwrap();
            assert_eq!(policy.ingress[0].peers, [TierPeer::Unknown]);
            assert!(policy.ingress[0].fails_closed());
            assert_eq!(problems.len(), 1);
            assert_eq!(
                (problems[0].severity, problems[0].path.as_str()),
                (Severity::Warning, "spec.ingress[0].from[0]")
            );
            assert!(problems[0].message.contains(words), "{problems:#?}");
        }
    }
    let (policy, _) = anp("ingress: [{action: Deny, from: [{networks: [10.0.0.0/8]}]}]").unwrap();
    assert_eq!(
        policy.ingress[0].peers,
        [TierPeer::Unknown],
        "networks are no ingress peer of this version"
    );
}

#[test]
fn domain_names() {
    let (policy, problems) =
        cnp("egress: [{action: Accept, to: [{domainNames: [\"*.Example.com.\", kubernetes.io]}]}]")
            .unwrap();
    let TierPeer::DomainNames(names) = &policy.egress[0].peers[0] else {
        panic!()
    };
    assert_eq!(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["**.example.com", "kubernetes.io"]
    );
    assert_eq!(problems.len(), 1, "nothing serves names yet: {problems:#?}");
    assert_refused(
        "Deny by name",
        cnp("egress: [{action: Deny, to: [{domainNames: [a.b]}]}]"),
        "spec.egress[0].to[0].domainNames",
        "allowing only",
    );
    assert_refused(
        "star inside",
        cnp("egress: [{action: Accept, to: [{domainNames: [\"a.*.b\"]}]}]"),
        "spec.egress[0].to[0].domainNames[0]",
        "`*`",
    );
}

#[test]
fn tier_policy_refusals() {
    let from = |rest: &str| {
        cnp(&format!(
            "ingress: [{{action: Accept, from: [{{namespaces: {{}}}}]{rest}}}]"
        ))
    };
    let many = vec!["{namespaces: {}}"; 26].join(", ");
    for (name, result, path, words) in [
        (
            "Allow in v1alpha2",
            cnp("ingress: [{action: Allow, from: [{namespaces: {}}]}]"),
            "spec.ingress[0].action",
            "Accept",
        ),
        (
            "Accept in v1alpha1",
            anp("ingress: [{action: Accept, from: [{namespaces: {}}]}]"),
            "spec.ingress[0].action",
            "Allow",
        ),
        (
            "no peers",
            cnp("ingress: [{action: Accept, from: []}]"),
            "spec.ingress[0].from",
            "from 1 to 25",
        ),
        (
            "26 peers",
            cnp(&format!("ingress: [{{action: Accept, from: [{many}]}}]")),
            "spec.ingress[0].from",
            "from 1 to 25",
        ),
        (
            "two peer fields",
            cnp("ingress: [{action: Accept, from: [{namespaces: {}, pods: {podSelector: {}}}]}]"),
            "spec.ingress[0].from[0]",
            "exactly one",
        ),
        (
            "known and unknown peer field",
            cnp("ingress: [{action: Accept, from: [{namespaces: {}, pod: {}}]}]"),
            "spec.ingress[0].from[0]",
            "pod",
        ),
        (
            "empty protocol",
            from(", protocols: [{}]"),
            "spec.ingress[0].protocols[0]",
            "exactly one",
        ),
        (
            "no protocols",
            from(", protocols: []"),
            "spec.ingress[0].protocols",
            "from 1 to 25",
        ),
        (
            "protocol without port",
            from(", protocols: [{tcp: {}}]"),
            "spec.ingress[0].protocols[0].tcp.destinationPort",
            "missing",
        ),
        (
            "range upside down",
            from(", protocols: [{tcp: {destinationPort: {range: {start: 9, end: 8}}}}]"),
            "spec.ingress[0].protocols[0].tcp.destinationPort.range.end",
            "below",
        ),
        (
            "port 0",
            from(", protocols: [{tcp: {destinationPort: {number: 0}}}]"),
            "spec.ingress[0].protocols[0].tcp.destinationPort.number",
            "1 to 65535",
        ),
        (
            "named port to networks",
            cnp(
                "egress: [{action: Accept, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]}]",
            ),
            "spec.egress[0]",
            "named ports",
        ),
        (
            "network without length",
            cnp("egress: [{action: Accept, to: [{networks: [10.0.0.1]}]}]"),
            "spec.egress[0].to[0].networks[0]",
            "10.0.0.1/32",
        ),
        (
            "priority",
            tier(
                "AdminNetworkPolicy",
                "p",
                "{priority: 1001, subject: {namespaces: {}}}",
            ),
            "spec.priority",
            "0 to 1000",
        ),
        (
            "no subject",
            tier("AdminNetworkPolicy", "p", "{priority: 1, subject: {}}"),
            "spec.subject",
            "exactly one",
        ),
        (
            "tier",
            tier(
                "ClusterNetworkPolicy",
                "p",
                "{tier: Middle, priority: 1, subject: {namespaces: {}}}",
            ),
            "spec.tier",
            "Baseline",
        ),
        (
            "Pass in a baseline",
            tier(
                "BaselineAdminNetworkPolicy",
                "default",
                "{subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}",
            ),
            "spec.ingress[0].action",
            "Allow, Deny",
        ),
        (
            "baseline of another name",
            tier(
                "BaselineAdminNetworkPolicy",
                "other",
                "{subject: {namespaces: {}}}",
            ),
            "metadata.name",
            "default",
        ),
        (
            "long rule name",
            cnp(&format!(
                "ingress: [{{name: {}, action: Accept, from: [{{namespaces: {{}}}}]}}]",
                "n".repeat(101)
            )),
            "spec.ingress[0].name",
            "100",
        ),
    ] {
        assert_refused(name, result, path, words);
    }
}

#[test]
fn admin_network_policies() {
    let (policy, problems) = anp(
        "egress: [{action: Allow, to: [{pods: {namespaceSelector: {}, podSelector: {}}}], ports: [{portNumber: {port: 80}}, {portRange: {protocol: UDP, start: 5, end: 9}}, {namedPort: web}]}]",
    )
    .unwrap();
    assert!(problems.is_empty(), "{problems:#?}");
    assert_eq!(policy.egress[0].action, Action::Accept);
    assert!(matches!(
        policy.egress[0].ports.as_ref().unwrap()[0],
        TierPort::Range {
            transport: Transport::Tcp,
            ..
        }
    ));
    let (baseline, _) = tier(
        "BaselineAdminNetworkPolicy",
        "default",
        "{subject: {pods: {namespaceSelector: {}, podSelector: {}}}}",
    )
    .unwrap();
    assert_eq!(
        (baseline.tier, baseline.priority),
        (Tier::Baseline, Priority::BASELINE_ADMIN)
    );
}

#[test]
fn cidr_groups() {
    for (api_version, kind) in [
        ("sluice.io/v1", "SluiceCIDRGroup"),
        ("cilium.io/v2", "CiliumCIDRGroup"),
        ("cilium.io/v2alpha1", "CiliumCIDRGroup"),
    ] {
        let (group, problems) = object(
            api_version,
            kind,
            "g",
            "{externalCIDRs: [10.1.2.3/8, \"fd00::1\"]}",
        );
        assert!(problems.is_empty(), "{problems:#?}");
        let Some(Object::CidrGroup(group)) = group else {
            panic!("{group:?}")
        };
        assert_eq!(
            group
                .cidrs
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["10.0.0.0/8", "fd00::1/128"]
        );
        let (group, problems) = object(api_version, kind, "g", "{externalCIDRs: [x]}");
        assert!(group.is_none());
        assert_eq!(problems[0].path, "spec.externalCIDRs[0]");
    }
}
