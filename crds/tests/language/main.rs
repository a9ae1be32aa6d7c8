//! The policy language, row by row: what is refused, where, and what the message says; and what is accepted.
#![allow(
    clippy::too_many_lines,
    clippy::items_after_statements,
    reason = "tables are long, and their words stand beside them"
)]

mod peers;
mod ports;
mod proxy;
mod subject;

use sluice_crds::manifest::{Object, Problem, read};
use sluice_crds::parsed::{L4, Peer, Policy};
use sluice_crds::validate::Severity;

/// A policy whose `spec` is the given lines, indented by two.
fn policy(kind: &str, spec: &str) -> String {
    let spec = spec.trim_matches('\n').replace('\n', "\n  ");
    format!(
        "apiVersion: sluice.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: {}}}\nspec:\n  {spec}\n",
        if kind == "SluiceNetworkPolicy" {
            "shop"
        } else {
            "\"\""
        }
    )
}

fn ingress(rule: &str) -> String {
    section("ingress", rule)
}

fn section(section: &str, rule: &str) -> String {
    format!("endpointSelector: {{}}\n{section}:\n- {rule}")
}

fn errors(problems: &[Problem]) -> Vec<&Problem> {
    problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .collect()
}

/// Each row: its name, the spec, the path of the error, words of its message.
fn refuse(kind: &str, rows: &[(&str, String, &str, &str)]) {
    for (name, spec, path, words) in rows {
        let text = policy(kind, spec);
        let (objects, problems) = read("p.yaml", &text);
        let errors = errors(&problems);
        assert!(objects.is_empty(), "{name}: was accepted\n{text}");
        assert!(
            errors
                .iter()
                .any(|problem| problem.path == *path && problem.message.contains(words)),
            "{name}: no error at {path:?} with {words:?}\n{text}\n{errors:#?}"
        );
        assert_eq!(
            errors.len(),
            1,
            "{name}: more errors than the one mistake\n{errors:#?}"
        );
    }
}

/// Each row: its name and the spec.
fn accept(kind: &str, rows: &[(&str, String)]) {
    for (name, spec) in rows {
        let text = policy(kind, spec);
        let (objects, problems) = read("p.yaml", &text);
        assert!(
            errors(&problems).is_empty(),
            "{name}: refused\n{text}\n{problems:#?}"
        );
        assert_eq!(objects.len(), 1, "{name}");
    }
}

fn one(spec: &str) -> Policy {
    let (objects, problems) = read("p.yaml", &policy("SluiceNetworkPolicy", spec));
    match objects.into_iter().next() {
        Some(Object::Policy(policy)) => policy,
        other => panic!("{other:?} {problems:#?}"),
    }
}

fn ports(count: usize) -> String {
    let ports: Vec<String> = (1..=count)
        .map(|port| format!("{{port: \"{port}\"}}"))
        .collect();
    format!("toPorts: [{{ports: [{}]}}]", ports.join(", "))
}

fn icmps(count: usize) -> String {
    let types: Vec<String> = (0..count).map(|kind| format!("{{type: {kind}}}")).collect();
    format!("icmps: [{{fields: [{}]}}]", types.join(", "))
}

fn port(fields: &str) -> String {
    ingress(&format!("toPorts: [{{ports: [{{{fields}}}]}}]"))
}

fn http(rule: &str) -> String {
    ingress(&format!(
        "toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}], rules: {{http: [{rule}]}}}}]"
    ))
}

const PORT: &str = "spec.ingress[0].toPorts[0].ports[0].port";
const END_PORT: &str = "spec.ingress[0].toPorts[0].ports[0].endPort";
const PROTOCOL: &str = "spec.ingress[0].toPorts[0].ports[0].protocol";
