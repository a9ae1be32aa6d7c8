//! The strict reader: manifest text into objects, with every problem found on the way and where it is written.
//!
//! ```text
//! text ── tree (lines kept, duplicate keys refused) ── decode (unknown fields, types) ── validate (meaning) ── Object
//! Objects of all files ── relate (names given twice, references to nothing, equal priorities)
//! ```
//!
//! What may not enter: files. The caller reads them, and gives their name for the messages.

mod decode;
mod hint;
mod object;
mod relate;
mod tree;

use std::fmt;

pub use object::{Object, ObjectRef, Placed};
pub use relate::relate;

use crate::validate::Severity;

/// Something wrong, or worth knowing, in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// An error keeps the object from being used; a warning does not.
    pub severity: Severity,
    /// The file's name as given to [`read`].
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The object, where the text was good enough to tell.
    pub object: Option<ObjectRef>,
    /// The field path within the object, `spec.ingress[0].toPorts[0].ports[1].endPort`; empty for the object as a whole.
    pub path: String,
    /// What is wrong, the likely cause, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: ", self.file, self.line, self.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Reads every object of a manifest: YAML of one or more documents, or JSON; lists are taken apart.
///
/// An object with an error is not among the objects; its problems say why. Namespaced objects that name no namespace are
/// put into `default`, as kubectl does.
#[must_use]
pub fn read(file_name: &str, text: &str) -> (Vec<Object>, Vec<Problem>) {
    let (placed, problems) = read_placed(file_name, text);
    let objects = placed.into_iter().map(|placed| placed.object).collect();
    (objects, problems)
}

/// As [`read`], with the place of each object, for [`relate`].
#[must_use]
pub fn read_placed(file_name: &str, text: &str) -> (Vec<Placed>, Vec<Problem>) {
    let (documents, syntax_error) = tree::parse(text);
    let mut reader = object::Reader::new(file_name);
    for document in &documents {
        reader.document(document);
    }
    if let Some(problem) = &syntax_error {
        reader.text_problem(problem, None);
    }
    let (objects, mut problems) = reader.finish();
    problems.sort_by_key(|problem| problem.line);
    (objects, problems)
}
