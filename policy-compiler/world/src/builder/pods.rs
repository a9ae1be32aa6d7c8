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
    let Some(mut pod) = pod(object)? else {
        return Ok(None);
    };
    let annotations = object.metadata.annotations.as_ref();
    if let Some(written) = annotations.and_then(|all| all.get(LAB_EXTERNAL)) {
        pod.addresses = external_addresses(&pod.id, written)?;
        pod.external = true;
    }
    let node = Some(pod.node.0.clone()).filter(|name| !name.is_empty());
    Ok(Some(Draft { node, pod }))
}

/// A pod as a cluster has it: with the node that it names, empty where it names none, and the addresses of its status. Nothing for one
/// that has ended. Annotations have no say: whoever may make a pod could otherwise make it one that no policy selects.
///
/// # Errors
/// A field can't be read as what it should be.
pub fn pod(object: &PodObject) -> Result<Option<Pod>, BuildError> {
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
    let addresses = status_addresses(&id, object)?;
    let spec = object.spec.as_ref();
    let service_account = spec.and_then(|spec| {
        let name = spec.service_account_name.as_ref();
        name.or(spec.service_account.as_ref())
    });
    let containers = spec.map(|spec| &spec.containers[..]).unwrap_or_default();
    let (named_ports, listens) = ports(&id, containers)?;
    Ok(Some(Pod {
        labels: metadata.labels.clone().unwrap_or_default() as Labels,
        service_account: service_account
            .filter(|name| !name.is_empty())
            .cloned()
            .unwrap_or_else(|| "default".into()),
        node: NodeName(
            spec.and_then(|spec| spec.node_name.clone())
                .unwrap_or_default(),
        ),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or_default(),
        addresses,
        named_ports,
        listens,
        external: false,
        id,
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
