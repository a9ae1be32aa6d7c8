//! From messages to types, strictly: what an encoder of the same wire version can't have written is an error that names the field.

use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use prost::Message;
use sluice_abi::{Cookie, Identity};
use sluice_policy::{Delta, Endpoint, TableDelta};
use sluice_world::{NodeName, PodRef, PodUid, ServiceRef};

use super::{
    pack::{Pack, unpack_all, unpack_one},
    proto::{self, Changes},
};
use crate::{
    catalog::Held,
    error::DecodeError,
    types::{
        AgentStatus, Backend, Condition, Frontend, MapUse, NodeInfo, Overlay, Report, Revision,
        ServiceEntry, Settings, Update,
    },
};

type Result<T> = std::result::Result<T, DecodeError>;

impl Update {
    /// Reads what [`Update::encode`] wrote.
    ///
    /// # Errors
    /// It is none, or one that makes no sense.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let message = proto::Update::decode(bytes).map_err(|error| malformed("Update", &error))?;
        let mut gathered = Gathered::default();
        gathered.add(message)?;
        gathered.finish()
    }
}

/// The pieces of an update that have come.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    first: Option<(Revision, bool)>,
    changes: Changes,
}

impl Gathered {
    pub(crate) fn add(&mut self, message: proto::Update) -> Result<()> {
        let revision = required("Update.revision", message.revision)?.into();
        let first = *self.first.get_or_insert((revision, message.snapshot));
        if first != (revision, message.snapshot) {
            let reason = format!("a piece of {revision} among those of {}", first.0);
            return Err(invalid("Part.update", reason));
        }
        for bytes in message.changes {
            let merged = self.changes.merge(bytes);
            merged.map_err(|error| malformed("Changes", &error))?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Update> {
        let (revision, snapshot) = required("Part.update", self.first)?;
        let mut update = changes(self.changes)?;
        (update.revision, update.snapshot) = (revision, snapshot);
        Ok(update)
    }
}

fn changes(changes: Changes) -> Result<Update> {
    let delta = Delta {
        programs: unpack_all("programs", changes.programs)?,
        ranges: unpack_all("ranges", changes.ranges)?,
        attributions: unpack_all("attributions", changes.attributions)?,
        redirects: all(changes.redirects, super::proxy::redirect_of)?,
        cookies: all(changes.cookies, super::proxy::rule_of)?,
        identities: changes
            .identities
            .into_iter()
            .map(|entry| (Identity(entry.identity), entry.labels))
            .collect(),
        tables: tables(changes.tables)?,
        watermarks: unpack_all("watermarks", changes.watermarks)?,
        nodes: changes
            .node_numbers
            .into_iter()
            .map(|entry| (NodeName(entry.name), entry.number))
            .collect(),
        prefixes: unpack_all("prefixes", changes.prefixes)?,
        addresses: unpack_all("addresses", changes.addresses)?,
        endpoints: all(changes.endpoints, endpoint)?,
        retired_peers: unpack_all("retired_peers", changes.retired_peers)?,
        dropped_tables: changes.dropped_tables,
        dropped_programs: changes.dropped_programs,
        dropped_ranges: unpack_all("dropped_ranges", changes.dropped_ranges)?,
        dropped_attributions: unpack_all("dropped_attributions", changes.dropped_attributions)?,
        dropped_redirects: changes.dropped_redirects,
        dropped_cookies: changes.dropped_cookies.into_iter().map(Cookie).collect(),
        dropped_identities: changes
            .dropped_identities
            .into_iter()
            .map(Identity)
            .collect(),
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    Ok(Update {
        revision: Revision::default(),
        snapshot: false,
        delta,
        settings: changes.settings.as_ref().map(settings).transpose()?,
        nodes: all(changes.nodes, node)?,
        services: all(changes.services, service)?,
    })
}

fn tables(messages: Vec<proto::Table>) -> Result<Vec<TableDelta>> {
    let mut tables: Vec<TableDelta> = Vec::with_capacity(messages.len());
    for message in messages {
        let set = unpack_all("tables.set", [message.set])?;
        let removed: Vec<Identity> = unpack_all("tables.removed", [message.removed])?;
        if message.continued {
            let before = tables.last_mut().filter(|table| table.id == message.id);
            let Some(table) = before else {
                let reason = format!("table {} goes on and has not begun", message.id);
                return Err(invalid("tables.continued", reason));
            };
            table.set.extend(set);
            table.removed.extend(removed);
            continue;
        }
        let cells: Vec<_> = unpack_all("tables.defaults", [message.defaults])?;
        let count = cells.len();
        let defaults = match count {
            0 => None,
            _ => Some(cells.try_into().map_err(|_| {
                invalid(
                    "tables.defaults",
                    format!("{count} cells, not one for each scope"),
                )
            })?),
        };
        tables.push(TableDelta {
            id: message.id,
            new: message.new,
            defaults,
            set,
            removed,
            takes_access_away: message.takes_access_away,
        });
    }
    Ok(tables)
}

fn endpoint(message: proto::Endpoint) -> Result<(PodRef, Option<Endpoint>)> {
    let uid = match &message.uid[..] {
        [] => None,
        bytes => Some(PodUid(bytes.try_into().map_err(|_| {
            invalid("endpoints.uid", format!("{} bytes, not 16", bytes.len()))
        })?)),
    };
    let endpoint = Endpoint {
        identity: Identity(message.identity),
        egress: message.egress,
        ingress: message.ingress,
        node: message.node,
        uid,
    };
    let pod = PodRef {
        namespace: message.namespace,
        name: message.name,
    };
    Ok((pod, (!message.gone).then_some(endpoint)))
}

fn settings(message: &proto::Settings) -> Result<Settings> {
    Ok(Settings {
        overlay: match port("settings.vxlan_port", message.vxlan_port)? {
            0 => Overlay::Direct,
            port => Overlay::Vxlan { port },
        },
        masquerade: message.masquerade,
        cluster_cidrs: nets("settings.cluster_cidrs", &message.cluster_cidrs)?,
        excluded_cidrs: nets("settings.excluded_cidrs", &message.excluded_cidrs)?,
        service_cidrs: nets("settings.service_cidrs", &message.service_cidrs)?,
        addresses_matter: message.addresses_matter,
    })
}

fn node(message: proto::NodeEntry) -> Result<(NodeName, Option<NodeInfo>)> {
    let name = NodeName(message.name);
    if message.gone {
        return Ok((name, None));
    }
    let info = NodeInfo {
        name: name.clone(),
        number: message.number,
        addresses: addresses("nodes.addresses", &message.addresses)?,
        pod_cidrs: nets("nodes.pod_cidrs", &message.pod_cidrs)?,
    };
    Ok((name, Some(info)))
}

fn service(message: proto::Service) -> Result<(Frontend, Option<ServiceEntry>)> {
    let frontend = Frontend {
        address: unpack_one("services.address", &message.address)?,
        protocol: u8::try_from(message.protocol)
            .map_err(|_| invalid("services.protocol", message.protocol.to_string()))?,
        port: port("services.port", message.port)?,
    };
    if message.gone {
        return Ok((frontend, None));
    }
    let backend = |backend: proto::Backend| {
        Ok(Backend {
            address: unpack_one("services.backends.address", &backend.address)?,
            port: port("services.backends.port", backend.port)?,
            node: backend.node.map(NodeName),
        })
    };
    let entry = ServiceEntry {
        name: ServiceRef {
            namespace: message.namespace,
            name: message.name,
        },
        frontend,
        backends: all(message.backends, backend)?,
        affinity_seconds: message.affinity_seconds,
        internal_local: message.internal_local,
    };
    Ok((frontend, Some(entry)))
}

impl From<proto::Revision> for Revision {
    fn from(message: proto::Revision) -> Self {
        Self {
            epoch: message.epoch,
            number: message.number,
        }
    }
}

impl TryFrom<proto::Held> for Held {
    type Error = DecodeError;

    fn try_from(message: proto::Held) -> Result<Self> {
        Ok(Self {
            revision: required("Held.revision", message.revision)?.into(),
            tables: message.tables.into_iter().collect(),
            programs: message.programs.into_iter().collect(),
            attributions: message.attributions.into_iter().collect(),
            redirects: message.redirects.into_iter().collect(),
            cookies: message.cookies.into_iter().collect(),
        })
    }
}

impl TryFrom<proto::Report> for Report {
    type Error = DecodeError;

    fn try_from(message: proto::Report) -> Result<Self> {
        use proto::report::Report as Kind;
        let pod = |namespace, name| PodRef { namespace, name };
        Ok(match required("Report.report", message.report)? {
            Kind::Up(up) => Self::EndpointUp {
                pod: pod(up.namespace, up.name),
                uid: up.uid,
                addresses: addresses("EndpointUp.addresses", &up.addresses)?,
                container: up.container,
            },
            Kind::Down(down) => Self::EndpointDown {
                pod: pod(down.namespace, down.name),
                uid: down.uid,
            },
            Kind::Status(status) => Self::Status(agent_status(status)),
        })
    }
}

fn agent_status(status: proto::Status) -> AgentStatus {
    let maps = status.maps.into_iter().map(|map| MapUse {
        name: map.name,
        used: map.used,
        size: map.size,
    });
    let conditions = status.conditions.into_iter().map(|condition| Condition {
        kind: condition.kind,
        holds: condition.holds,
        reason: condition.reason,
        message: condition.message,
    });
    let features = status.features.into_iter();
    AgentStatus {
        release: status.release,
        revision: status.revision.map(Into::into),
        endpoints: status.endpoints,
        ready: status.ready,
        maps: maps.collect(),
        conditions: conditions.collect(),
        features: features
            .map(|feature| (feature.name, feature.state))
            .collect(),
    }
}

pub(super) fn all<M, T>(messages: Vec<M>, convert: impl Fn(M) -> Result<T>) -> Result<Vec<T>> {
    messages.into_iter().map(convert).collect()
}

pub(super) fn required<T>(field: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or(DecodeError::Missing(field))
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> DecodeError {
    DecodeError::Invalid {
        field,
        reason: reason.into(),
    }
}

fn malformed(message: &'static str, error: &prost::DecodeError) -> DecodeError {
    DecodeError::Malformed {
        message,
        reason: error.to_string(),
    }
}

fn port(field: &'static str, value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| invalid(field, format!("{value} is no port")))
}

fn nets(field: &'static str, blobs: &[Bytes]) -> Result<Vec<IpNet>> {
    each(field, blobs)
}

fn addresses(field: &'static str, blobs: &[Bytes]) -> Result<Vec<IpAddr>> {
    each(field, blobs)
}

fn each<T: Pack>(field: &'static str, blobs: &[Bytes]) -> Result<Vec<T>> {
    blobs.iter().map(|blob| unpack_one(field, blob)).collect()
}
