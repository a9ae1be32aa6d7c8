//! Queries as people and programs write them: a JSON array, or one object per line.
//!
//! A wrong query says what is wrong with it and spoils no other; only text that is no list of anything fails as a whole.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AddressBook, Holder, HttpRequest, Query, Target, book::pod_target};
use crate::{
    model::{NodeName, PodRef},
    world::World,
};

/// Why one query can't be judged. Printed in place of its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("query {}: {error}", id.as_deref().unwrap_or("without id"))]
pub struct QueryError {
    /// The query's id, as far as it could be read.
    pub id: Option<String>,
    /// What is wrong with it.
    pub error: String,
}

/// Why a text of queries can't be read at all.
#[derive(Debug, thiserror::Error)]
#[error("queries: not a JSON array: {0}")]
pub struct QueriesError(#[from] serde_json::Error);

/// Reads queries, in order. A text that begins with `[` is an array; any other holds one object per line, blank lines aside.
///
/// # Errors
///
/// Where the text begins as an array and is none. What is wrong with a single query is in its place in the list.
pub fn parse(text: &str, world: &World) -> Result<Vec<Result<Query, QueryError>>, QueriesError> {
    let parser = QueryParser::new(world);
    if text.trim_start().starts_with('[') {
        let values: Vec<Value> = serde_json::from_str(text)?;
        return Ok(values
            .into_iter()
            .map(|value| parser.value(value))
            .collect());
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines.map(|line| parser.line(line)).collect())
}

/// A query as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    id: String,
    from: String,
    to: String,
    protocol: String,
    port: Option<u16>,
    icmp_type: Option<u8>,
    family: Option<String>,
    http: Option<WrittenHttp>,
    dns: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHttp {
    #[serde(default = "get")]
    method: String,
    #[serde(default = "root")]
    path: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

fn get() -> String {
    "GET".into()
}

fn root() -> String {
    "/".into()
}

/// Reads queries about one world.
#[derive(Debug)]
pub struct QueryParser<'w> {
    world: &'w World,
    book: AddressBook,
}

impl<'w> QueryParser<'w> {
    /// For queries about this world.
    #[must_use]
    pub fn new(world: &'w World) -> Self {
        Self {
            world,
            book: AddressBook::new(world),
        }
    }

    /// Reads one query from its line of JSON.
    ///
    /// # Errors
    ///
    /// Where it is no JSON object, has an unknown field, or asks for what can't be.
    pub fn line(&self, line: &str) -> Result<Query, QueryError> {
        let value = serde_json::from_str(line).map_err(|error| QueryError {
            id: None,
            error: format!("not JSON: {error}"),
        })?;
        self.value(value)
    }

    fn value(&self, value: Value) -> Result<Query, QueryError> {
        let id = value.get("id").and_then(Value::as_str).map(str::to_owned);
        let fail = |error: String| QueryError {
            id: id.clone(),
            error,
        };
        let written: Written =
            serde_json::from_value(value).map_err(|error| fail(error.to_string()))?;
        self.resolve(written).map_err(fail)
    }

    fn resolve(&self, written: Written) -> Result<Query, String> {
        let from = self.end("from", &written.from)?;
        let to = self.end("to", &written.to)?;
        let protocol = ProtocolName::parse(&written.protocol)?;
        let v4 = family(&written, protocol, &to)?;
        let source = from
            .address(v4)
            .map_err(|error| format!("from: {}: {error}", written.from))?;
        let destination = to
            .address(v4)
            .map_err(|error| format!("to: {}: {error}", written.to))?;
        let port = port(&written, protocol)?;
        check_l7(&written, protocol)?;
        Ok(Query {
            from: from.target(self.world, source),
            to: to.target(self.world, destination),
            id: written.id,
            source,
            destination,
            protocol: protocol.number(v4),
            port,
            http: written.http.map(|http| HttpRequest {
                method: http.method,
                path: http.path,
                host: http.host,
                headers: http.headers,
            }),
            dns: written.dns,
        })
    }

    fn end(&self, field: &str, text: &str) -> Result<End, String> {
        let fail = |error: String| format!("{field}: {text}: {error}");
        let (form, name) = text.split_once(':').ok_or_else(|| {
            fail("expected pod:<namespace>/<name>, ip:<address> or node:<name>".into())
        })?;
        match form {
            "pod" => self.pod(name).map_err(fail),
            "ip" => self.ip(name).map_err(fail),
            "node" => self.node(name).map_err(fail),
            _ => Err(fail(format!("{form:?} is none of pod, ip and node"))),
        }
    }

    fn pod(&self, name: &str) -> Result<End, String> {
        let (namespace, name) = name
            .split_once('/')
            .ok_or("expected pod:<namespace>/<name>; the namespace is missing")?;
        let id = PodRef {
            namespace: namespace.into(),
            name: name.into(),
        };
        let pod = self
            .world
            .pods
            .get(&id)
            .ok_or("there is no such pod (or it has terminated)")?;
        Ok(End {
            who: Who::Pod(id),
            exact: None,
            addresses: pod.addresses.clone(),
        })
    }

    fn node(&self, name: &str) -> Result<End, String> {
        let id = NodeName(name.into());
        let node = self.world.nodes.get(&id).ok_or("there is no such node")?;
        Ok(End {
            who: Who::Target(Target::Node(id)),
            exact: None,
            addresses: node.addresses.clone(),
        })
    }

    fn ip(&self, text: &str) -> Result<End, String> {
        let address: IpAddr = text.parse().map_err(|_| "not an IP address")?;
        let target = match self.book.holder(address) {
            Holder::Target(target) => target,
            Holder::Service(service) => {
                return Err(format!(
                    "this is the ClusterIP of service {service}; policy sees the pods behind it, and translation of \
                     services is not served yet: ask about a pod of the service"
                ));
            }
        };
        let mut addresses = vec![address];
        match &target {
            Target::Pod(id) => addresses.extend(
                self.world
                    .pods
                    .get(id)
                    .into_iter()
                    .flat_map(|pod| &pod.addresses),
            ),
            Target::Node(name) => {
                addresses.extend(
                    self.world
                        .nodes
                        .get(name)
                        .into_iter()
                        .flat_map(|node| &node.addresses),
                );
            }
            Target::Outside(_) | Target::Unknown(_) => {}
        }
        Ok(End {
            who: Who::Target(target),
            exact: Some(address),
            addresses,
        })
    }
}

/// One end of a query before the family is known.
struct End {
    who: Who,
    /// The address it was named by.
    exact: Option<IpAddr>,
    /// All it has; the first says the default family.
    addresses: Vec<IpAddr>,
}

enum Who {
    /// A pod by name, which an external or host-network one stands for something else.
    Pod(PodRef),
    Target(Target),
}

impl End {
    fn address(&self, v4: bool) -> Result<IpAddr, String> {
        let fitting = self
            .exact
            .iter()
            .chain(&self.addresses)
            .find(|address| address.is_ipv4() == v4);
        fitting.copied().ok_or_else(|| {
            let family = if v4 { "IPv4" } else { "IPv6" };
            format!("has no {family} address")
        })
    }

    fn target(&self, world: &World, address: IpAddr) -> Target {
        match &self.who {
            Who::Pod(id) => pod_target(world, id, address),
            Who::Target(target) => target.clone(),
        }
    }
}

/// Whether the packet is IPv4: as the query says, else as the protocol demands, else as the destination's first address is.
fn family(written: &Written, protocol: ProtocolName, to: &End) -> Result<bool, String> {
    let stated = match &written.family {
        None => None,
        Some(family) if family.eq_ignore_ascii_case("ipv4") => Some(true),
        Some(family) if family.eq_ignore_ascii_case("ipv6") => Some(false),
        Some(family) => return Err(format!("family: {family:?} is neither IPv4 nor IPv6")),
    };
    if protocol == ProtocolName::Icmpv6 {
        if stated == Some(true) {
            return Err("protocol: ICMPv6 does not exist in IPv4; write ICMP".into());
        }
        return Ok(false);
    }
    if let Some(v4) = stated {
        if to.exact.is_some_and(|address| address.is_ipv4() != v4) {
            return Err(format!("family: {} is of the other family", written.to));
        }
        return Ok(v4);
    }
    let first = to
        .addresses
        .first()
        .ok_or_else(|| format!("to: {}: has no address", written.to))?;
    Ok(first.is_ipv4())
}

fn port(written: &Written, protocol: ProtocolName) -> Result<u16, String> {
    match (protocol, written.port, written.icmp_type) {
        (ProtocolName::Icmp | ProtocolName::Icmpv6, None, Some(icmp_type)) => {
            Ok(u16::from(icmp_type))
        }
        (ProtocolName::Icmp | ProtocolName::Icmpv6, _, _) => Err(format!(
            "{} takes icmpType, a number from 0 to 255, in place of port",
            written.protocol
        )),
        (_, _, Some(_)) => Err(format!("icmpType: {} has none", written.protocol)),
        (ProtocolName::Ports(_), Some(port), None) => Ok(port),
        (ProtocolName::Ports(_), None, None) => {
            Err(format!("port is missing; {} needs one", written.protocol))
        }
        (ProtocolName::NoPorts(_), None, None) => Ok(0),
        (ProtocolName::NoPorts(_), Some(_), None) => {
            Err(format!("port: {} has no ports", written.protocol))
        }
    }
}

fn check_l7(written: &Written, protocol: ProtocolName) -> Result<(), String> {
    const TCP: ProtocolName = ProtocolName::Ports(6);
    const UDP: ProtocolName = ProtocolName::Ports(17);
    match (&written.http, &written.dns) {
        (Some(_), Some(_)) => Err("http and dns: one packet can't be both".into()),
        (Some(_), None) if protocol != TCP => Err("http: only over TCP".into()),
        (None, Some(_)) if protocol != TCP && protocol != UDP => {
            Err("dns: only over UDP and TCP".into())
        }
        _ => Ok(()),
    }
}

/// A protocol as queries name it, with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProtocolName {
    Ports(u8),
    NoPorts(u8),
    Icmp,
    Icmpv6,
}

impl ProtocolName {
    fn parse(name: &str) -> Result<Self, String> {
        // Numbers as assigned by IANA.
        Ok(match name.to_ascii_uppercase().as_str() {
            "TCP" => Self::Ports(6),
            "UDP" => Self::Ports(17),
            "SCTP" => Self::Ports(132),
            "ICMP" => Self::Icmp,
            "ICMPV6" => Self::Icmpv6,
            "IGMP" => Self::NoPorts(2),
            "IPIP" => Self::NoPorts(4),
            "IPV6" => Self::NoPorts(41),
            "GRE" => Self::NoPorts(47),
            "ESP" => Self::NoPorts(50),
            "AH" => Self::NoPorts(51),
            "VRRP" => Self::NoPorts(112),
            _ => {
                return Err(format!(
                    "protocol: {name:?} is none of TCP, UDP, SCTP, ICMP, ICMPv6, VRRP, IGMP, GRE, IPIP, IPV6, ESP, AH"
                ));
            }
        })
    }

    /// The number in the packet. ICMP is another protocol in each family.
    const fn number(self, v4: bool) -> u8 {
        match self {
            Self::Ports(number) | Self::NoPorts(number) => number,
            Self::Icmp if v4 => 1,
            Self::Icmp | Self::Icmpv6 => 58,
        }
    }
}
