//! Objects that are wrong: each is refused by who sees it first, with the field; one that came in all the same stops no other, says
//! what is wrong with it, and leaves in force what was valid before, also after the operators died.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sluice_cluster::{Kubectl, Machine};

use super::{
    pods::{self, Answering, Attempt},
    sluice::{self, Sluice},
    until,
};

const NAMESPACE: &str = "invalid";
const IN_NAMESPACE: &str = "--namespace=invalid";
const PORT: u16 = 8080;
/// A port number that there is not, and where it stands.
const WRONG_PORT: &str = "70000";
const WRONG_FIELD: &str = "spec.ingress[0].toPorts[0].ports[0].port";
/// What a status or a pod's traffic may take to follow.
const PATIENCE: Duration = Duration::from_secs(30);
/// A webhook configuration is heard of by the API server within so long.
const HEARD: Duration = Duration::from_secs(20);

pub(super) fn run(sluice: &Sluice<'_>) -> Result<()> {
    let place = Place::make(sluice)?;
    place.refused_at_once().context("with the webhook")?;
    let webhook = place.without_webhook()?;
    let outcome = place.tolerated();
    place.restore(&webhook)?;
    outcome.context("without the webhook")?;
    place.refused_at_once().context("with the webhook again")?;
    pods::remove_namespaces(place.kubectl(), [NAMESPACE])
}

/// A server, a friend and a stranger.
struct Place<'a> {
    sluice: &'a Sluice<'a>,
    server: Vec<IpAddr>,
}

impl<'a> Place<'a> {
    fn make(sluice: &'a Sluice<'a>) -> Result<Self> {
        let kubectl = sluice.cluster.kubectl();
        pods::namespaces_anew(kubectl, &[(NAMESPACE, json!({}))])?;
        let last = Machine::Node(sluice.cluster.options().nodes).to_string();
        let made = [
            ("server", "node1"),
            ("friend", "node1"),
            ("stranger", last.as_str()),
        ]
        .map(|(name, node)| Answering {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            labels: json!({"app": name}),
            node: node.to_owned(),
            ports: vec![json!({"containerPort": PORT})],
            ..Answering::default()
        });
        pods::apply(kubectl, &made.each_ref().map(Answering::manifest))?;
        for pod in &made {
            pods::ready(kubectl, NAMESPACE, &pod.name, Duration::from_mins(1))?;
        }
        Ok(Self {
            sluice,
            server: pods::addresses(kubectl, NAMESPACE, "server")?,
        })
    }

    fn kubectl(&self) -> &'a Kubectl {
        self.sluice.cluster.kubectl()
    }

    /// A wrong value by the webhook, a field that there is not by whoever is asked first; both name the field.
    fn refused_at_once(&self) -> Result<()> {
        let mut unknown = policy("unknown", "server", &json!("8080"));
        unknown["spec"]["ingres"] = json!([]);
        for (object, field) in [
            (policy("wrong", "server", &json!(WRONG_PORT)), WRONG_FIELD),
            (unknown, "spec.ingres"),
        ] {
            match self.kubectl().apply(&object.to_string()) {
                Ok(()) => bail!("{object} was not refused"),
                Err(error) => {
                    let said = error.to_string();
                    ensure!(
                        said.contains(field),
                        "it was refused without naming {field}: {said}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Takes the webhook away; gives it, to be restored.
    fn without_webhook(&self) -> Result<Value> {
        let mut webhook =
            self.kubectl()
                .json(&["get", "validatingwebhookconfiguration", "sluice-operator"])?;
        webhook["metadata"] = json!({
            "name": webhook["metadata"]["name"],
            "labels": webhook["metadata"]["labels"],
            "annotations": webhook["metadata"]["annotations"],
        });
        self.kubectl().run(&[
            "delete",
            "validatingwebhookconfiguration",
            "sluice-operator",
        ])?;
        // The API server has heard of it when it lets this pass.
        let probe = policy("wrong", "nobody", &json!(WRONG_PORT)).to_string();
        until(HEARD, || Ok(self.kubectl().apply(&probe)?))?;
        Ok(webhook)
    }

    fn restore(&self, webhook: &Value) -> Result<()> {
        self.kubectl()
            .run(&["delete", "snp", "--all", IN_NAMESPACE])?;
        self.kubectl().apply(&webhook.to_string())?;
        until(HEARD, || self.refused_at_once())
    }

    /// A wrong policy beside a good one, and a good one that becomes wrong.
    fn tolerated(&self) -> Result<()> {
        // Would admit everybody, were it read halfway.
        let wrong = policy("wrong", "stranger", &json!(WRONG_PORT));
        let good = policy("good", "friend", &json!(PORT.to_string()));
        self.kubectl().apply(&wrong.to_string())?;
        self.kubectl().apply(&good.to_string())?;
        self.enforced("good")?;
        self.invalid("wrong")?;
        self.admits_the_friend_alone()?;
        let mut spoilt = good.clone();
        spoilt["spec"]["ingress"][0]["toPorts"][0]["ports"][0]["port"] = json!(WRONG_PORT);
        self.kubectl().apply(&spoilt.to_string())?;
        self.invalid("good")?;
        self.admits_the_friend_alone()
            .context("after the update to a wrong one")?;
        self.kill_operators()?;
        self.invalid("good")?;
        self.admits_the_friend_alone()
            .context("after the operators died")?;
        self.kubectl().apply(&good.to_string())?;
        self.enforced("good").context("after it was mended")?;
        self.admits_the_friend_alone()
    }

    fn kill_operators(&self) -> Result<()> {
        let cluster = self.sluice.cluster;
        let mut killed = 0;
        for node in 1..=cluster.options().nodes {
            killed += cluster.kill_processes(Machine::Node(node), "sluice-operator")?;
        }
        ensure!(killed > 0, "no operator ran");
        sluice::wait_rolled_out(cluster)?;
        // A policy made now is published by a leader that has read everything anew.
        let name = "afterwards";
        self.kubectl()
            .apply(&policy(name, "friend", &json!(PORT.to_string())).to_string())?;
        self.enforced(name)?;
        self.kubectl().run(&["delete", "snp", name, IN_NAMESPACE])?;
        Ok(())
    }

    fn enforced(&self, name: &str) -> Result<()> {
        self.sluice
            .cli(&["policy", "wait", name, IN_NAMESPACE, "--timeout=60s"])?;
        let policy = self.kubectl().json(&["get", "snp", name, IN_NAMESPACE])?;
        let message = condition(&policy, "Enforced")["message"]
            .as_str()
            .unwrap_or_default();
        ensure!(
            message.starts_with("enforced on ")
                && policy["status"]["nodes"]["desired"].as_u64() >= Some(1),
            "the policy {name} is enforced, and its status is {}",
            policy["status"]
        );
        Ok(())
    }

    /// Its status says so of the generation that there is, and names the field.
    fn invalid(&self, name: &str) -> Result<()> {
        until(PATIENCE, || {
            let policy = self.kubectl().json(&["get", "snp", name, IN_NAMESPACE])?;
            let valid = condition(&policy, "Valid");
            let says = valid["message"].as_str().unwrap_or_default();
            ensure!(
                valid["status"] == "False"
                    && valid["observedGeneration"] == policy["metadata"]["generation"]
                    && says.contains(WRONG_FIELD),
                "the policy {name} of generation {} is wrong, and its status is {}",
                policy["metadata"]["generation"],
                policy["status"]
            );
            Ok(())
        })
    }

    fn admits_the_friend_alone(&self) -> Result<()> {
        let attempts: Vec<Attempt> = self
            .server
            .iter()
            .map(|&address| Attempt {
                transport: "TCP".to_owned(),
                address,
                port: PORT,
            })
            .collect();
        for (pod, wanted) in [("friend", "answered"), ("stranger", "silence")] {
            let outcomes = pods::probe(self.sluice.cluster, NAMESPACE, pod, "main", &attempts)?;
            ensure!(
                outcomes.iter().all(|outcome| outcome.outcome == wanted),
                "{pod} tries the server over both families: {outcomes:?}, not {wanted}"
            );
        }
        Ok(())
    }
}

/// The server admits pods called so to a port.
fn policy(name: &str, from: &str, port: &Value) -> Value {
    json!({
        "apiVersion": "sluice.io/v1",
        "kind": "SluiceNetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{
                "fromEndpoints": [{"matchLabels": {"app": from}}],
                "toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}],
            }],
        },
    })
}

fn condition<'p>(policy: &'p Value, kind: &str) -> &'p Value {
    let all = policy["status"]["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    all.iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}
