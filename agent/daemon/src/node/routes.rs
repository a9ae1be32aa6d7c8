//! Routes to other nodes' pods, through the nodes' own addresses or into the overlay. All carry our mark, so that whatever an earlier process
//! left is recognised, and nobody else's is touched.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use sluice_datapath::net::{Hop, MarkedRoute, NetError, Netlink};
use sluice_stream::{NodeInfo, Overlay};

use crate::engine::Cluster;

/// Makes the namespace's marked routes those that there should be. Others' pods are behind the device of index `overlay`, where there is one.
/// Returns what could not be done, for people.
///
/// # Errors
/// The kernel does not tell what is there, or refuses to remove what should not be.
pub(super) fn put(cluster: &Cluster<'_>, overlay: Option<u32>) -> Result<Vec<String>, NetError> {
    let mut netlink = Netlink::open_in(cluster.namespace)?;
    let mut troubles = Vec::new();
    let wanted = wanted(cluster, overlay, &mut netlink, &mut troubles)?;
    let there: BTreeSet<MarkedRoute> = netlink.marked_routes()?.into_iter().collect();
    for route in wanted.difference(&there) {
        if let Err(error) = netlink.add_marked_route(route) {
            troubles.push(error.to_string());
        }
    }
    // One destination has one route: what was replaced just now is gone by itself.
    let kept: BTreeSet<IpNet> = wanted.iter().map(|route| route.destination).collect();
    for route in there.difference(&wanted) {
        if !kept.contains(&route.destination) {
            netlink.delete_marked_route(route)?;
        }
    }
    Ok(troubles)
}

/// The routes there should be. This node's own prefixes lead nowhere, since each pod has a route of its own: else what is for a pod that is
/// gone would go round between node and router.
fn wanted(
    cluster: &Cluster<'_>,
    overlay: Option<u32>,
    netlink: &mut Netlink,
    troubles: &mut Vec<String>,
) -> Result<BTreeSet<MarkedRoute>, NetError> {
    let mut wanted = BTreeSet::new();
    for (name, node) in cluster.nodes {
        if name == cluster.own {
            wanted.extend(all(node, Hop::Unreachable));
            continue;
        }
        match cluster.settings.overlay {
            Overlay::Direct => match hops(node, netlink)? {
                Ok(routes) => wanted.extend(routes),
                Err(trouble) => troubles.push(format!("node {}: {trouble}", name.0)),
            },
            // Not unwrapped by some other route either.
            Overlay::Vxlan { .. } => {
                wanted.extend(all(node, overlay.map_or(Hop::Unreachable, Hop::Interface)));
            }
        }
    }
    Ok(wanted)
}

/// The same way to all of a node's pods.
fn all(node: &NodeInfo, hop: Hop) -> impl Iterator<Item = MarkedRoute> {
    node.pod_cidrs.iter().map(move |destination| MarkedRoute {
        destination: destination.trunc(),
        hop,
    })
}

fn hops(
    node: &NodeInfo,
    netlink: &mut Netlink,
) -> Result<Result<Vec<MarkedRoute>, String>, NetError> {
    let mut routes = Vec::new();
    for cidr in &node.pod_cidrs {
        let same = |address: &&IpAddr| address.is_ipv4() == cidr.addr().is_ipv4();
        let Some(theirs) = node
            .addresses
            .iter()
            .copied()
            .find(|address| same(&address))
        else {
            return Ok(Err(format!(
                "it has no address of the family of its pod CIDR {cidr}: its pods can't be reached by it"
            )));
        };
        match netlink.next_hop(theirs)? {
            Some(hop) if hop.router.is_none() && !hop.local => routes.push(MarkedRoute {
                destination: cidr.trunc(),
                hop: Hop::Via {
                    interface: hop.interface,
                    router: theirs,
                },
            }),
            Some(hop) if hop.local => {
                return Ok(Err(format!("{theirs} is this node's own address")));
            }
            Some(_) => {
                return Ok(Err(format!(
                    "{theirs} is not on this node's segment: direct routing can't reach it, the overlay can"
                )));
            }
            None => return Ok(Err(format!("there is no route to {theirs}"))),
        }
    }
    Ok(Ok(routes))
}

/// Removes every route that carries our mark from the namespace this process runs in. Returns how many there were.
///
/// # Errors
/// The kernel refuses.
pub fn remove_routes() -> Result<usize, NetError> {
    let mut netlink = Netlink::open()?;
    let routes = netlink.marked_routes()?;
    for route in &routes {
        netlink.delete_marked_route(route)?;
    }
    Ok(routes.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_datapath::net::NetNs;
    use sluice_stream::Settings;
    use sluice_world::NodeName;

    use super::*;

    #[test]
    fn in_the_overlay_others_pods_are_behind_its_device_or_nowhere() {
        let node = |number: u32| NodeInfo {
            name: NodeName(format!("n{number}")),
            number,
            addresses: vec![[192, 0, 2, 1].into()],
            pod_cidrs: vec![
                format!("10.244.{number}.0/24").parse().unwrap(),
                format!("fd00:244:{number}::/64").parse().unwrap(),
            ],
        };
        let nodes = BTreeMap::from([1, 2].map(|number| (node(number).name, node(number))));
        let settings = Settings {
            overlay: Overlay::Vxlan { port: 8472 },
            ..Settings::default()
        };
        let (own, namespace) = (NodeName("n1".to_owned()), NetNs::current().unwrap());
        let cluster = Cluster {
            own: &own,
            nodes: &nodes,
            settings: &settings,
            namespace: &namespace,
        };
        for (device, hop) in [(Some(7), Hop::Interface(7)), (None, Hop::Unreachable)] {
            let (mut netlink, mut troubles) = (Netlink::open().unwrap(), Vec::new());
            let routes = wanted(&cluster, device, &mut netlink, &mut troubles).unwrap();
            let hops: Vec<_> = routes
                .iter()
                .map(|route| (route.destination.to_string(), route.hop))
                .collect();
            let wanted = [
                ("10.244.1.0/24", Hop::Unreachable),
                ("10.244.2.0/24", hop),
                ("fd00:244:1::/64", Hop::Unreachable),
                ("fd00:244:2::/64", hop),
            ]
            .map(|(net, hop)| (net.to_owned(), hop));
            assert_eq!(hops, wanted);
            assert_eq!(troubles, Vec::<String>::new());
        }
    }
}
