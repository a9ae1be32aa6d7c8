//! Where the suite is played: two nodes, two namespaces, pods in their roles and a service. Made, and removed again.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Options,
    suite::{OTHER_PORT, PORT, Role},
};
use crate::{Error, objects::list_all};

/// Who made a namespace: another's is never touched.
const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "sluice-connectivity-test");
/// The service of both servers.
pub(super) const SERVICE: &str = "server";
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How long namespaces may take to go.
const GONE_WITHIN: Duration = Duration::from_mins(2);

/// The place, with everything in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    namespace: String,
    host_port: u16,
    /// One or two.
    pub(super) nodes: Vec<String>,
    addresses: BTreeMap<Role, Vec<IpAddr>>,
    pub(super) service: Vec<IpAddr>,
    /// The cluster has a DNS server.
    pub(super) has_dns: bool,
}

impl Place {
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn other_namespace(&self) -> String {
        other(&self.namespace)
    }

    /// The namespace of a role's pod.
    pub(super) fn namespace_of(&self, role: Role) -> String {
        namespace_of(&self.namespace, role)
    }

    /// The addresses of a role's pod; none where there is no such pod.
    pub(super) fn addresses(&self, role: Role) -> &[IpAddr] {
        self.addresses.get(&role).map_or(&[], |addresses| addresses)
    }

    pub(super) const fn host_port(&self) -> u16 {
        self.host_port
    }

    /// What a role's pod answers with.
    pub(super) fn greeting(&self, role: Role) -> String {
        greeting(&self.namespace, role)
    }

    /// Makes everything, and waits until all pods are ready.
    pub(super) async fn make(
        client: &Client,
        options: &Options,
        tell: &dyn Fn(&str),
    ) -> Result<Self, Error> {
        let nodes = choose_nodes(client).await?;
        tell(&format!("pods on {}", nodes.join(" and ")));
        for namespace in [options.namespace.clone(), other(&options.namespace)] {
            make_namespace(client, &namespace, tell).await?;
        }
        let services: Api<Service> = Api::namespaced(client.clone(), &options.namespace);
        let service = create(&services, service(), "the service").await?;
        let roles: Vec<Role> = Role::ALL
            .into_iter()
            .filter(|role| nodes.len() > 1 || !role.is_far())
            .collect();
        for &role in &roles {
            let pods: Api<Pod> =
                Api::namespaced(client.clone(), &namespace_of(&options.namespace, role));
            let node = nodes
                .get(usize::from(role.is_far()))
                .map_or("", |node| node);
            create_patiently(&pods, pod(options, role, node), role.name()).await?;
        }
        let addresses = ready(client, options, &roles, tell).await?;
        let service = service
            .spec
            .and_then(|spec| spec.cluster_ips)
            .unwrap_or_default();
        Ok(Self {
            namespace: options.namespace.clone(),
            host_port: options.host_port,
            nodes,
            addresses,
            service: service
                .iter()
                .filter_map(|address| address.parse().ok())
                .collect(),
            has_dns: has_dns(client).await,
        })
    }

    /// Names of the servers' pods that kubelets do not find ready.
    pub(super) async fn unready_servers(&self, client: &Client) -> Result<Vec<String>, Error> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let servers = ListParams::default().labels("app=server");
        let found = list_all(&pods, &servers, "listing the servers").await?;
        Ok(found
            .iter()
            .filter(|pod| !is_ready(pod))
            .map(kube::ResourceExt::name_any)
            .collect())
    }

    /// Two nodes, and every role with an address of either family that ends with its number.
    #[cfg(test)]
    pub(super) fn numbered() -> Self {
        let addresses = Role::ALL.map(|role| {
            let last = role as u8 + 1;
            let own = [
                IpAddr::from([10, 0, 0, last]),
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last.into()]),
            ];
            (role, own.to_vec())
        });
        Self {
            namespace: "t".to_owned(),
            host_port: 34_080,
            nodes: vec!["a".to_owned(), "b".to_owned()],
            addresses: addresses.into(),
            service: Vec::new(),
            has_dns: true,
        }
    }
}

fn other(namespace: &str) -> String {
    format!("{namespace}-other")
}

fn namespace_of(namespace: &str, role: Role) -> String {
    if role == Role::Stranger {
        other(namespace)
    } else {
        namespace.to_owned()
    }
}

fn greeting(namespace: &str, role: Role) -> String {
    format!("{}/{}", namespace_of(namespace, role), role.name())
}

/// Two nodes that pods of anybody may be on, or the only one.
async fn choose_nodes(client: &Client) -> Result<Vec<String>, Error> {
    let api: Api<Node> = Api::all(client.clone());
    let mut nodes = list_all(&api, &ListParams::default(), "listing nodes").await?;
    nodes.retain(is_open);
    nodes.truncate(2);
    if nodes.is_empty() {
        return Err(Error::Missing(
            "no node is Ready and takes pods without tolerations".to_owned(),
        ));
    }
    Ok(nodes.iter().map(kube::ResourceExt::name_any).collect())
}

fn is_open(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    let closed = spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
        || spec
            .and_then(|spec| spec.taints.as_ref())
            .is_some_and(|taints| {
                taints
                    .iter()
                    .any(|taint| taint.effect != "PreferNoSchedule")
            });
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| {
        all.iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    ready && !closed
}

/// Makes a namespace anew. One that an earlier test left is removed first; one that somebody else made is an error.
async fn make_namespace(client: &Client, name: &str, tell: &dyn Fn(&str)) -> Result<(), Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = api
        .get_opt(name)
        .await
        .map_err(Error::api(format!("reading namespace {name}")))?;
    if let Some(found) = found {
        if !is_ours(&found) {
            return Err(Error::Refused(format!(
                "namespace {name} is there and is not of a test: --namespace chooses another name"
            )));
        }
        tell(&format!(
            "an earlier test left namespace {name}: removing it first"
        ));
        remove(&api, name).await?;
        gone(&api, name).await?;
    }
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        // Pods of the host network are among those of the test.
        "metadata": {"name": name, "labels": {LABEL.0: LABEL.1, "pod-security.kubernetes.io/enforce": "privileged"}},
    });
    create(&api, namespace, "the namespace").await.map(drop)
}

fn is_ours(namespace: &Namespace) -> bool {
    namespace.labels().get(LABEL.0).map(String::as_str) == Some(LABEL.1)
}

/// Removes what a test made, and with `wait` waits until it is gone. Namespaces of others stay.
///
/// # Errors
/// The API server refuses; with `wait`, they stay.
pub async fn clean_up(client: &Client, namespace: &str, wait: bool) -> Result<(), Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut ours = Vec::new();
    for name in [namespace.to_owned(), other(namespace)] {
        let found = api
            .get_opt(&name)
            .await
            .map_err(Error::api(format!("reading namespace {name}")))?;
        if found.is_some_and(|found| is_ours(&found)) {
            remove(&api, &name).await?;
            ours.push(name);
        }
    }
    if wait {
        for name in ours {
            gone(&api, &name).await?;
        }
    }
    Ok(())
}

async fn remove(api: &Api<Namespace>, name: &str) -> Result<(), Error> {
    match api.delete(name, &DeleteParams::default()).await {
        // Somebody else removed it meanwhile, or does.
        Err(error) if matches!(crate::error::code(&error), Some(404 | 409)) => Ok(()),
        result => result
            .map(drop)
            .map_err(Error::api(format!("removing namespace {name}"))),
    }
}

async fn gone(api: &Api<Namespace>, name: &str) -> Result<(), Error> {
    let until = Instant::now() + GONE_WITHIN;
    while api
        .get_opt(name)
        .await
        .map_err(Error::api(format!("reading namespace {name}")))?
        .is_some()
    {
        if Instant::now() >= until {
            return Err(Error::Timeout {
                what: format!("namespace {name} is not gone"),
                seconds: GONE_WITHIN.as_secs(),
                last: "something in it is still there".to_owned(),
            });
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn create<K>(api: &Api<K>, object: Value, what: &str) -> Result<K, Error>
where
    K: Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object: K = parsed(object, what)?;
    api.create(&PostParams::default(), &object)
        .await
        .map_err(Error::api(format!("making {what}")))
}

/// A namespace has its default service account a moment after itself; pods are refused until then.
async fn create_patiently(api: &Api<Pod>, object: Value, what: &str) -> Result<(), Error> {
    let object: Pod = parsed(object, what)?;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status))
                if status.code == 403
                    && status.message.contains("serviceaccount")
                    && Instant::now() < until =>
            {
                sleep(PAUSE).await;
            }
            result => {
                return result
                    .map(drop)
                    .map_err(Error::api(format!("making pod {what}")));
            }
        }
    }
}

fn parsed<K: serde::de::DeserializeOwned>(object: Value, what: &str) -> Result<K, Error> {
    serde_json::from_value(object).map_err(|error| Error::Answer {
        what: what.to_owned(),
        why: error.to_string(),
    })
}

fn service() -> Value {
    let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": PORT, "targetPort": PORT});
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
        "spec": {"selector": {"app": "server"}, "ipFamilyPolicy": "PreferDualStack", "ports": [port("TCP"), port("UDP")]},
    })
}

fn pod(options: &Options, role: Role, node: &str) -> Value {
    let ports = if role.is_host() {
        vec![
            format!("TCP:{}", options.host_port),
            format!("UDP:{}", options.host_port),
        ]
    } else {
        vec![
            format!("TCP:{PORT}"),
            format!("UDP:{PORT}"),
            format!("TCP:{OTHER_PORT}"),
        ]
    };
    let arguments = [
        "connectivity",
        "serve",
        "--name",
        &greeting(&options.namespace, role),
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(ports)
    .collect::<Vec<String>>();
    let probed = if role.is_host() {
        options.host_port
    } else {
        PORT
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": role.name(), "labels": {"app": role.app()}},
        "spec": {
            "nodeName": node, "hostNetwork": role.is_host(), "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false, "enableServiceLinks": false,
            "containers": [{
                "name": "sluice", "image": options.image, "imagePullPolicy": "IfNotPresent", "args": arguments,
                "readinessProbe": {"tcpSocket": {"port": probed}, "periodSeconds": 1, "failureThreshold": 2},
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// Waits until every pod is ready, and gives their addresses.
async fn ready(
    client: &Client,
    options: &Options,
    roles: &[Role],
    tell: &dyn Fn(&str),
) -> Result<BTreeMap<Role, Vec<IpAddr>>, Error> {
    let until = Instant::now() + options.start;
    let mut told = usize::MAX;
    loop {
        let mut addresses = BTreeMap::new();
        let mut waiting = Vec::new();
        for &role in roles {
            let api: Api<Pod> =
                Api::namespaced(client.clone(), &namespace_of(&options.namespace, role));
            let pod = api
                .get(role.name())
                .await
                .map_err(Error::api(format!("reading pod {}", role.name())))?;
            if is_ready(&pod) {
                addresses.insert(role, addresses_of(&pod));
            } else {
                waiting.push(format!("{} ({})", role.name(), state_of(&pod)));
            }
        }
        if waiting.is_empty() {
            return Ok(addresses);
        }
        if told != waiting.len() {
            told = waiting.len();
            tell(&format!(
                "{} of {} pods are ready",
                addresses.len(),
                roles.len()
            ));
        }
        if Instant::now() >= until {
            return Err(Error::Timeout {
                what: "not all pods are ready".to_owned(),
                seconds: options.start.as_secs(),
                last: waiting.join(", "),
            });
        }
        sleep(PAUSE).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

fn addresses_of(pod: &Pod) -> Vec<IpAddr> {
    let all = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ips.as_ref());
    all.into_iter()
        .flatten()
        .filter_map(|entry| entry.ip.parse().ok())
        .collect()
}

/// Why a pod is not ready, in a word.
fn state_of(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "not seen by its kubelet".to_owned();
    };
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    waiting
        .or_else(|| status.phase.clone())
        .unwrap_or_else(|| "not seen by its kubelet".to_owned())
}

/// Clusters are found to have a DNS server by the label that every usual one has.
async fn has_dns(client: &Client) -> bool {
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    let found = services
        .list(&ListParams::default().labels("k8s-app=kube-dns"))
        .await;
    found.is_ok_and(|list| !list.items.is_empty())
}
