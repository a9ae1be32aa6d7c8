//! Fuzz targets of the strict reader: no text makes it panic, and whatever it says has a place in the text.
//!
//! Each target is an ordinary test that runs for a second; `cargo xtask fuzz` runs it for longer. What manifests mean may not enter.

use std::time::Duration;

use bolero::{TypeGenerator, check};
use sluice_crds::manifest::{read, read_placed, relate};

/// How long a target runs as an ordinary test; `BOLERO_RANDOM_TEST_TIME_MS` overrides it.
const TIME: Duration = Duration::from_secs(1);

/// What manifests are made of, so that random ones get past the first line.
const WORDS: [&str; 40] = [
    "apiVersion: sluice.io/v1\n",
    "apiVersion: networking.k8s.io/v1\n",
    "apiVersion: policy.networking.k8s.io/v1alpha2\n",
    "kind: SluiceNetworkPolicy\n",
    "kind: NetworkPolicy\n",
    "kind: ClusterNetworkPolicy\n",
    "kind: List\nitems:\n",
    "metadata: {name: a, namespace: b}\n",
    "spec:\n",
    "specs: [*s]\n",
    "spec: &s\n",
    "  endpointSelector: {}\n",
    "  endpointSelector: {matchLabels: {a: b}}\n",
    "  podSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}\n",
    "  ingress:\n",
    "  egressDeny:\n",
    "  - fromEndpoints: [{}]\n",
    "  - toCIDRSet: [{cidr: \"fd00::/8\", except: [\"fd00::/9\"]}]\n",
    "  - from: [{ipBlock: {cidr: 10.0.0.0/8}}]\n",
    "    toPorts: [{ports: [{port: \"80\", endPort: 90, protocol: TCP}]}]\n",
    "    toPorts: [{ports: [{port: \"80\"}], rules: {http: [{path: \"/[\"}]}}]\n",
    "  - icmps: [{fields: [{type: 8, family: IPv6}]}]\n",
    "  - toFQDNs: [{matchPattern: \"**.*.\"}]\n",
    "  priority: 5\n",
    "  tier: Admin\n",
    "---\n",
    "...\n",
    "- ",
    "  ",
    ": ",
    "\n",
    "#",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "*s",
    "<<: *s\n",
];

/// A text between random bytes and a manifest.
#[derive(Clone, Debug, TypeGenerator)]
struct Draft {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    Word(u8),
    Character(char),
    Again,
}

impl Draft {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for piece in &self.pieces {
            match piece {
                Piece::Word(word) => {
                    last = WORDS[usize::from(*word) % WORDS.len()];
                    text.push_str(last);
                }
                Piece::Character(character) => text.push(*character),
                Piece::Again => text.push_str(last),
            }
        }
        text
    }
}

#[test]
fn any_bytes_as_text_are_read_without_harm() {
    check!()
        .with_test_time(TIME)
        .with_type::<Vec<u8>>()
        .for_each(|bytes| read_without_harm(&String::from_utf8_lossy(bytes)));
}

#[test]
fn any_draft_of_a_manifest_is_read_without_harm() {
    check!()
        .with_test_time(TIME)
        .with_type::<Draft>()
        .for_each(|draft| read_without_harm(&draft.text()));
}

/// Reading ends, and every problem says in which file, at which line of it, and what.
fn read_without_harm(text: &str) {
    let (objects, problems) = read("fuzz.yaml", text);
    // YAML ends lines at a lone carriage return too; the end of the text counts as the line behind the last.
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count() + 1;
    for problem in &problems {
        assert_eq!(problem.file, "fuzz.yaml");
        assert!(
            (1..=lines).contains(&problem.line),
            "{problem} is beyond the {lines} lines of the text"
        );
        assert!(!problem.message.is_empty());
    }
    let (mut placed, _) = read_placed("fuzz.yaml", text);
    for problem in relate(&mut placed) {
        assert!(
            (1..=lines).contains(&problem.line),
            "{problem} is beyond the {lines} lines of the text"
        );
    }
    let again = read("fuzz.yaml", text);
    assert_eq!((objects.len(), &problems), (again.0.len(), &again.1));
    // An empty list is all right, and the kind may be in a comment.
    let is_whole = text.lines().any(|line| line.starts_with("kind: ")) && !text.contains("List");
    if objects.is_empty() && is_whole && !text.contains(['#', '\'', '"', '|', '>', '%']) {
        assert!(
            !problems.is_empty(),
            "a manifest without object and without problem"
        );
    }
}
