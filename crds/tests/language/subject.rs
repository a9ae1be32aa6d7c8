//! Subjects, sections, what is empty and what is missing, and how mistakes are reported.

use super::*;

#[test]
fn subject_and_sections() {
    refuse(
        "SluiceNetworkPolicy",
        &[
            ("no subject", "ingress: [{}]".into(), "spec", "no subject"),
            (
                "both subjects",
                "endpointSelector: {}\nnodeSelector: {}\ningress: [{}]".into(),
                "spec",
                "exclude each other",
            ),
            (
                "nodeSelector in a namespace",
                "nodeSelector: {}\ningress: [{}]".into(),
                "spec.nodeSelector",
                "cluster-wide kind",
            ),
            (
                "no section",
                "endpointSelector: {}".into(),
                "spec",
                "no rule",
            ),
            (
                "only empty sections",
                "endpointSelector: {}\ningress: []\negress: []".into(),
                "spec",
                "no rule",
            ),
            (
                "log of 33 characters",
                format!("{}\nlog: {{value: {}}}", ingress("{}"), "x".repeat(33)),
                "spec.log.value",
                "32",
            ),
            (
                "wrong type of default deny",
                format!(
                    "{}\nenableDefaultDeny: {{ingress: \"true\"}}",
                    ingress("{}")
                ),
                "spec.enableDefaultDeny.ingress",
                "boolean",
            ),
        ],
    );
    accept(
        "SluiceClusterwideNetworkPolicy",
        &[(
            "nodeSelector cluster-wide",
            "nodeSelector: {}\ningress: [{}]".into(),
        )],
    );
    accept(
        "SluiceNetworkPolicy",
        &[
            (
                "log of 32 characters",
                format!("{}\nlog: {{value: {}}}", ingress("{}"), "ä".repeat(32)),
            ),
            (
                "an empty section beside a filled one",
                format!("{}\negress: []", ingress("{}")),
            ),
            (
                "labels and description",
                format!(
                    "{}\nlabels: [{{key: a, value: b, source: k8s}}]\ndescription: words",
                    ingress("{}")
                ),
            ),
        ],
    );
    refuse(
        "SluiceClusterwideNetworkPolicy",
        &[(
            "http in a host policy",
            "nodeSelector: {}\ningress:\n- toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{}]}}]".into(),
            "spec.ingress[0].toPorts[0].rules",
            "host policy",
        )],
    );
}

#[test]
fn default_deny() {
    let spec = |text: &str| one(text).specs.remove(0);
    let both = |text: &str| {
        (
            spec(text).default_denies_ingress(),
            spec(text).default_denies_egress(),
        )
    };
    assert_eq!(
        both(&ingress("{}")),
        (true, false),
        "`- {{}}` makes its direction default-deny"
    );
    assert_eq!(
        both(&section("egressDeny", "{}")),
        (false, true),
        "deny rules alone too"
    );
    assert_eq!(
        both(&format!("{}\negress: []", ingress("{}"))),
        (true, false),
        "an empty section does not"
    );
    assert_eq!(
        both(&format!(
            "{}\nenableDefaultDeny: {{ingress: false, egress: true}}",
            ingress("{}")
        )),
        (false, true)
    );
}

#[test]
fn cilium_kinds_read_the_same() {
    for (version, kind) in [
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
    ] {
        let text = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: p}}\nspecs:\n- endpointSelector: {{}}\n  ingress: [{{}}]\n- endpointSelector: {{}}\n  egress: [{{}}]\n"
        );
        let (objects, problems) = read("p.yaml", &text);
        assert!(problems.is_empty(), "{problems:#?}");
        let [Object::Policy(policy)] = objects.as_slice() else {
            panic!("{objects:?}")
        };
        assert_eq!(policy.specs.len(), 2);
        assert_eq!(
            policy.origin.namespace.as_deref(),
            (kind == "CiliumNetworkPolicy").then_some("default")
        );
    }
}

#[test]
fn unknown_fields_and_types() {
    refuse(
        "SluiceNetworkPolicy",
        &[
            (
                "misspelled field",
                ingress("{fromEndpoint: [{}]}"),
                "spec.ingress[0].fromEndpoint",
                "did you mean \"fromEndpoints\"?",
            ),
            (
                "unknown field",
                ingress("{whatever: 1}"),
                "spec.ingress[0].whatever",
                "unknown field",
            ),
            (
                "unknown field in a selector",
                ingress("fromEndpoints: [{app: web}]"),
                "spec.ingress[0].fromEndpoints[0].app",
                "unknown field",
            ),
            (
                "map for a list",
                "endpointSelector: {}\ningress: {fromEntities: [all]}".into(),
                "spec.ingress",
                "dash",
            ),
        ],
    );
}

#[test]
fn every_mistake_is_reported() {
    let text = policy(
        "SluiceNetworkPolicy",
        "endpointSelector: {}\ningress:\n- fromEntitys: [all]\n- fromCIDR: [10.0.0.0/99, x]\n  toPort: []\n- toPorts: [{ports: [{port: \"9\", endPort: 8}, {port: \"70000\"}]}]",
    );
    let (objects, problems) = read("p.yaml", &text);
    let paths: Vec<(usize, &str)> = problems
        .iter()
        .map(|problem| (problem.line, problem.path.as_str()))
        .collect();
    assert!(objects.is_empty());
    assert_eq!(
        paths,
        [
            (7, "spec.ingress[0].fromEntitys"),
            (8, "spec.ingress[1].fromCIDR[0]"),
            (8, "spec.ingress[1].fromCIDR[1]"),
            (9, "spec.ingress[1].toPort"),
            (10, "spec.ingress[2].toPorts[0].ports[0].endPort"),
            (10, "spec.ingress[2].toPorts[0].ports[1].port"),
        ]
        .map(|(line, path)| (line, path)),
        "{problems:#?}"
    );
}

#[test]
fn empty_and_missing() {
    let rule = |rule: &str| {
        one(&ingress(rule)).specs[0]
            .ingress
            .clone()
            .unwrap()
            .remove(0)
    };
    assert_eq!(rule("{}").peer, Peer::Nothing, "`- {{}}` selects nothing");
    assert_eq!(
        rule("authentication: {mode: disabled}").peer,
        Peer::Nothing,
        "authentication is no peer"
    );
    assert_eq!(
        rule("{toPorts: [], icmps: []}").peer,
        Peer::Nothing,
        "empty toPorts and icmps count as none"
    );
    assert_eq!(
        rule("toPorts: [{ports: [{port: \"80\"}]}]").peer,
        Peer::Any,
        "no peer but toPorts: any"
    );
    assert_eq!(
        rule("icmps: [{fields: [{type: 8}]}]").peer,
        Peer::Any,
        "no peer but icmps: any"
    );
    assert_eq!(
        rule("{fromEndpoints: [], toPorts: [{ports: [{port: \"80\"}]}]}").peer,
        Peer::Endpoints(Vec::new()),
        "empty list: nothing"
    );
    assert_eq!(rule("{fromCIDR: []}").peer, Peer::Cidrs(Vec::new()));
    assert_eq!(
        rule("{fromEndpoints: null}").peer,
        Peer::Nothing,
        "null is missing"
    );
    assert!(
        matches!(rule("fromEndpoints: [{}]").peer, Peer::Endpoints(list) if list.len() == 1 && list[0].is_empty())
    );
    assert_eq!(
        rule("icmps: [{fields: []}]").l4,
        L4::Icmps(Vec::new()),
        "no type: no ICMP at all"
    );
    assert_eq!(rule("fromEntities: [all]").l4, L4::All);
}

#[test]
fn the_subject_is_always_in_the_policys_namespace() {
    let spec = "endpointSelector:\n  matchLabels: {\"k8s:io.kubernetes.pod.namespace\": bank, app: web}\ningress:\n- fromEndpoints: [{}]";
    let (objects, problems) = read("p.yaml", &policy("SluiceNetworkPolicy", spec));
    assert_eq!(problems.len(), 1, "{problems:?}");
    let text = problems[0].to_string();
    for words in [
        "spec.endpointSelector.matchLabels",
        "is read as `shop`",
        "cluster-wide",
    ] {
        assert!(text.contains(words), "{text}");
    }
    let own = "endpointSelector: {matchLabels: {app: web}}\ningress:\n- fromEndpoints: [{}]";
    let (expected, _) = read("p.yaml", &policy("SluiceNetworkPolicy", own));
    assert_eq!(
        format!("{objects:?}"),
        format!("{expected:?}"),
        "the foreign namespace is gone"
    );
    let (_, problems) = read("p.yaml", &policy("SluiceClusterwideNetworkPolicy", spec));
    assert!(
        problems.is_empty(),
        "a cluster-wide policy may name a namespace: {problems:?}"
    );
}
