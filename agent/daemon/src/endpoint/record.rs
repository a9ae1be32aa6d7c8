//! What is written down of an interface, and the names and numbers that follow from its key alone. Making it may not enter.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sluice_cni::protocol::{Added, Attachment, AttachmentId, Given, Link, Pod};
use sluice_datapath::net::{Mac, pod::gateway};
use sluice_world::{PodRef, PodUid};

use super::NO_POD;

/// An interface as it was, or is about to be, made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The runtime's key.
    pub id: AttachmentId,
    /// Whose it is; `None` where no kubelet asked.
    pub pod: Option<Pod>,
    /// The network namespace's number.
    pub namespace: u64,
    /// Name of the node's end.
    pub host_name: String,
    /// Its addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// When it was asked for, in seconds since 1970.
    pub since: u64,
}

impl Record {
    /// A record of an interface that is wanted.
    #[must_use]
    pub fn new(
        wanted: &Attachment,
        namespace: u64,
        addresses: Vec<IpAddr>,
        mtu: u32,
        since: u64,
    ) -> Self {
        Self {
            host_name: host_name(&wanted.id),
            id: wanted.id.clone(),
            pod: wanted.pod.clone(),
            namespace,
            addresses,
            mtu,
            since,
        }
    }

    /// The pod, as the datapath knows it.
    #[must_use]
    pub fn pod_ref(&self) -> PodRef {
        pod_of(&self.id, self.pod.as_ref())
    }

    /// The pod's UID; empty where it is not known.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.pod.as_ref().map_or("", |pod| &pod.uid)
    }

    /// As [`Record::uid`], to be compared; `None` where it is not known.
    #[must_use]
    pub fn pod_uid(&self) -> Option<PodUid> {
        PodUid::of(self.uid())
    }

    /// Ethernet address of the pod's end.
    #[must_use]
    pub fn mac(&self) -> Mac {
        let [.., a, b, c, d] = digest(&self.id).to_be_bytes();
        Mac([0x02, 0x51, a, b, c, d])
    }

    /// Ethernet address of the node's end.
    #[must_use]
    pub fn host_mac(&self) -> Mac {
        let Mac(mut bytes) = self.mac();
        // Another local address: the second bit of the first byte says local, the one above it is free.
        bytes[0] = 0x06;
        Mac(bytes)
    }

    /// What the runtime is answered.
    #[must_use]
    pub fn added(&self) -> Added {
        let given = |address: &IpAddr| Given {
            address: *address,
            gateway: gateway(*address),
        };
        Added {
            host: Link {
                name: self.host_name.clone(),
                mac: self.host_mac().to_string(),
            },
            pod: Link {
                name: self.id.interface.clone(),
                mac: self.mac().to_string(),
            },
            mtu: self.mtu,
            addresses: self.addresses.iter().map(given).collect(),
        }
    }
}

/// The pod an interface belongs to, as the datapath knows it: [`NO_POD`] where the runtime names none.
#[must_use]
pub fn pod_of(id: &AttachmentId, pod: Option<&Pod>) -> PodRef {
    match pod {
        Some(pod) => PodRef {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        },
        None => PodRef {
            namespace: NO_POD.to_owned(),
            name: format!("{}.{}", id.container, id.interface),
        },
    }
}

/// Whether an interface's name is one that [`Record::new`] gives.
#[must_use]
pub fn is_pod_link(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

const PREFIX: &str = "slu";

/// As long as the kernel allows: 48 bits tell a node's interfaces apart.
fn host_name(id: &AttachmentId) -> String {
    format!("{PREFIX}{:012x}", digest(id) >> 16)
}

/// FNV-1a of the key.
fn digest(id: &AttachmentId) -> u64 {
    let bytes = id
        .container
        .bytes()
        .chain([b'/'])
        .chain(id.interface.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_follow_from_the_key() {
        let id = AttachmentId {
            container: "b5d8".to_owned(),
            interface: "eth0".to_owned(),
        };
        let wanted = Attachment {
            id,
            sandbox: "/x".to_owned(),
            pod: None,
        };
        let record = Record::new(&wanted, 1, vec![], 1500, 0);
        assert_eq!(record, Record::new(&wanted, 1, vec![], 1500, 0));
        assert!(is_pod_link(&record.host_name) && record.host_name.len() == 15);
        assert!(record.mac() != record.host_mac());
        for mac in [record.mac(), record.host_mac()] {
            assert_eq!(mac.0[0] & 0b11, 0b10, "local and unicast");
        }
        assert_eq!(record.pod_ref().to_string(), "cni/b5d8.eth0");
        let other = AttachmentId {
            container: "b5d9".to_owned(),
            ..wanted.id
        };
        assert_ne!(host_name(&other), record.host_name);
    }

    #[test]
    fn other_interfaces_are_not_taken_for_pods() {
        for name in ["eth0", "sluice_vxlan", "slu", "slu0123456789ag", "veth0123"] {
            assert!(!is_pod_link(name), "{name}");
        }
    }
}
