//! How far a policy is: what the operator wrote into its status, and waiting until every node follows it. What a policy means may not
//! enter.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use serde::Serialize;
use serde_json::Value;
use sluice_crds::parsed::PolicyKind;
use tokio::time::{Instant, sleep};

use crate::{Error, error::code, objects::list_all};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Kinds of policies whose statuses the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// `sluice.io`, for pods of its namespace.
    SluiceNetworkPolicy,
    /// `sluice.io`, cluster-wide.
    SluiceClusterwideNetworkPolicy,
    /// `policy.networking.k8s.io`.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io`.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io`.
    BaselineAdminNetworkPolicy,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::SluiceNetworkPolicy,
        Self::SluiceClusterwideNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
    ];

    const fn parsed(self) -> PolicyKind {
        match self {
            Self::SluiceNetworkPolicy => PolicyKind::SluiceNetworkPolicy,
            Self::SluiceClusterwideNetworkPolicy => PolicyKind::SluiceClusterwideNetworkPolicy,
            Self::ClusterNetworkPolicy => PolicyKind::ClusterNetworkPolicy,
            Self::AdminNetworkPolicy => PolicyKind::AdminNetworkPolicy,
            Self::BaselineAdminNetworkPolicy => PolicyKind::BaselineAdminNetworkPolicy,
        }
    }

    /// As manifests spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.parsed().as_str()
    }

    /// Whether its policies are in namespaces.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        self.parsed().is_namespaced()
    }

    fn resource(self) -> ApiResource {
        let (group, version, plural) = match self {
            Self::SluiceNetworkPolicy => ("sluice.io", "v1", "sluicenetworkpolicies"),
            Self::SluiceClusterwideNetworkPolicy => {
                ("sluice.io", "v1", "sluiceclusterwidenetworkpolicies")
            }
            Self::ClusterNetworkPolicy => (
                "policy.networking.k8s.io",
                "v1alpha2",
                "clusternetworkpolicies",
            ),
            Self::AdminNetworkPolicy => (
                "policy.networking.k8s.io",
                "v1alpha1",
                "adminnetworkpolicies",
            ),
            Self::BaselineAdminNetworkPolicy => (
                "policy.networking.k8s.io",
                "v1alpha1",
                "baselineadminnetworkpolicies",
            ),
        };
        let kind = GroupVersionKind::gvk(group, version, self.as_str());
        ApiResource::from_gvk_with_plural(&kind, plural)
    }
}

/// How far a policy is. Only what is said of the generation that the object has now counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "progress", content = "message")]
pub enum Progress {
    /// The operator has not spoken of this generation.
    Unseen,
    /// It is not valid, because of this.
    Invalid(String),
    /// Not all nodes follow yet: how many do.
    Pending(String),
    /// All nodes that it concerns follow it.
    Enforced(String),
}

/// A policy, with how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyState {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, if its kind has them.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// How far it is.
    #[serde(flatten)]
    pub progress: Progress,
}

impl PolicyState {
    /// Reads the status of a policy.
    #[must_use]
    pub fn of(kind: Kind, object: &DynamicObject) -> Self {
        Self {
            kind,
            namespace: object.namespace(),
            name: object.name_any(),
            progress: progress(object),
        }
    }
}

impl std::fmt::Display for PolicyState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.as_str())?;
        match &self.namespace {
            Some(namespace) => write!(f, " {namespace}/{}", self.name),
            None => write!(f, " {}", self.name),
        }
    }
}

fn progress(object: &DynamicObject) -> Progress {
    let generation = object.metadata.generation.unwrap_or_default();
    let conditions: Vec<Condition> = serde_json::from_value(
        object
            .data
            .pointer("/status/conditions")
            .cloned()
            .unwrap_or(Value::Array(Vec::new())),
    )
    .unwrap_or_default();
    let current = |kind: &str| {
        let current = |condition: &&Condition| {
            condition.type_ == kind && condition.observed_generation >= Some(generation)
        };
        conditions.iter().find(current)
    };
    match (current("Valid"), current("Enforced")) {
        (Some(valid), _) if valid.status != "True" => Progress::Invalid(valid.message.clone()),
        (_, Some(enforced)) if enforced.status == "True" => {
            Progress::Enforced(enforced.message.clone())
        }
        (_, Some(enforced)) => Progress::Pending(enforced.message.clone()),
        (Some(_), None) => Progress::Pending("not published to nodes yet".to_owned()),
        (None, None) => Progress::Unseen,
    }
}

/// All policies that have a status. Kinds that the cluster lacks have none.
///
/// # Errors
/// The API server refuses.
pub async fn all(client: &Client) -> Result<Vec<PolicyState>, Error> {
    let mut states = Vec::new();
    for kind in Kind::ALL {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
        let doing = format!("listing {}", kind.as_str());
        match list_all(&api, &ListParams::default(), &doing).await {
            Ok(objects) => {
                states.extend(objects.iter().map(|object| PolicyState::of(kind, object)));
            }
            Err(error) if error.code() == Some(404) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(states)
}

/// Which policy is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its kind; else the one kind that has a policy of this name.
    pub kind: Option<Kind>,
    /// The namespace that a namespaced policy is looked for in.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Waits until every node that a policy concerns follows it as it is now. `tell` hears of every change on the way.
///
/// # Errors
/// There is no such policy, or several; it is not valid; `patience` ends.
pub async fn wait(
    client: &Client,
    wanted: &Wanted,
    patience: Duration,
    tell: &mut dyn FnMut(&PolicyState),
) -> Result<PolicyState, Error> {
    let until = Instant::now() + patience;
    let mut told = None;
    let mut kind = wanted.kind;
    loop {
        let state = match look(client, wanted, kind).await {
            Ok(state) => Some(state),
            // An API server that is restarted is no answer about a policy.
            Err(error) if error.code().is_none_or(|code| code < 500) && !is_connection(&error) => {
                return Err(error);
            }
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => None,
        };
        if let Some(state) = state {
            kind = Some(state.kind);
            if told.as_ref() != Some(&state) {
                tell(&state);
            }
            match &state.progress {
                Progress::Enforced(_) => return Ok(state),
                Progress::Invalid(why) => {
                    return Err(Error::Refused(format!("{state} is not valid: {why}")));
                }
                Progress::Pending(_) | Progress::Unseen => told = Some(state),
            }
        }
        if Instant::now() >= until {
            return Err(late(wanted, patience, told.as_ref()));
        }
        sleep(PAUSE).await;
    }
}

fn late(wanted: &Wanted, patience: Duration, last: Option<&PolicyState>) -> Error {
    Error::Timeout {
        what: match last {
            Some(state) => format!("{state} is not enforced on every node"),
            None => format!("nothing is known of policy {}", wanted.name),
        },
        seconds: patience.as_secs(),
        last: match last.map(|state| &state.progress) {
            Some(Progress::Pending(message)) => message.clone(),
            Some(_) => {
                "the operator has not spoken of it; `sluice status` says how that is".to_owned()
            }
            None => "the API server did not answer".to_owned(),
        },
    }
}

fn is_connection(error: &Error) -> bool {
    matches!(error, Error::Api { source, .. } if code(source).is_none())
}

async fn look(client: &Client, wanted: &Wanted, kind: Option<Kind>) -> Result<PolicyState, Error> {
    let kinds = kind.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    let mut found = Vec::new();
    for kind in kinds {
        let resource = kind.resource();
        let api: Api<DynamicObject> = if kind.is_namespaced() {
            Api::namespaced_with(client.clone(), &wanted.namespace, &resource)
        } else {
            Api::all_with(client.clone(), &resource)
        };
        let doing = format!("reading {} {}", kind.as_str(), wanted.name);
        let object = match api.get(&wanted.name).await.map_err(Error::api(doing)) {
            Ok(object) => Some(object),
            // There is no such object; or no such kind, which the API server says in words that are no `Status`.
            Err(error) if error.code() == Some(404) => None,
            Err(error) => return Err(error),
        };
        found.extend(object.map(|object| PolicyState::of(kind, &object)));
    }
    if found.len() > 1 {
        let kinds: Vec<&str> = found.iter().map(|state| state.kind.as_str()).collect();
        return Err(Error::Refused(format!(
            "policies of several kinds are called {}: {}; --kind tells which is meant",
            wanted.name,
            kinds.join(", ")
        )));
    }
    found.pop().ok_or_else(|| missing(wanted, kind))
}

fn missing(wanted: &Wanted, kind: Option<Kind>) -> Error {
    Error::Missing(match kind {
        Some(kind) if kind.is_namespaced() => format!(
            "there is no {} {}/{}",
            kind.as_str(),
            wanted.namespace,
            wanted.name
        ),
        Some(kind) => format!("there is no {} {}", kind.as_str(), wanted.name),
        None => format!(
            "no policy with a status is called {} (namespaced kinds were looked for in {})",
            wanted.name, wanted.namespace
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(generation: i64, conditions: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "generation": generation},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn condition(kind: &str, status: &str, generation: i64, message: &str) -> Value {
        json!({"type": kind, "status": status, "observedGeneration": generation, "message": message, "reason": "R",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn only_what_is_said_of_the_current_generation_counts() {
        let all = "enforced on 3 of 3 nodes";
        let said = json!([
            condition("Valid", "True", 1, ""),
            condition("Enforced", "True", 1, all)
        ]);
        assert_eq!(
            progress(&object(1, &said)),
            Progress::Enforced(all.to_owned())
        );
        assert_eq!(progress(&object(2, &said)), Progress::Unseen);
        let half = json!([
            condition("Valid", "True", 2, ""),
            condition("Enforced", "True", 1, all)
        ]);
        assert!(matches!(progress(&object(2, &half)), Progress::Pending(_)));
    }

    #[test]
    fn an_invalid_policy_is_never_enforced() {
        let said = json!([
            condition("Valid", "False", 2, "spec.x: no"),
            condition("Enforced", "False", 2, "old one")
        ]);
        assert_eq!(
            progress(&object(2, &said)),
            Progress::Invalid("spec.x: no".to_owned())
        );
    }

    #[test]
    fn without_a_status_nothing_is_known() {
        let bare: DynamicObject =
            serde_json::from_value(json!({"metadata": {"name": "a", "generation": 1}})).unwrap();
        assert_eq!(progress(&bare), Progress::Unseen);
    }
}
