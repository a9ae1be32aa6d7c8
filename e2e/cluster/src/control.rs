//! The control folder of a machine: files by which the outside says which services shall run and the machine's first process
//! says which do. Running anything may not enter.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A program that a machine keeps running.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Its whole environment.
    pub(crate) env: BTreeMap<String, String>,
}

/// Whether a service shall run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Want {
    Up,
    Down,
}

/// A control folder.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    folder: PathBuf,
}

impl Control {
    /// The folder need not exist.
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    pub(crate) fn create(&self) -> Result<()> {
        let logs = self.folder.join("log");
        fs::create_dir_all(&logs).map_err(Error::at("creating", logs))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says what a service is and that it shall run.
    pub(crate) fn add(&self, name: &str, service: &Service) -> Result<()> {
        let text = serde_json::to_vec_pretty(service).map_err(|error| Error::Unreadable {
            what: format!("the service {name}"),
            why: error.to_string(),
        })?;
        self.set(name, Want::Up)?;
        replace(&self.file(name, "json"), &text)
    }

    /// Says whether a service shall run.
    pub(crate) fn set(&self, name: &str, want: Want) -> Result<()> {
        let path = self.file(name, "down");
        match want {
            Want::Down => replace(&path, b""),
            Want::Up => gone(fs::remove_file(&path), &path),
        }
    }

    /// Whether a service shall run.
    pub(crate) fn want(&self, name: &str) -> Result<Want> {
        let path = self.file(name, "down");
        let down = path.try_exists().map_err(Error::at("looking for", &path))?;
        Ok(if down { Want::Down } else { Want::Up })
    }

    /// The names of all services.
    pub(crate) fn services(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::at("reading", &self.folder))? {
            let path = entry.map_err(Error::at("reading", &self.folder))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                names.extend(
                    path.file_stem()
                        .map(|stem| stem.to_string_lossy().into_owned()),
                );
            }
        }
        Ok(names)
    }

    /// What a service is.
    pub(crate) fn service(&self, name: &str) -> Result<Service> {
        let path = self.file(name, "json");
        let text = fs::read(&path).map_err(Error::at("reading", &path))?;
        serde_json::from_slice(&text).map_err(|error| Error::Unreadable {
            what: path.display().to_string(),
            why: error.to_string(),
        })
    }

    /// The file that holds the process id, as the machine counts, while the service runs.
    pub(crate) fn pid(&self, name: &str) -> PathBuf {
        self.file(name, "pid")
    }

    /// The process id, as the machine counts; none while the service does not run.
    pub(crate) fn running(&self, name: &str) -> Option<u32> {
        fs::read_to_string(self.pid(name)).ok()?.trim().parse().ok()
    }

    /// The service does not run any more.
    pub(crate) fn forget_pid(&self, name: &str) -> Result<()> {
        gone(fs::remove_file(self.pid(name)), &self.pid(name))
    }

    /// What the service wrote, all runs of it.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder.join("log").join(format!("{name}.log"))
    }

    /// The machine's file system is made and services can be started.
    pub(crate) fn write_ready(&self) -> Result<()> {
        replace(&self.folder.join("ready"), b"")
    }

    /// Whether [`Self::write_ready`] was called.
    pub(crate) fn is_ready(&self) -> bool {
        self.folder.join("ready").exists()
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }
}

/// Renamed into place: the other side reads the old content or the new and no half.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, content).map_err(Error::at("writing", &partial))?;
    fs::rename(&partial, path).map_err(Error::at("writing", path))
}

fn gone(removed: io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::at("removing", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_read_what_the_other_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new(folder.path());
        control.create().unwrap();
        let service = Service {
            argv: vec!["sleep".into(), "1".into()],
            env: BTreeMap::new(),
        };
        control.add("a", &service).unwrap();
        assert_eq!(control.services().unwrap(), ["a"]);
        assert_eq!(control.service("a").unwrap().argv, service.argv);
        assert_eq!(control.want("a").unwrap(), Want::Up);
        control.set("a", Want::Down).unwrap();
        assert_eq!(control.want("a").unwrap(), Want::Down);
        control.set("a", Want::Up).unwrap();
        control.set("a", Want::Up).unwrap();
        assert_eq!(control.want("a").unwrap(), Want::Up);
        assert_eq!(control.running("a"), None);
        fs::write(control.pid("a"), "17").unwrap();
        assert_eq!(control.running("a"), Some(17));
        control.forget_pid("a").unwrap();
        control.forget_pid("a").unwrap();
        assert_eq!(control.running("a"), None);
    }
}
