//! The whole operator against an API server in memory, with agents that subscribe over TLS: what a cluster sees of it.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::api::Server;
use clap::Parser;
use serde_json::{Value, json};
use sluice_operator::{
    options::{Arguments, Command},
    run::RunError,
    run::run,
};
use sluice_stream::{Event, Handle, Report, Subscription, Update};
use sluice_world::{NodeName, PodRef};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

const SOON: Duration = Duration::from_mins(1);
const OWN: &str = "sluice.io/v1";

/// An operator in this process.
struct Replica {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), RunError>>,
    address: SocketAddr,
    health: SocketAddr,
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

impl Replica {
    fn start(server: &Server, name: &str, token: &Path) -> Self {
        let (address, health) = (free_port(), free_port());
        let arguments = Arguments::parse_from([
            "sluice-operator",
            "run",
            "--address=127.0.0.1",
            "--webhook-listen=127.0.0.1:0",
            "--lease-retry=1",
            &format!("--pod-name={name}"),
            &format!("--stream-listen={address}"),
            &format!("--health-listen={health}"),
            &format!("--token-file={}", token.display()),
        ]);
        let Command::Run(options) = arguments.command else {
            unreachable!("it was told to run");
        };
        let (stop, stopping) = watch::channel(false);
        Self {
            stop,
            task: tokio::spawn(run(*options, server.client(), stopping)),
            address,
            health,
        }
    }

    /// What a probe is answered.
    async fn probe(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Ok(mut connection) = tokio::net::TcpStream::connect(self.health).await else {
            return String::new();
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn end(self) {
        self.stop.send_replace(true);
        timeout(SOON, self.task)
            .await
            .expect("an orderly end")
            .unwrap()
            .unwrap();
    }
}

/// An agent that acknowledges whatever comes.
struct Agent {
    updates: mpsc::UnboundedReceiver<Update>,
    handle: Handle,
    pump: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// An agent of `node`, connected to one replica only.
fn agent(server: &Server, node: &str, replica: SocketAddr) -> Agent {
    let server = server.clone();
    let mut subscription = Subscription::start(sluice_stream::Options {
        node: NodeName(node.to_owned()),
        addresses: Arc::new(move || Ok(vec![replica])),
        ca: Some(Arc::new(move || {
            let map = server.get("v1", "configmaps", Some("kube-system"), "sluice-ca");
            let bundle = map.and_then(|map| map["data"]["ca.crt"].as_str().map(str::to_owned));
            bundle.ok_or_else(|| "no CA yet".to_owned())
        })),
        server_name: "sluice-operator".to_owned(),
        token: Arc::new(|| Ok("agent".to_owned())),
        resume: None,
    });
    let handle = subscription.handle();
    let (sender, updates) = mpsc::unbounded_channel();
    let pump = tokio::spawn(async move {
        loop {
            if let Event::Update(update) = subscription.next().await {
                subscription.ack(update.revision);
                // A test that is over takes none.
                let _ = sender.send(*update);
            }
        }
    });
    Agent {
        updates,
        handle,
        pump,
    }
}

/// The next update for which this holds.
async fn update(agent: &mut Agent, is: impl Fn(&Update) -> bool) -> Update {
    let found = async {
        loop {
            let update = agent.updates.recv().await.expect("the agent runs");
            if is(&update) {
                return update;
            }
        }
    };
    timeout(SOON, found).await.expect("the update in time")
}

/// Whether some table's default was decided by a policy's rule.
fn holds_rule(update: &Update) -> bool {
    // An attribution with the top bit set is a cookie itself.
    const COOKIE: u32 = 1 << 31;
    let defaults = update
        .delta
        .tables
        .iter()
        .filter_map(|table| table.defaults);
    defaults.flatten().any(|cell| {
        cell.attribution & COOKIE != 0
            && cell.attribution & !COOKIE >= sluice_abi::Cookie::FIRST_RULE
    })
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(SOON, held).await.is_ok(), "{what}");
}

fn condition(object: &Value, kind: &str) -> Option<(String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("message")))
}

fn put_pod(server: &Server, name: &str, node: &str) {
    server.put(
        "v1",
        "pods",
        json!({
            "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": { "app": name } },
            "spec": { "nodeName": node, "containers": [{ "name": "c" }] },
        }),
    );
}

fn put_policy(server: &Server, port: &str) {
    let status = server
        .get(OWN, "sluicenetworkpolicies", Some("default"), "p")
        .map(|known| known["status"].clone())
        .unwrap_or_default();
    server.put(
        OWN,
        "sluicenetworkpolicies",
        json!({
            "apiVersion": OWN,
            "kind": "SluiceNetworkPolicy",
            "metadata": { "name": "p", "namespace": "default" },
            "spec": {
                "endpointSelector": { "matchLabels": { "app": "a" } },
                "ingress": [{ "toPorts": [{ "ports": [{ "port": port, "protocol": "TCP" }] }] }],
            },
            "status": status,
        }),
    );
}

struct Token(PathBuf);

impl Drop for Token {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn cluster(test: &str) -> (Server, Token) {
    // What a failure left behind is worth reading; only the first test's call counts.
    let _ = tracing_subscriber::fmt()
        .with_env_filter("info")
        .with_test_writer()
        .try_init();
    let server = Server::default();
    server.put(
        "v1",
        "namespaces",
        json!({ "metadata": { "name": "default" } }),
    );
    for (name, last) in [("n1", 1), ("n2", 2)] {
        let addresses = json!([
            { "type": "InternalIP", "address": format!("192.168.0.{last}") },
            { "type": "InternalIP", "address": format!("fd00:192::{last}") },
        ]);
        server.put(
            "v1",
            "nodes",
            json!({ "metadata": { "name": name }, "status": { "addresses": addresses } }),
        );
    }
    let of = |account: &str| {
        json!({
            "authenticated": true,
            "audiences": ["sluice-operator"],
            "user": {
                "username": format!("system:serviceaccount:kube-system:{account}"),
                "extra": { "authentication.kubernetes.io/node-name": ["n1"] },
            },
        })
    };
    server.review("agent", of("sluice-agent"));
    server.review("operator", of("sluice-operator"));
    let token = std::env::temp_dir().join(format!("sluice-operator-{test}-{}", std::process::id()));
    std::fs::write(&token, "operator\n").unwrap();
    (server, Token(token))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_objects_to_an_agent_and_back() {
    let (server, token) = cluster("one");
    put_pod(&server, "a", "n1");
    put_pod(&server, "b", "n2");
    put_policy(&server, "80");
    let replica = Replica::start(&server, "r1", &token.0);
    let mut agent = agent(&server, "n1", replica.address);

    let first = update(&mut agent, |update| update.snapshot).await;
    let pods: Vec<&str> = first
        .delta
        .endpoints
        .iter()
        .map(|(id, _)| id.name.as_str())
        .collect();
    assert_eq!(pods, ["a"], "those of its node only");
    assert_eq!(first.nodes.len(), 2);
    let number = first.delta.endpoints[0].1.unwrap().identity.0;
    assert!(
        server
            .get(OWN, "identities", None, &number.to_string())
            .is_some(),
        "stored before it was told"
    );
    assert_eq!(server.all(OWN, "sluicenodes").len(), 2);

    let policy = || {
        server
            .get(OWN, "sluicenetworkpolicies", Some("default"), "p")
            .unwrap()
    };
    eventually("the policy is enforced", || {
        condition(&policy(), "Enforced")
            == Some(("True".to_owned(), "enforced on 1 of 1 nodes".to_owned()))
    })
    .await;
    assert_eq!(condition(&policy(), "Valid").unwrap().0, "True");

    agent.handle.report(&Report::EndpointUp {
        pod: PodRef {
            namespace: "default".to_owned(),
            name: "a".to_owned(),
        },
        uid: "uid-a".to_owned(),
        addresses: vec![
            "10.244.0.5".parse().unwrap(),
            "fd00:10:244::5".parse().unwrap(),
        ],
        container: "c".to_owned(),
    });
    let moved = update(&mut agent, |update| !update.delta.addresses.is_empty()).await;
    assert_eq!(moved.delta.addresses.len(), 2);
    eventually("the endpoint is stored", || {
        server
            .get(OWN, "sluiceendpoints", Some("default"), "a")
            .is_some_and(|stored| stored["spec"]["state"] == "ready")
    })
    .await;

    put_policy(&server, "70000");
    eventually("the policy is said to be invalid", || {
        condition(&policy(), "Valid").is_some_and(|(status, message)| {
            status == "False" && message.contains("spec.ingress[0].toPorts[0].ports[0].port")
        })
    })
    .await;
    eventually("an event tells so", || {
        server
            .all("events.k8s.io/v1", "events")
            .iter()
            .any(|event| event["reason"] == "Invalid")
    })
    .await;
    assert!(replica.probe("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(replica.probe("/healthz").await.starts_with("HTTP/1.1 200"));
    let metrics = replica.probe("/metrics").await;
    for line in [
        "sluice_operator_leader 1",
        "sluice_operator_agents 1",
        "sluice_operator_invalid_policies 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    replica.end().await;

    // A new one starts with the policy invalid: what was valid last is in force.
    let replica = Replica::start(&server, "r2", &token.0);
    let mut agent = self::agent(&server, "n1", replica.address);
    let again = update(&mut agent, |update| update.snapshot).await;
    assert!(again.revision.epoch > first.revision.epoch);
    assert_eq!(again.delta.endpoints[0].1.unwrap().identity.0, number);
    assert!(holds_rule(&again), "what was valid last is in force");
    assert_eq!(
        again.delta.addresses.len(),
        first.delta.addresses.len() + 2,
        "addresses are known"
    );
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_serves_agents_and_takes_over() {
    let (server, token) = cluster("two");
    put_pod(&server, "a", "n1");
    let first = Replica::start(&server, "r1", &token.0);
    let holds = || {
        let lease = server.get(
            "coordination.k8s.io/v1",
            "leases",
            Some("kube-system"),
            "sluice-operator",
        );
        lease.is_some_and(|lease| {
            lease["spec"]["holderIdentity"]
                .as_str()
                .is_some_and(|holder| !holder.is_empty())
        })
    };
    eventually("the first leads", holds).await;
    let second = Replica::start(&server, "r2", &token.0);

    let mut agent = agent(&server, "n1", second.address);
    let snapshot = update(&mut agent, |update| update.snapshot).await;
    assert_eq!(snapshot.delta.endpoints.len(), 1);
    put_pod(&server, "b", "n1");
    let has_b = |update: &Update| update.delta.endpoints.iter().any(|(id, _)| id.name == "b");
    let through = update(&mut agent, has_b).await;
    assert_eq!(through.revision.epoch, snapshot.revision.epoch);
    put_policy(&server, "80");
    eventually("acknowledgements reach the leader", || {
        server
            .get(OWN, "sluicenetworkpolicies", Some("default"), "p")
            .and_then(|policy| condition(&policy, "Enforced"))
            .is_some_and(|(status, _)| status == "True")
    })
    .await;

    first.end().await;
    let overtaken = update(&mut agent, |update| {
        update.revision.epoch > through.revision.epoch
    })
    .await;
    assert!(overtaken.snapshot);
    put_pod(&server, "c", "n1");
    update(&mut agent, |update| {
        update.delta.endpoints.iter().any(|(id, _)| id.name == "c")
    })
    .await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_of_others_are_read_where_they_are_installed() {
    let (server, token) = cluster("guests");
    put_pod(&server, "a", "n1");
    server.install("cilium.io/v2", &["CiliumNetworkPolicy"]);
    server.put(
        "cilium.io/v2",
        "ciliumnetworkpolicies",
        json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": { "name": "theirs", "namespace": "default" },
            "spec": { "endpointSelector": {}, "ingress": [{ "fromEntities": ["all"] }] },
        }),
    );
    let replica = Replica::start(&server, "r1", &token.0);
    let mut agent = agent(&server, "n1", replica.address);
    let first = update(&mut agent, |update| update.snapshot).await;
    assert!(holds_rule(&first), "in the first table already");
    eventually("what is valid is kept", || {
        let maps = server.all("v1", "configmaps");
        maps.iter().any(|map| map["data"]["name"] == "theirs")
    })
    .await;
    assert_eq!(
        server.requests("/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"),
        0
    );
    replica.end().await;
}
