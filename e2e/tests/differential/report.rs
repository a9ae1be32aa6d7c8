//! A difference as a person wants it: the smallest world, the query, both answers, and how to ask again.

use std::fmt::Write as _;

use serde_json::Value;
use sluice_world::Mode;
use sluice_worldgen::{Generated, reduce::reduce};

use super::{
    Coverage, Engine,
    case::{Case, Difference},
};

/// The report of the first difference in what was generated.
pub(crate) fn report<E: Engine>(generated: &Generated, mode: Mode) -> String {
    let Some(first) = difference::<E>(&generated.documents, generated, mode) else {
        return "the engines differ, but not a second time: one of them does not give the same answer twice".into();
    };
    let mut single = generated.clone();
    single
        .queries
        .retain(|query| query["id"].as_str() == Some(&first.query.id));
    let documents = reduce(generated.documents.clone(), |documents| {
        difference::<E>(documents, &single, mode).is_some()
    });
    for name in generated.learned.keys() {
        let mut without = single.clone();
        without.learned.remove(name);
        if difference::<E>(&documents, &without, mode).is_some() {
            single = without;
        }
    }
    let last = difference::<E>(&documents, &single, mode).unwrap_or(first);
    text::<E>(&documents, &single, mode, &last)
}

fn difference<E: Engine>(
    documents: &[Value],
    generated: &Generated,
    mode: Mode,
) -> Option<Box<Difference>> {
    Case::of(documents, generated, mode)
        .ok()?
        .compare::<E>(&mut Coverage::default())
        .err()
}

fn text<E: Engine>(
    documents: &[Value],
    generated: &Generated,
    mode: Mode,
    difference: &Difference,
) -> String {
    let mut text = format!(
        "\nthe {} engine and the reference differ:\n\ncat > world.yaml <<'END'\n",
        E::NAME
    );
    for document in documents {
        let _ = write!(
            text,
            "---\n{}",
            serde_yaml_ng::to_string(document).unwrap_or_else(|_| document.to_string())
        );
    }
    let mode = format!("{mode:?}").to_lowercase();
    let json = |answer| serde_json::to_string(answer).unwrap_or_default();
    let _ = write!(
        text,
        "END\necho '{}' > learned.json\necho '{}' > queries.jsonl\n\
         sluice policy eval -f world.yaml --learned learned.json --queries queries.jsonl --policy-mode {mode} -o json --engine {}\n\n\
         reference: {}\n{:<9}: {}\n",
        generated.learned_json(),
        generated.query_lines().trim(),
        E::NAME,
        json(&difference.expected),
        E::NAME,
        json(&difference.found),
    );
    text
}
