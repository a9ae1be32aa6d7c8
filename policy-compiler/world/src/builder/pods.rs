//! Pods: what of a Pod object is security-relevant, before it has a node and addresses.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::core::v1::{Container, Pod as PodObject};

use super::BuildError;
use crate::model::{ContainerPort, Labels, NodeName, Pod, PodRef};

/// The annotation of a pod that stands for a host outside the cluster: `"<IPv4>,<IPv6>"`, its addresses.
pub const LAB_EXTERNAL: &str = "sluice.io/lab-external";

/// A pod whose node may not be known yet.
pub(super) struct Draft {
    pub(super) node: Option<String>,
    pod: Pod,
}

impl Draft {
    /// The pod, on this node.
    pub(super) fn placed(self, node: NodeName) -> Pod {
        Pod { node, ..self.pod }
    }

    /// The node it shares the network of, and its addresses, which are that node's.
    pub(super) fn host_network(&self) -> Option<(Option<&str>, &[IpAddr])> {
        self.pod
            .host_network
            .then_some((self.node.as_deref(), &self.pod.addresses))
    }
}

/// Reads a pod; nothing for one that has ended: its address may be another's by now.
pub(super) fn read(object: &PodObject) -> Result<Option<Draft>, BuildError> {
    let status = object.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Ok(None);
    }
    let metadata = &object.metadata;
    let id = PodRef {
        namespace: metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into()),
        name: metadata.name.clone().ok_or(BuildError::Unnamed("Pod"))?,
    };
    let external = metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(LAB_EXTERNAL));
    let addresses = match external {
        Some(written) => external_addresses(&id, written)?,
        None => status_addresses(&id, object)?,
    };
    let spec = object.spec.clone().unwrap_or_default();
    let service_account = spec.service_account_name.or(spec.service_account);
    let (named_ports, listens) = ports(&id, &spec.containers)?;
    let pod = Pod {
        labels: metadata.labels.clone().unwrap_or_default() as Labels,
        service_account: service_account
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".into()),
        node: NodeName::default(),
        host_network: spec.host_network.unwrap_or_default(),
        addresses,
        named_ports,
        listens,
        external: external.is_some(),
        id,
    };
    Ok(Some(Draft {
        node: spec.node_name.filter(|name| !name.is_empty()),
        pod,
    }))
}

fn external_addresses(id: &PodRef, written: &str) -> Result<Vec<IpAddr>, BuildError> {
    let wrong = || {
        let field = format!("metadata.annotations[{LAB_EXTERNAL}]");
        BuildError::field(
            &format!("Pod {id}"),
            &field,
            written,
            "is not \"<IPv4>,<IPv6>\"",
        )
    };
    let mut addresses = Vec::new();
    for part in written.split(',') {
        addresses.push(part.trim().parse().map_err(|_| wrong())?);
    }
    match addresses[..] {
        [IpAddr::V4(_), IpAddr::V6(_)] | [IpAddr::V4(_) | IpAddr::V6(_)] => Ok(addresses),
        _ => Err(wrong()),
    }
}

fn status_addresses(id: &PodRef, object: &PodObject) -> Result<Vec<IpAddr>, BuildError> {
    let Some(status) = &object.status else {
        return Ok(Vec::new());
    };
    let mut written: Vec<&str> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|entry| entry.ip.as_str())
        .collect();
    if written.is_empty() {
        written.extend(status.pod_ip.as_deref());
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in written {
        let wrong =
            |expected| BuildError::field(&format!("Pod {id}"), "status.podIPs", text, expected);
        let address: IpAddr = text.parse().map_err(|_| wrong("is not an IP address"))?;
        if addresses
            .iter()
            .any(|other| other.is_ipv4() == address.is_ipv4())
        {
            return Err(wrong(
                "is the second address of its family; a pod has at most one of each",
            ));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

type Ports = (BTreeSet<ContainerPort>, BTreeSet<(u8, u16)>);

fn ports(id: &PodRef, containers: &[Container]) -> Result<Ports, BuildError> {
    let mut named = BTreeSet::new();
    let mut listens = BTreeSet::new();
    for port in containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
    {
        let wrong = |field, value: String, expected| {
            let field = format!("spec.containers[].ports[].{field}");
            BuildError::field(&format!("Pod {id}"), &field, value, expected)
        };
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            other => {
                return Err(wrong(
                    "protocol",
                    other.into(),
                    "is none of TCP, UDP and SCTP",
                ));
            }
        };
        let number = u16::try_from(port.container_port)
            .ok()
            .filter(|number| *number != 0);
        let number = number.ok_or_else(|| {
            wrong(
                "containerPort",
                port.container_port.to_string(),
                "is not a port number from 1 to 65535",
            )
        })?;
        listens.insert((protocol, number));
        if let Some(name) = &port.name {
            named.insert(ContainerPort {
                name: name.clone(),
                port: number,
                protocol,
            });
        }
    }
    Ok((named, listens))
}
