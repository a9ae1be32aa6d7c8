//! Questions: may this source send that packet there?
//!
//! Here is what a question *is*, once its ends are known; [`parse`] reads questions as people write them and [`AddressBook`] knows whose
//! address is whose.

mod book;
mod parse;

use std::{collections::BTreeMap, net::IpAddr};

pub use book::{AddressBook, Holder};
pub use parse::{QueriesError, QueryError, QueryParser, parse};

use crate::model::{NodeName, PodRef};

/// One end of a query, resolved against a world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A managed pod.
    Pod(PodRef),
    /// A node's own network, host-network pods included.
    Node(NodeName),
    /// An address outside the cluster.
    Outside(IpAddr),
    /// An address inside some node's pod CIDR that no pod holds: never world, always denied.
    Unknown(IpAddr),
}

/// An HTTP request as L7 rules see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Host.
    pub host: String,
    /// Headers, names as given.
    pub headers: BTreeMap<String, String>,
}

/// One question, resolved against a world: both ends known, one address family, one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Echoed in the answer.
    pub id: String,
    /// Source.
    pub from: Target,
    /// Destination.
    pub to: Target,
    /// Source address of the packet, of the query's family.
    pub source: IpAddr,
    /// Destination address of the packet, of the query's family.
    pub destination: IpAddr,
    /// IP protocol number. ICMP is 1 for IPv4 and 58 for IPv6.
    pub protocol: u8,
    /// Destination port; the type for ICMP and `ICMPv6`; 0 for protocols without ports.
    pub port: u16,
    /// For TCP behind an HTTP redirect: the request to judge.
    pub http: Option<HttpRequest>,
    /// For DNS redirects: the name asked for.
    pub dns: Option<String>,
}
