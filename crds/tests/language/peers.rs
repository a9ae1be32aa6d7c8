//! Peers: kinds, CIDRs, selectors.

use super::*;

#[test]
fn peers() {
    refuse(
        "SluiceNetworkPolicy",
        &[
            (
                "peers in one rule",
                ingress("{fromEndpoints: [{}], fromEntities: [world]}"),
                "spec.ingress[0]",
                "fromEndpoints and fromEntities",
            ),
            (
                "fromCIDR and fromCIDRSet",
                ingress("{fromCIDR: [10.0.0.0/8], fromCIDRSet: [{cidr: 10.0.0.0/8}]}"),
                "spec.ingress[0]",
                "fromCIDR and fromCIDRSet",
            ),
            (
                "unknown entity",
                ingress("fromEntities: [moon]"),
                "spec.ingress[0].fromEntities[0]",
                "kube-apiserver",
            ),
            (
                "toServices at ingress",
                ingress("toServices: [{}]"),
                "spec.ingress[0].toServices",
                "egress only",
            ),
            (
                "toFQDNs at ingress",
                ingress("toFQDNs: [{matchName: a.b}]"),
                "spec.ingress[0].toFQDNs",
                "egress only",
            ),
            (
                "toFQDNs under a deny",
                section("egressDeny", "toFQDNs: [{matchName: a.b}]"),
                "spec.egressDeny[0].toFQDNs",
                "deny rule",
            ),
            (
                "removed fromRequires",
                ingress("fromRequires: [{}]"),
                "spec.ingress[0].fromRequires",
                "removed",
            ),
            (
                "removed toRequires",
                section("egress", "toRequires: [{}]"),
                "spec.egress[0].toRequires",
                "removed",
            ),
            (
                "service without a form",
                section("egress", "toServices: [{}]"),
                "spec.egress[0].toServices[0]",
                "k8sService or",
            ),
            (
                "service without a name",
                section("egress", "toServices: [{k8sService: {namespace: a}}]"),
                "spec.egress[0].toServices[0].k8sService.serviceName",
                "missing",
            ),
            (
                "service in both forms",
                section(
                    "egress",
                    "toServices: [{k8sService: {serviceName: a}, k8sServiceSelector: {selector: {}}}]",
                ),
                "spec.egress[0].toServices[0]",
                "exclude",
            ),
            (
                "group of no cloud",
                ingress("fromGroups: [{}]"),
                "spec.ingress[0].fromGroups[0]",
                "aws",
            ),
        ],
    );
    let entities = "all, world, cluster, cluster-mesh, host, remote-node, init, ingress, unmanaged, health, kube-apiserver, none, world-ipv4, world-ipv6";
    accept(
        "SluiceNetworkPolicy",
        &[
            (
                "every entity",
                ingress(&format!("fromEntities: [{entities}]")),
            ),
            (
                "service by name",
                section(
                    "egress",
                    "toServices: [{k8sService: {serviceName: a, namespace: b}}]",
                ),
            ),
            (
                "service by label, with ports",
                section(
                    "egress",
                    "{toServices: [{k8sServiceSelector: {selector: {matchLabels: {k8s:a: b}}, namespace: c}}], toPorts: [{ports: [{port: \"80\"}]}]}",
                ),
            ),
            (
                "nodes",
                ingress("fromNodes: [{matchLabels: {node:kubernetes.io/hostname: a}}]"),
            ),
            (
                "groups",
                section(
                    "egress",
                    "toGroups: [{aws: {securityGroupsIds: [sg-1], region: r, labels: {a: b}, securityGroupsNames: [n]}}]",
                ),
            ),
        ],
    );
}

#[test]
fn cidrs() {
    let cidr = |text: &str| ingress(&format!("fromCIDR: [\"{text}\"]"));
    let set = |text: &str| ingress(&format!("fromCIDRSet: [{{{text}}}]"));
    const CIDR: &str = "spec.ingress[0].fromCIDR[0]";
    const SET: &str = "spec.ingress[0].fromCIDRSet[0]";
    refuse(
        "SluiceNetworkPolicy",
        &[
            ("no address", cidr("a.b.c.d/8"), CIDR, "no IP address"),
            ("length above 32", cidr("10.0.0.0/33"), CIDR, "0 to 32"),
            ("length above 128", cidr("fd00::/129"), CIDR, "0 to 128"),
            ("signed length", cidr("10.0.0.0/+8"), CIDR, "prefix length"),
            (
                "leading zero in the length",
                cidr("10.0.0.0/08"),
                CIDR,
                "prefix length",
            ),
            (
                "leading zero in the address",
                cidr("10.0.0.010/8"),
                CIDR,
                "no IP address",
            ),
            ("netmask", cidr("10.0.0.0/255.0.0.0"), CIDR, "prefix length"),
            (
                "IPv4-mapped",
                cidr("::ffff:10.0.0.0/104"),
                CIDR,
                "IPv4-mapped",
            ),
            (
                "bare IPv4-mapped",
                cidr("::ffff:10.0.0.1"),
                CIDR,
                "IPv4-mapped",
            ),
            ("zone", cidr("fe80::1%eth0/64"), CIDR, "zone"),
            ("empty", cidr(""), CIDR, "no CIDR"),
            (
                "except outside cidr",
                set("cidr: 10.0.0.0/8, except: [11.0.0.0/16]"),
                "spec.ingress[0].fromCIDRSet[0].except[0]",
                "not inside",
            ),
            (
                "except wider than cidr",
                set("cidr: 10.0.0.0/8, except: [0.0.0.0/0]"),
                "spec.ingress[0].fromCIDRSet[0].except[0]",
                "not inside",
            ),
            (
                "except of the other family",
                set("cidr: 10.0.0.0/8, except: [\"fd00::/8\"]"),
                "spec.ingress[0].fromCIDRSet[0].except[0]",
                "not inside",
            ),
            ("no source", set(""), SET, "nothing is selected"),
            (
                "two sources",
                set("cidr: 10.0.0.0/8, cidrGroupRef: a"),
                SET,
                "exclude each other",
            ),
            (
                "bad group name",
                set("cidrGroupRef: A_b"),
                "spec.ingress[0].fromCIDRSet[0].cidrGroupRef",
                "name of a CIDR group",
            ),
        ],
    );
    accept(
        "SluiceNetworkPolicy",
        &[
            ("IPv4", cidr("10.0.0.0/8")),
            ("IPv6", cidr("fd00::/8")),
            ("all of IPv4", cidr("0.0.0.0/0")),
            ("all of IPv6", cidr("::/0")),
            (
                "except equal to cidr",
                set("cidr: 10.0.0.0/8, except: [10.0.0.0/8]"),
            ),
            (
                "IPv6 except",
                set("cidr: \"fd00::/8\", except: [\"fd00:1::/32\"]"),
            ),
            ("group by name", set("cidrGroupRef: offices")),
            (
                "group by label",
                set("cidrGroupSelector: {matchLabels: {a: b}}, except: [10.0.0.0/8]"),
            ),
        ],
    );
    let masked = |text: &str| {
        format!(
            "{:?}",
            one(&cidr(text)).specs[0].ingress.as_ref().unwrap()[0].peer
        )
    };
    assert!(
        masked("10.1.2.3/8").contains("10.0.0.0/8"),
        "host bits are masked: {}",
        masked("10.1.2.3/8")
    );
    assert!(
        masked("fd00::1").contains("fd00::1/128"),
        "a bare address is itself: {}",
        masked("fd00::1")
    );
    assert!(masked("10.1.2.3").contains("10.1.2.3/32"));
}

#[test]
fn selectors() {
    let selector = |text: &str| ingress(&format!("fromEndpoints: [{text}]"));
    let label = |key: &str| format!("spec.ingress[0].fromEndpoints[0].matchLabels.{key}");
    const EXPRESSION: &str = "spec.ingress[0].fromEndpoints[0].matchExpressions[0]";
    refuse(
        "SluiceNetworkPolicy",
        &[
            (
                "unknown source",
                selector("{matchLabels: {\"docker:a\": b}}"),
                &label("docker:a"),
                "no label source",
            ),
            (
                "bad key",
                selector("{matchLabels: {\"-a\": b}}"),
                &label("-a"),
                "no label key",
            ),
            (
                "bad value",
                selector("{matchLabels: {a: \"b c\"}}"),
                &label("a"),
                "no label value",
            ),
            (
                "value as a boolean",
                selector("{matchLabels: {a: yes}}"),
                &label("a"),
                "quotes",
            ),
            (
                "bad cidr key",
                selector("{matchExpressions: [{key: \"cidr:10.0.0.0\", operator: Exists}]}"),
                &format!("{EXPRESSION}.key"),
                "no prefix length",
            ),
            (
                "unknown operator",
                selector("{matchExpressions: [{key: a, operator: Gt, values: [b]}]}"),
                &format!("{EXPRESSION}.operator"),
                "DoesNotExist",
            ),
            (
                "In without values",
                selector("{matchExpressions: [{key: a, operator: In}]}"),
                &format!("{EXPRESSION}.values"),
                "at least one",
            ),
            (
                "Exists with values",
                selector("{matchExpressions: [{key: a, operator: Exists, values: [b]}]}"),
                &format!("{EXPRESSION}.values"),
                "no values",
            ),
        ],
    );
    accept(
        "SluiceNetworkPolicy",
        &[
            (
                "label sources",
                selector(
                    "{matchLabels: {\"k8s:io.kubernetes.pod.namespace\": a, \"any:b\": c, \"reserved:host\": \"\", \"node:x\": y}}",
                ),
            ),
            (
                "cidr sources",
                selector(
                    "{matchExpressions: [{key: \"cidr:10.0.0.0/8\", operator: Exists}, {key: \"cidr:fd00--/8\", operator: DoesNotExist}, {key: \"cidrgroup:io.cilium.policy.cidrgroupname/a\", operator: Exists}, {key: \"fqdn:*.a.b\", operator: Exists}]}",
                ),
            ),
        ],
    );
}
