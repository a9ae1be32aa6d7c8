//! Pods that answer on ports and try others when asked to. What should come of it may not enter.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluice_cluster::{Cluster, Kubectl};

use super::sluice::traffic_image;

/// A kubelet that was killed a moment ago needs so long at most until it runs commands in pods again.
const ASKED: Duration = Duration::from_mins(1);
/// How long a try waits for its answer: a lost SYN is sent again after a second.
const PATIENCE_MS: u64 = 1500;

/// A pod that answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: Value,
    /// `node1`
    pub(super) node: String,
    pub(super) service_account: Option<String>,
    /// As Kubernetes has them in a container: name, port and protocol.
    pub(super) ports: Vec<Value>,
}

/// One try, as `sluice connectivity probe` takes it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Attempt {
    /// TCP, UDP or ICMP.
    pub(super) transport: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// What came of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct Outcome {
    /// answered, refused, silence or failed.
    pub(super) outcome: String,
    /// By whom, or why not.
    #[serde(default)]
    pub(super) detail: Option<String>,
}

impl Answering {
    /// The manifest: a container that answers `namespace/name` on every port.
    pub(super) fn manifest(&self) -> Value {
        let listened = self.ports.iter().filter_map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            Some(format!("{protocol}:{}", port["containerPort"].as_u64()?))
        });
        let arguments: Vec<String> = [format!("--name={}/{}", self.namespace, self.name)]
            .into_iter()
            .chain(listened)
            .collect();
        let mut spec = json!({
            "nodeName": self.node,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": traffic_image(),
                "imagePullPolicy": "Never",
                "command": ["/sluice", "connectivity", "serve"],
                "args": arguments,
                "ports": self.ports,
            }],
        });
        if let Some(account) = &self.service_account {
            spec["serviceAccountName"] = json!(account);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": spec,
        })
    }
}

/// Applies objects at once.
pub(super) fn apply(kubectl: &Kubectl, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    Ok(kubectl.apply(&list.to_string())?)
}

/// Makes namespaces anew, empty.
pub(super) fn namespaces_anew(kubectl: &Kubectl, namespaces: &[(&str, Value)]) -> Result<()> {
    remove_namespaces(kubectl, namespaces.iter().map(|(name, _)| *name))?;
    let object = |(name, labels): &(&str, Value)| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    apply(kubectl, &namespaces.iter().map(object).collect::<Vec<_>>())
}

/// Removes namespaces with all that is in them.
pub(super) fn remove_namespaces<'n>(
    kubectl: &Kubectl,
    namespaces: impl IntoIterator<Item = &'n str>,
) -> Result<()> {
    let mut words = vec![
        "delete",
        "namespace",
        "--ignore-not-found",
        "--timeout=120s",
    ];
    words.extend(namespaces);
    kubectl.run(&words)?;
    Ok(())
}

/// Waits until a pod is ready.
pub(super) fn ready(kubectl: &Kubectl, namespace: &str, name: &str, limit: Duration) -> Result<()> {
    let pod = format!("pod/{name}");
    let timeout = format!("--timeout={}s", limit.as_secs());
    kubectl
        .run(&[
            "wait",
            "--for=condition=Ready",
            &pod,
            "--namespace",
            namespace,
            &timeout,
        ])
        .with_context(|| format!("the pod {namespace}/{name} does not start"))?;
    Ok(())
}

/// A pod's addresses, one of either family.
pub(super) fn addresses(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<Vec<IpAddr>> {
    let pod = kubectl.json(&["get", "pod", name, "--namespace", namespace])?;
    let listed = pod["status"]["podIPs"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let found: Vec<IpAddr> = listed
        .iter()
        .filter_map(|entry| entry["ip"].as_str()?.parse().ok())
        .collect();
    ensure!(
        found.len() == 2 && found[0].is_ipv4() != found[1].is_ipv4(),
        "the pod {namespace}/{name} has the addresses {found:?}, not one of either family"
    );
    Ok(found)
}

/// Makes attempts from a container of a pod, all at once; their outcomes in order.
pub(super) fn probe(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    container: &str,
    attempts: &[Attempt],
) -> Result<Vec<Outcome>> {
    #[derive(Deserialize)]
    struct Answer {
        outcomes: Vec<Outcome>,
    }
    let order = json!({"attempts": attempts, "names": [], "patience_ms": PATIENCE_MS}).to_string();
    let words = [
        "exec",
        pod,
        "--namespace",
        namespace,
        "--container",
        container,
        "--",
        "/sluice",
        "connectivity",
        "probe",
        &order,
    ];
    let begin = Instant::now();
    let printed = loop {
        match cluster.kubectl().run(&words) {
            Ok(printed) => break printed,
            Err(error) if begin.elapsed() > ASKED => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    };
    let answer: Answer = serde_json::from_str(&printed)
        .with_context(|| format!("what {namespace}/{pod} tried: {printed}"))?;
    ensure!(
        answer.outcomes.len() == attempts.len(),
        "{namespace}/{pod} tried {} things of {}",
        answer.outcomes.len(),
        attempts.len()
    );
    Ok(answer.outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_answers_on_every_port_under_its_own_name() {
        let pod = Answering {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            ports: vec![
                json!({"name": "http", "containerPort": 8080}),
                json!({"containerPort": 53, "protocol": "UDP"}),
            ],
            ..Answering::default()
        };
        let manifest = pod.manifest();
        assert_eq!(
            manifest["spec"]["containers"][0]["args"],
            json!(["--name=shop/web", "TCP:8080", "UDP:53"])
        );
        assert!(manifest["spec"].get("serviceAccountName").is_none());
    }
}
