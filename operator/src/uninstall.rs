//! Before Sluice is uninstalled: every node is cleaned up by the one thing that is on every node, the agents' `DaemonSet`, whose pods are told
//! to clean up and stay clean. How a node is cleaned up is the agent's.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

/// How long all nodes may take.
const PATIENCE: Duration = Duration::from_mins(4);
/// The pause between looks.
const PAUSE: Duration = Duration::from_millis(500);
/// The container whose work changes.
const CONTAINER: &str = "agent";

/// What is uninstalled.
#[derive(Clone, Debug, clap::Args)]
pub struct Uninstall {
    /// The namespace that Sluice runs in
    #[arg(long, env = "SLUICE_NAMESPACE", default_value = "kube-system")]
    pub namespace: String,
    /// The agents' `DaemonSet`
    #[arg(long, default_value = "sluice-agent")]
    pub daemon_set: String,
    /// Where a cleaned-up node says so: the address of the agents' probes
    #[arg(long, default_value = "127.0.0.1:4248")]
    pub health_address: String,
}

/// Has every node cleaned up. Repeating it is no error, nor is a `DaemonSet` that is gone.
///
/// # Errors
/// The API server refuses, or some node was not clean in time: the message says how many.
pub async fn uninstall(client: Client, options: &Uninstall) -> Result<()> {
    let api: Api<DaemonSet> = Api::namespaced(client, &options.namespace);
    let name = &options.daemon_set;
    let Some(_) = api.get_opt(name).await.context("reading the DaemonSet")? else {
        tracing::info!(name, "there is no such DaemonSet: nothing to clean up");
        return Ok(());
    };
    let wait = format!("--wait={}", options.health_address);
    // All nodes at once: there is no network to keep up any more.
    let change = json!({ "spec": {
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%", "maxSurge": 0 } },
        "template": { "spec": { "containers": [{ "name": CONTAINER, "args": ["cleanup", wait] }] } },
    } });
    let changed = api
        .patch(name, &PatchParams::default(), &Patch::Strategic(change))
        .await
        .context("telling the DaemonSet to clean up")?;
    let generation = changed.metadata.generation;
    let begin = Instant::now();
    loop {
        let found = api.get_opt(name).await.context("reading the DaemonSet")?;
        let Some(status) = found.and_then(|found| found.status) else {
            return Ok(());
        };
        if clean(&status, generation) {
            tracing::info!(
                nodes = status.desired_number_scheduled,
                "all nodes are clean"
            );
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            bail!(
                "{} of {} nodes are clean after {} s: see the logs of the pods of {name}",
                status.number_ready,
                status.desired_number_scheduled,
                PATIENCE.as_secs()
            );
        }
        sleep(PAUSE).await;
    }
}

/// Whether every node runs the pod that was asked for, and that pod says that its node is clean.
fn clean(status: &DaemonSetStatus, generation: Option<i64>) -> bool {
    let desired = status.desired_number_scheduled;
    status.observed_generation >= generation
        && status.updated_number_scheduled.unwrap_or(0) >= desired
        && status.number_ready >= desired
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(generation: i64, desired: i32, updated: i32, ready: i32) -> DaemonSetStatus {
        DaemonSetStatus {
            observed_generation: Some(generation),
            desired_number_scheduled: desired,
            updated_number_scheduled: Some(updated),
            number_ready: ready,
            ..DaemonSetStatus::default()
        }
    }

    #[test]
    fn clean_is_every_node_with_the_new_pod_ready() {
        assert!(clean(&status(3, 2, 2, 2), Some(3)));
        assert!(
            clean(&status(4, 0, 0, 0), Some(3)),
            "a cluster without nodes"
        );
        // The controller has not seen the change yet: all that is ready are agents.
        assert!(!clean(&status(2, 2, 2, 2), Some(3)));
        assert!(!clean(&status(3, 2, 1, 2), Some(3)));
        assert!(!clean(&status(3, 2, 2, 1), Some(3)));
    }
}
