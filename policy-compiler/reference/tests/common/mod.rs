//! A small world for table tests, and a short notation for questions and answers.
//!
//! ```text
//! node n1: shop/web (app=web; http 8080/TCP, dns 53/UDP), shop/db (app=db), bank/teller (app=web), shop/hostnet (host network)
//! node n2: bank/far (app=far)                     node n3: nothing; it runs the API server
//! outside: anything else, 198.51.100.1 and 2001:db8:a::1 (API server)    unknown: free addresses of 10.1.0.0/16, fd00:1::/64
//! ```
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fmt::Write;

use sluice_crds::{manifest, validate::Severity};
use sluice_reference::Evaluator;
use sluice_world::{Learned, Mode, QueryParser, Section, Side, SideVerdict, World, build};

const BASE: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: bank, labels: {team: blue}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: a}}, spec: {podCIDRs: [10.1.0.0/16, 'fd00:1::/64']},
 status: {addresses: [{type: InternalIP, address: 172.16.0.1}, {type: InternalIP, address: 'fd00:16::1'}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2, labels: {zone: b}}, spec: {podCIDRs: [10.2.0.0/16, 'fd00:2::/64']},
 status: {addresses: [{type: InternalIP, address: 172.16.0.2}, {type: InternalIP, address: 'fd00:16::2'}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n3, labels: {zone: c}},
 status: {addresses: [{type: InternalIP, address: 172.16.0.3}, {type: InternalIP, address: 'fd00:16::3'}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec:
  nodeName: n1
  serviceAccountName: robot
  containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
status: {podIPs: [{ip: 10.1.0.10}, {ip: 'fd00:1::10'}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}},
 spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 5432}]}]},
 status: {podIPs: [{ip: 10.1.0.11}, {ip: 'fd00:1::11'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: teller, namespace: bank, labels: {app: web}}, spec: {nodeName: n1, containers: []},
 status: {podIPs: [{ip: 10.1.0.12}, {ip: 'fd00:1::12'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: far, namespace: bank, labels: {app: far}}, spec: {nodeName: n2, containers: []},
 status: {podIPs: [{ip: 10.2.0.10}, {ip: 'fd00:2::10'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: hostnet, namespace: shop, labels: {app: web}},
 spec: {nodeName: n1, hostNetwork: true, containers: []}}
---
{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kubernetes, namespace: default}, addressType: IPv4,
 endpoints: [{addresses: [172.16.0.3]}, {addresses: [198.51.100.1]}]}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kubernetes-6, namespace: default,
 labels: {kubernetes.io/service-name: kubernetes}}, addressType: IPv6, endpoints: [{addresses: ['2001:db8:a::1']}]}
";

/// A world with policies, and how they are enforced.
pub(crate) struct Scene {
    world: World,
    learned: Learned,
    mode: Mode,
}

/// The base world with these policies (or other objects).
pub(crate) fn scene(objects: &[String]) -> Scene {
    let mut text = BASE.to_owned();
    for object in objects {
        write!(text, "\n---\n{object}").unwrap();
    }
    let (objects, problems) = manifest::read("test.yaml", &text);
    let errors: Vec<_> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let world = build(objects.into_iter().collect()).unwrap_or_else(|error| panic!("{error}"));
    Scene {
        world,
        learned: Learned::default(),
        mode: Mode::Default,
    }
}

/// The errors of reading these objects.
pub(crate) fn errors(object: &str) -> String {
    let (_, problems) = manifest::read("test.yaml", object);
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    errors
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn object(version: &str, kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    let namespace = if namespace.is_empty() {
        String::new()
    } else {
        format!(", namespace: {namespace}")
    };
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {{{spec}}}"
    )
}

/// A `SluiceNetworkPolicy` named `p` in namespace shop.
pub(crate) fn snp(spec: &str) -> String {
    object("sluice.io/v1", "SluiceNetworkPolicy", "shop", "p", spec)
}

/// One of another name.
pub(crate) fn snp_named(name: &str, spec: &str) -> String {
    object("sluice.io/v1", "SluiceNetworkPolicy", "shop", name, spec)
}

/// A `SluiceClusterwideNetworkPolicy` named `c`.
pub(crate) fn scnp(spec: &str) -> String {
    object(
        "sluice.io/v1",
        "SluiceClusterwideNetworkPolicy",
        "",
        "c",
        spec,
    )
}

/// A `NetworkPolicy` named `np` in namespace shop.
pub(crate) fn np(spec: &str) -> String {
    object("networking.k8s.io/v1", "NetworkPolicy", "shop", "np", spec)
}

/// A `ClusterNetworkPolicy`.
pub(crate) fn cnp(name: &str, spec: &str) -> String {
    object(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        "",
        name,
        spec,
    )
}

/// An `AdminNetworkPolicy`.
pub(crate) fn anp(name: &str, spec: &str) -> String {
    object(
        "policy.networking.k8s.io/v1alpha1",
        "AdminNetworkPolicy",
        "",
        name,
        spec,
    )
}

/// The `BaselineAdminNetworkPolicy`.
pub(crate) fn banp(spec: &str) -> String {
    object(
        "policy.networking.k8s.io/v1alpha1",
        "BaselineAdminNetworkPolicy",
        "",
        "default",
        spec,
    )
}

/// A `SluiceCIDRGroup`.
pub(crate) fn group(name: &str, labels: &str, cidrs: &str) -> String {
    format!(
        "{{apiVersion: sluice.io/v1, kind: SluiceCIDRGroup, metadata: {{name: {name}, labels: {{{labels}}}}}, spec: {{externalCIDRs: [{cidrs}]}}}}"
    )
}

impl Scene {
    pub(crate) fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn learned(mut self, text: &str) -> Self {
        self.learned = Learned::parse(text).unwrap();
        self
    }

    pub(crate) fn explain(&self, question: &str) -> sluice_reference::explain::Explanation {
        let query = self.query(question, "").unwrap();
        Evaluator::new(&self.world, &self.learned, self.mode).explain(&query)
    }

    /// Asks `"<from> <to> <protocol>[/<port or type>][ <more JSON fields>]"`, where ends without a colon are pods, and expects this of the
    /// source's side. Asked in both families wherever both ends have both.
    #[track_caller]
    pub(crate) fn egress(&self, question: &str, expected: &str) {
        self.expect(question, Section::Egress, expected);
    }

    /// The same of the destination's side.
    #[track_caller]
    pub(crate) fn ingress(&self, question: &str, expected: &str) {
        self.expect(question, Section::Ingress, expected);
    }

    /// Asks a table of questions of one side.
    #[track_caller]
    pub(crate) fn ingress_table(&self, rows: &[(&str, &str)]) {
        for (question, expected) in rows {
            self.ingress(question, expected);
        }
    }

    /// Asks a table of questions of one side.
    #[track_caller]
    pub(crate) fn egress_table(&self, rows: &[(&str, &str)]) {
        for (question, expected) in rows {
            self.egress(question, expected);
        }
    }

    #[track_caller]
    fn expect(&self, question: &str, side: Section, expected: &str) {
        let evaluator = Evaluator::new(&self.world, &self.learned, self.mode);
        let mut asked = 0;
        for family in [r#","family":"IPv4""#, r#","family":"IPv6""#] {
            // An end of one family can't be asked about in the other.
            let Ok(query) = self.query(question, family) else {
                continue;
            };
            let answer = evaluator.evaluate(&query);
            let found = if side == Section::Egress {
                &answer.egress
            } else {
                &answer.ingress
            };
            assert_eq!(show(found), expected, "{side:?} of {question} {family}");
            let denied = [&answer.egress, &answer.ingress]
                .iter()
                .any(|side| side.verdict == SideVerdict::Denied);
            assert_eq!(answer.verdict == SideVerdict::Denied, denied, "{question}");
            asked += 1;
        }
        assert_ne!(asked, 0, "{question}: {:?}", self.query(question, ""));
    }

    fn query(
        &self,
        question: &str,
        family: &str,
    ) -> Result<sluice_world::Query, sluice_world::QueryError> {
        let mut parts = question.splitn(4, ' ');
        let mut end = || {
            let text = parts.next().unwrap();
            if text.contains(':') {
                text.to_owned()
            } else {
                format!("pod:{text}")
            }
        };
        let (from, to) = (end(), end());
        let packet = parts.next().unwrap();
        let more = parts
            .next()
            .map(|more| format!(",{more}"))
            .unwrap_or_default();
        let (protocol, number) = packet.split_once('/').unwrap_or((packet, ""));
        let number = match (number, protocol.starts_with("ICMP")) {
            ("", _) => String::new(),
            (number, true) => format!(r#","icmpType":{number}"#),
            (number, false) => format!(r#","port":{number}"#),
        };
        let line = format!(
            r#"{{"id":"q","from":"{from}","to":"{to}","protocol":"{protocol}"{number}{more}{family}}}"#
        );
        QueryParser::new(&self.world).line(&line)
    }
}

/// `denied default-deny`, `allowed rule p ingress[0]`, with `specs[1].` before the section of a further spec.
fn show(side: &Side) -> String {
    let word = |value: &dyn erased::Json| value.json().trim_matches('"').to_owned();
    let mut text = format!("{} {}", word(&side.verdict), word(&side.reason));
    if let Some(rule) = &side.rule {
        write!(text, " {} ", rule.name).unwrap();
        if rule.spec > 0 {
            write!(text, "specs[{}].", rule.spec).unwrap();
        }
        write!(text, "{}[{}]", word(&rule.section), rule.index).unwrap();
    }
    text
}

/// Words as JSON has them.
mod erased {
    use serde::Serialize;

    pub(crate) trait Json {
        fn json(&self) -> String;
    }

    impl<T: Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}
