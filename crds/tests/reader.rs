//! The strict reader: positions, lists, duplicate keys, aliases, kinds; and that no text makes it panic.
#![allow(
    clippy::too_many_lines,
    clippy::items_after_statements,
    reason = "tables are long, and their words stand beside them"
)]

use proptest::prelude::*;
use sluice_crds::manifest::{Object, Problem, read};
use sluice_crds::validate::Severity;

fn messages(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_problem_names_file_line_object_and_field() {
    let text = "\
# shop
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata:
  name: web
  namespace: shop
spec:
  endpointSelector: {}
  ingress:
  - fromEntities:
    - all
    toPorts:
    - ports:
      - port: \"80\"
      - port: \"90\"
        endPort: 89
";
    let (objects, problems) = read("shop.yaml", text);
    assert!(matches!(objects.as_slice(), [Object::Namespace(_)]));
    assert_eq!(
        messages(&problems),
        [
            "shop.yaml:21: error: SluiceNetworkPolicy shop/web: spec.ingress[0].toPorts[0].ports[1].endPort: the range 90 to 89 is empty: its end must not be below its start"
        ]
    );
}

#[test]
fn keys_with_dots_are_found() {
    let text = "\
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata: {name: a}
spec:
  endpointSelector:
    matchLabels:
      app: fine
      app.kubernetes.io/name: \"not fine\"
  ingress: [{}]
";
    let (_, problems) = read("a.yaml", text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(
        (problems[0].line, problems[0].path.as_str()),
        (
            8,
            "spec.endpointSelector.matchLabels.app.kubernetes.io/name"
        )
    );
}

#[test]
fn lists_json_and_default_namespace() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}},
  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}},
  {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
   "spec": {"podSelector": {}, "policyTypes": ["Ingres"]}}
]}"#;
    let (objects, problems) = read("list.json", text);
    let [Object::Pod(pod), Object::Node(node)] = objects.as_slice() else {
        panic!("{objects:?}")
    };
    assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(node.metadata.namespace, None);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(
        (problems[0].line, problems[0].path.as_str()),
        (5, "spec.policyTypes[0]")
    );

    let (objects, problems) = read(
        "pods.yaml",
        "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a, namespace: b}\n",
    );
    assert!(
        matches!(objects.as_slice(), [Object::Pod(_)]),
        "{problems:#?}"
    );
}

#[test]
fn a_list_without_items_is_no_empty_list() {
    for (list, line, path) in [
        ("apiVersion: v1\nkind: List\nitem:\n- {}\n", 3, "item"),
        ("apiVersion: v1\nkind: List\n", 1, "items"),
        ("apiVersion: v1\nkind: PodList\nitems: {}\n", 3, "items"),
        (
            "apiVersion: v1\nkind: PodList\nitems: []\nspec: {}\n",
            4,
            "spec",
        ),
    ] {
        let (objects, problems) = read("l.yaml", list);
        assert!(objects.is_empty());
        assert_eq!(problems[0].severity, Severity::Error, "{list}");
        assert!(
            problems
                .iter()
                .any(|problem| (problem.line, problem.path.as_str()) == (line, path)),
            "{list}: {problems:#?}"
        );
    }
    for empty in [
        "items: []",
        "items:",
        "metadata: {resourceVersion: ''}\nitems: []",
    ] {
        let (_, problems) = read("l.yaml", &format!("apiVersion: v1\nkind: List\n{empty}\n"));
        assert_eq!(problems, []);
    }
}

#[test]
fn duplicate_keys_keep_the_object_out() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: n}
spec:
  podSelector: {}
  ingress: []
  ingress: [{}]
";
    let (objects, problems) = read("d.yaml", text);
    assert!(objects.is_empty());
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].line, 7);
    assert!(
        problems[0].to_string().contains("NetworkPolicy n/p"),
        "{}",
        problems[0]
    );
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let text = "\
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata: {name: a}
spec:
  endpointSelector: &web {matchLabels: {app: web}}
  ingress:
  - &rule {fromEndpoints: [*web]}
  - <<: *rule
    toPorts: [{ports: [{port: \"80\"}]}]
";
    let (objects, problems) = read("a.yaml", text);
    assert!(problems.is_empty(), "{problems:#?}");
    let [Object::Policy(policy)] = objects.as_slice() else {
        panic!("{objects:?}")
    };
    let rules = policy.specs[0].ingress.as_ref().unwrap();
    assert_eq!(rules[0].peer, rules[1].peer);
    assert_ne!(rules[0].l4, rules[1].l4);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, inner) in ('b'..='k').zip('a'..='j') {
        let list = vec![format!("*{inner}"); 9].join(", ");
        text.extend([format!("{name}: &{name} [{list}]\n")]);
    }
    let (objects, problems) = read("bomb.yaml", &text);
    assert!(objects.is_empty());
    assert!(
        problems
            .iter()
            .any(|problem| problem.message.contains("aliases")),
        "{problems:#?}"
    );
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = format!("{}{}", open.repeat(2000), close.repeat(2000));
        let (_, problems) = read("deep.yaml", &text);
        assert!(!problems.is_empty());
    }
}

#[test]
fn syntax_errors_have_a_line_and_keep_what_came_before() {
    let (objects, problems) = read(
        "s.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nkind: [\n",
    );
    assert!(
        matches!(objects.as_slice(), [Object::Namespace(_)]),
        "{objects:?} {problems:#?}"
    );
    assert_eq!(problems[0].severity, Severity::Error);
    assert!(problems[0].line >= 5, "{problems:#?}");
}

#[test]
fn kinds() {
    let policy = |api_version: &str, kind: &str| {
        format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n")
    };
    for (api_version, kind, severity, words) in [
        ("v1", "ConfigMap", Severity::Warning, "left out"),
        (
            "projectcalico.org/v3",
            "NetworkPolicy",
            Severity::Warning,
            "left out",
        ),
        (
            "cert-manager.io/v1",
            "Issuer",
            Severity::Warning,
            "left out",
        ),
        (
            "v1",
            "NetworkPolicy",
            Severity::Error,
            "networking.k8s.io/v1",
        ),
        (
            "networking.k8s.io/v1beta1",
            "NetworkPolicy",
            Severity::Error,
            "networking.k8s.io/v1",
        ),
        (
            "sluice.io/v1",
            "SluiceNetworkPolcy",
            Severity::Error,
            "spelling",
        ),
        (
            "policy.networking.k8s.io/v1alpha1",
            "ClusterNetworkPolicy",
            Severity::Error,
            "v1alpha2",
        ),
        (
            "cilium.io/v2",
            "SluiceNetworkPolicy",
            Severity::Error,
            "sluice.io/v1",
        ),
    ] {
        let (objects, problems) = read("k.yaml", &policy(api_version, kind));
        assert_eq!(problems.len(), 1, "{api_version} {kind}: {problems:#?}");
        assert_eq!(
            problems[0].severity, severity,
            "{api_version} {kind}: {problems:#?}"
        );
        assert!(problems[0].message.contains(words), "{}", problems[0]);
        assert_eq!(objects.len(), usize::from(severity == Severity::Warning));
    }
}

#[test]
fn names_and_namespaces() {
    let rows = [
        ("{}", "metadata.name"),
        ("{generateName: a-}", "metadata.name"),
        ("{name: A}", "metadata.name"),
        ("{name: a, namespace: b.c}", "metadata.namespace"),
    ];
    for (metadata, path) in rows {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n");
        let (objects, problems) = read("n.yaml", &text);
        assert!(objects.is_empty());
        assert_eq!(problems[0].path, path, "{metadata}");
    }
    let text = "apiVersion: sluice.io/v1\nkind: SluiceClusterwideNetworkPolicy\nmetadata: {name: a, namespace: b}\nspec: {endpointSelector: {}, ingress: [{}]}\n";
    let (objects, problems) = read("n.yaml", text);
    assert!(objects.is_empty());
    assert!(
        problems[0].message.contains("cluster-wide"),
        "{problems:#?}"
    );
}

#[test]
fn unknown_fields_warn_in_the_world_and_are_refused_in_policies() {
    let (objects, problems) = read(
        "w.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: []\n  fromTheFuture: 1\n",
    );
    assert_eq!(objects.len(), 1);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(
        (
            problems[0].severity,
            problems[0].line,
            problems[0].path.as_str()
        ),
        (Severity::Warning, 6, "spec.fromTheFuture")
    );

    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec:\n  podSelector: {}\n  ingress:\n  - form: []\nstatus: {}\n";
    let (objects, problems) = read("w.yaml", text);
    assert!(objects.is_empty());
    assert_eq!(
        (
            problems[0].severity,
            problems[0].line,
            problems[0].path.as_str()
        ),
        (Severity::Error, 7, "spec.ingress[0].form")
    );
}

#[test]
fn scalars_mean_what_they_mean_to_kubectl() {
    let value = |text: &str| {
        let pod =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a, labels: {{x: {text}}}}}\n");
        read("s.yaml", &pod)
            .1
            .first()
            .map(|problem| problem.message.clone())
    };
    for text in ["yes", "on", "0x10", "010", "1.5", "1e3", "-7", "true"] {
        assert!(
            value(text).is_some_and(|message| message.contains("quotes")),
            "{text} is no text: {:?}",
            value(text)
        );
    }
    for text in [
        "\"yes\"",
        "'1'",
        "v1",
        "2024-01-01",
        "1.2.3",
        "!!str 5",
        "y",
        "0x",
    ] {
        assert_eq!(value(text), None, "{text} is text");
    }
}

/// A valid policy with a byte of it changed, cut or doubled: closer to what people write than random bytes.
fn mutated() -> impl Strategy<Value = String> {
    const TEXT: &str = "apiVersion: sluice.io/v1\nkind: SluiceNetworkPolicy\nmetadata: {name: a}\nspec: &s\n  endpointSelector: {matchLabels: {a: b}}\n  egress:\n  - toCIDRSet: [{cidr: \"fd00::/8\", except: [\"fd00::/9\"]}]\n    toPorts: [{ports: [{port: \"80\", endPort: 90}]}]\n  - icmps: [{fields: [{type: 8}]}]\nspecs: [*s]\n";
    (
        0..TEXT.len(),
        0..TEXT.len(),
        "[\\[\\]{}:,&*!|>%@`'\"\\-?# \\n\\t0-9a-zä]{0,4}",
    )
        .prop_map(|(from, length, insert)| {
            let to = (from + length % 5).min(TEXT.len());
            format!("{}{insert}{}", &TEXT[..from], &TEXT[to..])
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = read("f.yaml", &text);
    }

    #[test]
    fn no_yaml_like_text_makes_the_reader_panic(text in "([a-c:\\-?&*!|>'\"{}\\[\\],# \\n\\t%@<]|<<: |- |\\*a|&a |---\\n){0,60}") {
        let _ = read("f.yaml", &text);
    }

    #[test]
    fn no_slip_makes_the_reader_panic_or_silent(text in mutated()) {
        let (objects, problems) = read("f.yaml", &text);
        // A document is either read or complained about.
        prop_assert!(!objects.is_empty() || !problems.is_empty(), "{text}");
        let lines = text.lines().count() + 1;
        prop_assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)), "{problems:?}");
    }
}

#[test]
fn json_as_other_tools_write_it() {
    let text = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\n\t\t\"name\": \"a\",\n\t\t\"annotations\": {\"slash\": \"a\\/b\", \"smile\": \"\\ud83d\\ude00\", \"null\": \"\"}\n\t}\n}\n";
    let (objects, problems) = read("a.json", text);
    assert_eq!(messages(&problems), Vec::<String>::new());
    let [Object::Namespace(namespace)] = objects.as_slice() else {
        panic!("{objects:?}")
    };
    let annotations = namespace.metadata.annotations.as_ref().unwrap();
    assert_eq!(
        (annotations["slash"].as_str(), annotations["smile"].as_str()),
        ("a/b", "\u{1f600}")
    );
}
