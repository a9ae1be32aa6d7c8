//! `sluice policy`: exit codes, and the shape of what is printed.

use crate::support::{Folder, examples, sluice, sluice_reading};
use serde_json::{Value, json};

const PODS: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n, labels: {app: a}}, spec: {containers: []}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: n, labels: {app: b}}, spec: {containers: []}}
";
const DENIES_B: &str = "\
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata: {name: no-b, namespace: n}
spec:
  endpointSelector: {matchLabels: {app: a}}
  ingressDeny:
  - fromEndpoints: [{matchLabels: {app: b}}]
";
const TWO_FAULTS: &str = "\
apiVersion: sluice.io/v1
kind: SluiceNetworkPolicy
metadata:
  name: wrong
  namespace: n
spec:
  endpointSelector: {}
  colour: red
  ingress:
  - toPorts:
    - ports:
      - {port: \"90\", endPort: 80, protocol: TCP}
";
const B_TO_A: &str = r#"{"id":"1","from":"pod:n/b","to":"pod:n/a","protocol":"tcp","port":80}"#;

#[test]
fn valid_manifests_pass() {
    let run = sluice(&["policy", "validate", "-f", &examples()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stdout, "");
}

#[test]
fn every_problem_is_listed_with_file_line_object_and_field() {
    let folder = Folder::with(
        "problems",
        &[
            ("one.yaml", TWO_FAULTS),
            ("two.yaml", "apiVersion: v1\nkind: Pod\nmetadata: [\n"),
        ],
    );
    let run = sluice(&["policy", "validate", "-f", &folder.path()]);
    assert_eq!(run.code, 1);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let one = folder.file("one.yaml");
    let object = "SluiceNetworkPolicy n/wrong";
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(&format!("{one}:8: {object}: spec.colour: "))),
        "{lines:#?}"
    );
    let field = "spec.ingress[0].toPorts[0].ports[0].endPort";
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(&format!("{one}:12: {object}: {field}: "))),
        "{lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(&folder.file("two.yaml"))),
        "{lines:#?}"
    );
}

#[test]
fn problems_are_also_given_as_json_and_read_from_standard_input() {
    let run = sluice_reading(&["policy", "validate", "-f", "-", "-o", "json"], TWO_FAULTS);
    assert_eq!(run.code, 1);
    let report = run.json();
    assert_eq!(report["errors"], 2);
    assert_eq!(report["problems"][0]["field"], "spec.colour");
    assert_eq!(report["problems"][0]["name"], "wrong");
}

const SAME_PLACE: [&str; 2] = [
    "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: first}, spec: {tier: Admin, priority: 7, subject: {namespaces: {}}}}\n",
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: second}\nspec:\n  tier: Admin\n  priority: 7\n  subject: {namespaces: {}}\n",
];

#[test]
fn what_is_wrong_between_files_is_found_with_its_line() {
    let reference = DENIES_B.replace(
        "fromEndpoints: [{matchLabels: {app: b}}]",
        "fromCIDRSet: [{cidrGroupRef: nowhere}]",
    );
    let folder = Folder::with(
        "between",
        &[
            ("1.yaml", SAME_PLACE[0]),
            ("2.yaml", SAME_PLACE[1]),
            ("3.yaml", &reference),
        ],
    );
    let arguments = ["policy", "validate", "-f", &folder.path(), "-o", "json"];
    let warned = sluice(&arguments);
    assert_eq!(warned.code, 0, "{}", warned.stderr);
    let report = warned.json();
    assert_eq!(
        (&report["errors"], &report["warnings"]),
        (&json!(0), &json!(2))
    );
    let places: Vec<(&Value, &Value)> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| (&problem["line"], &problem["field"]))
        .collect();
    assert_eq!(
        places,
        [
            (&json!(6), &json!("spec.priority")),
            (
                &json!(7),
                &json!("spec.ingressDeny[0].fromCIDRSet[0].cidrGroupRef")
            ),
        ]
    );
    let twice = Folder::with("twice", &[("1.yaml", DENIES_B), ("2.yaml", DENIES_B)]);
    let run = sluice(&["policy", "validate", "-f", &twice.path()]);
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.starts_with(&format!(
            "{}:3: SluiceNetworkPolicy n/no-b: metadata.name: ",
            twice.file("2.yaml")
        )),
        "{}",
        run.stdout
    );
}

#[test]
fn equal_priorities_are_warned_of_wherever_policies_are_asked() {
    let folder = Folder::with(
        "equal",
        &[
            ("0.yaml", PODS),
            ("1.yaml", SAME_PLACE[0]),
            ("2.yaml", SAME_PLACE[1]),
        ],
    );
    let path = folder.path();
    let ends = ["--from", "pod:n/a", "--to", "pod:n/b", "--port", "80"];
    let explain = [&["policy", "explain", "-f", &path][..], &ends[..]].concat();
    let queries = ["policy", "eval", "-f", &path, "--queries", "-"];
    for (arguments, input) in [
        (&queries[..], B_TO_A),
        (&explain[..], ""),
        (&["policy", "matrix", "-f", &path][..], ""),
    ] {
        let run = sluice_reading(arguments, input);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(
            run.stderr
                .contains("2.yaml:6: warning: ClusterNetworkPolicy second: spec.priority: "),
            "{arguments:?}: {}",
            run.stderr
        );
    }
}

#[test]
fn an_answer_has_the_documented_shape_and_a_denial_exits_0() {
    let folder = Folder::with(
        "shape",
        &[
            ("world.yaml", PODS),
            ("policy.yaml", DENIES_B),
            ("q.jsonl", B_TO_A),
        ],
    );
    let run = sluice(&[
        "policy",
        "eval",
        "-f",
        &folder.path(),
        "--queries",
        &folder.file("q.jsonl"),
        "-o",
        "json",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let rule = json!({
        "kind": "SluiceNetworkPolicy", "namespace": "n", "name": "no-b", "spec": 0,
        "section": "ingressDeny", "index": 0, "tier": "namespace", "action": "deny",
    });
    let expected = json!({
        "id": "1", "verdict": "denied",
        "egress": {"verdict": "allowed", "reason": "default-allow", "rule": null},
        "ingress": {"verdict": "denied", "reason": "rule", "rule": rule},
    });
    assert_eq!(run.json_lines(), [expected]);
}

#[test]
fn a_bad_query_is_answered_in_its_place_and_exits_2() {
    let folder = Folder::with("bad-query", &[("world.yaml", PODS)]);
    let queries = format!(
        "{B_TO_A}\n{}\n{B_TO_A}\n",
        r#"{"id":"2","from":"pod:n/c","to":"pod:n/a","protocol":"TCP","port":80}"#
    );
    let run = sluice_reading(
        &[
            "policy",
            "eval",
            "-f",
            &folder.path(),
            "--queries",
            "-",
            "-o",
            "json",
        ],
        &queries,
    );
    assert_eq!(run.code, 2);
    let lines = run.json_lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["verdict"], "allowed");
    assert_eq!(lines[1]["id"], "2");
    assert!(
        lines[1]["error"]
            .as_str()
            .is_some_and(|error| error.contains("pod:n/c")),
        "{}",
        lines[1]
    );
    assert_eq!(lines[2]["verdict"], "allowed");
}

#[test]
fn an_array_of_queries_is_read_too() {
    let folder = Folder::with("array", &[("world.yaml", PODS)]);
    let run = sluice_reading(
        &[
            "policy",
            "eval",
            "-f",
            &folder.path(),
            "--queries",
            "-",
            "-o",
            "json",
        ],
        &format!("[{B_TO_A}]"),
    );
    assert_eq!((run.code, run.json_lines().len()), (0, 1));
}

#[test]
fn an_invalid_policy_fails_the_command_unless_skipped() {
    let folder = Folder::with(
        "skip",
        &[
            ("world.yaml", PODS),
            ("wrong.yaml", TWO_FAULTS),
            ("policy.yaml", DENIES_B),
            ("q.jsonl", B_TO_A),
        ],
    );
    let (path, queries) = (folder.path(), folder.file("q.jsonl"));
    let arguments = [
        "policy",
        "eval",
        "-f",
        &path,
        "--queries",
        &queries,
        "-o",
        "json",
    ];
    let refused = sluice(&arguments);
    assert_eq!(refused.code, 1);
    assert_eq!(refused.stdout, "");
    assert!(
        refused.stderr.contains("SluiceNetworkPolicy n/wrong"),
        "{}",
        refused.stderr
    );

    let skipped = sluice(&[&arguments[..], &["--skip-invalid"]].concat());
    assert_eq!(skipped.code, 0, "{}", skipped.stderr);
    let lines = skipped.json_lines();
    let rejected = &lines[0]["rejected"];
    assert_eq!(
        rejected.as_array().map(Vec::len),
        Some(1),
        "one entry for each policy, however many faults it has"
    );
    assert_eq!(rejected[0]["kind"], "SluiceNetworkPolicy");
    assert_eq!(rejected[0]["namespace"], "n");
    assert_eq!(rejected[0]["name"], "wrong");
    assert!(
        rejected[0]["error"]
            .as_str()
            .is_some_and(|error| error.contains("colour") && error.contains("endPort"))
    );
    assert_eq!(
        lines[1]["verdict"], "denied",
        "the valid policy still holds"
    );
}

#[test]
fn only_policies_can_be_skipped() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: n}, spec: 7}";
    let folder = Folder::with(
        "skip-pod",
        &[
            ("world.yaml", PODS),
            ("wrong.yaml", pod),
            ("q.jsonl", B_TO_A),
        ],
    );
    let run = sluice(&[
        "policy",
        "eval",
        "-f",
        &folder.path(),
        "--queries",
        &folder.file("q.jsonl"),
        "--skip-invalid",
    ]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("wrong.yaml"), "{}", run.stderr);
}

#[test]
fn modes_and_learned_names_reach_the_engine() {
    let policy = "\
{apiVersion: sluice.io/v1, kind: SluiceNetworkPolicy, metadata: {name: out, namespace: n},
 spec: {endpointSelector: {}, egress: [{toFQDNs: [{matchName: www.example.com}]}]}}";
    let folder = Folder::with("learned", &[("world.yaml", PODS), ("policy.yaml", policy)]);
    let learned = Folder::with(
        "learned-names",
        &[("learned.json", r#"{"www.example.com":["93.184.216.34"]}"#)],
    );
    let query =
        r#"{"id":"1","from":"pod:n/a","to":"ip:93.184.216.34","protocol":"TCP","port":443}"#;
    let (path, names) = (folder.path(), learned.file("learned.json"));
    let verdict = |more: &[&str]| {
        let arguments = [
            &[
                "policy",
                "eval",
                "-f",
                &path,
                "--queries",
                "-",
                "-o",
                "json",
            ],
            more,
        ]
        .concat();
        sluice_reading(&arguments, query).json_lines()[0]["egress"].clone()
    };
    assert_eq!(verdict(&[])["reason"], "default-deny");
    assert_eq!(verdict(&["--learned", &names])["reason"], "rule");
    assert_eq!(verdict(&["--policy-mode", "never"])["reason"], "mode");
}

#[test]
fn engines_print_the_same_over_the_examples() {
    let (path, queries) = (examples(), examples() + "/queries.jsonl");
    let eval = |engine| {
        sluice(&[
            "policy",
            "eval",
            "-f",
            &path,
            "--queries",
            &queries,
            "--engine",
            engine,
            "-o",
            "json",
        ])
    };
    let (reference, compiled) = (eval("reference"), eval("compiled"));
    assert_eq!(reference.code, 0, "{}", reference.stderr);
    assert_eq!(reference.stdout, compiled.stdout);
    let verdicts: Vec<Value> = reference
        .json_lines()
        .into_iter()
        .map(|line| line["verdict"].clone())
        .collect();
    assert!(verdicts.contains(&json!("allowed")) && verdicts.contains(&json!("denied")));
}

#[test]
fn explain_names_the_rule_and_the_nearest_miss() {
    let run = sluice(&[
        "policy",
        "explain",
        "-f",
        &examples(),
        "--from",
        "pod:shop/web",
        "--to",
        "pod:shop/db",
        "--port",
        "5432",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stdout.contains("NetworkPolicy shop/db ingress[0]"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("label app should be"), "{}", run.stdout);

    let wrong = sluice(&[
        "policy",
        "explain",
        "-f",
        &examples(),
        "--from",
        "pod:shop/nobody",
        "--to",
        "pod:shop/db",
        "--port",
        "1",
    ]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("no such pod"), "{}", wrong.stderr);
}

#[test]
fn the_matrix_shows_every_pair_in_every_form() {
    let path = examples();
    let matrix = |more: &[&str]| sluice(&[&["policy", "matrix", "-f", &path], more].concat());
    let document = matrix(&["-o", "json", "--port", "5432"]).json();
    assert_eq!(document["ends"].as_array().map(Vec::len), Some(5));
    assert_eq!(document["cells"].as_array().map(Vec::len), Some(25));
    let yaml: Value =
        serde_yaml_ng::from_str(&matrix(&["-o", "yaml", "--port", "5432"]).stdout).expect("YAML");
    assert_eq!(yaml, document);
    let table = matrix(&["--with", "ip:203.0.113.9"]).stdout;
    assert!(
        table.contains("shop/web")
            && table.contains('✗')
            && table.contains("NetworkPolicy shop/db ingress[0]"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "colours are for terminals");
    let wrong = matrix(&["--with", "pod:shop/nobody"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("pod:shop/nobody"), "{}", wrong.stderr);
}

#[test]
fn identities_count_pods() {
    let run = sluice(&["identities", "-f", &examples(), "-o", "json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let rows = run.json();
    let web = rows
        .as_array()
        .into_iter()
        .flatten()
        .find(|row| row["labels"].to_string().contains("k8s:app=web"));
    let web = web.expect("an identity of the web pod");
    assert_eq!(
        (&web["scope"], &web["endpoints"]),
        (&json!("pod"), &json!(1))
    );
}

#[test]
fn usage_errors_exit_1_and_help_exits_0() {
    assert_eq!(sluice(&["policy", "eval"]).code, 1);
    assert_eq!(sluice(&["policy", "nonsense"]).code, 1);
    for command in [
        &["--help"][..],
        &["policy", "eval", "--help"],
        &["identities", "--help"],
        &["completion", "bash"],
    ] {
        let run = sluice(command);
        assert_eq!(run.code, 0, "{command:?}");
        assert!(!run.stdout.is_empty());
    }
    assert!(
        sluice(&["policy", "explain", "--help"])
            .stdout
            .contains("Examples:")
    );
}

#[test]
fn a_missing_file_and_an_empty_folder_say_what_to_do() {
    let missing = sluice(&["policy", "validate", "-f", "/nonexistent/policy.yaml"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.contains("/nonexistent/policy.yaml"),
        "{}",
        missing.stderr
    );
    let folder = Folder::with("empty", &[("notes.txt", "")]);
    let empty = sluice(&["policy", "validate", "-f", &folder.path()]);
    assert_eq!(empty.code, 1);
    assert!(empty.stderr.contains(".yaml"), "{}", empty.stderr);
}
