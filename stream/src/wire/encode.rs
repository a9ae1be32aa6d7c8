//! From types to messages, in pieces of a bounded size: each piece is an encoded `Changes`, and all pieces one after the other are the
//! whole.

use bytes::Bytes;
use ipnet::IpNet;
use prost::Message;
use sluice_policy::{Delta, TableDelta};

use super::{
    pack::{Pack, pack_all},
    proto::{self, Changes},
};
use crate::{
    catalog::Held,
    types::{Frontend, NodeInfo, Overlay, Report, Revision, ServiceEntry, Settings, Update},
};

/// Records in one piece: some ten kilobytes.
const PIECE: usize = 2048;

impl Update {
    /// The update as bytes, for a file or a message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        message(self.revision, self.snapshot, pieces(self)).encode_to_vec()
    }
}

/// A piece of an update as its message.
pub(crate) fn message(revision: Revision, snapshot: bool, changes: Vec<Bytes>) -> proto::Update {
    proto::Update {
        revision: Some(revision.into()),
        snapshot,
        changes,
    }
}

/// All pieces of an update, in an order in which they can be decoded.
pub(crate) fn pieces(update: &Update) -> Vec<Bytes> {
    let mut out = Vec::new();
    for table in &update.delta.tables {
        out.extend(table_pieces(table));
    }
    out.extend(pieces_but_tables(update));
    out
}

/// All pieces of an update but those of its tables.
pub(crate) fn pieces_but_tables(update: &Update) -> Vec<Bytes> {
    let mut out = Vec::new();
    push_small(update, &mut out);
    let delta = &update.delta;
    push_records(&delta.programs, &mut out, |changes| &mut changes.programs);
    push_records(&delta.ranges, &mut out, |changes| &mut changes.ranges);
    push_records(&delta.attributions, &mut out, |changes| {
        &mut changes.attributions
    });
    push_records(&delta.prefixes, &mut out, |changes| &mut changes.prefixes);
    push_records(&delta.addresses, &mut out, |changes| &mut changes.addresses);
    push_records(&delta.retired_peers, &mut out, |changes| {
        &mut changes.retired_peers
    });
    push_records(&delta.dropped_ranges, &mut out, |changes| {
        &mut changes.dropped_ranges
    });
    push_records(&delta.dropped_attributions, &mut out, |changes| {
        &mut changes.dropped_attributions
    });
    push_messages(
        &delta.redirects,
        &mut out,
        |changes| &mut changes.redirects,
        |(id, set)| super::proxy::redirect(*id, set),
    );
    push_messages(
        &delta.cookies,
        &mut out,
        |changes| &mut changes.cookies,
        |(cookie, rule)| super::proxy::rule(*cookie, rule),
    );
    push_messages(
        &delta.identities,
        &mut out,
        |changes| &mut changes.identities,
        |(identity, labels)| proto::Labels {
            identity: identity.0,
            labels: labels.clone(),
        },
    );
    push_messages(
        &delta.nodes,
        &mut out,
        |changes| &mut changes.node_numbers,
        |(name, number)| proto::NodeNumber {
            name: name.0.clone(),
            number: *number,
        },
    );
    push_messages(
        &delta.endpoints,
        &mut out,
        |changes| &mut changes.endpoints,
        |(pod, endpoint)| {
            let known = endpoint.as_ref();
            proto::Endpoint {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                gone: known.is_none(),
                identity: known.map_or(0, |known| known.identity.0),
                egress: known.map_or(0, |known| known.egress),
                ingress: known.map_or(0, |known| known.ingress),
                node: known.map_or(0, |known| known.node),
                uid: known
                    .and_then(|known| known.uid)
                    .map_or_else(Bytes::new, |uid| Bytes::copy_from_slice(&uid.0)),
            }
        },
    );
    push_messages(
        &update.nodes,
        &mut out,
        |changes| &mut changes.nodes,
        |(name, node)| node_entry(&name.0, node.as_ref()),
    );
    push_messages(
        &update.services,
        &mut out,
        |changes| &mut changes.services,
        |(frontend, entry)| service(*frontend, entry.as_ref()),
    );
    out
}

/// The pieces of one table's change.
pub(crate) fn table_pieces(table: &TableDelta) -> Vec<Bytes> {
    let sets = table.set.chunks(PIECE).map(|set| (set, &[][..]));
    let removals = table
        .removed
        .chunks(PIECE)
        .map(|removed| (&[][..], removed));
    let mut parts: Vec<(&[_], &[_])> = sets.chain(removals).collect();
    if parts.is_empty() {
        parts.push((&[], &[]));
    }
    let piece = |(at, (set, removed)): (usize, (&[_], &[_]))| {
        let first = at == 0;
        let defaults = table.defaults.filter(|_| first);
        let message = proto::Table {
            id: table.id,
            new: first && table.new,
            defaults: defaults.map_or_else(Bytes::new, |cells| pack_all(&cells).into()),
            set: pack_all(set).into(),
            removed: pack_all(removed).into(),
            takes_access_away: first && table.takes_access_away,
            continued: !first,
        };
        encoded(&Changes {
            tables: vec![message],
            ..Changes::default()
        })
    };
    parts.into_iter().enumerate().map(piece).collect()
}

/// What is never long.
fn push_small(update: &Update, out: &mut Vec<Bytes>) {
    let Delta {
        watermarks,
        dropped_tables,
        dropped_programs,
        dropped_redirects,
        dropped_cookies,
        dropped_identities,
        ..
    } = &update.delta;
    let mut changes = Changes {
        dropped_tables: dropped_tables.clone(),
        dropped_programs: dropped_programs.clone(),
        dropped_redirects: dropped_redirects.clone(),
        dropped_cookies: dropped_cookies.iter().map(|cookie| cookie.0).collect(),
        dropped_identities: dropped_identities
            .iter()
            .map(|identity| identity.0)
            .collect(),
        settings: update.settings.as_ref().map(settings),
        ..Changes::default()
    };
    if !watermarks.is_empty() {
        changes.watermarks = vec![pack_all(watermarks).into()];
    }
    if changes != Changes::default() {
        out.push(encoded(&changes));
    }
}

fn push_records<T: Pack>(
    records: &[T],
    out: &mut Vec<Bytes>,
    field: impl Fn(&mut Changes) -> &mut Vec<Bytes>,
) {
    for chunk in records.chunks(PIECE) {
        let mut changes = Changes::default();
        field(&mut changes).push(pack_all(chunk).into());
        out.push(encoded(&changes));
    }
}

fn push_messages<T, M>(
    items: &[T],
    out: &mut Vec<Bytes>,
    field: impl Fn(&mut Changes) -> &mut Vec<M>,
    convert: impl Fn(&T) -> M,
) {
    for chunk in items.chunks(PIECE / 8) {
        let mut changes = Changes::default();
        *field(&mut changes) = chunk.iter().map(&convert).collect();
        out.push(encoded(&changes));
    }
}

fn encoded(changes: &Changes) -> Bytes {
    changes.encode_to_vec().into()
}

pub(super) fn packed(value: &impl Pack) -> Bytes {
    let mut out = Vec::new();
    value.pack(&mut out);
    out.into()
}

fn settings(settings: &Settings) -> proto::Settings {
    let nets = |nets: &[IpNet]| nets.iter().map(packed).collect();
    proto::Settings {
        vxlan_port: match settings.overlay {
            Overlay::Direct => 0,
            Overlay::Vxlan { port } => port.into(),
        },
        masquerade: settings.masquerade,
        cluster_cidrs: nets(&settings.cluster_cidrs),
        excluded_cidrs: nets(&settings.excluded_cidrs),
        service_cidrs: nets(&settings.service_cidrs),
        addresses_matter: settings.addresses_matter,
    }
}

fn node_entry(name: &str, node: Option<&NodeInfo>) -> proto::NodeEntry {
    proto::NodeEntry {
        name: name.to_owned(),
        gone: node.is_none(),
        number: node.map_or(0, |node| node.number),
        addresses: node.map_or_else(Vec::new, |node| node.addresses.iter().map(packed).collect()),
        pod_cidrs: node.map_or_else(Vec::new, |node| node.pod_cidrs.iter().map(packed).collect()),
    }
}

fn service(frontend: Frontend, entry: Option<&ServiceEntry>) -> proto::Service {
    let mut message = proto::Service {
        address: packed(&frontend.address),
        protocol: frontend.protocol.into(),
        port: frontend.port.into(),
        gone: entry.is_none(),
        ..proto::Service::default()
    };
    if let Some(entry) = entry {
        message.namespace.clone_from(&entry.name.namespace);
        message.name.clone_from(&entry.name.name);
        message.affinity_seconds = entry.affinity_seconds;
        message.internal_local = entry.internal_local;
        let backends = entry.backends.iter().map(|backend| proto::Backend {
            address: packed(&backend.address),
            port: backend.port.into(),
            node: backend.node.as_ref().map(|node| node.0.clone()),
        });
        message.backends = backends.collect();
    }
    message
}

impl From<Revision> for proto::Revision {
    fn from(revision: Revision) -> Self {
        Self {
            epoch: revision.epoch,
            number: revision.number,
        }
    }
}

impl From<&Held> for proto::Held {
    fn from(held: &Held) -> Self {
        Self {
            revision: Some(held.revision.into()),
            tables: held.tables.iter().copied().collect(),
            programs: held.programs.iter().copied().collect(),
            attributions: held.attributions.iter().copied().collect(),
            redirects: held.redirects.iter().copied().collect(),
            cookies: held.cookies.iter().copied().collect(),
        }
    }
}

impl From<&Report> for proto::Report {
    fn from(report: &Report) -> Self {
        use proto::report::Report as Kind;
        let kind = match report {
            Report::EndpointUp {
                pod,
                uid,
                addresses,
                container,
            } => Kind::Up(proto::EndpointUp {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: uid.clone(),
                addresses: addresses.iter().map(packed).collect(),
                container: container.clone(),
            }),
            Report::EndpointDown { pod, uid } => Kind::Down(proto::EndpointDown {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: uid.clone(),
            }),
            Report::Status(status) => Kind::Status(proto::Status {
                release: status.release.clone(),
                revision: status.revision.map(Into::into),
                endpoints: status.endpoints,
                ready: status.ready,
                maps: status
                    .maps
                    .iter()
                    .map(|map| proto::MapUse {
                        name: map.name.clone(),
                        used: map.used,
                        size: map.size,
                    })
                    .collect(),
                conditions: status
                    .conditions
                    .iter()
                    .map(|condition| proto::Condition {
                        kind: condition.kind.clone(),
                        holds: condition.holds,
                        reason: condition.reason.clone(),
                        message: condition.message.clone(),
                    })
                    .collect(),
                features: status
                    .features
                    .iter()
                    .map(|(name, state)| proto::Feature {
                        name: name.clone(),
                        state: state.clone(),
                    })
                    .collect(),
            }),
        };
        Self { report: Some(kind) }
    }
}
