//! Names: of a lab, and of everything on the machine that belongs to one. Doing anything with the names may not enter.
//!
//! All that a lab leaves on a machine can be found by its name alone, so that `down` works with no record of what `up` had done.

use std::{fmt, path::PathBuf, str::FromStr};

use sluice_world::PodRef;
use thiserror::Error;

/// The longest name of a lab.
const LIMIT: usize = 16;
/// What the names of labs' kernel objects begin with.
const INSTANCE: &str = "lab-";
/// The longest file name, hence the longest name of a network namespace.
const FILE_NAME_LIMIT: usize = 255;

/// Names a lab: lower-case letters and digits, a letter first.
///
/// No hyphen, so that no lab's prefix is the beginning of another's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabName(String);

/// The text can't name a lab.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` can't name a lab: 1 to 16 lower-case letters and digits are wanted, a letter first")]
pub struct BadLabName(String);

impl LabName {
    /// What the names of all its network namespaces begin with.
    #[must_use]
    pub fn namespace_prefix(&self) -> String {
        format!("sluice-{self}-")
    }

    /// The network namespace that stands for the node.
    #[must_use]
    pub fn node_namespace(&self) -> String {
        self.namespace_prefix() + "node"
    }

    /// The network namespace that stands for a pod. Kubernetes namespaces have no dot in their names, so it is unique; where it is
    /// too long for a file name, its end is replaced by a digest.
    #[must_use]
    pub fn pod_namespace(&self, pod: &PodRef) -> String {
        let whole = format!("{}{}.{}", self.namespace_prefix(), pod.namespace, pod.name);
        if whole.len() <= FILE_NAME_LIMIT {
            return whole;
        }
        let digest = format!("~{:016x}", fnv(whole.as_bytes()));
        let kept: String = whole.chars().take(FILE_NAME_LIMIT - digest.len()).collect();
        kept + &digest
    }

    /// Where its record, its log and its control socket are.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        root().join(&self.0)
    }

    /// The name of its kernel objects among those of other labs and of a real agent.
    #[must_use]
    pub fn instance(&self) -> String {
        format!("{INSTANCE}{self}")
    }

    /// The lab whose kernel objects have this name, if they are a lab's.
    #[must_use]
    pub fn of_instance(instance: &str) -> Option<Self> {
        instance.strip_prefix(INSTANCE)?.parse().ok()
    }
}

/// Where the labs of this machine have their directories.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from("/run/sluice/lab")
}

/// The name of a pod's interface on the node: the slot makes it unique, the pod's name makes it readable.
#[must_use]
pub fn interface(slot: u32, pod: &PodRef) -> String {
    let text = format!("v{slot}-{}", pod.name.replace('.', "-"));
    text.chars().take(15).collect()
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabName {
    type Err = BadLabName;

    fn from_str(text: &str) -> Result<Self, BadLabName> {
        let good = text.len() <= LIMIT
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadLabName(text.to_owned()))
        }
    }
}

/// FNV-1a, 64 bits: stable across runs and builds, which the standard library's hasher does not promise.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_known_by_its_kernel_objects() {
        let lab: LabName = "shop2".parse().unwrap();
        assert_eq!(LabName::of_instance(&lab.instance()), Some(lab));
        assert_eq!(LabName::of_instance("agent"), None);
        assert_eq!(LabName::of_instance("lab-"), None);
    }

    fn pod(namespace: &str, name: &str) -> PodRef {
        PodRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        for bad in ["", "a-b", "A", "1a", "a.b", "../x", "abcdefghijklmnopq"] {
            assert_eq!(bad.parse::<LabName>(), Err(BadLabName(bad.to_owned())));
        }
        assert!("shop2".parse::<LabName>().is_ok());
    }

    #[test]
    fn pods_whose_names_join_to_the_same_text_have_different_namespaces() {
        let lab: LabName = "x".parse().unwrap();
        assert_ne!(
            lab.pod_namespace(&pod("a", "b-c")),
            lab.pod_namespace(&pod("a-b", "c"))
        );
        assert_ne!(lab.pod_namespace(&pod("n", "ode")), lab.node_namespace());
    }

    #[test]
    fn long_names_fit_and_stay_apart() {
        let lab: LabName = "x".parse().unwrap();
        let names = ["a", "b"].map(|end| lab.pod_namespace(&pod("n", &("p".repeat(252) + end))));
        assert!(names.iter().all(|name| name.len() <= FILE_NAME_LIMIT));
        assert_ne!(names[0], names[1]);
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        assert_eq!(
            interface(12, &pod("n", "a-very-long-pod-name")),
            "v12-a-very-long"
        );
        assert_eq!(interface(3, &pod("n", "web.0")), "v3-web-0");
    }
}
