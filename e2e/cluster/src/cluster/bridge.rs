//! The baseline that Sluice is compared with: the reference bridge plugin on every node, and routes between the nodes.

use std::{fs, time::Duration};

use ipnet::IpNet;
use serde_json::json;

use super::Cluster;
use crate::{
    command,
    error::{Error, Result},
    net,
    plan::Machine,
};

pub(super) fn install(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.options.nodes;
    for number in 1..=nodes {
        let ranges = ranges(cluster, number)?;
        let path = cluster.folder.join(format!(
            "node{number}/root/etc/cni/net.d/10-bridge.conflist"
        ));
        fs::write(&path, conflist(&ranges)).map_err(Error::at("writing", &path))?;
        for other in (1..=nodes).filter(|&other| other != number) {
            for &range in &ranges {
                net::route(
                    &cluster.options.name,
                    Machine::Node(other),
                    range,
                    Machine::Node(number),
                )?;
            }
        }
        cluster.route_to_pods(number, &ranges)?;
    }
    Ok(())
}

/// The node's pod addresses, once the controllers have given it some.
fn ranges(cluster: &Cluster, number: u8) -> Result<Vec<IpNet>> {
    let node = format!("node{number}");
    let what = format!("pod addresses for {node}, one range per family,");
    let listed = command::wait(
        &what,
        "see the log of kube-controller-manager",
        Duration::from_mins(1),
        || {
            let listed = cluster
                .kubectl
                .run(&["get", "node", &node, "-o", "jsonpath={.spec.podCIDRs[*]}"])
                .ok()?;
            (listed.split_whitespace().count() == 2).then_some(listed)
        },
    )?;
    listed
        .split_whitespace()
        .map(|range| {
            range.parse().map_err(|_| Error::Unreadable {
                what: format!("spec.podCIDRs of {node}"),
                why: format!("`{range}` is no prefix"),
            })
        })
        .collect()
}

fn conflist(ranges: &[IpNet]) -> String {
    let ranges: Vec<_> = ranges
        .iter()
        .map(|range| json!([{"subnet": range.to_string()}]))
        .collect();
    let conflist = json!({
        "cniVersion": "1.0.0",
        "name": "bridge",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": 1500,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{conflist:#}")
}
