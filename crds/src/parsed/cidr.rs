//! Prefixes in rules, and named groups of them. All prefixes here are masked: no host bits are set.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;

use super::KubeSelector;

/// One entry of a CIDR peer: a set of addresses less its own exceptions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CidrRule {
    /// The addresses.
    pub source: CidrSource,
    /// Carved out of this entry only; other entries may still select these addresses.
    pub except: Vec<IpNet>,
}

/// Where an entry's addresses are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CidrSource {
    /// In the policy. Every `except` lies inside.
    Cidr(IpNet),
    /// In the CIDR group of this name; a group that does not exist holds nothing.
    Group(String),
    /// In every CIDR group whose labels match.
    GroupSelector(KubeSelector),
}

/// Which kind a CIDR group is; rules refer to groups of either kind by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CidrGroupKind {
    /// `sluice.io/v1` `SluiceCIDRGroup`.
    Sluice,
    /// `cilium.io/v2` or `v2alpha1` `CiliumCIDRGroup`.
    Cilium,
}

impl fmt::Display for CidrGroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sluice => "SluiceCIDRGroup",
            Self::Cilium => "CiliumCIDRGroup",
        })
    }
}

/// A named, cluster-wide set of prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CidrGroup {
    /// Which kind of object it is.
    pub kind: CidrGroupKind,
    /// Its name.
    pub name: String,
    /// Its labels, for `cidrGroupSelector`.
    pub labels: BTreeMap<String, String>,
    /// Its prefixes, in the order written.
    pub cidrs: Vec<IpNet>,
}
