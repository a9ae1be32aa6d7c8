//! The validating webhook: policies that can't be put in force are refused while their author is still looking. What is refused is what
//! the reconciler would not put in force: the same reader says so. How the API server comes to call it may not enter.

use axum::{Json, Router, routing::post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{core::strict_read, metrics::Metrics};

/// The path that the webhook configuration names.
pub const PATH: &str = "/validate";

#[derive(Deserialize)]
struct Review {
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Serialize)]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
}

/// Answers reviews.
pub fn router(metrics: Metrics) -> Router {
    Router::new().route(
        PATH,
        post(move |Json(review): Json<Review>| {
            let metrics = metrics.clone();
            async move { Json(answer(review, &metrics)) }
        }),
    )
}

fn answer(review: Review, metrics: &Metrics) -> Answer {
    metrics.reviews.inc();
    let (uid, verdict) = match review.request {
        Some(request) => (request.uid.clone(), judge(request)),
        None => (String::new(), Err("the review holds no request".to_owned())),
    };
    if verdict.is_err() {
        metrics.refusals.inc();
    }
    Answer {
        api_version: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response: Response {
            uid,
            allowed: verdict.is_ok(),
            status: verdict
                .err()
                .map(|message| json!({ "code": 422, "reason": "Invalid", "message": message })),
        },
    }
}

/// # Errors
/// What is wrong with it.
fn judge(request: Request) -> Result<(), String> {
    let Some(object) = trimmed(request.object) else {
        // A deletion.
        return Ok(());
    };
    // What was let in when the webhook could not be asked must still be able to lose a finalizer.
    let unchanged = trimmed(request.old_object).is_some_and(|old| {
        ["spec", "specs"]
            .into_iter()
            .all(|field| old.get(field) == object.get(field))
    });
    if unchanged {
        return Ok(());
    }
    strict_read(&object).map(drop)
}

/// The object without what its author has no say in.
fn trimmed(object: Value) -> Option<Value> {
    let Value::Object(mut object) = object else {
        return None;
    };
    object.remove("status");
    let metadata = object.remove("metadata").unwrap_or_default();
    // Where the API server is to make the name up, it has none yet.
    let name = metadata
        .get("name")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty());
    let mut kept = json!({ "name": name.unwrap_or("unnamed") });
    for field in ["namespace", "labels"] {
        if let Some(value) = metadata.get(field) {
            kept[field] = value.clone();
        }
    }
    object.insert("metadata".to_owned(), kept);
    Some(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(port: &str) -> Value {
        json!({
            "apiVersion": "sluice.io/v1",
            "kind": "SluiceNetworkPolicy",
            "metadata": { "name": "p", "namespace": "default", "uid": "u", "managedFields": [{}] },
            "spec": {
                "endpointSelector": {},
                "ingress": [{ "toPorts": [{ "ports": [{ "port": port, "protocol": "TCP" }] }] }],
            },
            "status": { "conditions": [] },
        })
    }

    fn ask(object: Value, old: Value) -> Result<(), String> {
        judge(Request {
            uid: "1".to_owned(),
            object,
            old_object: old,
        })
    }

    #[test]
    fn a_valid_policy_passes() {
        assert_eq!(ask(policy("80"), Value::Null), Ok(()));
    }

    #[test]
    fn a_bad_field_is_refused_with_its_path() {
        let refused = ask(policy("70000"), Value::Null).unwrap_err();
        assert!(
            refused.contains("spec.ingress[0].toPorts[0].ports[0].port"),
            "{refused}"
        );
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let mut object = policy("80");
        object["spec"]["ingres"] = json!([]);
        let refused = ask(object, Value::Null).unwrap_err();
        assert!(refused.contains("spec.ingres"), "{refused}");
    }

    #[test]
    fn a_change_of_metadata_passes_whatever_the_spec() {
        assert_eq!(ask(policy("70000"), policy("70000")), Ok(()));
        assert!(ask(policy("70000"), policy("80")).is_err());
    }

    #[test]
    fn a_deletion_and_a_name_to_be_made_up_pass() {
        assert_eq!(ask(Value::Null, policy("70000")), Ok(()));
        let mut object = policy("80");
        object["metadata"] = json!({ "generateName": "p-", "namespace": "default" });
        assert_eq!(ask(object, Value::Null), Ok(()));
    }

    #[test]
    fn answers_carry_the_uid_of_the_question() {
        let review = serde_json::from_value(json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": { "uid": "q", "operation": "CREATE", "object": policy("http!") },
        }))
        .unwrap();
        let answer = serde_json::to_value(answer(review, &Metrics::default())).unwrap();
        assert_eq!(answer["response"]["uid"], "q");
        assert_eq!(answer["response"]["allowed"], false);
        assert!(answer["response"]["status"]["message"].is_string());
    }
}
