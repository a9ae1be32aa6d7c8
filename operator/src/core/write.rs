//! What the operator wants written to the API server, as plain data. How and how fast it is written may not enter.

use serde_json::Value;

/// Conditions of statuses are shorter than this by the API's rule (32768 bytes); people read less.
pub(super) const MAX_MESSAGE: usize = 4096;
/// Notes of events: the API's limit is 1024 bytes.
pub(super) const MAX_NOTE: usize = 1000;

/// A text cut to about this many bytes.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{} …", &text[..end])
}

/// An object of a kind that the operator writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// Its API group; empty for the core group.
    pub group: &'static str,
    /// Version of the group.
    pub version: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// The kind's name in paths.
    pub plural: &'static str,
    /// Its namespace; `None` exactly for cluster-wide kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Object {
    /// `group/version`, as manifests spell it.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// One of Sluice's own kinds.
    pub(super) fn own(
        kind: &'static str,
        plural: &'static str,
        namespace: Option<String>,
        name: String,
    ) -> Self {
        Self {
            group: sluice_crds::resources::GROUP,
            version: sluice_crds::resources::VERSION,
            kind,
            plural,
            namespace,
            name,
        }
    }
}

/// What is to become of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Made, where it must not exist with other content: its content is what its name promises.
    Create(Value),
    /// Server-side apply of all the fields that the operator owns.
    Apply(Value),
    /// The same, of its status.
    ApplyStatus(Value),
    /// Deleted.
    Delete,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Of which object.
    pub object: Object,
    /// What.
    pub change: Change,
}

/// Something that a user must know of an object: it becomes an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// API version of the object it is about.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its UID, where known.
    pub uid: Option<String>,
    /// What the operator was doing, in one word.
    pub action: &'static str,
    /// Why, in one word.
    pub reason: String,
    /// What happened, for people.
    pub note: String,
    /// Something is wrong, as opposed to worth knowing.
    pub warning: bool,
}
