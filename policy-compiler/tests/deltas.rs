//! What deltas hold: objects in, deltas out, with no API server and no kernel.

use std::{net::IpAddr, sync::Arc};

use sluice_abi::{Identity, Range, ipcache::Address};
use sluice_policy::{Delta, Index, ItemRef, MemTables, Settings, Store};
use sluice_world::{Mode, Namespace, Node, NodeName, Pod, PodRef, WorldItem};

fn mk_namespace(name: &str) -> WorldItem {
    let labels = [("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into();
    WorldItem::Namespace(Namespace {
        name: name.into(),
        labels,
    })
}

fn mk_node(name: &str, address: &str, pod_cidrs: &[&str]) -> WorldItem {
    WorldItem::Node(Node {
        name: NodeName(name.into()),
        labels: [].into(),
        addresses: vec![ip(address)],
        pod_cidrs: pod_cidrs
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect(),
    })
}

fn mk_pod(name: &str, addresses: &[&str], labels: &[(&str, &str)]) -> WorldItem {
    WorldItem::Pod(Pod {
        id: pod_ref(name),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        service_account: "default".into(),
        node: NodeName("one".into()),
        host_network: false,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        named_ports: [].into(),
        listens: [].into(),
        external: false,
    })
}

/// A policy as written.
fn mk_policy(text: &str) -> WorldItem {
    let (objects, problems) = sluice_crds::manifest::read("test", text);
    let inputs = objects.into_iter().collect::<sluice_world::Inputs>();
    let world = sluice_world::build(inputs).expect("a world");
    let policy = world.policies.values().next();
    WorldItem::Policy(Arc::clone(policy.unwrap_or_else(|| panic!("{problems:?}"))))
}

fn mk_network_policy(name: &str, spec: &str) -> WorldItem {
    mk_policy(&format!(
        r#"{{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{{"name":"{name}","namespace":"a"}},"spec":{spec}}}"#
    ))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pod_ref(name: &str) -> PodRef {
    PodRef {
        namespace: "a".into(),
        name: name.into(),
    }
}

fn index(items: impl IntoIterator<Item = WorldItem>) -> (Index, Delta) {
    let mut index = Index::new(Settings::default());
    items.into_iter().for_each(|item| index.apply(item));
    let delta = index.commit();
    (index, delta)
}

fn shop() -> Vec<WorldItem> {
    vec![
        mk_namespace("a"),
        mk_node("one", "192.0.2.1", &["10.0.0.0/24", "fd00:1::/64"]),
        mk_pod(
            "web",
            &["10.0.0.2", "fd00:1::2"],
            &[("app", "web"), ("version", "1")],
        ),
        mk_pod(
            "api",
            &["10.0.0.3", "fd00:1::3"],
            &[("app", "api"), ("version", "1")],
        ),
    ]
}

const FROM_WEB: &str = r#"{"podSelector":{"matchLabels":{"app":"api"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"web"}}}],"ports":[{"port":80}]}]}"#;

#[test]
fn without_policies_all_pods_of_a_namespace_are_one_identity_and_share_two_tables() {
    let (_, delta) = index(shop());
    assert_eq!(
        delta.identities.len(),
        1 + 9,
        "one of pods, and the reserved ones"
    );
    assert_eq!(delta.tables.len(), 2);
    assert!(
        delta
            .tables
            .iter()
            .all(|table| table.new && table.set.is_empty())
    );
    assert_eq!(delta.endpoints.len(), 2);
    assert_eq!(
        delta.endpoints[0].1.map(|e| e.identity),
        delta.endpoints[1].1.map(|e| e.identity)
    );
}

#[test]
fn addresses_of_both_families_and_pod_prefixes_are_told() {
    let (_, delta) = index(shop());
    let mut tables = MemTables::default();
    tables.apply(&delta);
    for address in ["10.0.0.2", "fd00:1::2"] {
        let info = tables.lookup(ip(address)).expect(address);
        assert_eq!(info.identity.range(), Some(Range::Pod), "{address}");
    }
    for address in ["10.0.0.77", "fd00:1::77"] {
        assert_eq!(
            tables.lookup(ip(address)).expect(address).identity,
            Identity::UNKNOWN
        );
    }
    let node = tables.lookup(ip("192.0.2.1")).expect("the node");
    assert_eq!(
        (node.identity, node.host_identity),
        (Identity::REMOTE_NODE, Identity::HOST)
    );
    assert_eq!(
        tables.lookup(ip("8.8.8.8")).expect("outside").identity,
        Identity::WORLD_IPV4
    );
    assert_eq!(
        tables.lookup(ip("2001:db8::1")).expect("outside").identity,
        Identity::WORLD_IPV6
    );
}

#[test]
fn a_policy_that_sees_a_new_label_relabels_pods_and_retires_the_old_identity_last() {
    let (mut index, first) = index(shop());
    let mut tables = MemTables::default();
    tables.apply(&first);
    index.apply(mk_network_policy("p", FROM_WEB));
    let delta = index.commit();
    assert_eq!(
        delta.identities.len(),
        2,
        "app=web and app=api; version is seen by nobody"
    );
    assert_eq!(delta.dropped_identities.len(), 1);
    assert_eq!(delta.addresses.len(), 4, "every pod address moves");
    let set: usize = delta.tables.iter().map(|table| table.set.len()).sum();
    assert_eq!(
        set, 2,
        "web may reach api's table, and so may the local host"
    );
    tables.apply(&delta);
    let new: Vec<Identity> = delta.identities.iter().map(|(number, _)| *number).collect();
    assert!(new.contains(&tables.lookup(ip("10.0.0.2")).expect("web").identity));
}

#[test]
fn a_changed_port_rewrites_the_entry_that_differs_and_nothing_else() {
    let mut items = shop();
    items.push(mk_network_policy("p", FROM_WEB));
    let (mut index, _) = index(items);
    index.apply(mk_network_policy("p", &FROM_WEB.replace("80", "81")));
    let delta = index.commit();
    assert_eq!(delta.tables.len(), 1);
    let table = &delta.tables[0];
    assert_eq!(
        (table.new, table.set.len(), table.removed.len()),
        (false, 1, 0)
    );
    assert!(table.takes_access_away, "port 80 is closed");
    assert!(delta.defaults_are_untouched());
    assert!(
        delta.identities.is_empty() && delta.addresses.is_empty() && delta.endpoints.is_empty()
    );
    index.apply(mk_network_policy(
        "p",
        &FROM_WEB.replace(r#","ports":[{"port":80}]"#, ""),
    ));
    let delta = index.commit();
    assert!(
        !delta.tables[0].takes_access_away,
        "all ports are more than one"
    );
}

#[test]
fn deleting_a_pod_takes_its_address_endpoint_and_identity() {
    let mut items = shop();
    items.push(mk_network_policy("p", FROM_WEB));
    let (mut index, _) = index(items);
    index.delete(ItemRef::Pod(pod_ref("web")));
    let delta = index.commit();
    let gone: Vec<Address> = delta
        .addresses
        .iter()
        .filter(|entry| entry.1.is_none())
        .map(|entry| entry.0)
        .collect();
    assert_eq!(
        gone,
        [
            Address::from(ip("10.0.0.2")),
            Address::from(ip("fd00:1::2"))
        ]
    );
    assert_eq!(delta.endpoints, [(pod_ref("web"), None)]);
    assert_eq!(
        (delta.retired_peers.len(), delta.dropped_identities.len()),
        (1, 1)
    );
}

#[test]
fn numbers_are_stable_where_the_store_is_given_back_and_never_reused() {
    let mut items = shop();
    items.push(mk_network_policy("p", FROM_WEB));
    let (mut first, _) = index(items.clone());
    let text = serde_json::to_string(first.store()).expect("a store is JSON");
    let store: Store = serde_json::from_str(&text).expect("and back");
    let mut second = Index::new(Settings {
        mode: Mode::Default,
        store,
        ..Settings::default()
    });
    items.into_iter().rev().for_each(|item| second.apply(item));
    second.commit();
    assert_eq!(first.identities(), second.identities());
    let greatest = first.identities().into_keys().max();
    first.delete(ItemRef::Pod(pod_ref("web")));
    first.commit();
    first.apply(mk_pod("web", &["10.0.0.2"], &[("app", "web")]));
    first.commit();
    assert!(
        first.identities().into_keys().max() > greatest,
        "the number of app=web is not reused"
    );
}

#[test]
fn a_hundred_prefixes_of_one_rule_are_one_identity() {
    let prefixes: Vec<String> = (0..100).map(|n| format!(r#""198.51.{n}.0/24""#)).collect();
    let mut items = shop();
    items.push(mk_policy(&format!(
        r#"{{"apiVersion":"cilium.io/v2","kind":"CiliumNetworkPolicy","metadata":{{"name":"c","namespace":"a"}},"spec":{{"endpointSelector":{{}},"egress":[{{"toCIDR":[{}]}}]}}}}"#,
        prefixes.join(",")
    )));
    let (_, delta) = index(items);
    let cidr: Vec<_> = delta
        .identities
        .iter()
        .filter(|(number, _)| number.range() == Some(Range::Cidr))
        .collect();
    assert_eq!(cidr.len(), 1);
    assert!(delta.watermarks.contains(&(Range::Cidr, cidr[0].0)));
    assert!(delta.prefixes.len() >= 100);
}

trait Untouched {
    fn defaults_are_untouched(&self) -> bool;
}

impl Untouched for Delta {
    fn defaults_are_untouched(&self) -> bool {
        self.tables.iter().all(|table| table.defaults.is_none())
    }
}

/// A pod that is the only one of its kind gets its addresses after it is known, as in a cluster.
#[test]
fn an_only_pod_keeps_its_own_labels_when_its_addresses_change() {
    let mut index = Index::new(Settings::default());
    index.apply(mk_namespace("a"));
    index.apply(mk_node("one", "192.168.0.1", &["10.1.0.0/24"]));
    index.apply(mk_network_policy(
        "p",
        r#"{"podSelector":{"matchLabels":{"app":"x"}}}"#,
    ));
    index.apply(mk_pod("x", &[], &[("app", "x")]));
    let first = index.commit();
    let identity = |delta: &Delta, name: &str| {
        let found = delta
            .endpoints
            .iter()
            .rev()
            .find(|(id, _)| *id == pod_ref(name));
        found
            .and_then(|(_, endpoint)| *endpoint)
            .map(|endpoint| endpoint.identity)
    };
    let before = identity(&first, "x").expect("an endpoint");

    // Its address comes together with a pod of other labels, which must not get mixed up with it.
    index.apply(mk_pod("x", &["10.1.0.5"], &[("app", "x")]));
    index.apply(mk_pod("y", &["10.1.0.6"], &[("app", "y")]));
    let second = index.commit();
    let after: Vec<_> = second
        .addresses
        .iter()
        .filter_map(|(_, info)| *info)
        .collect();
    let numbers: Vec<Identity> = after.iter().map(|info| info.identity).collect();
    assert_eq!(numbers.first(), Some(&before), "{after:?}");
    assert_ne!(numbers.get(1), Some(&before), "{after:?}");
    assert_eq!(identity(&second, "x").unwrap_or(before), before);
}
