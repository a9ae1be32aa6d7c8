//! Every row of the policy language's table "What trips people" that an evaluator can show. Rows about packets rather than rules
//! (fragments, lifetimes of connections) and about updates are tested where those live.

mod common;

use common::{cnp, errors, group, np, scene, scnp, snp, snp_named};
use sluice_world::Mode;

const WEB: &str = "endpointSelector: {matchLabels: {app: web}}";
const DB: &str = "endpointSelector: {matchLabels: {app: db}}";

#[test]
fn row_peers_in_one_rule() {
    let two = snp(&format!(
        "{WEB}, ingress: [{{fromEndpoints: [{{}}], fromEntities: [world]}}]"
    ));
    assert_ne!(errors(&two), "", "two kinds of peer in one rule");
    let scene = scene(&[snp(&format!(
        "{WEB}, ingress: [
          {{fromEndpoints: [{{matchLabels: {{app: db}}}}], toPorts: [{{ports: [{{port: '80', protocol: TCP}}]}}]}},
          {{fromEntities: [world], toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]}}]"
    ))]);
    scene.ingress_table(&[
        ("shop/db shop/web TCP/80", "allowed rule p ingress[0]"),
        ("shop/db shop/web TCP/443", "denied default-deny"),
        ("ip:8.8.8.8 shop/web TCP/443", "allowed rule p ingress[1]"),
        (
            "ip:2001:db8::8 shop/web TCP/443",
            "allowed rule p ingress[1]",
        ),
        ("ip:8.8.8.8 shop/web TCP/80", "denied default-deny"),
    ]);
}

#[test]
fn row_empty_and_missing() {
    let ports = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]";
    for (rule, db, teller, world) in [
        (format!("{{{ports}}}"), true, true, true),
        ("{}".to_owned(), false, false, false),
        ("{fromEndpoints: []}".to_owned(), false, false, false),
        (
            format!("{{fromEndpoints: [], {ports}}}"),
            false,
            false,
            false,
        ),
        ("{fromEndpoints: [{}]}".to_owned(), true, false, false),
    ] {
        let scene = scene(&[snp(&format!("{WEB}, ingress: [{rule}]"))]);
        for (from, allowed) in [
            ("shop/db", db),
            ("bank/teller", teller),
            ("ip:8.8.8.8", world),
        ] {
            let expected = if allowed {
                "allowed rule p ingress[0]"
            } else {
                "denied default-deny"
            };
            scene.ingress(&format!("{from} shop/web TCP/80"), expected);
        }
    }
}

#[test]
fn row_empty_and_missing_cluster_wide() {
    let scene = scene(&[scnp(&format!(
        "{WEB}, ingress: [{{fromEndpoints: [{{}}]}}]"
    ))]);
    scene.ingress_table(&[
        ("shop/db shop/web TCP/80", "allowed rule c ingress[0]"),
        ("bank/far shop/web TCP/80", "allowed rule c ingress[0]"),
        ("ip:8.8.8.8 shop/web TCP/80", "denied default-deny"),
        ("node:n2 shop/web TCP/80", "denied default-deny"),
        ("node:n1 shop/web TCP/80", "allowed local-host"),
        ("bank/far bank/teller TCP/80", "allowed rule c ingress[0]"),
        ("ip:8.8.8.8 shop/db TCP/80", "allowed default-allow"),
    ]);
}

#[test]
fn row_label_sources() {
    for (selector, db, teller, world, own_node, remote_node) in [
        (
            "{matchLabels: {'k8s:app': db}}",
            true,
            false,
            false,
            false,
            false,
        ),
        (
            "{matchLabels: {'any:app': db}}",
            true,
            false,
            false,
            false,
            false,
        ),
        ("{matchLabels: {app: db}}", true, false, false, false, false),
        (
            "{matchLabels: {'reserved:world': ''}}",
            false,
            false,
            true,
            false,
            false,
        ),
        (
            "{matchLabels: {'reserved:host': ''}}",
            false,
            false,
            false,
            true,
            false,
        ),
        (
            "{matchExpressions: [{key: 'reserved:remote-node', operator: Exists}]}",
            false,
            false,
            false,
            false,
            true,
        ),
        // A reserved: key switches the namespace default off.
        (
            "{matchExpressions: [{key: 'reserved:host', operator: DoesNotExist}]}",
            true,
            true,
            true,
            false,
            true,
        ),
        // Not in the policy's own namespace, so nobody.
        (
            "{matchLabels: {'cidr:8.0.0.0/8': ''}}",
            false,
            false,
            false,
            false,
            false,
        ),
        // Node labels are read by node selectors only.
        (
            "{matchLabels: {'node:zone': b, 'reserved:remote-node': ''}}",
            false,
            false,
            false,
            false,
            false,
        ),
    ] {
        let scene = scene(&[snp(&format!(
            "{WEB}, ingress: [{{fromEndpoints: [{selector}]}}]"
        ))]);
        for (from, allowed) in [
            ("shop/db", db),
            ("bank/teller", teller),
            ("ip:8.8.8.8", world),
            ("node:n1", own_node),
            ("node:n2", remote_node),
        ] {
            let denied = if from == "node:n1" {
                "allowed local-host"
            } else {
                "denied default-deny"
            };
            let expected = if allowed {
                "allowed rule p ingress[0]"
            } else {
                denied
            };
            scene.ingress(&format!("{from} shop/web TCP/80"), expected);
        }
    }
}

#[test]
fn row_label_sources_of_outside_addresses() {
    let ask = |selector: &str, address: &str, expected: &str| {
        let scene = scene(&[
            scnp(&format!("{WEB}, egress: [{{toEndpoints: [{selector}]}}]")),
            group("office", "site: bonn", "192.0.2.0/24, '2001:db8:2::/48'"),
            group("guests", "site: rome", "192.0.2.128/25"),
        ])
        .learned(r#"{"api.example.com":["203.0.113.5","2001:db8:5::5"]}"#);
        scene.egress(&format!("shop/web ip:{address} TCP/80"), expected);
    };
    let (yes, no) = ("allowed rule c egress[0]", "denied default-deny");
    ask("{matchLabels: {'cidr:192.0.0.0/8': ''}}", "192.0.2.1", yes);
    ask("{matchLabels: {'cidr:192.0.0.0/8': ''}}", "193.0.2.1", no);
    ask("{matchLabels: {'cidrgroup:site': bonn}}", "192.0.2.1", yes);
    ask(
        "{matchLabels: {'cidrgroup:site': bonn}}",
        "2001:db8:2::1",
        yes,
    );
    ask(
        "{matchLabels: {'cidrgroup:site': rome}}",
        "192.0.2.200",
        yes,
    );
    ask("{matchLabels: {'cidrgroup:site': rome}}", "192.0.2.1", no);
    ask(
        "{matchLabels: {'cidrgroup:io.cilium.policy.cidrgroupname/office': ''}}",
        "192.0.2.200",
        yes,
    );
    ask(
        "{matchLabels: {'reserved:world-ipv4': ''}}",
        "192.0.2.1",
        yes,
    );
    ask(
        "{matchLabels: {'reserved:world-ipv4': ''}}",
        "2001:db8::1",
        no,
    );
    ask(
        "{matchLabels: {'reserved:kube-apiserver': ''}}",
        "198.51.100.1",
        yes,
    );
    ask(
        "{matchLabels: {'reserved:kube-apiserver': ''}}",
        "2001:db8:a::1",
        yes,
    );
    ask(
        "{matchLabels: {'reserved:kube-apiserver': ''}}",
        "198.51.100.2",
        no,
    );
}

#[test]
fn row_namespaces() {
    let (yes, no) = ("allowed rule p ingress[0]", "denied default-deny");
    for (selector, shop, bank) in [
        ("{matchLabels: {app: web}}", no, no),
        ("{matchLabels: {app: db}}", yes, no),
        (
            "{matchLabels: {'k8s:io.kubernetes.pod.namespace': bank}}",
            no,
            yes,
        ),
        (
            "{matchLabels: {'io.kubernetes.pod.namespace': bank}}",
            no,
            yes,
        ),
        (
            "{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': blue}}",
            no,
            yes,
        ),
        (
            "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: Exists}]}",
            yes,
            yes,
        ),
        (
            "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: NotIn, values: [shop]}]}",
            no,
            yes,
        ),
        (
            "{matchExpressions: [{key: app, operator: NotIn, values: [other]}]}",
            yes,
            no,
        ),
    ] {
        let scene = scene(&[snp(&format!(
            "{WEB}, ingress: [{{fromEndpoints: [{selector}]}}]"
        ))]);
        scene.ingress("shop/db shop/web TCP/80", shop);
        scene.ingress("bank/teller shop/web TCP/80", bank);
        scene.ingress("ip:8.8.8.8 shop/web TCP/80", no);
        scene.ingress("node:n2 shop/web TCP/80", no);
        // The subject is always in the policy's namespace: bank's pod with app=web is not meant.
        scene.ingress("bank/far bank/teller TCP/80", "allowed default-allow");
    }
}

#[test]
fn row_namespaces_service_account_and_subject_in_own_namespace() {
    let foreign = "endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': bank}}";
    let scene_foreign = scene(&[snp(&format!("{foreign}, ingress: [{{}}]"))]);
    scene_foreign.ingress("shop/db bank/teller TCP/80", "allowed default-allow");
    let robot = "{matchLabels: {'k8s:io.cilium.k8s.policy.serviceaccount': robot}}";
    let scene_robot = scene(&[snp(&format!(
        "{DB}, ingress: [{{fromEndpoints: [{robot}]}}]"
    ))]);
    scene_robot.ingress("shop/web shop/db TCP/80", "allowed rule p ingress[0]");
    scene_robot.ingress("bank/teller shop/db TCP/80", "denied default-deny");
}

#[test]
fn row_clusters() {
    for (cluster, expected) in [
        ("default", "allowed rule p ingress[0]"),
        ("other", "denied default-deny"),
    ] {
        let selector =
            format!("{{matchLabels: {{'k8s:io.cilium.k8s.policy.cluster': {cluster}}}}}");
        let scene = scene(&[snp(&format!(
            "{WEB}, ingress: [{{fromEndpoints: [{selector}]}}]"
        ))]);
        scene.ingress("shop/db shop/web TCP/80", expected);
    }
}

#[test]
fn row_deny() {
    let allow = snp_named(
        "a",
        &format!(
            "{WEB}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: db}}}}], toPorts: [{{ports: [{{port: '80', protocol: TCP}}]}}]}}]"
        ),
    );
    let deny = snp_named(
        "z",
        &format!("{WEB}, ingressDeny: [{{fromEntities: [cluster]}}]"),
    );
    let both = scene(&[allow, deny.clone()]);
    both.ingress("shop/db shop/web TCP/80", "denied rule z ingressDeny[0]");
    // Deny rules alone make the direction default-deny.
    let alone = scene(&[deny]);
    alone.ingress("ip:8.8.8.8 shop/web TCP/80", "denied default-deny");
    alone.egress("shop/web ip:8.8.8.8 TCP/80", "allowed default-allow");
    let open = scene(&[snp(&format!(
        "{WEB}, enableDefaultDeny: {{ingress: false}}, ingressDeny: [{{fromEntities: [world]}}]"
    ))]);
    open.ingress("ip:8.8.8.8 shop/web TCP/80", "denied rule p ingressDeny[0]");
    open.ingress("shop/db shop/web TCP/80", "allowed default-allow");
}

#[test]
fn row_modes() {
    let policy = snp(&format!(
        "{WEB}, ingress: [{{fromEndpoints: [{{}}]}}], ingressDeny: [{{fromEntities: [world]}}]"
    ));
    let half = snp_named(
        "half",
        &format!(
            "{DB}, enableDefaultDeny: {{ingress: false}}, ingress: [{{fromEntities: [remote-node]}}]"
        ),
    );
    for (mode, from_db, from_teller, from_world, to_teller, to_db) in [
        (
            Mode::Default,
            "allowed rule p ingress[0]",
            "denied default-deny",
            "denied rule p ingressDeny[0]",
            "allowed default-allow",
            "allowed default-allow",
        ),
        (
            Mode::Always,
            "allowed rule p ingress[0]",
            "denied default-deny",
            "denied rule p ingressDeny[0]",
            "denied mode",
            "denied mode",
        ),
        (
            Mode::Never,
            "allowed mode",
            "allowed mode",
            "allowed mode",
            "allowed mode",
            "allowed mode",
        ),
    ] {
        let scene = scene(&[policy.clone(), half.clone()]).mode(mode);
        scene.ingress_table(&[
            ("shop/db shop/web TCP/80", from_db),
            ("bank/teller shop/web TCP/80", from_teller),
            ("ip:8.8.8.8 shop/web TCP/80", from_world),
            ("bank/far bank/teller TCP/80", to_teller),
            ("bank/far shop/db TCP/80", to_db),
        ]);
    }
}

#[test]
fn row_local_host() {
    let rules = |more: &str| {
        snp(&format!(
            "{WEB}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: none}}}}]}}]{more}"
        ))
    };
    let plain = scene(&[rules("")]);
    plain.ingress_table(&[
        ("node:n1 shop/web TCP/80", "allowed local-host"),
        ("shop/hostnet shop/web TCP/80", "allowed local-host"),
        ("node:n2 shop/web TCP/80", "denied default-deny"),
        ("node:n1 bank/far TCP/80", "allowed default-allow"),
    ]);
    plain.egress("node:n1 shop/web TCP/80", "not-enforced default-allow");
    scene(&[rules(", ingressDeny: [{fromEntities: [host]}]")])
        .ingress("node:n1 shop/web TCP/80", "denied rule p ingressDeny[0]");
    scene(&[np("podSelector: {}")]).ingress("node:n1 shop/web TCP/80", "allowed local-host");
    scene(&[np("podSelector: {}, policyTypes: [Egress]")])
        .ingress("node:n1 shop/web TCP/80", "allowed default-allow");
    let always = scene(&[rules("")]).mode(Mode::Always);
    always.ingress("node:n1 shop/web TCP/80", "allowed local-host");
    always.ingress("node:n1 shop/db TCP/80", "denied mode");
    // An ingress rule of any tier will do.
    let pass = "tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {no: one}}}]}]";
    let tiers = scene(&[cnp("c", pass)]);
    tiers.ingress("node:n1 shop/web TCP/80", "allowed local-host");
    let always = tiers.mode(Mode::Always);
    always.ingress("node:n1 shop/web TCP/80", "allowed local-host");
    always.ingress("shop/db shop/web TCP/80", "denied mode");
    // It is an ingress matter: to its node a pod is held to its rules.
    let out = scene(&[snp(&format!("{WEB}, egress: [{{toEntities: [world]}}]"))]);
    out.egress("shop/web node:n1 TCP/80", "denied default-deny");
}

#[test]
fn row_cidr() {
    let every = "{cidr: 0.0.0.0/0}, {cidr: '::/0'}";
    let cilium = scene(&[snp(&format!("{WEB}, egress: [{{toCIDRSet: [{every}]}}]"))]);
    cilium.egress_table(&[
        ("shop/web ip:8.8.8.8 TCP/80", "allowed rule p egress[0]"),
        ("shop/web ip:2001:db8::8 TCP/80", "allowed rule p egress[0]"),
        ("shop/web shop/db TCP/80", "denied default-deny"),
        ("shop/web node:n1 TCP/80", "denied default-deny"),
        ("shop/web node:n2 TCP/80", "denied default-deny"),
        ("shop/web ip:10.1.0.200 TCP/80", "denied unknown"),
        ("shop/web ip:fd00:1::dead TCP/80", "denied unknown"),
    ]);
    let kubernetes = scene(&[np(
        "podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.1.0.11/32]}}, {ipBlock: {cidr: '::/0', except: ['fd00:1::11/128']}}]}]",
    )]);
    kubernetes.egress_table(&[
        ("shop/web ip:8.8.8.8 TCP/80", "allowed rule np egress[0]"),
        (
            "shop/web ip:2001:db8::8 TCP/80",
            "allowed rule np egress[0]",
        ),
        ("shop/web bank/far TCP/80", "allowed rule np egress[0]"),
        ("shop/web shop/db TCP/80", "denied default-deny"),
        ("shop/web node:n1 TCP/80", "allowed rule np egress[0]"),
        ("shop/web ip:10.1.0.200 TCP/80", "denied unknown"),
    ]);
}

#[test]
fn row_itself() {
    let closed = [snp(&format!(
        "{WEB}, ingress: [{{}}], egressDeny: [{{toEntities: [all]}}]"
    ))];
    for mode in [Mode::Default, Mode::Always, Mode::Never] {
        let scene = scene(&closed).mode(mode);
        scene.ingress("shop/web shop/web TCP/80", "allowed self");
        scene.egress("shop/web shop/web ICMP/8", "allowed self");
    }
}

#[test]
fn row_longest_prefix() {
    let scene = scene(&[snp(&format!(
        "{WEB}, egress: [{{toCIDR: [10.0.0.0/8, '2001:db8::/32'], toPorts: [{{ports: [{{port: '80', protocol: TCP}}]}}]}},
          {{toCIDR: [10.9.0.0/16, '2001:db8:9::/48'], toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]}}]"
    ))]);
    for address in ["10.9.0.1", "2001:db8:9::1"] {
        scene.egress(
            &format!("shop/web ip:{address} TCP/80"),
            "allowed rule p egress[0]",
        );
        scene.egress(
            &format!("shop/web ip:{address} TCP/443"),
            "allowed rule p egress[1]",
        );
    }
    scene.egress("shop/web ip:10.8.0.1 TCP/443", "denied default-deny");
}

#[test]
fn row_longest_prefix_except_applies_to_its_own_entry() {
    let scene = scene(&[
        snp(&format!(
            "{WEB}, egress: [{{toCIDRSet: [{{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}, {{cidr: 10.9.9.0/24}}, {{cidrGroupRef: office, except: [192.0.2.128/25]}}, {{cidrGroupRef: missing}}, {{cidrGroupSelector: {{matchLabels: {{site: rome}}}}}}]}}]"
        )),
        group("office", "site: bonn", "192.0.2.0/24"),
        group("lab", "site: rome", "'2001:db8:7::/48'"),
    ]);
    scene.egress_table(&[
        ("shop/web ip:10.1.0.200 TCP/80", "denied unknown"),
        ("shop/web ip:10.8.0.1 TCP/80", "allowed rule p egress[0]"),
        ("shop/web ip:10.9.0.1 TCP/80", "denied default-deny"),
        ("shop/web ip:10.9.9.1 TCP/80", "allowed rule p egress[0]"),
        ("shop/web ip:192.0.2.1 TCP/80", "allowed rule p egress[0]"),
        ("shop/web ip:192.0.2.200 TCP/80", "denied default-deny"),
        (
            "shop/web ip:2001:db8:7::1 TCP/80",
            "allowed rule p egress[0]",
        ),
    ]);
}

#[test]
fn row_kube_apiserver() {
    let by = |entity: &str| scene(&[snp(&format!("{WEB}, egress: [{{toEntities: [{entity}]}}]"))]);
    let (yes, no) = ("allowed rule p egress[0]", "denied default-deny");
    for (entity, node, node_v6, outside, outside_v6, other_outside, other_node) in [
        ("kube-apiserver", yes, yes, yes, yes, no, no),
        ("remote-node", yes, yes, no, no, no, yes),
        ("world", no, no, yes, yes, yes, no),
        ("cluster", yes, yes, yes, yes, no, yes),
    ] {
        let scene = by(entity);
        scene.egress("shop/web ip:172.16.0.3 TCP/443", node);
        scene.egress("shop/web ip:fd00:16::3 TCP/443", node_v6);
        scene.egress("shop/web ip:198.51.100.1 TCP/443", outside);
        scene.egress("shop/web ip:2001:db8:a::1 TCP/443", outside_v6);
        scene.egress("shop/web ip:198.51.100.2 TCP/443", other_outside);
        scene.egress("shop/web node:n2 TCP/443", other_node);
    }
}

#[test]
fn row_cluster_entity() {
    let (yes, no) = ("allowed rule p egress[0]", "denied default-deny");
    for (entity, pod, own, remote, v4, v6) in [
        ("all", yes, yes, yes, yes, yes),
        ("cluster", yes, yes, yes, no, no),
        ("cluster-mesh", yes, yes, yes, no, no),
        ("world", no, no, no, yes, yes),
        ("world-ipv4", no, no, no, yes, no),
        ("world-ipv6", no, no, no, no, yes),
        ("host", no, yes, no, no, no),
        ("remote-node", no, no, yes, no, no),
        ("init", no, no, no, no, no),
        ("ingress", no, no, no, no, no),
        ("unmanaged", no, no, no, no, no),
        ("health", no, no, no, no, no),
        ("none", no, no, no, no, no),
    ] {
        let scene = scene(&[snp(&format!("{WEB}, egress: [{{toEntities: [{entity}]}}]"))]);
        scene.egress("shop/web bank/far TCP/80", pod);
        scene.egress("shop/web node:n1 TCP/80", own);
        scene.egress("shop/web shop/hostnet TCP/80", own);
        scene.egress("shop/web node:n2 TCP/80", remote);
        scene.egress("shop/web ip:8.8.8.8 TCP/80", v4);
        scene.egress("shop/web ip:2001:db8::8 TCP/80", v6);
    }
}

const HTTP_A: &str = "{fromEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /a}]}}]}";
const HTTP_B: &str = "{fromEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: '/b.*', method: GET}]}}]}";

#[test]
fn row_l7_with_l4() {
    let http = |path: &str| format!(r#"shop/db shop/web TCP/80 "http":{{"path":"{path}"}}"#);
    let both = scene(&[snp(&format!("{WEB}, ingress: [{HTTP_A}, {HTTP_B}]"))]);
    both.ingress("shop/db shop/web TCP/80", "redirected rule p ingress[0]");
    both.ingress(&http("/a"), "allowed rule p ingress[0]");
    both.ingress(&http("/b/c"), "allowed rule p ingress[0]");
    both.ingress(&http("/a/x"), "denied rule p ingress[0]");
    both.ingress(
        r#"shop/db shop/web TCP/80 "http":{"path":"/b","method":"POST"}"#,
        "denied rule p ingress[0]",
    );
    both.ingress(
        r#"shop/db shop/web TCP/80 "dns":"a.b""#,
        "denied rule p ingress[0]",
    );
    // A plain L4 allow lifts the restriction, and so does an L3-only one.
    for lift in [
        "{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}",
        "{fromEndpoints: [{}]}",
    ] {
        let lifted = scene(&[snp(&format!("{WEB}, ingress: [{HTTP_A}, {lift}]"))]);
        lifted.ingress("shop/db shop/web TCP/80", "allowed rule p ingress[1]");
        lifted.ingress(&http("/x"), "allowed rule p ingress[1]");
    }
}

#[test]
fn row_l7_headers() {
    let rule =
        "{fromEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [
        {host: 'a\\.b', headers: ['X-Key: 1']},
        {path: /m, headerMatches: [{name: x-key, value: '2'}]},
        {path: /l, headerMatches: [{name: x-key, value: '2', mismatch: LOG}]},
        {path: /s, headerMatches: [{name: x-key, secret: {name: s}}]}]}}]}";
    let scene = scene(&[snp(&format!("{WEB}, ingress: [{rule}]"))]);
    for (request, passes) in [
        (r#"{"host":"a.b","headers":{"x-key":"1"}}"#, true),
        (r#"{"host":"a.b","headers":{"x-key":"2"}}"#, false),
        (r#"{"host":"axb","headers":{"x-key":"1"}}"#, false),
        (r#"{"path":"/m","headers":{"X-KEY":"2"}}"#, true),
        (r#"{"path":"/m"}"#, false),
        (r#"{"path":"/l"}"#, true),
        (r#"{"path":"/s","headers":{"x-key":"2"}}"#, false),
    ] {
        let expected = if passes {
            "allowed rule p ingress[0]"
        } else {
            "denied rule p ingress[0]"
        };
        scene.ingress(
            &format!(r#"shop/db shop/web TCP/80 "http":{request}"#),
            expected,
        );
    }
}

#[test]
fn row_default_deny_off_with_l7() {
    let off = snp(&format!(
        "{WEB}, enableDefaultDeny: {{ingress: false}}, ingress: [{HTTP_A}]"
    ));
    let ask = |path: &str| format!(r#"shop/db shop/web TCP/80 "http":{{"path":"{path}"}}"#);
    let alone = scene(std::slice::from_ref(&off));
    alone.ingress(&ask("/a"), "allowed rule p ingress[0]");
    alone.ingress(&ask("/x"), "allowed default-allow");
    alone.ingress("shop/db shop/web TCP/81", "allowed default-allow");
    alone.ingress("shop/db shop/web TCP/80", "redirected rule p ingress[0]");
    scene(std::slice::from_ref(&off))
        .mode(Mode::Always)
        .ingress(&ask("/x"), "denied rule p ingress[0]");
    let other = snp_named("q", &format!("{WEB}, ingress: [{{fromEntities: [world]}}]"));
    scene(&[off, other]).ingress(&ask("/x"), "denied rule p ingress[0]");
}

#[test]
fn row_fqdn_patterns() {
    let learned = r#"{"one.a.b":["203.0.113.1","2001:db8::1"],"two.one.a.b":["203.0.113.2","2001:db8::2"],"A.b.":["203.0.113.3","2001:db8::3"]}"#;
    for (selector, one, two, bare) in [
        ("{matchPattern: '*.a.b'}", true, false, false),
        ("{matchPattern: '**.a.b'}", true, true, false),
        ("{matchPattern: '*'}", true, true, true),
        ("{matchName: 'a.B.'}", false, false, true),
    ] {
        let scene =
            scene(&[snp(&format!("{WEB}, egress: [{{toFQDNs: [{selector}]}}]"))]).learned(learned);
        for (last, allowed) in [(1, one), (2, two), (3, bare), (4, false)] {
            let expected = if allowed {
                "allowed rule p egress[0]"
            } else {
                "denied default-deny"
            };
            scene.egress(&format!("shop/web ip:203.0.113.{last} TCP/80"), expected);
            scene.egress(&format!("shop/web ip:2001:db8::{last} ICMP/128"), expected);
        }
    }
}

#[test]
fn row_fqdn_patterns_in_dns_rules() {
    let scene = scene(&[snp(&format!(
        "{WEB}, egress: [{{toEndpoints: [{{}}], toPorts: [{{ports: [{{port: '53', protocol: ANY}}], rules: {{dns: [{{matchPattern: '*.a.b'}}]}}}}]}}]"
    ))]);
    scene.egress("shop/web shop/db UDP/53", "redirected rule p egress[0]");
    scene.egress(
        r#"shop/web shop/db UDP/53 "dns":"X.a.b.""#,
        "allowed rule p egress[0]",
    );
    scene.egress(
        r#"shop/web shop/db TCP/53 "dns":"y.x.a.b""#,
        "denied rule p egress[0]",
    );
}

#[test]
fn row_fqdn_lifetime_an_address_counts_while_it_is_learned() {
    let policy = [snp(&format!(
        "{WEB}, egress: [{{toFQDNs: [{{matchName: a.b}}]}}]"
    ))];
    scene(&policy)
        .learned(r#"{"a.b":["203.0.113.1"]}"#)
        .egress("shop/web ip:203.0.113.1 TCP/80", "allowed rule p egress[0]");
    scene(&policy)
        .learned("{}")
        .egress("shop/web ip:203.0.113.1 TCP/80", "denied default-deny");
    // A name that resolves into the cluster gives no way in.
    scene(&policy)
        .learned(r#"{"a.b":["10.1.0.11"]}"#)
        .egress("shop/web shop/db TCP/80", "denied default-deny");
}

#[test]
fn row_replies_are_not_asked_for() {
    let scene = scene(&[snp(&format!("{WEB}, egressDeny: [{{toEntities: [all]}}]"))]);
    scene.ingress("shop/db shop/web TCP/80", "allowed default-allow");
    scene.egress("shop/db shop/web TCP/80", "allowed default-allow");
    scene.egress("shop/web shop/db TCP/80", "denied rule p egressDeny[0]");
}

#[test]
fn row_icmp() {
    let (yes, no) = ("allowed rule p ingress[0]", "denied default-deny");
    let l3 = scene(&[snp(&format!("{WEB}, ingress: [{{fromEndpoints: [{{}}]}}]"))]);
    l3.ingress("shop/db shop/web ICMP/8", yes);
    l3.ingress("shop/db shop/web GRE", yes);
    let ports = scene(&[snp(&format!(
        "{WEB}, ingress: [{{fromEndpoints: [{{}}], toPorts: [{{ports: [{{port: '0', protocol: ANY}}]}}]}}]"
    ))]);
    ports.ingress_table(&[
        ("shop/db shop/web TCP/1", yes),
        ("shop/db shop/web UDP/65535", yes),
        ("shop/db shop/web SCTP/0", yes),
        ("shop/db shop/web ICMP/8", no),
        ("shop/db shop/web GRE", no),
    ]);
    let icmp = scene(&[snp(&format!(
        "{WEB}, ingress: [{{fromEndpoints: [{{}}], icmps: [{{fields: [{{type: 8}}, {{family: IPv6, type: EchoRequest}}]}}]}}]"
    ))]);
    icmp.ingress_table(&[
        (r"shop/db ip:10.1.0.10 ICMP/8", yes),
        (r"shop/db ip:10.1.0.10 ICMP/128", no),
        (r"shop/db ip:fd00:1::10 ICMP/128", yes),
        (r"shop/db ip:fd00:1::10 ICMPv6/8", no),
        ("shop/db shop/web TCP/8", no),
    ]);
}

#[test]
fn row_end_port_below_port() {
    let text = snp(&format!(
        "{WEB}, ingress: [{{toPorts: [{{ports: [{{port: '90', endPort: 80, protocol: TCP}}]}}]}}]"
    ));
    assert!(errors(&text).contains("endPort"), "{}", errors(&text));
    let scene = scene(&[snp(&format!(
        "{WEB}, ingress: [{{toPorts: [{{ports: [{{port: '80', endPort: 90, protocol: TCP}}]}}]}}]"
    ))]);
    for (port, expected) in [
        (79, "denied default-deny"),
        (80, "allowed rule p ingress[0]"),
        (90, "allowed rule p ingress[0]"),
        (91, "denied default-deny"),
    ] {
        scene.ingress(&format!("shop/db shop/web TCP/{port}"), expected);
    }
}

#[test]
fn row_named_ports() {
    let rule = "toPorts: [{ports: [{port: http, protocol: TCP}, {port: dns, protocol: ANY}]}]";
    let into = scene(&[snp(&format!("{WEB}, ingress: [{{{rule}}}]"))]);
    let (yes, no) = ("allowed rule p ingress[0]", "denied default-deny");
    into.ingress_table(&[
        ("shop/db shop/web TCP/8080", yes),
        ("shop/db shop/web UDP/8080", no),
        ("shop/db shop/web TCP/5432", no),
        ("shop/db shop/web UDP/53", yes),
        ("shop/db shop/web TCP/53", no),
    ]);
    let out = scene(&[snp(&format!("{WEB}, egress: [{{{rule}}}]"))]);
    let yes = "allowed rule p egress[0]";
    out.egress_table(&[
        ("shop/web shop/db TCP/5432", yes),
        ("shop/web shop/db TCP/8080", no),
        ("shop/web bank/teller TCP/8080", no),
        ("shop/web ip:8.8.8.8 TCP/8080", no),
        ("shop/web node:n1 TCP/8080", no),
    ]);
}
