//! Before Sluice is uninstalled: every node is cleaned up by the one thing that is on every node, the agents' `DaemonSet`, whose pods are told
//! to clean up and stay clean; then the operators end. How a node is cleaned up is the agent's.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetStatus, Deployment},
    coordination::v1::Lease,
};
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
/// How long operators may take to end; the lease of one that does not runs out meanwhile.
const FAREWELL: Duration = Duration::from_secs(15);
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
    /// The operators' `Deployment`
    #[arg(long, default_value = "sluice-operator")]
    pub deployment: String,
    /// The operators' `Lease`
    #[arg(long, default_value = "sluice-operator")]
    pub lease: String,
    /// Where a cleaned-up node says so: the address of the agents' probes
    #[arg(long, default_value = "127.0.0.1:4248")]
    pub health_address: String,
}

/// Has every node cleaned up, and ends the operators. Repeating it is no error, nor is something of it that is gone.
///
/// # Errors
/// The API server refuses, or some node was not clean in time: the message says how many.
pub async fn uninstall(client: Client, options: &Uninstall) -> Result<()> {
    clean_up(client.clone(), options).await?;
    end_operators(client, options).await
}

/// Ends the operators as long as they have the right to give their lease back. With the release their rights would go first, and an
/// installation soon after this one would wait for a lease that nobody renews.
async fn end_operators(client: Client, options: &Uninstall) -> Result<()> {
    let name = &options.deployment;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &options.namespace);
    let found = deployments.get_opt(name).await;
    if found.context("reading the Deployment")?.is_none() {
        return Ok(());
    }
    let none = json!({ "spec": { "replicas": 0 } });
    deployments
        .patch_scale(name, &PatchParams::default(), &Patch::Merge(none))
        .await
        .context("telling the Deployment to have no pods")?;
    let leases: Api<Lease> = Api::namespaced(client, &options.namespace);
    let begin = Instant::now();
    while begin.elapsed() < FAREWELL {
        let lease = leases.get_opt(&options.lease).await;
        if !is_held(lease.context("reading the Lease")?.as_ref()) {
            tracing::info!("the operators have ended");
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    tracing::warn!("the leading operator did not give its lease back");
    Ok(())
}

fn is_held(lease: Option<&Lease>) -> bool {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
    holder.is_some_and(|holder| !holder.is_empty())
}

async fn clean_up(client: Client, options: &Uninstall) -> Result<()> {
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
    fn a_lease_that_was_given_back_has_no_holder() {
        let held_by = |holder: Option<&str>| Lease {
            spec: Some(k8s_openapi::api::coordination::v1::LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                ..Default::default()
            }),
            ..Lease::default()
        };
        assert!(is_held(Some(&held_by(Some("one@192.0.2.1:4245")))));
        assert!(!is_held(Some(&held_by(Some("")))));
        assert!(!is_held(Some(&held_by(None))));
        assert!(!is_held(None));
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
