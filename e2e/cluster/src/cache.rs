//! Where built programs, images and running clusters are kept. What is built goes by the digest of the manifests it is built
//! from: a changed version is another folder. Building anything may not enter.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    error::{Error, Result},
    plan::Name,
};

/// Raised when the way of building changes so that what was built before won't do.
const RECIPE: &str = "1";

/// The cache folders of this checkout's manifests.
#[derive(Clone, Debug)]
pub struct Cache {
    built: PathBuf,
    clusters: PathBuf,
}

/// The folder with the Go modules' manifests and small main packages.
pub(crate) fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("modules")
}

impl Cache {
    /// Under `SLUICE_CACHE`, or `sluice` in the user's cache folder.
    ///
    /// # Errors
    ///
    /// If the manifests can't be read, or there is neither `SLUICE_CACHE` nor a home folder.
    pub fn find() -> Result<Self> {
        let root = root()?.join("kube");
        Ok(Self {
            built: root.join(digest(&modules())?),
            clusters: root.join("clusters"),
        })
    }

    /// Programs, to be put in front of `PATH`.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.built.join("bin")
    }

    /// Images that every node loads.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.built.join("images")
    }

    /// Half-made things.
    #[must_use]
    pub(crate) fn work(&self) -> PathBuf {
        self.built.join("work")
    }

    /// The state of a running cluster.
    #[must_use]
    pub fn cluster(&self, name: &Name) -> PathBuf {
        self.clusters.join(name.to_string())
    }
}

fn root() -> Result<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("SLUICE_CACHE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|cache| cache.join("sluice")))
        .or_else(|| absolute("HOME").map(|home| home.join(".cache/sluice")))
        .ok_or_else(|| Error::Missing {
            what: "the cache folder".to_owned(),
            hint: "set SLUICE_CACHE or HOME to an absolute path".to_owned(),
        })
}

/// Of all files' paths and contents, in order.
fn digest(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    files.sort();
    let mut hash = Sha256::new_with_prefix(RECIPE);
    for file in files {
        let content = fs::read(&file).map_err(Error::at("reading", &file))?;
        let name = file
            .strip_prefix(folder)
            .unwrap_or(&file)
            .to_string_lossy()
            .into_owned();
        hash.update(format!("{} {name} {}\n", name.len(), content.len()));
        hash.update(content);
    }
    Ok(hex(&hash.finalize()[..8]))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::at("reading", folder))? {
        let path = entry.map_err(Error::at("reading", folder))?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a string can't fail.
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_a_manifest_is_another_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/go.mod");
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(&file, "module a").unwrap();
        let first = digest(folder.path()).unwrap();
        assert_eq!(first.len(), 16);
        assert_eq!(digest(folder.path()).unwrap(), first);
        fs::write(&file, "module b").unwrap();
        assert_ne!(digest(folder.path()).unwrap(), first);
        fs::write(&file, "module a").unwrap();
        fs::rename(&file, folder.path().join("a/go.sum")).unwrap();
        assert_ne!(digest(folder.path()).unwrap(), first);
    }
}
