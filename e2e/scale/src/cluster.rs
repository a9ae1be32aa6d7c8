//! The API server as a client of it sees it: objects in bulk, tokens, counters. What is written may not enter.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::{TryStreamExt as _, stream};
use k8s_openapi::api::authentication::v1::TokenRequest;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::harness;

/// Requests under way at once.
const PARALLEL: usize = 32;
/// The field manager of what is applied.
const MANAGER: &str = "scale-test";

/// The API server.
#[derive(Clone)]
pub(crate) struct Server {
    client: Client,
}

impl Server {
    /// As the kubeconfig of the environment says.
    pub(crate) async fn connect() -> Result<Self> {
        let config = kube::Config::infer()
            .await
            .context("how to reach the API server")?;
        let client = Client::try_from(config).context("a client of the API server")?;
        Ok(Self { client })
    }

    /// The objects of a kind.
    pub(crate) fn api(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version, plural) = match kind {
            "Pod" => ("", "v1", "pods"),
            "Namespace" => ("", "v1", "namespaces"),
            "SluiceNetworkPolicy" => ("sluice.io", "v1", "sluicenetworkpolicies"),
            "SluiceClusterwideNetworkPolicy" => {
                ("sluice.io", "v1", "sluiceclusterwidenetworkpolicies")
            }
            "SluiceEndpoint" => ("sluice.io", "v1", "sluiceendpoints"),
            "SluiceNode" => ("sluice.io", "v1", "sluicenodes"),
            other => unreachable!("{other}"),
        };
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    fn api_of(&self, object: &Value) -> Result<(Api<DynamicObject>, String)> {
        let kind = object["kind"].as_str().context("a kind")?;
        let name = object["metadata"]["name"].as_str().context("a name")?;
        Ok((
            self.api(kind, object["metadata"]["namespace"].as_str()),
            name.to_owned(),
        ))
    }

    /// Makes an object.
    pub(crate) async fn create(&self, object: &Value) -> Result<DynamicObject> {
        let (api, name) = self.api_of(object)?;
        let wanted = serde_json::from_value(object.clone()).context("an object")?;
        api.create(&PostParams::default(), &wanted)
            .await
            .with_context(|| format!("making {} {name}", object["kind"]))
    }

    /// Makes an object, or makes it so.
    pub(crate) async fn apply(&self, object: &Value) -> Result<DynamicObject> {
        let (api, name) = self.api_of(object)?;
        api.patch(
            &name,
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(object),
        )
        .await
        .with_context(|| format!("applying {} {name}", object["kind"]))
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, object: &Value) -> Result<()> {
        let (api, name) = self.api_of(object)?;
        api.delete(
            &name,
            &kube::api::DeleteParams {
                grace_period_seconds: Some(0),
                ..Default::default()
            },
        )
        .await
        .map(drop)
        .with_context(|| format!("deleting {} {name}", object["kind"]))
    }

    /// Says what the kubelet would.
    pub(crate) async fn set_status(&self, object: &Value, status: &Value) -> Result<()> {
        let (api, name) = self.api_of(object)?;
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .map(drop)
            .with_context(|| format!("the status of {name}"))
    }

    /// Runs one future per item, some at a time.
    pub(crate) async fn each<T, F>(
        items: impl IntoIterator<Item = T>,
        work: impl Fn(T) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        stream::iter(items.into_iter().map(Ok::<T, anyhow::Error>))
            .try_for_each_concurrent(PARALLEL, work)
            .await
    }

    /// A token for an agent, bound to its pod.
    pub(crate) async fn agent_token(
        &self,
        account: &str,
        pod: &DynamicObject,
        audience: &str,
    ) -> Result<String> {
        let bound = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        });
        self.token(account, Some(bound), &[audience]).await
    }

    /// A token of a service account of kube-system.
    pub(crate) async fn token(
        &self,
        account: &str,
        bound: Option<Value>,
        audiences: &[&str],
    ) -> Result<String> {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.client.clone(), "kube-system");
        let request: TokenRequest = serde_json::from_value(json!({ "spec": {
            "audiences": audiences,
            "boundObjectRef": bound,
            "expirationSeconds": 4 * 3600,
        } }))?;
        let made = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("a token of {account}"))?;
        let status = serde_json::to_value(made.status)?;
        let token = status["token"].as_str().map(str::to_owned);
        token.context("a token request without token")
    }

    /// How many policies there are whose status says `Enforced` of the generation that they have, and how many all told.
    pub(crate) async fn enforced(&self) -> Result<(usize, usize)> {
        let policies = self
            .api("SluiceNetworkPolicy", None)
            .list(&ListParams::default())
            .await
            .context("listing policies")?;
        let all = policies.items.len();
        Ok((
            policies
                .items
                .iter()
                .filter(|policy| is_enforced(policy))
                .count(),
            all,
        ))
    }

    /// Waits until every policy's status says so.
    pub(crate) async fn all_enforced(&self, limit: Duration) -> Result<Instant> {
        let begun = Instant::now();
        loop {
            // The server may be on its way back.
            let found = self.enforced().await;
            if let Ok((enforced, all)) = &found
                && enforced == all
            {
                return Ok(Instant::now());
            }
            ensure!(
                begun.elapsed() < limit,
                "not all policies are enforced after {limit:?}: {found:?}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Requests that the API server has answered, by verb and resource.
pub(crate) fn requests() -> Result<BTreeMap<(String, String), u64>> {
    Ok(requests_of(&harness::kubectl(&[
        "get", "--raw", "/metrics",
    ])?))
}

/// Whether a status says that all nodes follow the object as it is now.
fn is_enforced(object: &DynamicObject) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "Enforced"
            && condition["status"] == "True"
            && condition["observedGeneration"] == json!(object.metadata.generation)
    })
}

fn requests_of(metrics: &str) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("apiserver_request_total{") else {
            continue;
        };
        let Some((labels, value)) = rest.rsplit_once("} ") else {
            continue;
        };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else {
            continue;
        };
        let subresource = label("subresource").filter(|name| !name.is_empty());
        let resource =
            subresource.map_or_else(|| resource.to_owned(), |name| format!("{resource}/{name}"));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        let count = value.trim().parse::<f64>().unwrap_or_default() as u64;
        *counts.entry((verb.to_owned(), resource)).or_default() += count;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_summed_over_all_other_labels() {
        let text = "# HELP x\napiserver_request_total{code=\"200\",group=\"sluice.io\",resource=\"identities\",scope=\"resource\",subresource=\"\",verb=\"PATCH\",version=\"v1\"} 3\n\
            apiserver_request_total{code=\"201\",group=\"sluice.io\",resource=\"identities\",scope=\"resource\",subresource=\"\",verb=\"PATCH\",version=\"v1\"} 1.2e+02\n\
            apiserver_request_total{code=\"200\",group=\"sluice.io\",resource=\"identities\",scope=\"resource\",subresource=\"status\",verb=\"PATCH\",version=\"v1\"} 5\n";
        let counts = requests_of(text);
        assert_eq!(counts[&("PATCH".to_owned(), "identities".to_owned())], 123);
        assert_eq!(
            counts[&("PATCH".to_owned(), "identities/status".to_owned())],
            5
        );
    }

    #[test]
    fn only_the_generation_that_an_object_has_counts() {
        let policy = |generation: i64, observed: i64, status: &str| -> DynamicObject {
            serde_json::from_value(json!({
                "apiVersion": "sluice.io/v1", "kind": "SluiceNetworkPolicy", "metadata": { "name": "p", "generation": generation },
                "status": { "conditions": [{ "type": "Enforced", "status": status, "observedGeneration": observed }] },
            }))
            .unwrap()
        };
        assert!(is_enforced(&policy(2, 2, "True")));
        assert!(!is_enforced(&policy(2, 1, "True")));
        assert!(!is_enforced(&policy(2, 2, "False")));
    }
}
