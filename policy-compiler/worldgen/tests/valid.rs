//! What the generator writes is valid, is a world, and asks questions that can be answered; a fault makes it invalid.

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_crds::{
    manifest::{self, Object},
    validate::Severity,
};
use sluice_world::{Inputs, Learned, build, query};
use sluice_worldgen::{Kind, Parameters, generate_seeded, invalid::FAULTS};

const WORLDS: u64 = 400;

fn errors(text: &str) -> (Vec<Object>, Vec<String>) {
    let (objects, problems) = manifest::read("generated", text);
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    (objects, errors)
}

#[test]
fn every_generated_world_is_valid_and_most_queries_can_be_judged() {
    let (mut good, mut bad) = (0_usize, 0_usize);
    for seed in 0..WORLDS {
        let generated = generate_seeded(&Parameters::small(), seed);
        let (objects, errors) = errors(&generated.manifest());
        assert!(
            errors.is_empty(),
            "seed {seed}: {errors:#?}\n{}",
            generated.manifest()
        );
        let world = build(objects.into_iter().collect::<Inputs>())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", generated.manifest()));
        Learned::parse(&generated.learned_json()).expect("learned names are readable");
        for query in query::parse(&generated.query_lines(), &world).expect("lines") {
            if query.is_ok() {
                good += 1;
            } else {
                bad += 1;
            }
        }
    }
    assert!(bad * 6 < good, "{bad} of {} queries are bad", good + bad);
}

#[test]
fn every_kind_of_policy_is_written() {
    let mut kinds = BTreeSet::new();
    for seed in 0..WORLDS {
        let generated = generate_seeded(&Parameters::small(), seed);
        let first = generated.documents.len() - generated.policies;
        for document in &generated.documents[first..] {
            kinds.insert(document["kind"].as_str().map(str::to_owned));
        }
    }
    assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
}

#[test]
fn every_fault_finds_a_place_and_is_reported_with_its_field() {
    let mut placed = BTreeSet::new();
    for seed in 0..WORLDS {
        let generated = generate_seeded(&Parameters::small(), seed);
        let first = generated.documents.len() - generated.policies;
        for document in &generated.documents[first..] {
            for fault in FAULTS {
                let mut spoiled: Value = document.clone();
                if !fault.apply(&mut spoiled) {
                    continue;
                }
                placed.insert(fault.name);
                let (_, errors) = errors(&spoiled.to_string());
                assert!(!errors.is_empty(), "{}: not refused: {spoiled}", fault.name);
                assert!(
                    errors.iter().any(|error| error.contains(fault.field)),
                    "{}: no error names {}: {errors:#?}\n{spoiled}",
                    fault.name,
                    fault.field
                );
            }
        }
    }
    assert_eq!(placed.len(), FAULTS.len(), "{placed:?}");
}
