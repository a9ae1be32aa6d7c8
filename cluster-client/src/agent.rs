//! What an agent says of itself: `sluice-agent show` in its pod. What that means for the cluster is `status`'s.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    exec::{self, Place},
    objects::list_all,
};

/// Pods of agents are found by these labels of the chart.
const SELECTOR: &str = "app.kubernetes.io/name=sluice,app.kubernetes.io/component=agent";
/// The agent's container.
const CONTAINER: &str = "agent";
/// Where images have the program.
const PROGRAMS: [&str; 2] = ["/sluice-agent", "sluice-agent"];
/// How many are asked at once.
const ABREAST: usize = 16;
/// An agent answers in milliseconds; connections through API servers and kubelets take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An agent's answer to `show status`. A newer agent may say more; what it leaves out is unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AgentStatus {
    /// Its release.
    pub release: String,
    /// Its operator.
    pub operator: Connection,
    /// What is in force on the node, `<epoch>.<number>`.
    pub revision: Option<String>,
    /// Pods with an interface.
    pub endpoints: u64,
    /// Those of them whose tables are in force.
    pub ready: u64,
    /// Live connections.
    pub connections: u64,
    /// How full maps are.
    pub maps: Vec<MapUse>,
    /// `direct` or `vxlan`.
    pub routing: String,
    /// Who translates addresses of services.
    pub services: serde_json::Value,
    /// What is wrong, by subject.
    pub troubles: BTreeMap<String, Vec<String>>,
    /// What the kernel has.
    pub features: Vec<Feature>,
}

/// An agent's way to an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// Whether there is one now.
    pub connected: bool,
    /// To where.
    pub address: Option<String>,
    /// Why not.
    pub why: Option<String>,
}

/// How full a kernel map is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapUse {
    /// Which.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries it has room for.
    pub size: u64,
}

impl MapUse {
    /// In percent, rounded down; an empty map is never full.
    #[must_use]
    pub fn percent(&self) -> u64 {
        (self.used.saturating_mul(100))
            .checked_div(self.size)
            .unwrap_or(0)
    }
}

/// Something of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Whether the kernel has it.
    pub present: bool,
    /// Whether nothing works without it.
    pub required: bool,
    /// The same in words.
    pub text: String,
}

/// The agents' pods, by node.
///
/// # Errors
/// The API server refuses.
pub async fn pods(client: &Client, namespace: &str) -> Result<BTreeMap<String, Pod>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = list_all(
        &api,
        &ListParams::default().labels(SELECTOR),
        "listing the agents' pods",
    )
    .await?;
    Ok(found
        .into_iter()
        .filter_map(|pod| Some((node_of(&pod)?, pod)))
        .collect())
}

fn node_of(pod: &Pod) -> Option<String> {
    // One that ends may stand beside its successor.
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    pod.spec.as_ref()?.node_name.clone()
}

/// Asks every agent how it is.
pub async fn statuses(
    client: &Client,
    pods: &BTreeMap<String, Pod>,
) -> BTreeMap<String, Result<AgentStatus, String>> {
    let asked = pods.iter().map(|(node, pod)| async move {
        let answer = show(client, pod, "status").await.and_then(|text| {
            serde_json::from_str(&text).map_err(|error| Error::Answer {
                what: format!("the status of the agent on {node}"),
                why: error.to_string(),
            })
        });
        (node.clone(), answer.map_err(|error| error.to_string()))
    });
    stream::iter(asked)
        .buffer_unordered(ABREAST)
        .collect()
        .await
}

/// `sluice-agent show <what>` in an agent's pod.
///
/// # Errors
/// It can't be run there, or the agent does not answer.
pub async fn show(client: &Client, pod: &Pod, what: &str) -> Result<String, Error> {
    let place = Place {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        container: CONTAINER.to_owned(),
    };
    exec::run(client, &place, &PROGRAMS, &["show", what], PATIENCE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_what_is_new_in_it_passed_over() {
        let text = r#"{"release":"0.1.0","node":"n1","operator":{"connected":true,"address":"[fd00::1]:4245"},"revision":"7.12",
            "endpoints":3,"ready":2,"addresses":{"used":3,"resting":0},"connections":9,"maps":[{"name":"ct","used":50,"size":200}],
            "routing":"vxlan","services":"sluice","mtu":1450,"troubles":{"routes":["no way"]},"tomorrow":1,
            "features":[{"name":"tcx","present":true,"required":true,"text":"tcx: present"}]}"#;
        let status: AgentStatus = serde_json::from_str(text).unwrap();
        assert_eq!(status.maps[0].percent(), 25);
        assert_eq!(status.revision.as_deref(), Some("7.12"));
        assert!(status.operator.connected);
        assert_eq!(status.troubles["routes"], ["no way"]);
    }

    #[test]
    fn an_agent_that_has_heard_nothing_yet_is_understood() {
        let text =
            r#"{"operator":{"connected":false,"why":"none has been reached yet"},"revision":null}"#;
        let status: AgentStatus = serde_json::from_str(text).unwrap();
        assert_eq!(status.revision, None);
        assert!(!status.operator.connected);
    }

    #[test]
    fn a_map_without_room_is_not_divided_by() {
        assert_eq!(MapUse::default().percent(), 0);
    }
}
