//! Objects as the watches bring them, cut down to what the cluster needs of them. What they mean together may not enter.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node as NodeObject, Pod as PodObject, Service as ServiceObject},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;
use sluice_crds::resources::{Identity, SluiceEndpoint, SluiceNode};
use sluice_stream::Report;
use sluice_world::{Labels, Node, NodeName, Pod, PodRef, Service, ServiceRef};

use super::policies::PolicyKey;

/// A kind that is watched. Nothing is committed before each has been listed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Namespaces.
    Namespace,
    /// Pods.
    Pod,
    /// Nodes.
    Node,
    /// Services.
    Service,
    /// Their endpoints.
    EndpointSlice,
    /// Policies and CIDR groups of one resource, by its place in the list of those.
    Policy(usize),
    /// Stored identities.
    Identity,
    /// Stored node numbers and prefixes.
    SluiceNode,
    /// Stored endpoints.
    SluiceEndpoint,
    /// Policies that were valid last.
    LastValid,
    /// No kind: which kinds of others are installed.
    Discovery,
}

/// One thing that happened. `None` stands for an object that is gone.
#[derive(Clone, Debug)]
pub enum Input {
    /// A kind is watched from now on; its list is still to come.
    Listing(Kind),
    /// The list of a kind is complete.
    Listed(Kind),
    /// A namespace's labels.
    Namespace(String, Option<Labels>),
    /// A pod.
    Pod(PodRef, Option<Box<PodInput>>),
    /// A node.
    Node(NodeName, Option<Box<NodeInput>>),
    /// A service.
    Service(ServiceRef, Option<Box<ServiceInput>>),
    /// An endpoint slice: its service, its name, its content.
    Slice(ServiceRef, String, Option<Box<SliceInput>>),
    /// A policy of any API, or a CIDR group.
    Policy(PolicyKey, Option<Box<PolicyInput>>),
    /// An `Identity`, by name.
    Identity(String, Option<Box<IdentityInput>>),
    /// A `SluiceNode`.
    Record(NodeName, Option<Box<RecordInput>>),
    /// A `SluiceEndpoint`.
    Endpoint(PodRef, Option<Box<RememberedEndpoint>>),
    /// What was valid last of a policy whose own object has no room for it.
    LastValid(PolicyKey, Option<String>),
    /// An agent's report.
    Report(NodeName, Report),
}

impl Input {
    /// The input that says the opposite: that this object is gone. Nothing for what is no object.
    #[must_use]
    pub fn gone(&self) -> Option<Self> {
        Some(match self {
            Self::Namespace(name, _) => Self::Namespace(name.clone(), None),
            Self::Pod(id, _) => Self::Pod(id.clone(), None),
            Self::Node(name, _) => Self::Node(name.clone(), None),
            Self::Service(id, _) => Self::Service(id.clone(), None),
            Self::Slice(id, name, _) => Self::Slice(id.clone(), name.clone(), None),
            Self::Policy(key, _) => Self::Policy(key.clone(), None),
            Self::Identity(name, _) => Self::Identity(name.clone(), None),
            Self::Record(name, _) => Self::Record(name.clone(), None),
            Self::Endpoint(id, _) => Self::Endpoint(id.clone(), None),
            Self::LastValid(key, _) => Self::LastValid(key.clone(), None),
            Self::Listing(_) | Self::Listed(_) | Self::Report(..) => return None,
        })
    }
}

/// A pod, as far as its object tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInput {
    /// Its UID.
    pub uid: String,
    /// The UID that its node knows it by: of a static pod's image here that of the static pod, else its own.
    pub runtime_uid: String,
    /// The pod; it names a node.
    pub pod: Pod,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInput {
    /// Its UID.
    pub uid: String,
    /// The node; its prefixes are those of `spec.podCIDRs`.
    pub node: Node,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Its name; empty where the service has only one.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Port number.
    pub port: u16,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInput {
    /// Names, labels, selector, cluster addresses.
    pub service: Service,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// How long a client keeps its backend, in seconds.
    pub affinity_seconds: Option<u32>,
    /// Only backends on the client's node answer.
    pub internal_local: bool,
    /// Backends answer before they are ready.
    pub publish_not_ready: bool,
}

/// One backend of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It takes connections.
    pub ready: bool,
    /// It takes connections, shutting down or not.
    pub serving: bool,
    /// Where it runs.
    pub node: Option<NodeName>,
}

/// A slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceInput {
    /// Its addresses, for policies that name services.
    pub addresses: BTreeSet<IpAddr>,
    /// Its ports by name and protocol.
    pub ports: Vec<ServicePort>,
    /// Its backends.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A policy or CIDR group as written.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyInput {
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The object without status and without metadata that means nothing here.
    pub value: Value,
    /// Its status, as found.
    pub status: Option<Value>,
}

/// A stored identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityInput {
    /// Its number.
    pub number: u32,
    /// The compiler's text of what it stands for.
    pub text: String,
    /// How many endpoints its status tells of.
    pub endpoints: Option<i64>,
}

/// A stored node.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordInput {
    /// UID of the object.
    pub uid: String,
    /// Its number.
    pub number: u32,
    /// Its prefixes.
    pub pod_cidrs: Vec<ipnet::IpNet>,
    /// An agent has been heard of from it.
    pub seen: bool,
}

/// A stored endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedEndpoint {
    /// UID of its pod.
    pub uid: String,
    /// The addresses it had; none for one whose interface is gone.
    pub addresses: Vec<IpAddr>,
    /// Digest of its content, to tell whether it has to be written again.
    pub digest: u64,
}

/// From Kubernetes objects to inputs. An object that can't be read counts as absent, which fails closed: its addresses are unknown.
pub mod convert {
    use super::{
        EndpointSlice, Identity, IdentityInput, Input, Namespace, NodeInput, NodeName, NodeObject,
        ObjectMeta, PodInput, PodObject, PodRef, PolicyInput, PolicyKey, RecordInput,
        RememberedEndpoint, ServiceInput, ServiceObject, ServicePort, ServiceRef, SliceEndpoint,
        SliceInput, SluiceEndpoint, SluiceNode, Value,
    };
    use serde_json::json;
    use sluice_world::{BuildError, builder};

    use crate::core::endpoints::digest;

    /// The annotation by which a kubelet marks the image of a static pod.
    const MIRROR: &str = "kubernetes.io/config.mirror";

    /// A namespace.
    #[must_use]
    pub fn namespace(object: Namespace) -> Input {
        Input::Namespace(
            name(&object.metadata),
            Some(object.metadata.labels.unwrap_or_default()),
        )
    }

    /// A pod; one without node, one that has ended and one that can't be read count as gone.
    #[must_use]
    pub fn pod(object: &PodObject) -> (Input, Option<BuildError>) {
        let id = PodRef {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: name(&object.metadata),
        };
        let (pod, error) = match builder::pod(object) {
            Ok(pod) => (pod.filter(|pod| !pod.node.0.is_empty()), None),
            Err(error) => (None, Some(error)),
        };
        let input = pod.map(|pod| {
            let uid = object.metadata.uid.clone().unwrap_or_default();
            let mirrored = object.metadata.annotations.as_ref();
            let mirrored = mirrored.and_then(|known| known.get(MIRROR)).cloned();
            Box::new(PodInput {
                runtime_uid: mirrored.unwrap_or_else(|| uid.clone()),
                uid,
                pod,
            })
        });
        (Input::Pod(id, input), error)
    }

    /// A node.
    #[must_use]
    pub fn node(object: &NodeObject) -> (Input, Option<BuildError>) {
        let id = NodeName(name(&object.metadata));
        match builder::node(object) {
            Ok(node) => {
                let uid = object.metadata.uid.clone().unwrap_or_default();
                (
                    Input::Node(id, Some(Box::new(NodeInput { uid, node }))),
                    None,
                )
            }
            Err(error) => (Input::Node(id, None), Some(error)),
        }
    }

    /// A service.
    #[must_use]
    pub fn service(object: &ServiceObject) -> (Input, Option<BuildError>) {
        let id = ServiceRef {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: name(&object.metadata),
        };
        let service = match builder::service(object) {
            Ok(service) => service,
            Err(error) => return (Input::Service(id, None), Some(error)),
        };
        let spec = object.spec.as_ref();
        let ports = spec
            .and_then(|spec| spec.ports.as_ref())
            .into_iter()
            .flatten();
        let affinity = spec
            .filter(|spec| spec.session_affinity.as_deref() == Some("ClientIP"))
            .map(|spec| {
                let config = spec.session_affinity_config.as_ref();
                let seconds = config
                    .and_then(|config| config.client_ip.as_ref())
                    .and_then(|client| client.timeout_seconds);
                // The API's default.
                seconds
                    .and_then(|seconds| u32::try_from(seconds).ok())
                    .unwrap_or(10_800)
            });
        let input = ServiceInput {
            ports: ports
                .filter_map(|port| {
                    service_port(port.name.as_ref(), port.protocol.as_deref(), port.port)
                })
                .collect(),
            affinity_seconds: affinity,
            internal_local: spec
                .is_some_and(|spec| spec.internal_traffic_policy.as_deref() == Some("Local")),
            publish_not_ready: spec
                .and_then(|spec| spec.publish_not_ready_addresses)
                .unwrap_or_default(),
            service,
        };
        (Input::Service(id, Some(Box::new(input))), None)
    }

    /// An endpoint slice; nothing for one of names, or of no service.
    #[must_use]
    pub fn slice(object: &EndpointSlice) -> Option<(Input, Option<BuildError>)> {
        if object.address_type == "FQDN" {
            return None;
        }
        // Slices that belong to no service are somebody else's.
        let service = builder::slice_service(object).ok()?;
        let name = name(&object.metadata);
        let addresses = match builder::slice_endpoints(object) {
            Ok(found) => found.map(|(_, addresses)| addresses).unwrap_or_default(),
            Err(error) => return Some((Input::Slice(service, name, None), Some(error))),
        };
        let ports = object.ports.iter().flatten().filter_map(|port| {
            service_port(port.name.as_ref(), port.protocol.as_deref(), port.port?)
        });
        let endpoints = object.endpoints.iter().flatten().map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|conditions| conditions.ready) != Some(false);
            SliceEndpoint {
                addresses: endpoint
                    .addresses
                    .iter()
                    .filter_map(|text| text.parse().ok())
                    .collect(),
                ready,
                serving: conditions
                    .and_then(|conditions| conditions.serving)
                    .unwrap_or(ready),
                node: endpoint.node_name.clone().map(NodeName),
            }
        });
        let input = SliceInput {
            addresses,
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        };
        Some((Input::Slice(service, name, Some(Box::new(input))), None))
    }

    /// A policy or CIDR group, as the API server gave it.
    #[must_use]
    pub fn policy(key: PolicyKey, api_version: &str, metadata: &ObjectMeta, data: Value) -> Input {
        let mut data = match data {
            Value::Object(data) => data,
            _ => serde_json::Map::new(),
        };
        let status = data.remove("status");
        let mut kept = json!({ "name": key.name() });
        if let Some(namespace) = key.namespace() {
            kept["namespace"] = json!(namespace);
        }
        // Only selectors over CIDR groups look at labels.
        if key.is_group()
            && let Some(labels) = &metadata.labels
        {
            kept["labels"] = json!(labels);
        }
        data.insert("apiVersion".to_owned(), json!(api_version));
        data.insert("kind".to_owned(), json!(key.kind()));
        data.insert("metadata".to_owned(), kept);
        let input = PolicyInput {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            value: Value::Object(data),
            status,
        };
        Input::Policy(key, Some(Box::new(input)))
    }

    /// A stored identity.
    #[must_use]
    pub fn identity(object: Identity) -> Input {
        let text = object
            .spec
            .properties
            .iter()
            .flat_map(|line| [line, "\n"])
            .collect();
        let input = IdentityInput {
            number: object.spec.number,
            text,
            endpoints: object.status.map(|status| status.endpoints),
        };
        Input::Identity(
            object.metadata.name.unwrap_or_default(),
            Some(Box::new(input)),
        )
    }

    /// A stored node. Prefixes that can't be read are left out.
    #[must_use]
    pub fn record(object: SluiceNode) -> Input {
        let input = RecordInput {
            uid: object.metadata.uid.unwrap_or_default(),
            number: object.spec.number,
            pod_cidrs: object
                .spec
                .pod_cidrs
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            seen: object
                .status
                .is_some_and(|status| status.revision.is_some()),
        };
        let name = NodeName(object.metadata.name.unwrap_or_default());
        Input::Record(name, Some(Box::new(input)))
    }

    /// A stored endpoint.
    #[must_use]
    pub fn endpoint(object: SluiceEndpoint) -> Input {
        let digest = digest(&object.spec);
        let addresses = object.spec.addresses.iter();
        let input = RememberedEndpoint {
            addresses: addresses.filter_map(|text| text.parse().ok()).collect(),
            uid: object.spec.pod_uid,
            digest,
        };
        let id = PodRef {
            namespace: object.metadata.namespace.unwrap_or_default(),
            name: object.metadata.name.unwrap_or_default(),
        };
        Input::Endpoint(id, Some(Box::new(input)))
    }

    fn name(metadata: &ObjectMeta) -> String {
        metadata.name.clone().unwrap_or_default()
    }

    fn service_port(
        name: Option<&String>,
        protocol: Option<&str>,
        port: i32,
    ) -> Option<ServicePort> {
        let protocol = match protocol.unwrap_or("TCP") {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            _ => return None,
        };
        Some(ServicePort {
            name: name.cloned().unwrap_or_default(),
            protocol,
            port: u16::try_from(port).ok().filter(|port| *port != 0)?,
        })
    }
}
