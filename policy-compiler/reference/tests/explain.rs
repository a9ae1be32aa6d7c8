//! Explanations: what decided, what else matched, and what nearly allowed it.

mod common;

use common::{np, scene, snp, snp_named};

const WEB: &str = "endpointSelector: {matchLabels: {app: web}}";

#[test]
fn the_deciding_rule_comes_first_and_the_others_follow() {
    let scene = scene(&[
        snp_named("a", &format!("{WEB}, ingress: [{{fromEndpoints: [{{}}]}}]")),
        snp_named(
            "b",
            &format!("{WEB}, ingressDeny: [{{fromEntities: [cluster]}}]"),
        ),
        snp_named(
            "c",
            &format!(
                "{WEB}, ingress: [{{toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{}}]}}}}]}}]"
            ),
        ),
    ]);
    let explanation = scene.explain("shop/db shop/web TCP/80");
    let matched: Vec<_> = explanation
        .ingress
        .matched
        .iter()
        .map(|it| (it.rule.name.as_str(), it.effect, it.deciding))
        .collect();
    assert_eq!(
        matched,
        [
            ("b", "deny", true),
            ("a", "allow", false),
            ("c", "redirect", false)
        ]
    );
    assert!(explanation.ingress.near_misses.is_empty());
    let text = explanation.to_string();
    assert!(
        text.contains(
            "ingress: denied by SluiceNetworkPolicy shop/b ingressDeny[0] (tier namespace)"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "also matched: SluiceNetworkPolicy shop/a ingress[0] (tier namespace) (allow)"
        ),
        "{text}"
    );
}

#[track_caller]
fn near_miss(rule: &str, question: &str, dimension: &str, text: &str) {
    let explanation = scene(&[snp(&format!("{WEB}, ingress: [{rule}]"))]).explain(question);
    let but_for: Vec<_> = explanation.ingress.near_misses[0]
        .but_for
        .iter()
        .map(|it| (it.dimension, it.text.as_str()))
        .collect();
    assert_eq!(but_for, [(dimension, text)]);
}

#[test]
fn a_near_miss_says_what_it_is_for() {
    let ports = "toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]";
    near_miss(
        &format!("{{fromEndpoints: [{{}}], {ports}}}"),
        "shop/db shop/web TCP/443",
        "port",
        "the port should be 80 to 90, but is 443",
    );
    near_miss(
        &format!("{{fromEndpoints: [{{}}], {ports}}}"),
        "shop/db shop/web UDP/80",
        "protocol",
        "the protocol should be TCP, but is UDP",
    );
    near_miss(
        "{fromEndpoints: [{}], toPorts: [{ports: [{port: http, protocol: TCP}]}]}",
        "shop/db shop/web TCP/80",
        "port",
        "80 is no container port named \"http\" of the destination pod",
    );
    near_miss(
        "{fromEndpoints: [{}], icmps: [{fields: [{type: 8}]}]}",
        "shop/db shop/web ICMP/0",
        "icmp-type",
        "the ICMP type should be 8, but is 0",
    );
    near_miss(
        "{fromEndpoints: [{}]}",
        "bank/far shop/web TCP/80",
        "namespace",
        "namespace of the peer should be \"shop\", but is \"bank\"",
    );
    near_miss(
        "{fromEndpoints: [{matchLabels: {app: cart}}]}",
        "shop/db shop/web TCP/80",
        "label",
        "the peer: label app should be \"cart\", but is \"db\"",
    );
    near_miss(
        "{fromEndpoints: [{matchExpressions: [{key: tier, operator: Exists}]}]}",
        "shop/db shop/web TCP/80",
        "label",
        "the peer: label tier should be there, but there is none",
    );
    near_miss(
        "{fromCIDRSet: [{cidr: 8.0.0.0/8, except: [8.8.0.0/16]}]}",
        "ip:8.8.8.8 shop/web TCP/80",
        "except",
        "the address is carved out by except 8.8.0.0/16",
    );
    near_miss(
        "{fromCIDR: [9.0.0.0/8]}",
        "ip:8.8.8.8 shop/web TCP/80",
        "cidr",
        "the address is not in 9.0.0.0/8",
    );
    near_miss(
        "{fromCIDR: [10.0.0.0/8]}",
        "shop/db shop/web TCP/80",
        "peer-kind",
        "the peer should be an address outside the cluster, but is a pod",
    );
    near_miss(
        "{fromEntities: [world, host]}",
        "shop/db shop/web TCP/80",
        "entity",
        "the peer is no such entity: world, host",
    );
    near_miss(
        "{}",
        "shop/db shop/web TCP/80",
        "nothing",
        "the rule names neither peer nor ports, so it selects nothing",
    );
}

#[test]
fn the_nearest_comes_first() {
    let scene = scene(&[
        snp_named(
            "far",
            &format!(
                "{WEB}, ingress: [{{fromEntities: [world], toPorts: [{{ports: [{{port: '81', protocol: TCP}}]}}]}}]"
            ),
        ),
        snp_named(
            "label",
            &format!("{WEB}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: cart}}}}]}}]"),
        ),
        snp_named(
            "port",
            &format!(
                "{WEB}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: db}}}}], toPorts: [{{ports: [{{port: '81', protocol: TCP}}]}}]}}]"
            ),
        ),
        np(
            "podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]",
        ),
    ]);
    let explanation = scene.explain("shop/db shop/web TCP/80");
    let order: Vec<_> = explanation
        .ingress
        .near_misses
        .iter()
        .map(|miss| miss.rule.name.as_str())
        .collect();
    assert_eq!(order, ["port", "np", "label", "far"]);
    assert_eq!(explanation.ingress.near_misses[3].but_for.len(), 2);
    let text = explanation.to_string();
    assert!(text.contains("would have allowed it: SluiceNetworkPolicy shop/port ingress[0] (tier namespace), but\n    the port should be 81, but is 80\n"), "{text}");
    assert!(
        text.contains("the peer's namespace: label team should be \"blue\", but is \"red\""),
        "{text}"
    );
    assert!(text.contains("and 1 more rules, further off"), "{text}");
}

#[test]
fn what_no_rule_decides_is_said_in_words() {
    let scene = scene(&[]);
    let explanation = scene.explain("shop/web shop/web TCP/80");
    assert_eq!(
        explanation.egress.because,
        "allowed: a pod always reaches itself"
    );
    assert!(explanation.ingress.matched.is_empty());
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["answer"]["verdict"], "allowed");
    assert_eq!(json["ingress"]["nearMisses"], serde_json::json!([]));
}
