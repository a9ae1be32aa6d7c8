//! What travels.

use std::net::IpAddr;

use proptest::prelude::*;
use sluice_abi::{Identity, Scope, policy::PeerCell};
use sluice_policy::{Delta, Endpoint, TableDelta};
use sluice_world::{NodeName, PodRef, PodUid, ServiceRef};

use super::history::{edits, history};
use crate::{
    AgentStatus, Backend, Catalog, Condition, DecodeError, Frontend, MapUse, NodeInfo, Overlay,
    Report, Revision, ServiceEntry, Settings, Update, View, wire::proto,
};

fn address() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>()
}

fn net() -> impl Strategy<Value = ipnet::IpNet> {
    (any::<IpAddr>(), any::<u8>()).prop_map(|(address, bits)| {
        let most = if address.is_ipv4() { 33 } else { 129 };
        ipnet::IpNet::new(address, bits % most).expect("a prefix")
    })
}

fn nets() -> impl Strategy<Value = Vec<ipnet::IpNet>> {
    prop::collection::vec(net(), 0..3)
}

fn name() -> impl Strategy<Value = NodeName> {
    "[a-z]{0,8}".prop_map(NodeName)
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        any::<u16>(),
        any::<bool>(),
        nets(),
        nets(),
        nets(),
        any::<bool>(),
    )
        .prop_map(
            |(port, masquerade, cluster_cidrs, excluded_cidrs, service_cidrs, addresses_matter)| {
                Settings {
                    overlay: match port {
                        0 => Overlay::Direct,
                        port => Overlay::Vxlan { port },
                    },
                    masquerade,
                    cluster_cidrs,
                    excluded_cidrs,
                    service_cidrs,
                    addresses_matter,
                }
            },
        )
}

fn node() -> impl Strategy<Value = (NodeName, Option<NodeInfo>)> {
    let info = (any::<u32>(), prop::collection::vec(address(), 0..3), nets());
    (name(), prop::option::of(info)).prop_map(|(name, info)| {
        let info = info.map(|(number, addresses, pod_cidrs)| NodeInfo {
            name: name.clone(),
            number,
            addresses,
            pod_cidrs,
        });
        (name, info)
    })
}

fn service() -> impl Strategy<Value = (Frontend, Option<ServiceEntry>)> {
    let frontend =
        (address(), any::<u8>(), any::<u16>()).prop_map(|(address, protocol, port)| Frontend {
            address,
            protocol,
            port,
        });
    let backend =
        (address(), any::<u16>(), prop::option::of(name())).prop_map(|(address, port, node)| {
            Backend {
                address,
                port,
                node,
            }
        });
    let entry = (
        prop::collection::vec(backend, 0..4),
        any::<Option<u32>>(),
        any::<bool>(),
    );
    (frontend, prop::option::of(entry)).prop_map(|(frontend, entry)| {
        let entry = entry.map(
            |(backends, affinity_seconds, internal_local)| ServiceEntry {
                name: ServiceRef {
                    namespace: "default".into(),
                    name: "web".into(),
                },
                frontend,
                backends,
                affinity_seconds,
                internal_local,
            },
        );
        (frontend, entry)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_update_arrives_as_it_was(
        seed in 0_u64..100_000,
        edits in edits(),
        snapshot in any::<bool>(),
        (epoch, number) in any::<(u64, u64)>(),
        settings in prop::option::of(settings()),
        nodes in prop::collection::vec(node(), 0..4),
        services in prop::collection::vec(service(), 0..4),
    ) {
        for mut delta in history(seed, &edits).0 {
            delta.warnings.clear();
            delta.errors.clear();
            let update = Update {
                revision: Revision { epoch, number },
                snapshot,
                delta,
                settings: settings.clone(),
                nodes: nodes.clone(),
                services: services.clone(),
            };
            prop_assert_eq!(Update::decode(&update.encode()), Ok(update));
        }
    }

    /// Bytes of nobody, and bytes with one of them changed, are an error or some update, and never a panic.
    #[test]
    fn any_bytes_can_be_decoded(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        seed in 0_u64..1_000,
        (at, other) in any::<(usize, u8)>(),
    ) {
        let _ = Update::decode(&bytes);
        let delta = history(seed, &[]).0.remove(0);
        let mut bytes = Update { delta, ..Update::default() }.encode();
        let at = at % bytes.len();
        bytes[at] = other;
        let _ = Update::decode(&bytes);
    }
}

/// A table of more entries than a piece takes arrives whole, in order.
#[test]
fn a_large_table_is_cut_and_joined() {
    let cell = PeerCell {
        program: 7,
        attribution: 9,
    };
    let table = |id, count: u32| TableDelta {
        id,
        new: true,
        defaults: Some([cell; Scope::COUNT]),
        set: (0..count).map(|peer| (Identity(peer), cell)).collect(),
        removed: (count..2 * count).map(Identity).collect(),
        takes_access_away: true,
    };
    let delta = Delta {
        tables: vec![table(1, 50_000), table(2, 3), table(3, 20_000)],
        ..Delta::default()
    };
    let update = Update {
        delta,
        ..Update::default()
    };
    assert_eq!(Update::decode(&update.encode()), Ok(update));
}

#[test]
fn reports_arrive_as_they_were() {
    let pod = PodRef {
        namespace: "default".into(),
        name: "web".into(),
    };
    let status = AgentStatus {
        release: "1".into(),
        revision: Some(Revision {
            epoch: 3,
            number: 4,
        }),
        endpoints: 5,
        ready: 4,
        maps: vec![MapUse {
            name: "peers".into(),
            used: 10,
            size: 20,
        }],
        conditions: vec![Condition {
            kind: "Ready".into(),
            holds: true,
            reason: "AllWell".into(),
            message: String::new(),
        }],
        features: vec![("tcx".into(), "on".into())],
    };
    let up = Report::EndpointUp {
        pod: pod.clone(),
        uid: "u".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        container: "c".into(),
    };
    let down = Report::EndpointDown {
        pod,
        uid: "u".into(),
    };
    for report in [up, down, Report::Status(status)] {
        assert_eq!(Report::try_from(proto::Report::from(&report)), Ok(report));
    }
}

#[test]
fn which_pod_of_a_name_is_meant_reaches_its_node() {
    let pod = |number: u32| PodRef {
        namespace: "shop".into(),
        name: format!("web-{number}"),
    };
    let endpoint = |uid: Option<&str>| Endpoint {
        identity: Identity(0x0100_0001),
        egress: 1,
        ingress: 2,
        node: 1,
        uid: uid.and_then(PodUid::of),
    };
    let known = endpoint(Some("6f1c2a0e-0000-4000-8000-000000000001"));
    let mut update = Update {
        snapshot: true,
        delta: Delta {
            nodes: vec![(NodeName("n1".into()), 1)],
            endpoints: vec![(pod(0), Some(known)), (pod(1), Some(endpoint(None)))],
            ..Delta::default()
        },
        ..Update::default()
    };
    assert_eq!(Update::decode(&update.encode()), Ok(update.clone()));
    // A replacement that differs by nothing else is a step of its own, in the catalog and in the node's view of it.
    let mut catalog = Catalog::default();
    catalog.apply(&update);
    let (mut view, _) = View::new(NodeName("n1".into()), &catalog);
    let next = endpoint(Some("6f1c2a0e-0000-4000-8000-000000000002"));
    update.snapshot = false;
    update.delta = Delta {
        endpoints: vec![(pod(0), Some(next))],
        ..Delta::default()
    };
    let step = catalog.apply(&update);
    let told = view
        .step(&catalog, &update, &step)
        .update(&catalog, &update);
    assert_eq!(told.delta.endpoints, [(pod(0), Some(next))]);
    assert_eq!(catalog.snapshot().delta.endpoints[0].1, Some(next));
}

#[test]
fn errors_name_the_field() {
    use prost::Message;
    let decode = |changes: proto::Changes| {
        let update = proto::Update {
            revision: Some(Revision::default().into()),
            snapshot: false,
            changes: vec![changes.encode_to_vec().into()],
        };
        Update::decode(&update.encode_to_vec())
            .expect_err("nonsense")
            .to_string()
    };
    let cut = proto::Changes {
        addresses: vec![vec![1, 2, 3].into()],
        ..proto::Changes::default()
    };
    assert_eq!(decode(cut), "addresses: ends within a record");
    let range = proto::Changes {
        watermarks: vec![vec![77, 1].into()],
        ..proto::Changes::default()
    };
    assert_eq!(
        decode(range),
        "watermarks: no range of identities has number 77"
    );
    let table = proto::Changes {
        tables: vec![proto::Table {
            id: 4,
            continued: true,
            ..proto::Table::default()
        }],
        ..proto::Changes::default()
    };
    assert_eq!(
        decode(table),
        "tables.continued: table 4 goes on and has not begun"
    );
    let endpoint = proto::Changes {
        endpoints: vec![proto::Endpoint {
            uid: vec![1, 2, 3].into(),
            ..proto::Endpoint::default()
        }],
        ..proto::Changes::default()
    };
    assert_eq!(decode(endpoint), "endpoints.uid: 3 bytes, not 16");
    assert_eq!(
        Update::decode(&[]),
        Err(DecodeError::Missing("Update.revision"))
    );
    assert!(matches!(
        Update::decode(&[0xff; 3]),
        Err(DecodeError::Malformed { .. })
    ));
}
