//! A policy or CIDR group read: strictly, or not at all. What is done about one that can't be read may not enter.

use std::sync::Arc;

use serde_json::Value;
use sluice_crds::{
    manifest::{self, Object as Manifest},
    parsed::{NetworkPeer, TierPeer},
    validate::Severity,
};
use sluice_policy::Prepared;
use sluice_world::{CidrGroup, Policy, builder};

/// What a policy or group is, read.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// With its rules digested, so that a later version costs what its difference is.
    Policy(Prepared),
    Group(CidrGroup),
}

/// Reads one policy or CIDR group, strictly: what a webhook refuses and what a reconciler does not put in force are the same.
///
/// # Errors
/// What is wrong, with the path of the field, for the author.
pub fn strict_read(value: &Value) -> Result<Manifest, String> {
    let (mut objects, problems) = manifest::read("", &value.to_string());
    let errors: Vec<String> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| {
            if problem.path.is_empty() {
                problem.message.clone()
            } else {
                format!("{}: {}", problem.path, problem.message)
            }
        })
        .collect();
    match objects.pop() {
        Some(object) if errors.is_empty() => Ok(object),
        _ if errors.is_empty() => Err("the object could not be read".to_owned()),
        _ => Err(errors.join("; ")),
    }
}

pub(super) fn content(manifest: Manifest) -> Option<Content> {
    let policy = match manifest {
        Manifest::NetworkPolicy(policy) => Policy::Network(policy),
        Manifest::Policy(policy) => Policy::Rules(policy),
        Manifest::TierPolicy(policy) => Policy::Tier(policy),
        Manifest::CidrGroup(group) => return Some(Content::Group(builder::cidr_group(&group))),
        _ => return None,
    };
    Some(Content::Policy(Prepared::new(Arc::new(policy))))
}

/// Whether a policy has blocks that may match pods.
pub(super) fn names_blocks(content: Option<&Content>) -> bool {
    let Some(Content::Policy(policy)) = content else {
        return false;
    };
    match &**policy.policy() {
        Policy::Network(policy) => [&policy.ingress, &policy.egress]
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|rule| rule.peers.iter().flatten())
            .any(|peer| matches!(peer, NetworkPeer::IpBlock { .. })),
        Policy::Tier(policy) => policy
            .ingress
            .iter()
            .chain(&policy.egress)
            .flat_map(|rule| &rule.peers)
            .any(|peer| matches!(peer, TierPeer::Networks(_))),
        Policy::Rules(_) => false,
    }
}

/// `spec` and `specs` of an object, as text.
pub(super) fn spec_text(value: &Value) -> String {
    let kept: serde_json::Map<String, Value> = ["spec", "specs"]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), value.get(field)?.clone())))
        .collect();
    Value::Object(kept).to_string()
}

/// The object with another `spec` and `specs`.
pub(super) fn with_spec(value: &Value, text: &str) -> Option<Value> {
    let kept: Value = serde_json::from_str(text).ok()?;
    let mut object = value.as_object()?.clone();
    for field in ["spec", "specs"] {
        object.remove(field);
        if let Some(kept) = kept.get(field) {
            object.insert(field.to_owned(), kept.clone());
        }
    }
    Some(Value::Object(object))
}
