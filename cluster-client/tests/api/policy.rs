//! Waiting for a policy, against an API server that tells of its progress.

use std::time::Duration;

use crate::support::{Server, refusal};
use serde_json::{Value, json};
use sluice_client::{
    Error,
    policy::{self, Kind, Progress, Wanted},
};

const SNP: &str = "/apis/sluice.io/v1/namespaces/shop/sluicenetworkpolicies/web";
const SCNP: &str = "/apis/sluice.io/v1/sluiceclusterwidenetworkpolicies/web";
const ANP: &str = "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies/web";
const PATIENCE: Duration = Duration::from_secs(10);

fn wanted(kind: Option<Kind>) -> Wanted {
    Wanted {
        kind,
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    }
}

/// A policy of generation 2 with what is said of a generation.
fn object(said_of: i64, valid: bool, enforced: Option<&str>) -> Value {
    let condition = |kind: &str, holds: bool, message: &str| {
        json!({"type": kind, "status": if holds {"True"} else {"False"}, "reason": "R", "message": message,
            "observedGeneration": said_of, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let mut conditions = vec![condition("Valid", valid, "spec.x: unknown field")];
    conditions
        .extend(enforced.map(|message| condition("Enforced", message.contains("3 of 3"), message)));
    json!({"apiVersion": "sluice.io/v1", "kind": "SluiceNetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop", "generation": 2}, "status": {"conditions": conditions}})
}

async fn wait(server: &Server, kind: Option<Kind>) -> (Result<Progress, Error>, Vec<Progress>) {
    let mut told = Vec::new();
    let state = policy::wait(&server.client(), &wanted(kind), PATIENCE, &mut |state| {
        told.push(state.progress.clone());
    })
    .await;
    (state.map(|state| state.progress), told)
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_once_each_until_every_node_enforces() {
    let half = object(2, true, Some("enforced on 1 of 3 nodes"));
    let server = Server::default()
        // Of the generation before: nobody may be deceived by it.
        .answer(SNP, 200, &object(1, true, Some("enforced on 3 of 3 nodes")))
        .answer(SNP, 200, &half)
        .answer(SNP, 200, &half)
        .answer(SNP, 200, &object(2, true, Some("enforced on 3 of 3 nodes")));
    let (end, told) = wait(&server, None).await;
    let all = Progress::Enforced("enforced on 3 of 3 nodes".to_owned());
    assert_eq!(end.unwrap(), all);
    assert_eq!(
        told,
        [
            Progress::Unseen,
            Progress::Pending("enforced on 1 of 3 nodes".to_owned()),
            all
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_invalid_policy_is_not_waited_for() {
    let server = Server::default().answer(SNP, 200, &object(2, false, Some("old one")));
    let (end, _) = wait(&server, Some(Kind::SluiceNetworkPolicy)).await;
    assert_eq!(
        end.unwrap_err().to_string(),
        "SluiceNetworkPolicy shop/web is not valid: spec.x: unknown field"
    );
}

#[tokio::test(start_paused = true)]
async fn time_that_is_over_says_how_far_it_came() {
    let server =
        Server::default().answer(SNP, 200, &object(2, true, Some("enforced on 2 of 3 nodes")));
    let (end, told) = wait(&server, None).await;
    let error = end.unwrap_err().to_string();
    assert_eq!(
        error,
        "SluiceNetworkPolicy shop/web is not enforced on every node after 10 s: enforced on 2 of 3 nodes"
    );
    assert_eq!(told.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_an_error_at_once() {
    let (end, _) = wait(&Server::default(), None).await;
    assert!(
        end.unwrap_err()
            .to_string()
            .starts_with("no policy with a status is called web")
    );
    let (end, _) = wait(&Server::default(), Some(Kind::SluiceNetworkPolicy)).await;
    assert_eq!(
        end.unwrap_err().to_string(),
        "there is no SluiceNetworkPolicy shop/web"
    );
}

#[tokio::test(start_paused = true)]
async fn kinds_that_the_cluster_lacks_are_passed_over() {
    let server = Server::default()
        .answer(SNP, 200, &object(2, true, Some("enforced on 3 of 3 nodes")))
        .text(ANP, 404, "404 page not found\n");
    let (end, _) = wait(&server, None).await;
    assert!(matches!(end, Ok(Progress::Enforced(_))), "{end:?}");
    let asked = server.asked();
    assert!(asked.iter().any(|line| line.contains(ANP)), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_of_several_kinds_needs_its_kind() {
    let server = Server::default()
        .answer(SNP, 200, &object(2, true, Some("enforced on 3 of 3 nodes")))
        .answer(
            SCNP,
            200,
            &object(2, true, Some("enforced on 3 of 3 nodes")),
        );
    let (end, _) = wait(&server, None).await;
    let error = end.unwrap_err().to_string();
    assert!(
        error.contains("SluiceNetworkPolicy, SluiceClusterwideNetworkPolicy"),
        "{error}"
    );
    let (end, _) = wait(&server, Some(Kind::SluiceClusterwideNetworkPolicy)).await;
    assert!(matches!(end, Ok(Progress::Enforced(_))));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_api_server_is_outwaited_and_a_refusal_is_not() {
    let server = Server::default()
        .answer(SNP, 503, &refusal(503, "ServiceUnavailable"))
        .answer(SNP, 200, &object(2, true, Some("enforced on 3 of 3 nodes")));
    let (end, _) = wait(&server, Some(Kind::SluiceNetworkPolicy)).await;
    assert!(matches!(end, Ok(Progress::Enforced(_))), "{end:?}");
    let server = Server::default().answer(SNP, 403, &refusal(403, "Forbidden"));
    let (end, _) = wait(&server, Some(Kind::SluiceNetworkPolicy)).await;
    assert_eq!(end.unwrap_err().code(), Some(403));
}
