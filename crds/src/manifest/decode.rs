//! Values into types, strictly: every unknown field and wrong type is found, with its path, not only the first.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::hint;
use crate::validate::{Finding, Severity};

/// How often an object is tried again without the field that was wrong. More mistakes than this in one object are one
/// mistake repeated.
const MAX_TRIES: usize = 32;

/// What to make of fields that the type does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// An error: policy that is not understood whole must not be half enforced.
    Refuse,
    /// A warning: the object may come from a newer Kubernetes.
    Warn,
}

/// The outcome of reading one object.
pub(super) struct Decoded<T> {
    /// The object; also where unknown fields were refused, so that the rest of it can be checked.
    pub(super) object: Option<T>,
    /// What was wrong.
    pub(super) findings: Vec<Finding>,
}

/// Reads a value as a `T`.
pub(super) fn decode<T: DeserializeOwned>(mut value: Value, unknown: Unknown) -> Decoded<T> {
    let mut findings = Vec::new();
    let mut is_whole = true;
    for _ in 0..MAX_TRIES {
        let mut ignored = Vec::new();
        let mut note = |path: serde_ignored::Path<'_>| ignored.push(path_text(&path));
        let result: Result<T, _> = serde_path_to_error::deserialize(
            serde_ignored::Deserializer::new(value.clone(), &mut note),
        );
        let error = match result {
            Ok(object) => {
                findings.extend(ignored.into_iter().map(|path| ignored_field(path, unknown)));
                return Decoded {
                    object: is_whole.then_some(object),
                    findings,
                };
            }
            Err(error) => error,
        };
        let mut path = segments(error.path());
        let message = error.inner().to_string();
        let unknown_field = hint::unknown_field(&message);
        if let Some(field) = unknown_field
            && path
                .last()
                .is_none_or(|last| *last != Segment::Field(field.to_owned()))
        {
            path.push(Segment::Field(field.to_owned()));
        }
        let text = text_of(&path);
        // What is missing after a wrong field was taken out was there, and has been reported.
        if is_whole || !message.starts_with("missing field") {
            findings.push(Finding {
                severity: Severity::Error,
                path: text.clone(),
                message: hint::explain(&message, &text),
            });
        }
        is_whole &= unknown_field.is_some();
        if !remove(&mut value, &path) {
            break;
        }
    }
    Decoded {
        object: None,
        findings,
    }
}

fn ignored_field(path: String, unknown: Unknown) -> Finding {
    match unknown {
        Unknown::Refuse => Finding {
            severity: Severity::Error,
            message: "unknown field: check its spelling and its indentation".to_owned(),
            path,
        },
        Unknown::Warn => Finding {
            severity: Severity::Warning,
            message: "unknown field, ignored: a misspelling, or newer than this version of Sluice"
                .to_owned(),
            path,
        },
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Field(String),
    Index(usize),
}

fn segments(path: &serde_path_to_error::Path) -> Vec<Segment> {
    path.iter()
        .filter_map(|segment| match segment {
            serde_path_to_error::Segment::Seq { index } => Some(Segment::Index(*index)),
            serde_path_to_error::Segment::Map { key } => Some(Segment::Field(key.clone())),
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => {
                None
            }
        })
        .collect()
}

fn text_of(path: &[Segment]) -> String {
    path.iter()
        .fold(String::new(), |text, segment| match segment {
            Segment::Field(name) if text.is_empty() => name.clone(),
            Segment::Field(name) => format!("{text}.{name}"),
            Segment::Index(index) => format!("{text}[{index}]"),
        })
}

fn path_text(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_text(parent)),
        Path::Map { parent, key } => match path_text(parent) {
            outer if outer.is_empty() => key.clone(),
            outer => format!("{outer}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => path_text(parent),
    }
}

/// Takes a field out. Entries of lists stay: the paths of those after them would shift.
fn remove(value: &mut Value, path: &[Segment]) -> bool {
    let Some((Segment::Field(last), outer)) = path.split_last() else {
        return false;
    };
    let parent = outer
        .iter()
        .try_fold(value, |value, segment| match segment {
            Segment::Field(name) => value.get_mut(name),
            Segment::Index(index) => value.get_mut(*index),
        });
    parent
        .and_then(Value::as_object_mut)
        .is_some_and(|map| map.remove(last).is_some())
}
