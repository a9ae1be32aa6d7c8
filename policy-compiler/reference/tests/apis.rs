//! The other corners of the three APIs: what their texts say beside what trips people.

mod common;

use common::{anp, banp, cnp, np, scene, scnp, snp, snp_named};
use sluice_world::Mode;

const WEB: &str = "endpointSelector: {matchLabels: {app: web}}";
const NO: &str = "denied default-deny";

#[test]
fn network_policy_types() {
    let ingress_only = scene(&[np("podSelector: {matchLabels: {app: web}}")]);
    ingress_only.ingress("shop/db shop/web TCP/80", NO);
    ingress_only.egress("shop/web shop/db TCP/80", "allowed default-allow");
    ingress_only.ingress("shop/db bank/teller TCP/80", "allowed default-allow");
    let both = scene(&[np(
        "podSelector: {}, ingress: [{}], egress: [{to: [{podSelector: {}}]}]",
    )]);
    both.ingress("ip:8.8.8.8 shop/web TCP/80", "allowed rule np ingress[0]");
    both.ingress("node:n2 shop/web ICMP/8", "allowed rule np ingress[0]");
    both.egress("shop/web shop/db TCP/80", "allowed rule np egress[0]");
    both.egress("shop/web ip:8.8.8.8 TCP/80", NO);
    both.egress("shop/web shop/hostnet TCP/80", NO);
}

#[test]
fn network_policy_peers() {
    let yes = "allowed rule np ingress[0]";
    for (from, db, teller, far, node) in [
        ("[]", yes, yes, yes, yes),
        ("[{podSelector: {}}]", yes, NO, NO, NO),
        ("[{podSelector: {matchLabels: {app: web}}}]", NO, NO, NO, NO),
        ("[{namespaceSelector: {}}]", yes, yes, yes, NO),
        (
            "[{namespaceSelector: {matchLabels: {team: blue}}}]",
            NO,
            yes,
            yes,
            NO,
        ),
        (
            "[{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: web}}}]",
            NO,
            yes,
            NO,
            NO,
        ),
        (
            "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: bank}}}]",
            NO,
            yes,
            yes,
            NO,
        ),
        (
            "[{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [red]}]}}]",
            NO,
            yes,
            yes,
            NO,
        ),
        (
            "[{podSelector: {matchExpressions: [{key: none, operator: NotIn, values: [x]}]}}]",
            yes,
            NO,
            NO,
            NO,
        ),
        (
            "[{podSelector: {matchExpressions: [{key: none, operator: DoesNotExist}]}}]",
            yes,
            NO,
            NO,
            NO,
        ),
        (
            "[{podSelector: {matchLabels: {app: db}}}, {ipBlock: {cidr: 10.2.0.0/16}}, {ipBlock: {cidr: 'fd00:2::/64'}}]",
            yes,
            NO,
            yes,
            NO,
        ),
    ] {
        let scene = scene(&[np(&format!(
            "podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: {from}}}]"
        ))]);
        scene.ingress("shop/db shop/web TCP/80", db);
        scene.ingress("bank/teller shop/web TCP/80", teller);
        scene.ingress("bank/far shop/web TCP/80", far);
        scene.ingress("node:n2 shop/web TCP/80", node);
    }
}

#[test]
fn network_policy_ports() {
    let ports = "ports: [{port: 80}, {port: 100, endPort: 110, protocol: UDP}, {protocol: SCTP}, {port: http}]";
    let scene = scene(&[np(&format!(
        "podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{{ports}}}]"
    ))]);
    let yes = "allowed rule np ingress[0]";
    scene.ingress_table(&[
        ("shop/db shop/web TCP/80", yes),
        ("shop/db shop/web UDP/80", NO),
        ("shop/db shop/web UDP/100", yes),
        ("shop/db shop/web UDP/110", yes),
        ("shop/db shop/web UDP/111", NO),
        ("shop/db shop/web SCTP/0", yes),
        ("shop/db shop/web TCP/8080", yes),
        ("shop/db shop/web ICMP/8", NO),
    ]);
}

#[test]
fn network_policy_and_cilium_style_stand_in_one_tier() {
    let scene = scene(&[
        np("podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]"),
        snp(&format!(
            "{WEB}, ingressDeny: [{{toPorts: [{{ports: [{{port: '22', protocol: TCP}}]}}]}}]"
        )),
    ]);
    scene.ingress("shop/db shop/web TCP/22", "denied rule p ingressDeny[0]");
    scene.ingress("shop/db shop/web TCP/80", "allowed rule np ingress[0]");
    scene.ingress("node:n1 shop/web TCP/22", "denied rule p ingressDeny[0]");
}

fn admin(name: &str, priority: u16, rules: &str) -> String {
    cnp(
        name,
        &format!("tier: Admin, priority: {priority}, subject: {{namespaces: {{}}}}, {rules}"),
    )
}

const FROM_BANK: &str = "from: [{namespaces: {matchLabels: {team: blue}}}]";

#[test]
fn tiers_are_asked_in_order() {
    let deny = format!("ingress: [{{action: Deny, {FROM_BANK}}}]");
    let pass = format!("ingress: [{{action: Pass, {FROM_BANK}}}]");
    let accept = format!("ingress: [{{action: Accept, {FROM_BANK}}}]");
    let namespaced = snp(&format!(
        "{WEB}, ingressDeny: [{{fromEntities: [cluster]}}]"
    ));
    let ask = |objects: &[String], expected: &str| {
        scene(objects).ingress("bank/far shop/web TCP/80", expected);
    };
    ask(
        &[admin("a", 10, &accept), namespaced.clone()],
        "allowed rule a ingress[0]",
    );
    ask(
        &[admin("a", 10, &accept), admin("b", 9, &deny)],
        "denied rule b ingress[0]",
    );
    ask(
        &[admin("a", 10, &accept), admin("b", 10, &deny)],
        "allowed rule a ingress[0]",
    );
    ask(
        &[
            admin("a", 9, &pass),
            admin("b", 10, &accept),
            namespaced.clone(),
        ],
        "denied rule p ingressDeny[0]",
    );
    ask(
        &[admin("a", 9, &pass), admin("b", 10, &deny)],
        "allowed default-allow",
    );
    let baseline = cnp(
        "z",
        &format!("tier: Baseline, priority: 1, subject: {{namespaces: {{}}}}, {deny}"),
    );
    ask(std::slice::from_ref(&baseline), "denied rule z ingress[0]");
    ask(&[baseline.clone(), np("podSelector: {}")], NO);
    ask(
        &[baseline.clone(), np("podSelector: {}, ingress: [{}]")],
        "allowed rule np ingress[0]",
    );
    ask(
        &[baseline.clone(), admin("a", 9, &pass)],
        "denied rule z ingress[0]",
    );
    let off = snp(&format!(
        "{WEB}, enableDefaultDeny: {{ingress: false}}, ingress: [{{fromEntities: [world]}}]"
    ));
    ask(&[baseline.clone(), off], "denied rule z ingress[0]");
    scene(std::slice::from_ref(&baseline))
        .mode(Mode::Always)
        .ingress("bank/far shop/web TCP/80", "denied mode");
    scene(&[admin("a", 1, &accept)])
        .mode(Mode::Always)
        .ingress("bank/far shop/web TCP/80", "allowed rule a ingress[0]");
}

#[test]
fn baseline_admin_comes_after_every_baseline() {
    let old = banp(&format!(
        "subject: {{namespaces: {{}}}}, ingress: [{{action: Deny, {FROM_BANK}}}]"
    ));
    let new = cnp(
        "zz",
        &format!(
            "tier: Baseline, priority: 1000, subject: {{namespaces: {{}}}}, ingress: [{{action: Accept, {FROM_BANK}}}]"
        ),
    );
    scene(std::slice::from_ref(&old))
        .ingress("bank/far shop/web TCP/80", "denied rule default ingress[0]");
    scene(&[old, new]).ingress("bank/far shop/web TCP/80", "allowed rule zz ingress[0]");
}

#[test]
fn admin_network_policy_precedes_cluster_network_policy_at_one_priority() {
    let old = anp(
        "z",
        &format!(
            "priority: 5, subject: {{namespaces: {{}}}}, ingress: [{{action: Deny, {FROM_BANK}}}]"
        ),
    );
    let new = admin(
        "a",
        5,
        &format!("ingress: [{{action: Accept, {FROM_BANK}}}]"),
    );
    scene(&[old, new]).ingress("bank/far shop/web TCP/80", "denied rule z ingress[0]");
}

#[test]
fn tier_subjects_and_first_match_within_a_policy() {
    let scene = scene(&[cnp(
        "a",
        "tier: Admin, priority: 5, subject: {pods: {namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: web}}}},
         ingress: [{action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: far}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
                   {action: Deny, from: [{namespaces: {}}]}]",
    )]);
    scene.ingress_table(&[
        ("bank/far shop/web TCP/80", "allowed rule a ingress[0]"),
        ("bank/far shop/web TCP/81", "denied rule a ingress[1]"),
        ("bank/far shop/web ICMP/8", "denied rule a ingress[1]"),
        ("bank/teller shop/web TCP/80", "denied rule a ingress[1]"),
        ("bank/far shop/db TCP/81", "allowed default-allow"),
        ("bank/far bank/teller TCP/81", "allowed default-allow"),
        ("ip:8.8.8.8 shop/web TCP/81", "allowed default-allow"),
        ("node:n1 shop/web TCP/81", "allowed local-host"),
    ]);
}

#[test]
fn tier_egress_peers() {
    let rules = "egress: [
        {action: Deny, to: [{nodes: {matchLabels: {zone: b}}}]},
        {action: Deny, to: [{networks: [10.2.0.0/16, 'fd00:2::/64', 9.9.9.0/24]}]},
        {action: Accept, to: [{domainNames: ['*.a.b']}]},
        {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}]";
    let scene = scene(&[admin("a", 1, rules)]).learned(
        r#"{"y.x.a.b":["203.0.113.1","2001:db8::1"],"a.b":["203.0.113.2","2001:db8::2"]}"#,
    );
    scene.egress_table(&[
        ("shop/web node:n2 TCP/80", "denied rule a egress[0]"),
        ("bank/far node:n2 TCP/80", "denied rule a egress[0]"),
        ("shop/web bank/far TCP/80", "denied rule a egress[1]"),
        ("shop/web ip:9.9.9.9 TCP/80", "denied rule a egress[1]"),
        ("shop/web ip:203.0.113.1 TCP/80", "allowed rule a egress[2]"),
        ("shop/web ip:2001:db8::1 TCP/80", "allowed rule a egress[2]"),
        ("shop/web ip:203.0.113.2 TCP/80", "denied rule a egress[3]"),
        ("shop/web node:n1 TCP/80", "denied rule a egress[3]"),
        ("shop/web shop/db TCP/80", "denied rule a egress[3]"),
    ]);
}

#[test]
fn tier_named_ports() {
    let scene = scene(&[admin(
        "a",
        1,
        "ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}]",
    )]);
    scene.ingress_table(&[
        ("shop/db shop/web TCP/8080", "denied rule a ingress[0]"),
        ("shop/db shop/web UDP/8080", "allowed default-allow"),
        ("shop/web shop/db TCP/8080", "allowed default-allow"),
        ("shop/web shop/db TCP/5432", "denied rule a ingress[0]"),
    ]);
}

#[test]
fn a_tier_peer_that_is_not_understood_fails_closed() {
    let ports = "protocols: [{tcp: {destinationPort: {number: 80}}}]";
    let with = |action: &str| {
        scene(&[admin(
            "a",
            1,
            &format!(
                "ingress: [{{action: {action}, from: [{{}}, {{namespaces: {{}}}}], {ports}}}]"
            ),
        )])
    };
    with("Accept").ingress("bank/far shop/web TCP/80", "allowed default-allow");
    for action in ["Deny", "Pass"] {
        with(action).ingress("bank/far shop/web TCP/80", "denied rule a ingress[0]");
        with(action).ingress("node:n1 shop/web UDP/1", "denied rule a ingress[0]");
    }
}

#[test]
fn default_deny_follows_rules_not_sections() {
    let empty = scene(&[snp(&format!(
        "{WEB}, ingress: [], egress: [{{toEntities: [world]}}]"
    ))]);
    empty.ingress("shop/db shop/web TCP/80", "allowed default-allow");
    empty.egress("shop/web shop/db TCP/80", NO);
    let forced = scene(&[snp(&format!(
        "{WEB}, enableDefaultDeny: {{ingress: true}}, egress: [{{toEntities: [world]}}]"
    ))]);
    forced.ingress("shop/db shop/web TCP/80", NO);
    forced.ingress("node:n1 shop/web TCP/80", "allowed local-host");
    let off = scene(&[
        snp(&format!(
            "{WEB}, enableDefaultDeny: {{ingress: false}}, ingress: [{{fromEntities: [world]}}]"
        )),
        snp_named(
            "q",
            &format!("{WEB}, ingress: [{{fromEntities: [remote-node]}}]"),
        ),
    ]);
    off.ingress("shop/db shop/web TCP/80", NO);
    off.ingress("ip:8.8.8.8 shop/web TCP/80", "allowed rule p ingress[0]");
}

#[test]
fn specs_are_counted_after_spec() {
    let object = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: m, namespace: shop}\n";
    let first = format!("{{{WEB}, ingress: [{{fromEntities: [world]}}]}}");
    let second = format!("{{{WEB}, ingress: [{{}}, {{fromEndpoints: [{{}}]}}]}}");
    scene(&[format!("{object}specs: [{first}, {second}]")]).ingress(
        "shop/db shop/web TCP/80",
        "allowed rule m specs[1].ingress[1]",
    );
    scene(&[format!("{object}spec: {second}\nspecs: [{first}]")]).ingress(
        "ip:8.8.8.8 shop/web TCP/80",
        "allowed rule m specs[1].ingress[0]",
    );
    scene(&[format!("{object}spec: {second}\nspecs: [{first}]")])
        .ingress("shop/db shop/web TCP/80", "allowed rule m ingress[1]");
}

#[test]
fn the_first_of_several_rules_by_name_decides() {
    let world = "ingress: [{fromEntities: [all]}]";
    let scene = scene(&[
        snp_named("b", &format!("{WEB}, {world}")),
        snp_named("a", &format!("{WEB}, {world}")),
        scnp(&format!("{WEB}, {world}")),
        np("podSelector: {}, ingress: [{}]"),
    ]);
    // By kind first: NetworkPolicy, SluiceClusterwideNetworkPolicy, SluiceNetworkPolicy.
    scene.ingress("shop/db shop/web TCP/80", "allowed rule np ingress[0]");
    scene.ingress("shop/db bank/teller TCP/80", "allowed rule c ingress[0]");
}

#[test]
fn nodes_by_label_are_remote_nodes() {
    let scene = scene(&[snp(&format!(
        "{WEB}, egress: [{{toNodes: [{{matchExpressions: [{{key: zone, operator: In, values: [a, b]}}]}}]}}]"
    ))]);
    scene.egress_table(&[
        ("shop/web node:n2 TCP/80", "allowed rule p egress[0]"),
        ("shop/web node:n3 TCP/80", NO),
        ("shop/web node:n1 TCP/80", NO),
        ("shop/web bank/far TCP/80", NO),
    ]);
}

#[test]
fn services_with_and_without_selector() {
    let objects = |rule: &str| {
        [
            snp(&format!("{WEB}, egress: [{{toServices: [{rule}]}}]")),
            "{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop, labels: {kind: inner}}, spec: {selector: {app: db}}}".to_owned(),
            "{apiVersion: v1, kind: Service, metadata: {name: ext, namespace: bank, labels: {kind: outer}}}".to_owned(),
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e, namespace: bank, labels: {kubernetes.io/service-name: ext}},
              addressType: IPv4, endpoints: [{addresses: [203.0.113.9, 10.2.0.10]}]}".to_owned(),
        ]
    };
    let yes = "allowed rule p egress[0]";
    for (rule, db, far, outside) in [
        ("{k8sService: {serviceName: db}}", yes, NO, NO),
        (
            "{k8sService: {serviceName: db, namespace: bank}}",
            NO,
            NO,
            NO,
        ),
        (
            "{k8sService: {serviceName: ext, namespace: bank}}",
            NO,
            NO,
            yes,
        ),
        (
            "{k8sServiceSelector: {selector: {matchLabels: {kind: outer}}}}",
            NO,
            NO,
            yes,
        ),
        (
            "{k8sServiceSelector: {selector: {matchLabels: {kind: outer}}, namespace: shop}}",
            NO,
            NO,
            NO,
        ),
        (
            "{k8sServiceSelector: {selector: {matchExpressions: [{key: kind, operator: Exists}]}}}",
            yes,
            NO,
            yes,
        ),
    ] {
        let scene = scene(&objects(rule));
        scene.egress("shop/web shop/db TCP/80", db);
        scene.egress("shop/web bank/far TCP/80", far);
        scene.egress("shop/web ip:203.0.113.9 TCP/80", outside);
    }
}

#[test]
fn cloud_groups_select_nothing() {
    let rule = "{toGroups: [{aws: {securityGroupsIds: [sg-1]}}]}";
    scene(&[snp(&format!("{WEB}, egress: [{rule}]"))]).egress("shop/web ip:8.8.8.8 TCP/80", NO);
}

#[test]
fn authentication_that_nothing_provides_denies() {
    let rule = |name: &str, mode: &str| {
        snp_named(
            name,
            &format!("{WEB}, ingress: [{{fromEndpoints: [{{}}]{mode}}}]"),
        )
    };
    let required = ", authentication: {mode: required}";
    let disabled = ", authentication: {mode: disabled}";
    let fail = ", authentication: {mode: test-always-fail}";
    let ask = |objects: &[String], expected: &str| {
        scene(objects).ingress("shop/db shop/web TCP/80", expected);
    };
    ask(&[rule("a", disabled)], "allowed rule a ingress[0]");
    ask(
        &[rule("a", ""), rule("b", required)],
        "denied rule b ingress[0]",
    );
    ask(
        &[
            rule("a", disabled),
            rule("b", required),
            rule("c", fail),
            rule("d", fail),
        ],
        "denied rule c ingress[0]",
    );
    let deny = snp_named(
        "z",
        &format!("{WEB}, ingressDeny: [{{fromEndpoints: [{{}}]}}]"),
    );
    ask(&[rule("a", required), deny], "denied rule z ingressDeny[0]");
}

#[test]
fn proxies_that_contradict_each_other_deny() {
    let to = |name: &str, more: &str| {
        snp_named(
            name,
            &format!(
                "{WEB}, egress: [{{toEndpoints: [{{}}], toPorts: [{{ports: [{{port: '53', protocol: TCP}}]{more}}}]}}]"
            ),
        )
    };
    let http = ", rules: {http: [{}]}";
    let dns = ", rules: {dns: [{matchPattern: '*'}]}";
    let listener = ", listener: {envoyConfig: {name: e}, name: l}";
    let tls = |secret: &str| {
        format!(", terminatingTLS: {{secret: {{name: {secret}}}}}, rules: {{http: [{{}}]}}")
    };
    let ask = |objects: &[String], expected: &str| {
        scene(objects).egress("shop/web shop/db TCP/53", expected);
    };
    ask(&[to("a", http), to("b", dns)], "denied rule a egress[0]");
    ask(
        &[to("a", http), to("b", dns), to("c", "")],
        "allowed rule c egress[0]",
    );
    ask(
        &[to("a", listener), to("b", dns)],
        "redirected rule a egress[0]",
    );
    ask(
        &[to("a", &tls("x")), to("b", http)],
        "redirected rule a egress[0]",
    );
    ask(
        &[to("a", &tls("x")), to("b", &tls("x"))],
        "redirected rule a egress[0]",
    );
    ask(
        &[to("a", &tls("x")), to("b", &tls("y"))],
        "denied rule a egress[0]",
    );
    scene(&[to("a", listener)]).egress(
        r#"shop/web shop/db TCP/53 "http":{}"#,
        "allowed rule a egress[0]",
    );
}

#[test]
fn sides_that_are_no_pods_are_not_enforced() {
    let scene = scene(&[scnp(
        "endpointSelector: {}, ingressDeny: [{fromEntities: [all]}], egressDeny: [{toEntities: [all]}]",
    )]);
    scene.egress("node:n1 shop/web TCP/80", "not-enforced default-allow");
    scene.ingress("shop/web node:n2 TCP/80", "not-enforced default-allow");
    scene.ingress("shop/web ip:8.8.8.8 TCP/80", "not-enforced default-allow");
    scene.ingress(
        "shop/web ip:10.1.0.200 TCP/80",
        "not-enforced default-allow",
    );
    scene.ingress("node:n1 node:n2 TCP/80", "not-enforced default-allow");
}

#[test]
fn unknown_addresses_are_denied_unless_policy_is_off() {
    for (mode, expected) in [
        (Mode::Default, "denied unknown"),
        (Mode::Always, "denied unknown"),
        (Mode::Never, "allowed mode"),
    ] {
        let scene = scene(&[]).mode(mode);
        scene.egress("shop/web ip:10.2.0.200 TCP/80", expected);
        scene.ingress("ip:fd00:2::200 shop/web TCP/80", expected);
    }
}
