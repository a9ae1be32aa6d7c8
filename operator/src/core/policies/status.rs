//! What is told of a policy: its status, and the event of one that is not valid. When it is written may not enter.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{PolicyState, key::PolicyKey, price::Costly};
use crate::core::{
    endpoints::fnv,
    input::PolicyInput,
    write::{Change, MAX_MESSAGE, MAX_NOTE, Notice, Write, shortened},
};

/// The condition of a policy that names a label which makes many identities; there only where it holds.
const MULTIPLIED: &str = "IdentitiesMultiplied";

/// Whether something holds, why, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) since: Timestamp,
}

/// The event of a policy that is not valid.
pub(super) fn invalid(
    key: &PolicyKey,
    input: &PolicyInput,
    problem: &str,
    in_force: bool,
) -> Notice {
    let note = format!("{problem}; {}", what_holds(in_force));
    notice(key, input, "Invalid", &note)
}

/// The event of a policy that makes many identities.
pub(super) fn multiplies(key: &PolicyKey, input: &PolicyInput, costly: &Costly) -> Notice {
    notice(key, input, MULTIPLIED, &costly.message())
}

fn notice(key: &PolicyKey, input: &PolicyInput, reason: &str, note: &str) -> Notice {
    let api_version = input.value.get("apiVersion").and_then(Value::as_str);
    Notice {
        api_version: api_version.unwrap_or_default().to_owned(),
        kind: key.kind(),
        namespace: key.namespace().map(str::to_owned),
        name: key.name().to_owned(),
        uid: Some(input.uid.clone()).filter(|uid| !uid.is_empty()),
        action: "Compile",
        reason: reason.to_owned(),
        note: shortened(note, MAX_NOTE),
        warning: true,
    }
}

const fn what_holds(in_force: bool) -> &'static str {
    if in_force {
        "the last valid version stays in force"
    } else {
        "nothing of it is in force"
    }
}

/// What a status tells, as found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) valid: Option<Condition>,
    pub(super) enforced: Option<Condition>,
    pub(super) multiplied: Option<Condition>,
    pub(super) last_valid: Option<String>,
    pub(super) digest: Option<u64>,
    /// The generation that was enforced everywhere.
    pub(super) settled_generation: Option<i64>,
}

impl Found {
    pub(super) fn of(status: Option<&Value>) -> Self {
        let Some(status) = status else {
            return Self::default();
        };
        let condition = |name: &str| {
            let all = status.get("conditions")?.as_array()?;
            let found = all.iter().find(|condition| condition["type"] == name)?;
            Some(Condition {
                holds: found["status"] == "True",
                reason: "",
                message: String::new(),
                since: found["lastTransitionTime"].as_str()?.parse().ok()?,
            })
        };
        let enforced = condition("Enforced").filter(|enforced| enforced.holds);
        Self {
            settled_generation: enforced.and_then(|_| status.get("observedGeneration")?.as_i64()),
            valid: condition("Valid"),
            enforced: condition("Enforced"),
            multiplied: condition(MULTIPLIED).filter(|multiplied| multiplied.holds),
            last_valid: status
                .get("lastValid")
                .and_then(Value::as_str)
                .map(str::to_owned),
            digest: Some(fnv(status.to_string().as_bytes())),
        }
    }
}

/// Brings a policy's status up to date; nothing where it is, or where its kind has none.
pub(super) fn status(key: &PolicyKey, state: &mut PolicyState, now: Timestamp) -> Option<Write> {
    let object = key.status_object()?;
    let in_force = state.content.is_some();
    if in_force && state.revision.is_none() && !key.is_group() {
        // Nothing to tell before it is published, which is at once, or has just failed and is tried again.
        return None;
    }
    let (holds, reason, message) = match &state.problem {
        Some(problem) => (
            false,
            "Invalid",
            shortened(&format!("{problem}; {}", what_holds(in_force)), MAX_MESSAGE),
        ),
        None if state.warnings.is_empty() => (true, "Valid", "understood".to_owned()),
        None => {
            let warnings: Vec<String> = state.warnings.iter().map(ToString::to_string).collect();
            (
                true,
                "ValidWithWarnings",
                shortened(&warnings.join("; "), MAX_MESSAGE),
            )
        }
    };
    let valid = turned(state.valid.take(), holds, reason, message, now);
    let mut conditions = vec![condition("Valid", &valid, state.input.generation)];
    state.valid = Some(valid);
    let mut status = json!({});
    if !key.is_group() {
        let (enforced, of) = state.nodes.unwrap_or_default();
        let published = state.revision.is_some() && state.nodes.is_some();
        let (holds, reason, message) = if state.problem.is_some() {
            (false, "Invalid", what_holds(in_force).to_owned())
        } else if !published {
            (false, "Pending", "not published to nodes yet".to_owned())
        } else {
            let all = enforced == of && of > 0;
            let mut message = format!("enforced on {enforced} of {of} nodes");
            for failure in &state.failures {
                message = format!("{message}; {failure}");
            }
            let reason = match (all, state.failures.is_empty()) {
                (true, _) => "Enforced",
                (false, true) => "Pending",
                (false, false) => "NodesFailing",
            };
            (all, reason, shortened(&message, MAX_MESSAGE))
        };
        let enforced_now = turned(state.enforced.take(), holds, reason, message, now);
        conditions.push(condition("Enforced", &enforced_now, state.input.generation));
        state.enforced = Some(enforced_now);
        if key.is_own() && published {
            status["nodes"] = json!({ "enforced": enforced, "desired": of });
        }
    }
    state.multiplied = state.costly.as_ref().map(|costly| {
        let before = state.multiplied.take();
        turned(before, true, "LabelOfManyValues", costly.message(), now)
    });
    if let Some(multiplied) = &state.multiplied {
        conditions.push(condition(MULTIPLIED, multiplied, state.input.generation));
    }
    status["conditions"] = Value::Array(conditions);
    if key.is_own() {
        status["observedGeneration"] = json!(state.input.generation);
        if let Some(text) = &state.last_valid {
            status["lastValid"] = json!(**text);
        }
    }
    let digest = fnv(status.to_string().as_bytes());
    if state.written == Some(digest) {
        return None;
    }
    state.written = Some(digest);
    let mut metadata = json!({ "name": object.name });
    if let Some(namespace) = &object.namespace {
        metadata["namespace"] = json!(namespace);
    }
    Some(Write {
        change: Change::ApplyStatus(json!({
            "apiVersion": object.api_version(),
            "kind": object.kind,
            "metadata": metadata,
            "status": status,
        })),
        object,
    })
}

/// A condition as it is now: since when, where it was so before.
fn turned(
    before: Option<Condition>,
    holds: bool,
    reason: &'static str,
    message: String,
    now: Timestamp,
) -> Condition {
    let since = before
        .filter(|before| before.holds == holds)
        .map_or(now, |before| before.since);
    Condition {
        holds,
        reason,
        message,
        since,
    }
}

fn condition(kind: &str, condition: &Condition, generation: i64) -> Value {
    json!({
        "type": kind,
        "status": if condition.holds { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.since.to_string(),
        "observedGeneration": generation,
    })
}
