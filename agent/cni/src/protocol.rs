//! The messages between plugin and agent: one request, one reply, then the connection ends. How they travel may not enter.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of these messages. Plugin and agent of different versions refuse each other: the agent installs its own plugin.
pub const VERSION: u32 = 1;

/// A request with the version of its form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`VERSION`] of who sent it.
    pub version: u32,
    /// What is wanted.
    pub request: Request,
}

/// What the plugin wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// An interface. The namespace's descriptor comes with the message.
    Add(Attachment),
    /// The end of an interface. It may be gone already, with its namespace.
    Del(AttachmentId),
    /// Whether an interface is as it was made. The namespace's descriptor comes with the message.
    Check(Check),
    /// The end of all interfaces but these.
    Gc(Vec<AttachmentId>),
    /// Whether an interface could be made now.
    Status,
}

/// Names an interface of a container: the key by which the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentId {
    /// The runtime's id of the sandbox.
    pub container: String,
    /// Name of the interface inside.
    pub interface: String,
}

/// An interface that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Its key.
    pub id: AttachmentId,
    /// The namespace's path as the runtime gave it: shown in the result, not opened.
    pub sandbox: String,
    /// Whose it is; `None` where no kubelet asks (a person with `cnitool`).
    pub pod: Option<Pod>,
}

/// A pod as the kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID of the object; empty where the runtime does not give it.
    pub uid: String,
}

/// An interface to be compared with what was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its key.
    pub id: AttachmentId,
    /// The addresses that the result of ADD named.
    pub addresses: Vec<IpAddr>,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Reply {
    /// An interface is there.
    Added(Added),
    /// Done, or as it should be.
    Done,
    /// Not done.
    Failed(Failure),
}

/// An interface that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Added {
    /// The node's end.
    pub host: Link,
    /// The pod's end.
    pub pod: Link,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// The pod's addresses with the gateway for each one's family, IPv4 first.
    pub addresses: Vec<Given>,
}

/// One end of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: String,
}

/// An address given to a pod: itself alone, /32 or /128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The address.
    pub address: IpAddr,
    /// Where everything else is reached through.
    pub gateway: IpAddr,
}

/// Error codes of the CNI specification, and ours from 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

impl Code {
    /// The version in the configuration is not supported.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// The container is not known: there is nothing to clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// A variable of the environment is missing or wrong.
    pub const BAD_ENVIRONMENT: Self = Self(4);
    /// A file or socket failed.
    pub const IO: Self = Self(5);
    /// Something could not be decoded.
    pub const DECODING: Self = Self(6);
    /// The network configuration is wrong.
    pub const BAD_CONFIG: Self = Self(7);
    /// Not now: the runtime should try again.
    pub const TRY_AGAIN: Self = Self(11);
    /// STATUS: no interface can be made now.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// STATUS: no interface can be made now, and those that are there have limited connectivity.
    pub const LIMITED: Self = Self(51);
    /// An interface could not be made.
    pub const FAILED: Self = Self(100);
    /// CHECK: the interface is not as it was made.
    pub const DIFFERENT: Self = Self(101);
}

/// Why something was not done, for the runtime and for people.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{message}: {details}")]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// What failed, shortly.
    pub message: String,
    /// Why, with the likely cause.
    pub details: String,
}

impl Failure {
    /// A failure.
    pub fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: details.into(),
        }
    }
}
