//! Commands that speak to a cluster. Words in and words out: what is asked and judged is `sluice-client`'s.

mod arguments;
mod connectivity;
mod lists;
mod policy_wait;
mod progress;
mod status;
mod sysdump;

use std::process::ExitCode;

use anyhow::Context as _;
use sluice_client::{Client, Target, connect};

pub(crate) use arguments::{
    ClusterArguments, ConnectivityCommand, EndpointsArguments, NodesArguments, ScopeArguments,
    StatusArguments, SysdumpArguments, WaitArguments,
};
pub(crate) use connectivity::run as connectivity;
pub(crate) use lists::{endpoints, identities, nodes};
pub(crate) use policy_wait::run as policy_wait;
pub(crate) use status::run as status;
pub(crate) use sysdump::run as sysdump;

/// Does work that waits for a cluster.
///
/// # Errors
/// What the work says; where there is no cluster to be found.
fn with_cluster<F>(
    arguments: &ClusterArguments,
    work: impl FnOnce(Client) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let target = Target {
        kubeconfig: arguments.kubeconfig.clone(),
        context: arguments.context.clone(),
    };
    block_on(async { work(connect::client(&target).await?).await })
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting to wait for the cluster")?;
    runtime.block_on(work)
}
