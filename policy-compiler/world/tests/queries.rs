//! Queries as written: what they resolve to, and what is refused.

use sluice_crds::manifest;
use sluice_world::{NodeName, PodRef, Query, QueryError, QueryParser, Target, World, build};

fn world() -> World {
    let text = "
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']},
 status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: InternalIP, address: 'fd00:99::1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: six, namespace: shop}, status: {podIPs: [{ip: 'fd00:1::66'}, {ip: 10.1.0.66}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: four, namespace: shop}, status: {podIPs: [{ip: 10.1.0.44}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: host, namespace: shop}, spec: {hostNetwork: true, containers: []}}
---
{apiVersion: v1, kind: Pod, metadata: {name: out, annotations: {sluice.io/lab-external: '203.0.113.1,2001:db8::1'}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.1}}
";
    let (objects, problems) = manifest::read("test.yaml", text);
    assert!(problems.is_empty(), "{problems:?}");
    build(objects.into_iter().collect()).unwrap()
}

fn read(fields: &str) -> Result<Query, QueryError> {
    let world = world();
    QueryParser::new(&world).line(&format!("{{\"id\":\"1\",{fields}}}"))
}

fn pod(name: &str) -> Target {
    Target::Pod(PodRef {
        namespace: "shop".into(),
        name: name.into(),
    })
}

fn node() -> Target {
    Target::Node(NodeName("n1".into()))
}

fn outside(address: &str) -> Target {
    Target::Outside(address.parse().unwrap())
}

#[test]
fn ends_resolve() {
    for (text, expected) in [
        ("pod:shop/a", pod("a")),
        ("ip:10.1.0.44", pod("four")),
        ("ip:fd00:1::66", pod("six")),
        ("node:n1", node()),
        ("ip:192.168.0.1", node()),
        ("ip:fd00:99::1", node()),
        ("pod:shop/host", node()),
        ("ip:8.8.8.8", outside("8.8.8.8")),
        ("ip:2001:db8::1", outside("2001:db8::1")),
        ("pod:default/out", outside("203.0.113.1")),
        (
            "ip:10.1.0.200",
            Target::Unknown("10.1.0.200".parse().unwrap()),
        ),
        (
            "ip:fd00:1::dead",
            Target::Unknown("fd00:1::dead".parse().unwrap()),
        ),
    ] {
        let query = read(&format!(
            r#""from":"pod:shop/a","to":"{text}","protocol":"tcp","port":80"#
        ))
        .unwrap();
        assert_eq!(query.to, expected, "{text}");
    }
}

#[test]
fn an_external_pod_is_outside_in_the_family_of_the_query() {
    let query =
        read(r#""from":"pod:default/out","to":"pod:shop/six","protocol":"TCP","port":80"#).unwrap();
    assert_eq!(query.from, outside("2001:db8::1"));
    assert_eq!(query.source.to_string(), "2001:db8::1");
}

#[test]
fn the_family_defaults_to_that_of_the_destinations_first_address() {
    for (to, family, expected) in [
        ("pod:shop/a", "", true),
        ("pod:shop/six", "", false),
        ("ip:10.1.0.66", "", true),
        ("ip:fd00:1::66", "", false),
        ("pod:shop/a", r#","family":"ipv6""#, false),
        ("pod:shop/six", r#","family":"IPv4""#, true),
    ] {
        let query = read(&format!(
            r#""from":"node:n1","to":"{to}","protocol":"udp","port":53{family}"#
        ))
        .unwrap();
        assert_eq!(query.destination.is_ipv4(), expected, "{to}{family}");
        assert_eq!(query.source.is_ipv4(), expected, "{to}{family}");
    }
}

#[test]
fn protocols_in_any_case() {
    for (name, rest, number, port) in [
        ("tcp", r#","port":80"#, 6, 80),
        ("Udp", r#","port":0"#, 17, 0),
        ("SCTP", r#","port":65535"#, 132, 65535),
        ("icmp", r#","icmpType":8"#, 1, 8),
        ("ICMP", r#","icmpType":128,"family":"IPv6""#, 58, 128),
        ("icmpv6", r#","icmpType":128"#, 58, 128),
        ("vrrp", "", 112, 0),
        ("IGMP", "", 2, 0),
        ("gre", "", 47, 0),
        ("IPIP", "", 4, 0),
        ("ipv6", "", 41, 0),
        ("ESP", "", 50, 0),
        ("ah", "", 51, 0),
    ] {
        let text = format!(r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"{name}"{rest}"#);
        let query = read(&text).unwrap();
        assert_eq!((query.protocol, query.port), (number, port), "{text}");
    }
}

#[test]
fn wrong_queries_say_what_is_wrong() {
    for (fields, expected) in [
        (r#""to":"pod:shop/a","protocol":"TCP","port":80"#, "from"),
        (
            r#""from":"pod:shop/a","to":"pod:shop/none","protocol":"TCP","port":80"#,
            "no such pod",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:a","protocol":"TCP","port":80"#,
            "namespace is missing",
        ),
        (
            r#""from":"pod:shop/a","to":"node:n9","protocol":"TCP","port":80"#,
            "no such node",
        ),
        (
            r#""from":"pod:shop/a","to":"ip:10.1","protocol":"TCP","port":80"#,
            "not an IP address",
        ),
        (
            r#""from":"pod:shop/a","to":"svc:web","protocol":"TCP","port":80"#,
            "none of pod, ip and node",
        ),
        (
            r#""from":"pod:shop/a","to":"ip:10.96.0.1","protocol":"TCP","port":80"#,
            "ClusterIP of service shop/web",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"TCP""#,
            "port is missing",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"TCP","port":65536"#,
            "u16",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"GRE","port":1"#,
            "has no ports",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"ICMP","port":1"#,
            "icmpType",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"ICMP""#,
            "icmpType",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"TCP","port":1,"icmpType":1"#,
            "icmpType",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"ICMPv6","icmpType":1,"family":"IPv4""#,
            "ICMPv6 does not exist",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"ANY","port":1"#,
            "none of TCP",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"TCP","port":1,"family":"v4""#,
            "neither IPv4 nor IPv6",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/four","protocol":"TCP","port":1,"family":"IPv6""#,
            "has no IPv6 address",
        ),
        (
            r#""from":"pod:shop/four","to":"pod:shop/six","protocol":"TCP","port":1"#,
            "has no IPv6 address",
        ),
        (
            r#""from":"pod:shop/a","to":"ip:8.8.8.8","protocol":"TCP","port":1,"family":"IPv6""#,
            "other family",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"TCP","port":1,"colour":"red""#,
            "unknown field `colour`",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"UDP","port":1,"http":{}"#,
            "only over TCP",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"TCP","port":1,"http":{"verb":"GET"}"#,
            "unknown field `verb`",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"TCP","port":1,"http":{},"dns":"a.b""#,
            "can't be both",
        ),
        (
            r#""from":"pod:shop/a","to":"pod:shop/a","protocol":"SCTP","port":1,"dns":"a.b""#,
            "only over UDP and TCP",
        ),
    ] {
        let error = read(fields).unwrap_err();
        assert_eq!(error.id.as_deref(), Some("1"), "{fields}");
        assert!(error.error.contains(expected), "{fields}: {}", error.error);
    }
}

#[test]
fn arrays_and_lines_keep_their_order_and_their_errors() {
    let world = world();
    let good = r#"{"id":"a","from":"pod:shop/a","to":"node:n1","protocol":"TCP","port":80}"#;
    let bad = r#"{"id":"b","from":"pod:shop/a"}"#;
    for text in [
        format!("{good}\n\n{bad}\n{good}\n"),
        format!(" [{good},{bad},{good}]"),
    ] {
        let queries = sluice_world::query::parse(&text, &world).unwrap();
        let outcome: Vec<bool> = queries.iter().map(Result::is_ok).collect();
        assert_eq!(outcome, [true, false, true], "{text}");
        assert_eq!(queries[1].as_ref().unwrap_err().id.as_deref(), Some("b"));
    }
    let queries = sluice_world::query::parse("not json", &world).unwrap();
    assert_eq!(queries[0].as_ref().unwrap_err().id, None);
    assert!(sluice_world::query::parse("[{]", &world).is_err());
}

#[test]
fn requests_have_defaults() {
    let query = read(
        r#""from":"pod:shop/a","to":"node:n1","protocol":"TCP","port":80,"http":{"path":"/x"}"#,
    )
    .unwrap();
    let http = query.http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.host.as_str()),
        ("GET", "/x", "")
    );
}
