//! Makes a failing world small: leaves out documents, list entries and fields for as long as the failure stays.
//!
//! It works on JSON and knows nothing of Kubernetes; what is still a failure is the caller's to say. Choices shrink too, but a
//! recorded choice moves everything after it, while this takes one thing away and leaves all else as it was.

use serde_json::Value;

/// One step into a document.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Entry(usize),
}

/// The smallest manifests found for which `fails` still holds. `fails` has to be false for manifests that can't be read.
pub fn reduce(documents: Vec<Value>, mut fails: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
    let mut best = documents;
    loop {
        let mut smaller = without_documents(&best, &mut fails);
        for index in (0..smaller.len()).rev() {
            smaller = without_parts(smaller, index, &mut fails);
        }
        if smaller == best {
            return best;
        }
        best = smaller;
    }
}

fn without_documents(documents: &[Value], fails: &mut impl FnMut(&[Value]) -> bool) -> Vec<Value> {
    let mut kept = documents.to_vec();
    for index in (0..kept.len()).rev() {
        let mut candidate = kept.clone();
        candidate.remove(index);
        if fails(&candidate) {
            kept = candidate;
        }
    }
    kept
}

fn without_parts(
    documents: Vec<Value>,
    index: usize,
    fails: &mut impl FnMut(&[Value]) -> bool,
) -> Vec<Value> {
    let mut kept = documents;
    // Outer parts come first: taking one away takes all that is inside.
    let mut position = 0;
    loop {
        let mut paths = Vec::new();
        collect(&kept[index], &mut Vec::new(), &mut paths);
        let Some(path) = paths.get(position) else {
            return kept;
        };
        let mut candidate = kept.clone();
        remove(&mut candidate[index], path);
        if fails(&candidate) {
            kept = candidate;
        } else {
            position += 1;
        }
    }
}

fn collect(value: &Value, path: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
    let steps: Vec<Step> = match value {
        Value::Object(fields) => fields.keys().cloned().map(Step::Field).collect(),
        Value::Array(entries) => (0..entries.len()).map(Step::Entry).collect(),
        _ => return,
    };
    for step in steps {
        let inner = match &step {
            Step::Field(name) => &value[name],
            Step::Entry(number) => &value[number],
        };
        path.push(step);
        paths.push(path.clone());
        collect(inner, path, paths);
        path.pop();
    }
}

fn remove(document: &mut Value, path: &[Step]) {
    let Some((last, outer)) = path.split_last() else {
        return;
    };
    let mut value = document;
    for step in outer {
        value = match step {
            Step::Field(name) => &mut value[name],
            Step::Entry(number) => &mut value[number],
        };
    }
    match (value, last) {
        (Value::Object(fields), Step::Field(name)) => {
            fields.remove(name);
        }
        (Value::Array(entries), Step::Entry(number)) => {
            entries.remove(*number);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_only_what_the_failure_needs() {
        let documents = vec![
            json!({"kind": "A", "other": 1}),
            json!({"kind": "B", "list": [1, 7, 2], "deep": {"x": [{"y": 1, "z": 2}]}}),
            json!({"kind": "C"}),
        ];
        let reduced = reduce(documents, |documents| {
            documents.iter().any(|document| {
                document["list"]
                    .as_array()
                    .is_some_and(|list| list.contains(&json!(7)))
            })
        });
        assert_eq!(reduced, [json!({"list": [7]})]);
    }
}
