//! The objects of a lab: by name, the latest of each, with the manifests they came from kept on disk so that a killed lab can be taken
//! over. What objects mean may not enter.
//!
//! ```text
//! <directory>/manifests/00000007.yaml      what was applied, as written
//!                       00000008.deleted   names of what was deleted after
//! ```
//! A manifest goes when the last of its objects has been replaced or deleted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use sluice_crds::{
    manifest::{self, Object, ObjectRef},
    validate::Severity,
};

use crate::{LabError, objects};

/// A manifest: its name for messages, and its text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// The file it is from.
    pub file: String,
    /// YAML or JSON.
    pub text: String,
}

/// What an apply or delete does to one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which object.
    pub name: ObjectRef,
    /// What it was before.
    pub old: Option<Object>,
    /// What it is now.
    pub new: Option<Object>,
}

/// The objects.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    objects: BTreeMap<ObjectRef, Held>,
    /// How many current objects each manifest holds.
    live: BTreeMap<u64, usize>,
    next: u64,
}

#[derive(Debug)]
struct Held {
    object: Object,
    manifest: u64,
}

impl Store {
    /// An empty store that keeps its manifests in `directory`, which it makes.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn create(directory: &Path) -> Result<Self, LabError> {
        fs::create_dir_all(directory)
            .map_err(LabError::io(format!("creating {}", directory.display())))?;
        Ok(Self {
            directory: directory.to_owned(),
            objects: BTreeMap::new(),
            live: BTreeMap::new(),
            next: 0,
        })
    }

    /// What a store of an earlier process holds in `directory`.
    ///
    /// # Errors
    /// The directory can't be read, or it has been tampered with.
    pub fn open(directory: &Path) -> Result<Self, LabError> {
        let mut store = Self::create(directory)?;
        let context = || format!("reading {}", directory.display());
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(directory).map_err(LabError::io(context()))? {
            files.push(entry.map_err(LabError::io(context()))?.path());
        }
        files.sort();
        for path in files {
            let Some(number) = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok())
            else {
                continue;
            };
            let text = fs::read_to_string(&path)
                .map_err(LabError::io(format!("reading {}", path.display())))?;
            if path.extension().is_some_and(|e| e == "deleted") {
                let names: Vec<Name> =
                    serde_json::from_str(&text).map_err(|source| LabError::Record {
                        path: path.clone(),
                        source,
                    })?;
                for name in names {
                    store.remove(&name.into())?;
                }
            } else {
                let manifest = Manifest {
                    file: path.display().to_string(),
                    text,
                };
                store.hold(number, parse(&[manifest])?.objects)?;
            }
            store.next = store.next.max(number + 1);
        }
        Ok(store)
    }

    /// The current objects.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values().map(|held| &held.object)
    }

    /// Names of the current objects.
    pub fn names(&self) -> impl Iterator<Item = &ObjectRef> {
        self.objects.keys()
    }

    /// What applying these objects would change. Objects that are as they were are left out.
    #[must_use]
    pub fn preview(&self, objects: &[Object]) -> Vec<Change> {
        let mut latest: BTreeMap<ObjectRef, &Object> = BTreeMap::new();
        for object in objects {
            latest.insert(objects::name(object), object);
        }
        let change = |(name, object): (ObjectRef, &Object)| {
            let old = self.objects.get(&name).map(|held| held.object.clone());
            (old.as_ref() != Some(object)).then(|| Change {
                name,
                old,
                new: Some(object.clone()),
            })
        };
        latest.into_iter().filter_map(change).collect()
    }

    /// What deleting these names would change. Names of nothing are left out.
    #[must_use]
    pub fn preview_delete(&self, names: &[ObjectRef]) -> Vec<Change> {
        let held = names
            .iter()
            .filter_map(|name| Some((name, self.objects.get(name)?)));
        held.map(|(name, held)| Change {
            name: name.clone(),
            old: Some(held.object.clone()),
            new: None,
        })
        .collect()
    }

    /// Makes the text and its objects the latest.
    ///
    /// # Errors
    /// The manifest can't be written; nothing has changed then.
    pub fn apply(&mut self, text: &str, objects: Vec<Object>) -> Result<(), LabError> {
        let number = self.next;
        self.write(&format!("{number:08}.yaml"), text)?;
        self.next += 1;
        self.hold(number, objects)
    }

    /// Deletes objects by name.
    ///
    /// # Errors
    /// The record of it can't be written; nothing has changed then.
    pub fn delete(&mut self, names: &[ObjectRef]) -> Result<(), LabError> {
        let written: Vec<Name> = names.iter().cloned().map(Name::from).collect();
        let text = serde_json::to_string(&written).unwrap_or_default();
        self.write(&format!("{:08}.deleted", self.next), &text)?;
        self.next += 1;
        for name in names {
            self.remove(name)?;
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), LabError> {
        let path = self.directory.join(name);
        // Written aside and renamed: a process killed in the middle leaves no half manifest.
        let aside = self.directory.join(format!(".{name}"));
        let context = format!("writing {}", path.display());
        fs::write(&aside, text)
            .and_then(|()| fs::rename(&aside, &path))
            .map_err(LabError::io(context))
    }

    fn hold(&mut self, manifest: u64, objects: Vec<Object>) -> Result<(), LabError> {
        for object in objects {
            let name = objects::name(&object);
            *self.live.entry(manifest).or_default() += 1;
            if let Some(before) = self.objects.insert(name, Held { object, manifest }) {
                self.release(before.manifest)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, name: &ObjectRef) -> Result<(), LabError> {
        match self.objects.remove(name) {
            Some(held) => self.release(held.manifest),
            None => Ok(()),
        }
    }

    /// One object less in a manifest; the last one takes the manifest along.
    fn release(&mut self, manifest: u64) -> Result<(), LabError> {
        let Some(count) = self.live.get_mut(&manifest) else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.live.remove(&manifest);
        let path = self.directory.join(format!("{manifest:08}.yaml"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LabError::io(format!("removing {}", path.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

/// A name as it is stored.
#[derive(serde::Serialize, serde::Deserialize)]
struct Name(String, Option<String>, String);

impl From<ObjectRef> for Name {
    fn from(name: ObjectRef) -> Self {
        Self(name.kind, name.namespace, name.name)
    }
}

impl From<Name> for ObjectRef {
    fn from(Name(kind, namespace, name): Name) -> Self {
        Self {
            kind,
            namespace,
            name,
        }
    }
}

/// What valid manifests hold.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The objects, in the order written.
    pub objects: Vec<Object>,
    /// What their author should know: fields that are not read, rules that nothing serves yet. Each with file, line, object and field.
    pub warnings: Vec<String>,
}

/// Reads manifests.
///
/// # Errors
/// Every error of every manifest, in one text.
pub fn parse(manifests: &[Manifest]) -> Result<Parsed, LabError> {
    let mut parsed = Parsed::default();
    let mut errors = Vec::new();
    for manifest in manifests {
        let (objects, problems) = manifest::read(&manifest.file, &manifest.text);
        parsed.objects.extend(objects);
        for problem in problems {
            match problem.severity {
                Severity::Error => errors.push(problem.to_string()),
                Severity::Warning => parsed.warnings.push(problem.to_string()),
            }
        }
    }
    if errors.is_empty() {
        Ok(parsed)
    } else {
        Err(LabError::Manifests(errors.join("\n")))
    }
}

/// Reads files and folders: of a folder every `.yaml`, `.yml` and `.json` below it, in order of their paths.
///
/// # Errors
/// A path is not there or can't be read, or holds no manifest.
pub fn read_paths(paths: &[PathBuf]) -> Result<Vec<Manifest>, LabError> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        collect(path, true, &mut files)?;
        if files.len() == before {
            return Err(LabError::Manifests(format!(
                "{}: no .yaml, .yml or .json file in it",
                path.display()
            )));
        }
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path)
            .map_err(LabError::io(format!("reading {}", path.display())))?;
        Ok(Manifest {
            file: path.display().to_string(),
            text,
        })
    };
    files.into_iter().map(read).collect()
}

fn collect(path: &Path, named: bool, files: &mut Vec<PathBuf>) -> Result<(), LabError> {
    let context = || format!("reading {}", path.display());
    if !fs::metadata(path)
        .map_err(LabError::io(context()))?
        .is_dir()
    {
        let manifest = path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        // A file that somebody names is meant, whatever it is called.
        if named || manifest {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(LabError::io(context()))? {
        inside.push(entry.map_err(LabError::io(context()))?.path());
    }
    inside.sort();
    inside
        .iter()
        .try_for_each(|path| collect(path, false, files))
}
