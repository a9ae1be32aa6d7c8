//! What a proxy has to serve.

use super::*;

#[test]
fn proxy_rules() {
    let dns = |dir: &str, entry: &str| {
        section(
            dir,
            &format!("toPorts: [{{ports: [{{port: \"53\"}}], rules: {{dns: [{entry}]}}}}]"),
        )
    };
    let entry = |rest: &str| {
        section(
            "egress",
            &format!("toPorts: [{{ports: [{{port: \"443\", protocol: TCP}}], {rest}}}]"),
        )
    };
    let rules = "spec.ingress[0].toPorts[0].rules";
    refuse(
        "SluiceNetworkPolicy",
        &[
            (
                "http over UDP",
                ingress("toPorts: [{ports: [{port: \"80\", protocol: UDP}], rules: {http: [{}]}}]"),
                PROTOCOL,
                "TCP",
            ),
            (
                "http over ANY",
                ingress("toPorts: [{ports: [{port: \"80\"}], rules: {http: [{}]}}]"),
                PROTOCOL,
                "TCP",
            ),
            (
                "http on every port",
                ingress("toPorts: [{ports: [{port: \"0\", protocol: TCP}], rules: {http: [{}]}}]"),
                "spec.ingress[0].toPorts[0].ports",
                "port 0",
            ),
            (
                "http regex",
                http("{path: \"/(\"}"),
                "spec.ingress[0].toPorts[0].rules.http[0].path",
                "regular expression",
            ),
            (
                "http regex that only closes",
                http("{path: \"a)(b\"}"),
                "spec.ingress[0].toPorts[0].rules.http[0].path",
                "regular expression",
            ),
            (
                "http regex too big",
                http("{method: \"(.{1000}){1000}\"}"),
                "spec.ingress[0].toPorts[0].rules.http[0].method",
                "regular expression",
            ),
            (
                "header mismatch",
                http("{headerMatches: [{name: a, mismatch: KEEP}]}"),
                "spec.ingress[0].toPorts[0].rules.http[0].headerMatches[0].mismatch",
                "REPLACE",
            ),
            (
                "header name",
                http("{headers: [\"a b: c\", \": d\"]}"),
                "spec.ingress[0].toPorts[0].rules.http[0].headers[1]",
                "header name",
            ),
            (
                "empty http list",
                ingress("toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: []}}]"),
                "spec.ingress[0].toPorts[0].rules.http",
                "empty",
            ),
            (
                "dns at ingress",
                dns("ingress", "{matchName: a.b}"),
                rules,
                "egress only",
            ),
            (
                "kafka",
                ingress(
                    "toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {kafka: [{}]}}]",
                ),
                &format!("{rules}.kafka"),
                "removed",
            ),
            (
                "l7",
                ingress("toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {l7: [{}]}}]"),
                &format!("{rules}.l7"),
                "removed",
            ),
            (
                "l7proto",
                ingress(
                    "toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {l7proto: r2d2}}]",
                ),
                &format!("{rules}.l7proto"),
                "removed",
            ),
            (
                "FQDN of 256",
                section(
                    "egress",
                    &format!("toFQDNs: [{{matchName: {}}}]", "a".repeat(256)),
                ),
                "spec.egress[0].toFQDNs[0].matchName",
                "255",
            ),
            (
                "FQDN characters",
                section("egress", "toFQDNs: [{matchName: \"a%.b\"}]"),
                "spec.egress[0].toFQDNs[0].matchName",
                "character",
            ),
            (
                "FQDN name with a star",
                section("egress", "toFQDNs: [{matchName: \"*.b\"}]"),
                "spec.egress[0].toFQDNs[0].matchName",
                "matchPattern",
            ),
            (
                "FQDN two forms",
                section("egress", "toFQDNs: [{matchName: a.b, matchPattern: a.b}]"),
                "spec.egress[0].toFQDNs[0]",
                "exclude",
            ),
            (
                "FQDN no form",
                section("egress", "toFQDNs: [{}]"),
                "spec.egress[0].toFQDNs[0]",
                "nothing is named",
            ),
            (
                "FQDN empty label",
                section("egress", "toFQDNs: [{matchName: a..b}]"),
                "spec.egress[0].toFQDNs[0].matchName",
                "empty label",
            ),
            (
                "FQDN ** inside",
                section("egress", "toFQDNs: [{matchPattern: \"a.**.b\"}]"),
                "spec.egress[0].toFQDNs[0].matchPattern",
                "front",
            ),
            (
                "serverNames with http, no TLS",
                entry("serverNames: [a.b], rules: {http: [{}]}"),
                "spec.egress[0].toPorts[0].serverNames",
                "terminatingTLS",
            ),
            (
                "empty server name",
                entry("serverNames: [\"\"]"),
                "spec.egress[0].toPorts[0].serverNames[0]",
                "empty",
            ),
            (
                "listener at ingress",
                ingress(
                    "toPorts: [{ports: [{port: \"80\"}], listener: {name: a, envoyConfig: {name: b}}}]",
                ),
                "spec.ingress[0].toPorts[0].listener",
                "egress only",
            ),
            (
                "listener with http",
                entry("listener: {name: a, envoyConfig: {name: b}}, rules: {http: [{}]}"),
                "spec.egress[0].toPorts[0].listener",
                "replaces",
            ),
            (
                "listener priority",
                entry("listener: {name: a, envoyConfig: {name: b}, priority: 101}"),
                "spec.egress[0].toPorts[0].listener.priority",
                "1 to 100",
            ),
            (
                "TLS without a secret",
                entry("terminatingTLS: {certificate: a}"),
                "spec.egress[0].toPorts[0].terminatingTLS",
                "secret",
            ),
            (
                "authentication mode",
                ingress("{fromEntities: [all], authentication: {mode: maybe}}"),
                "spec.ingress[0].authentication.mode",
                "test-always-fail",
            ),
        ],
    );
}

#[test]
fn what_nothing_serves_yet_is_warned_of() {
    let tls = "terminatingTLS: {secret: {namespace: a, name: b}, trustedCA: c, certificate: d, privateKey: e}";
    let rows = [
        (
            "http",
            http(
                "{path: /a, headers: [\"X-A: b\"], headerMatches: [{name: X-B, value: c, mismatch: ADD, secret: {name: s}}]}",
            ),
            "spec.ingress[0].toPorts[0]",
        ),
        (
            "dns",
            section(
                "egress",
                "toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [{matchPattern: \"*\"}]}}]",
            ),
            "spec.egress[0].toPorts[0]",
        ),
        (
            "fqdn",
            section("egress", "toFQDNs: [{matchPattern: \"**.example.com.\"}]"),
            "spec.egress[0].toFQDNs",
        ),
        (
            "tls",
            ingress(&format!(
                "toPorts: [{{ports: [{{port: \"443\", protocol: TCP}}], {tls}, serverNames: [\"*.a.b\"], rules: {{http: [{{}}]}}}}]"
            )),
            "spec.ingress[0].toPorts[0]",
        ),
        (
            "sni",
            section(
                "egress",
                "toPorts: [{ports: [{port: \"443\", protocol: TCP}], serverNames: [a.b]}]",
            ),
            "spec.egress[0].toPorts[0]",
        ),
        (
            "listener",
            section(
                "egress",
                "toPorts: [{ports: [{port: \"443\"}], listener: {name: a, envoyConfig: {kind: k, name: b}, priority: 1}}]",
            ),
            "spec.egress[0].toPorts[0]",
        ),
        (
            "authentication",
            ingress("{fromEntities: [all], authentication: {mode: required}}"),
            "spec.ingress[0].authentication",
        ),
        (
            "groups",
            ingress("fromGroups: [{aws: {}}]"),
            "spec.ingress[0]",
        ),
    ];
    for (name, spec, path) in rows {
        let (objects, problems) = read("p.yaml", &policy("SluiceNetworkPolicy", &spec));
        assert_eq!(objects.len(), 1, "{name}: {problems:#?}");
        assert_eq!(problems.len(), 1, "{name}: {problems:#?}");
        assert_eq!(
            (problems[0].severity, problems[0].path.as_str()),
            (Severity::Warning, path),
            "{name}"
        );
    }
}
