//! Names of instances and where their pins are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sluice_abi::maps;
use thiserror::Error;

use crate::probe::BPFFS;

/// One datapath among several on a machine: a node's, or a lab's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(String);

/// The text is no instance's name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` can't name an instance: up to 32 lower-case letters, digits and dashes are wanted")]
pub struct BadName(pub String);

impl FromStr for Instance {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=32).contains(&name.len()) && name.chars().all(plain) {
            Ok(Self(name.to_owned()))
        } else {
            Err(BadName(name.to_owned()))
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Instance {
    /// The instances that have something pinned, sorted: also those whose process was killed.
    ///
    /// # Errors
    /// The bpf file system can't be read.
    pub fn list() -> std::io::Result<Vec<Self>> {
        let entries = match std::fs::read_dir(Self::root()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok()),
            );
        }
        found.sort();
        Ok(found)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    pub(super) fn root() -> PathBuf {
        Path::new(BPFFS).join("sluice")
    }

    pub(super) fn directory(&self) -> PathBuf {
        Self::root().join(&self.0)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.directory().join("links")
    }

    pub(super) fn layout(&self) -> PathBuf {
        self.directory().join(layout_version())
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.layout().join(name)
    }

    pub(super) fn lock(&self) -> PathBuf {
        Path::new("/run/sluice").join(format!("{}.lock", self.0))
    }
}

/// Meaning of the values: raised by hand when it changes though no size does.
const MEANING: u64 = 2;

/// A number that changes with the layout of any map, as a directory name. FNV-1a over names, kinds and sizes; no capacities.
pub(super) fn layout_version() -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    mix(&MEANING.to_le_bytes());
    for spec in maps::ALL {
        mix(spec.name.as_bytes());
        mix(&[spec.kind as u8]);
        mix(&(spec.key as u64).to_le_bytes());
        mix(&(spec.value as u64).to_le_bytes());
        mix(&spec.flags.to_le_bytes());
    }
    format!("v{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words() {
        assert_eq!("lab-1".parse::<Instance>().unwrap().name(), "lab-1");
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "Lab",
            "lab 1",
            "a-name-that-is-longer-than-32-bytes",
        ] {
            assert!(bad.parse::<Instance>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_layout_version_is_a_directory_name() {
        let version = layout_version();
        assert_eq!(version.len(), 17);
        assert!(version.starts_with('v') && version[1..].chars().all(|c| c.is_ascii_hexdigit()));
    }
}
