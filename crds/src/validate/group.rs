//! CIDR groups.

use std::collections::BTreeMap;

use super::{Findings, Path, cidr, each};
use crate::parsed::{CidrGroup, CidrGroupKind};
use crate::resources::CidrGroupSpec;

/// A CIDR group of either kind.
pub fn cidr_group(
    kind: CidrGroupKind,
    name: &str,
    labels: &BTreeMap<String, String>,
    spec: &CidrGroupSpec,
    findings: &mut Findings,
) -> Option<CidrGroup> {
    let spec_path = Path::Root.field("spec");
    let cidrs = each(
        &spec.external_cidrs,
        &spec_path.field("externalCIDRs"),
        findings,
        |text, path, findings| cidr::prefix_or_address(text, path, findings),
    )?;
    Some(CidrGroup {
        kind,
        name: name.to_owned(),
        labels: labels.clone(),
        cidrs,
    })
}
