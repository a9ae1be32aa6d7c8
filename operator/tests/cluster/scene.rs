//! A cluster to play with: objects as JSON in, and a book of what agents were told.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sluice_abi::ipcache::AddressInfo;
use sluice_crds::parsed::{CidrGroupKind, PolicyKind, PolicyRef};
use sluice_operator::core::{
    AgentView, Change, Cluster, Config, Input, Kind, Notice, PolicyKey, Pools, Step, Write, convert,
};
use sluice_stream::{Batch, Revision};
use sluice_world::{PodRef, ServiceRef};

/// See the module.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) now: Timestamp,
    pub(crate) agents: AgentView,
    pub(crate) revision: Revision,
    told: BTreeMap<IpAddr, AddressInfo>,
    identities: BTreeMap<PodRef, u32>,
    cookies: BTreeMap<u32, String>,
}

fn config() -> Config {
    Config {
        namespace: "kube-system".to_owned(),
        pools: Pools::parse(&["10.244.0.0/16".to_owned(), "fd00:10:244::/48".to_owned()]).unwrap(),
        identity_grace: Duration::from_mins(10),
        ..Config::default()
    }
}

impl Scene {
    /// A follower that has listed everything.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        Self::of(Cluster::new(config, []))
    }

    pub(crate) fn listing(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self::of(Cluster::new(config(), kinds))
    }

    fn of(cluster: Cluster) -> Self {
        Self {
            cluster,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            agents: AgentView::default(),
            revision: Revision {
                epoch: 1,
                number: 0,
            },
            told: BTreeMap::new(),
            identities: BTreeMap::new(),
            cookies: BTreeMap::new(),
        }
    }

    pub(crate) fn leader() -> Self {
        let mut scene = Self::new();
        scene.lead();
        scene
    }

    pub(crate) fn lead(&mut self) {
        self.cluster.lead(self.now);
    }

    /// Commits, and publishes at once.
    pub(crate) fn commit(&mut self) -> Step {
        let step = self.cluster.commit(self.now);
        assert!(step.errors.is_empty(), "{:?}", step.errors);
        if let Some(batch) = &step.batch {
            self.revision.number += 1;
            self.note(batch);
        }
        self.cluster.published(self.revision, self.now);
        step
    }

    fn note(&mut self, batch: &Batch) {
        for (address, info) in &batch.delta.addresses {
            let address = IpAddr::from(std::net::Ipv6Addr::from(address.0)).to_canonical();
            match info {
                Some(info) => self.told.insert(address, *info),
                None => self.told.remove(&address),
            };
        }
        for (id, endpoint) in &batch.delta.endpoints {
            match endpoint {
                Some(endpoint) => self.identities.insert(id.clone(), endpoint.identity.0),
                None => self.identities.remove(id),
            };
        }
        for (cookie, rule) in &batch.delta.cookies {
            self.cookies.insert(cookie.0, rule.name.clone());
        }
        for cookie in &batch.delta.dropped_cookies {
            self.cookies.remove(&cookie.0);
        }
    }

    pub(crate) fn writes(&mut self) -> (Vec<Write>, Vec<Notice>) {
        self.cluster.writes(&self.agents, self.now, 1000)
    }

    pub(crate) fn slow_writes(&mut self) -> Vec<Write> {
        self.cluster.slow_writes(&self.agents, self.now)
    }

    /// Addresses of pods that agents know.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let pods = self
            .told
            .iter()
            .filter(|(_, info)| info.flags & AddressInfo::POD != 0);
        pods.map(|(address, _)| address.to_string()).collect()
    }

    pub(crate) fn identity_at(&self, address: &str) -> u32 {
        self.told[&address.parse::<IpAddr>().unwrap()].identity.0
    }

    pub(crate) fn identity_of(&self, pod: &str) -> u32 {
        self.identities[&PodRef {
            namespace: "default".to_owned(),
            name: pod.to_owned(),
        }]
    }

    pub(crate) fn policies_in_force(&self) -> Vec<String> {
        let mut names: Vec<String> = self.cookies.values().cloned().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(crate) fn node(&mut self, name: &str) {
        self.apply_node(&node(name));
    }

    pub(crate) fn apply_node(&mut self, object: &Value) {
        let (input, error) = convert::node(&serde_json::from_value(object.clone()).unwrap());
        assert_eq!(error, None);
        self.cluster.apply(input);
    }

    pub(crate) fn record(&mut self, name: &str, number: u32, cidrs: &[&str]) {
        let object = json!({
            "apiVersion": "sluice.io/v1",
            "kind": "SluiceNode",
            "metadata": { "name": name },
            "spec": { "number": number, "podCIDRs": cidrs },
        });
        self.cluster
            .apply(convert::record(serde_json::from_value(object).unwrap()));
    }

    pub(crate) fn pod(&mut self, name: &str, node: &str, labels: &[(&str, &str)]) {
        self.apply_pod(&pod(name, node, labels));
    }

    pub(crate) fn apply_pod(&mut self, object: &Value) {
        let (input, error) = convert::pod(&serde_json::from_value(object.clone()).unwrap());
        assert_eq!(error, None);
        self.cluster.apply(input);
    }

    pub(crate) fn apply_service(&mut self, object: &Value) {
        let (input, error) = convert::service(&serde_json::from_value(object.clone()).unwrap());
        assert_eq!(error, None);
        self.cluster.apply(input);
    }

    pub(crate) fn remove_service(&mut self, name: &str) {
        let id = ServiceRef {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        };
        self.cluster.apply(Input::Service(id, None));
    }

    pub(crate) fn apply_slice(&mut self, object: &Value) {
        let (input, error) =
            convert::slice(&serde_json::from_value(object.clone()).unwrap()).unwrap();
        assert_eq!(error, None);
        self.cluster.apply(input);
    }

    /// A policy comes, or comes as it is now.
    pub(crate) fn put(&mut self, object: &Value) {
        let mut data = object.clone();
        let fields = data.as_object_mut().unwrap();
        let api_version = fields.remove("apiVersion").unwrap();
        fields.remove("kind");
        let metadata = serde_json::from_value(fields.remove("metadata").unwrap()).unwrap();
        let input = convert::policy(key(object), api_version.as_str().unwrap(), &metadata, data);
        self.cluster.apply(input);
    }

    pub(crate) fn remove(&mut self, object: &Value) {
        self.cluster.apply(Input::Policy(key(object), None));
    }

    /// The watch tells of what was written.
    pub(crate) fn store(&mut self, write: &Write) {
        let (Change::Create(value) | Change::Apply(value)) = &write.change else {
            panic!("{write:?}")
        };
        let value = value.clone();
        let input = match write.object.kind {
            "Identity" => convert::identity(serde_json::from_value(value).unwrap()),
            "SluiceNode" => convert::record(serde_json::from_value(value).unwrap()),
            "SluiceEndpoint" => convert::endpoint(serde_json::from_value(value).unwrap()),
            "ConfigMap" => {
                let data = &value["data"];
                let of = json!({
                    "kind": data["kind"],
                    "metadata": { "name": data["name"], "namespace": data["namespace"] },
                });
                Input::LastValid(key(&of), Some(data["policy"].as_str().unwrap().to_owned()))
            }
            other => panic!("{other}"),
        };
        self.cluster.apply(input);
    }
}

fn key(object: &Value) -> PolicyKey {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = text(&object["metadata"]["name"]).unwrap();
    let kind = object["kind"].as_str().unwrap();
    if kind == "SluiceCIDRGroup" {
        return PolicyKey::Group(CidrGroupKind::Sluice, name);
    }
    let kind = PolicyKind::ALL
        .into_iter()
        .find(|known| known.as_str() == kind)
        .unwrap();
    PolicyKey::Policy(PolicyRef {
        kind,
        namespace: kind
            .is_namespaced()
            .then(|| text(&object["metadata"]["namespace"]).unwrap()),
        name,
    })
}

pub(crate) fn node(name: &str) -> Value {
    let last = name.bytes().map(u32::from).sum::<u32>() % 250;
    json!({
        "metadata": { "name": name, "uid": format!("uid-{name}") },
        "status": { "addresses": [
            { "type": "InternalIP", "address": format!("192.168.0.{last}") },
            { "type": "InternalIP", "address": format!("fd00:192::{last}") },
            { "type": "Hostname", "address": name },
        ] },
    })
}

pub(crate) fn pod(name: &str, node: &str, labels: &[(&str, &str)]) -> Value {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels },
        "spec": { "nodeName": node, "containers": [{ "name": "c" }] },
    })
}

/// Lets everyone in to port 80 of pods with the label `app: <app>`.
pub(crate) fn policy(name: &str, app: &str) -> Value {
    policy_object("SluiceNetworkPolicy", name, app)
}

pub(crate) fn policy_object(kind: &str, name: &str, app: &str) -> Value {
    let api_version = if kind.starts_with("Cilium") {
        "cilium.io/v2"
    } else {
        "sluice.io/v1"
    };
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1 },
        "spec": {
            "endpointSelector": { "matchLabels": { "app": app } },
            "ingress": [{ "toPorts": [{ "ports": [{ "port": "80", "protocol": "TCP" }] }] }],
        },
    })
}

pub(crate) fn service(name: &str, addresses: &[&str], port: &str) -> Value {
    let port: i32 = port.parse().unwrap();
    json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "selector": { "app": name },
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ports": [{ "name": "http", "port": port, "targetPort": "web", "protocol": "TCP" }],
        },
    })
}

/// `endpoints`: address, node, and one of ready, serving (and going), unready.
pub(crate) fn slice(
    service: &str,
    name: &str,
    family: &str,
    port: u16,
    endpoints: &[(&str, &str, &str)],
) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node, state)| {
            json!({
                "addresses": [address],
                "nodeName": node,
                "conditions": {
                    "ready": *state == "ready",
                    "serving": *state != "unready",
                    "terminating": *state == "serving",
                },
            })
        })
        .collect();
    json!({
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": family,
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

/// The status that is written of a policy.
pub(crate) fn outcome_of(writes: &[Write], name: &str) -> Option<Value> {
    writes.iter().find_map(|write| match &write.change {
        Change::ApplyStatus(value) if write.object.name == name => Some(value.clone()),
        _ => None,
    })
}

/// A condition of a status that is written.
pub(crate) fn condition(writes: &[Write], name: &str, kind: &str) -> Option<Value> {
    let status = outcome_of(writes, name)?;
    let conditions = status["status"]["conditions"].as_array()?.clone();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == kind)
}
