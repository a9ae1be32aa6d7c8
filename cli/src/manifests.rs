//! Manifests from files, folders and standard input, and the world they describe.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Serialize;
use sluice_crds::{
    manifest::{self, ObjectRef, Placed, Problem},
    parsed::PolicyKind,
    validate::Severity,
};
use sluice_lab::store::read_paths;
use sluice_world::{Inputs, Learned, World};

use crate::output;

/// What stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Everything that was read, and all that is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) files: usize,
    pub(crate) objects: Vec<Placed>,
    pub(crate) problems: Vec<Problem>,
}

/// A policy that is left out.
#[derive(Debug, Serialize)]
pub(crate) struct Rejected {
    kind: String,
    namespace: Option<String>,
    name: String,
    error: String,
}

impl Rejected {
    /// What is wrong, with file, line, object and field.
    pub(crate) fn error(&self) -> &str {
        &self.error
    }
}

impl Manifests {
    /// Reads every file that these paths name or hold, and holds their objects against each other.
    ///
    /// # Errors
    /// Where a path can't be read, or there is no manifest at all.
    pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut read = Self::default();
        for path in paths {
            if path.as_os_str() == STANDARD_INPUT {
                read.add("<stdin>", &text_of(path)?);
                continue;
            }
            for manifest in read_paths(std::slice::from_ref(path))? {
                read.add(&manifest.file, &manifest.text);
            }
        }
        read.problems.extend(manifest::relate(&mut read.objects));
        Ok(read)
    }

    /// Errors alone.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
    }

    /// The world, if every object is valid. Warnings are printed.
    ///
    /// # Errors
    /// Names every invalid object.
    pub(crate) fn world(self) -> anyhow::Result<World> {
        let errors: Vec<String> = self.errors().map(ToString::to_string).collect();
        if !errors.is_empty() {
            bail!(
                "manifests are invalid; nothing was judged (--skip-invalid, where a command has it, leaves invalid policies out)\n  {}",
                errors.join("\n  ")
            );
        }
        self.build()
    }

    /// The world without its invalid policies, and these. Anything else that is invalid is still an error.
    ///
    /// # Errors
    /// Where something other than a policy is invalid.
    pub(crate) fn world_of_valid(mut self) -> anyhow::Result<(World, Vec<Rejected>)> {
        let mut rejected = BTreeMap::<(String, Option<String>, String), Vec<String>>::new();
        self.problems.retain(|problem| {
            let policy = problem.object.as_ref().filter(|object| is_policy(object));
            let (Some(object), Severity::Error) = (policy, problem.severity) else {
                return true;
            };
            let key = (
                object.kind.clone(),
                object.namespace.clone(),
                object.name.clone(),
            );
            rejected.entry(key).or_default().push(problem.to_string());
            false
        });
        let rejected = rejected
            .into_iter()
            .map(|((kind, namespace, name), errors)| Rejected {
                kind,
                namespace,
                name,
                error: errors.join("; "),
            })
            .collect();
        Ok((self.world()?, rejected))
    }

    /// The world of the valid objects, whatever else was read.
    ///
    /// # Errors
    /// Where they contradict each other.
    pub(crate) fn build(self) -> anyhow::Result<World> {
        for problem in &self.problems {
            output::remark(&problem.to_string());
        }
        let objects = self.objects.into_iter().map(|placed| placed.object);
        sluice_world::build(objects.collect::<Inputs>())
            .context("the manifests do not make a world")
    }

    fn add(&mut self, name: &str, text: &str) {
        let (objects, problems) = manifest::read_placed(name, text);
        self.files += 1;
        self.objects.extend(objects);
        self.problems.extend(problems);
    }
}

/// Reads names and the addresses learned for them; none where no file is given.
///
/// # Errors
/// Where the file can't be read or is no such list.
pub(crate) fn learned(path: Option<&Path>) -> anyhow::Result<Learned> {
    let Some(path) = path else {
        return Ok(Learned::default());
    };
    Learned::parse(&text_of(path)?).with_context(|| path.display().to_string())
}

/// The text of a file, or of standard input where the path is `-`.
///
/// # Errors
/// Where it can't be read.
pub(crate) fn text_of(path: &Path) -> anyhow::Result<String> {
    if path.as_os_str() == STANDARD_INPUT {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("standard input can't be read as text")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

fn is_policy(object: &ObjectRef) -> bool {
    PolicyKind::ALL
        .iter()
        .any(|kind| kind.as_str() == object.kind)
}
