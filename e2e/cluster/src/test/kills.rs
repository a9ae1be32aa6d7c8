//! Services killed and stopped in turn; the cluster comes back each time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sluice_cluster::{Cluster, Machine};

use crate::commands::say;

/// What is killed, in turn, on every node.
const SERVICES: [&str; 2] = ["containerd", "kubelet"];
const PATIENCE: Duration = Duration::from_secs(90);

/// Kills `count` times, then has the API server away for a while.
pub(super) fn run(cluster: &Cluster, count: u16) -> Result<()> {
    for turn in 0..count {
        let node = Machine::Node(
            u8::try_from(turn % u16::from(cluster.options().nodes)).unwrap_or_default() + 1,
        );
        let service = SERVICES[usize::from(turn) % SERVICES.len()];
        say(&format!(
            "kill {} of {count}: {service} on {node}",
            turn + 1
        ));
        kill(cluster, node, service)
            .with_context(|| format!("kill {} of {count}: {service} on {node}", turn + 1))?;
    }
    cluster.stop_api_server()?;
    std::thread::sleep(Duration::from_secs(5));
    cluster.start_api_server()?;
    Ok(cluster.wait_ready(PATIENCE)?)
}

fn kill(cluster: &Cluster, node: Machine, service: &str) -> Result<()> {
    cluster.kill(node, service)?;
    cluster.wait_service(node, service, PATIENCE)?;
    Ok(cluster.wait_ready(PATIENCE)?)
}
