//! What is on disk about a lab, so that commands find their way and a killed supervisor can be followed by another. The objects are in
//! [`crate::store`].

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sluice_world::{Mode, PodRef};

use crate::{LabError, name::LabName, plan::Numbers};

/// The form of the record; a record of another form is refused.
const VERSION: u32 = 1;
const FILE: &str = "lab.json";

/// One lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// Its name.
    pub name: String,
    /// The process that looks after it, or did.
    pub supervisor: u32,
    /// Policy enforcement mode: default, always or never.
    pub mode: String,
    /// The files and folders it was made from; followed where `watch` is set.
    pub sources: Vec<PathBuf>,
    /// Whether it follows changes of its sources.
    pub watch: bool,
    /// Its pods with number, addresses and namespace.
    pub pods: BTreeMap<String, PodRecord>,
}

/// One pod as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodRecord {
    /// Its number.
    pub number: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its network namespace.
    pub namespace: String,
    /// The process of its responder.
    pub responder: Option<u32>,
}

impl Record {
    /// The record of a new lab without pods.
    #[must_use]
    pub fn new(name: &LabName, mode: String, sources: Vec<PathBuf>, watch: bool) -> Self {
        Self {
            version: VERSION,
            name: name.to_string(),
            supervisor: std::process::id(),
            mode,
            sources,
            watch,
            pods: BTreeMap::new(),
        }
    }

    /// The record of a lab; none where there is no such lab.
    ///
    /// # Errors
    /// It can't be read or is of another version.
    pub fn read(lab: &LabName) -> Result<Option<Self>, LabError> {
        let path = path(&lab.directory());
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(LabError::io(format!("reading {}", path.display())))?,
        };
        let record: Self = serde_json::from_str(&text).map_err(|source| LabError::Record {
            path: path.clone(),
            source,
        })?;
        if record.version == VERSION {
            return Ok(Some(record));
        }
        let source =
            serde::de::Error::custom(format!("version {} is not {VERSION}", record.version));
        Err(LabError::Record { path, source })
    }

    /// Writes the record.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn write(&self, lab: &LabName) -> Result<(), LabError> {
        let directory = lab.directory();
        let context = format!("writing {}", path(&directory).display());
        let text =
            serde_json::to_string_pretty(self).map_err(|e| LabError::Refused(e.to_string()))?;
        let aside = directory.join(".lab.json");
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, path(&directory)))
            .map_err(LabError::io(context))
    }

    /// The enforcement mode; one that is not understood is the default.
    #[must_use]
    pub fn enforcement_mode(&self) -> Mode {
        match self.mode.as_str() {
            "always" => Mode::Always,
            "never" => Mode::Never,
            _ => Mode::Default,
        }
    }

    /// The pods' numbers.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let known = self
            .pods
            .iter()
            .filter_map(|(pod, record)| Some((pod_ref(pod)?, record.number)));
        Numbers(known.collect())
    }

    /// The pods' addresses.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<PodRef, Vec<IpAddr>> {
        let known = self
            .pods
            .iter()
            .filter_map(|(pod, record)| Some((pod_ref(pod)?, record.addresses.clone())));
        known.collect()
    }

    /// The processes of the pods' responders.
    #[must_use]
    pub fn responders(&self) -> BTreeMap<PodRef, u32> {
        let known = self
            .pods
            .iter()
            .filter_map(|(pod, record)| Some((pod_ref(pod)?, record.responder?)));
        known.collect()
    }

    /// The namespace of the pod that a person means by `text`: `namespace/name`, or a name that only one pod has.
    ///
    /// # Errors
    /// No pod or several are meant.
    pub fn namespace_of(&self, lab: &LabName, text: &str) -> Result<String, LabError> {
        let fits = |pod: &&String| {
            *pod == text || pod.split_once('/').is_some_and(|(_, name)| name == text)
        };
        let mut meant = self.pods.keys().filter(fits);
        match (meant.next(), meant.next()) {
            (Some(pod), None) => Ok(self.pods[pod].namespace.clone()),
            _ if text == "node" => Ok(lab.node_namespace()),
            _ => Err(LabError::NoSuchPod {
                name: lab.clone(),
                pod: text.to_owned(),
                known: self.pods.keys().cloned().collect::<Vec<_>>().join(", ") + ", node",
            }),
        }
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

fn pod_ref(text: &str) -> Option<PodRef> {
    let (namespace, name) = text.split_once('/')?;
    Some(PodRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Every lab of this machine that has a directory, by name.
///
/// # Errors
/// The directory of labs can't be read.
pub fn all() -> Result<Vec<LabName>, LabError> {
    let root = crate::name::root();
    let context = format!("reading {}", root.display());
    let entries = match fs::read_dir(&root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(LabError::io(context.clone()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(LabError::io(context.clone()))?.file_name();
        names.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_meant_by_its_whole_name_or_by_a_name_only_it_has() {
        let lab: LabName = "x".parse().unwrap();
        let mut record = Record::new(&lab, "default".to_owned(), Vec::new(), false);
        for (pod, namespace) in [("a/web", "1"), ("b/web", "2"), ("b/db", "3")] {
            let entry = PodRecord {
                number: 1,
                addresses: Vec::new(),
                namespace: namespace.to_owned(),
                responder: None,
            };
            record.pods.insert(pod.to_owned(), entry);
        }
        assert_eq!(record.namespace_of(&lab, "a/web").unwrap(), "1");
        assert_eq!(record.namespace_of(&lab, "db").unwrap(), "3");
        assert_eq!(record.namespace_of(&lab, "node").unwrap(), "sluice-x-node");
        for wrong in ["web", "c/web", ""] {
            assert!(
                matches!(
                    record.namespace_of(&lab, wrong),
                    Err(LabError::NoSuchPod { .. })
                ),
                "{wrong}"
            );
        }
    }
}
