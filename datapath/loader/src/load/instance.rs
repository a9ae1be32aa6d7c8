//! Names of instances and where their pins are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sluice_abi::maps;
use thiserror::Error;

use super::Sizes;
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

    pub(super) fn layout(&self, layout: &Layout) -> PathBuf {
        self.directory().join(&layout.0)
    }

    pub(super) fn map(&self, layout: &Layout, name: &str) -> PathBuf {
        self.layout(layout).join(name)
    }

    pub(super) fn lock(&self) -> PathBuf {
        Path::new("/run/sluice").join(format!("{}.lock", self.0))
    }
}

/// Meaning of the values: raised by hand when it changes though no size does.
const MEANING: u64 = 2;

/// A number that changes with the layout or the capacity of any map, as a directory name. FNV-1a over names, kinds and sizes.
///
/// Maps refer to each other by position (a connection to its endpoint's slot), so that those of other capacities are other maps
/// altogether: they are made beside the old ones, filled, and taken in their place in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout(String);

impl Layout {
    pub(super) fn of(sizes: &Sizes) -> Self {
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
            mix(&sizes.entries(spec).to_le_bytes());
        }
        Self(format!("v{hash:016x}"))
    }

    /// Whether a directory of this name has the maps of another layout.
    pub(super) fn is_other(&self, directory: &str) -> bool {
        directory.starts_with('v') && directory != self.0
    }
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
    fn a_layout_is_a_directory_name_and_changes_with_each_size() {
        let small = Layout::of(&Sizes::small());
        assert_eq!(small.0.len(), 17);
        assert!(small.0.starts_with('v') && small.0[1..].chars().all(|c| c.is_ascii_hexdigit()));
        assert!(!small.is_other(&small.0) && !small.is_other("links"));
        let larger = Sizes {
            rules: 4097,
            ..Sizes::small()
        };
        assert!(small.is_other(&Layout::of(&larger).0));
    }
}
