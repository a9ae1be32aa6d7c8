//! What talks to the API server, each against one in memory: lease, certificates, tokens, writes.

use std::{net::SocketAddr, time::Duration};

use crate::api::Server;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_operator::{
    ca::{Authorities, BUNDLE, CaStore, NAME},
    core::{Change, Object, Write},
    lease::{Election, Settings, Standing},
    metrics::Metrics,
    token::TokenReviews,
    writer::{WriteError, Writer},
};
use sluice_stream::{AuthError, Authenticate};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

const LEASES: (&str, &str) = ("coordination.k8s.io/v1", "leases");
const SOON: Duration = Duration::from_secs(20);

fn candidate(name: &str) -> Settings {
    Settings {
        namespace: "kube-system".to_owned(),
        name: "sluice-operator".to_owned(),
        identity: name.to_owned(),
        address: SocketAddr::from(([10, 0, 0, 1], 4245)),
        duration: Duration::from_secs(2),
        renew: Duration::from_secs(1),
        retry: Duration::from_millis(50),
    }
}

struct Candidate {
    standing: watch::Receiver<Standing>,
    stop: watch::Sender<bool>,
}

fn run(server: &Server, name: &str) -> Candidate {
    let (election, standing) = Election::new(server.client(), candidate(name));
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(election.run(stopping));
    Candidate { standing, stop }
}

impl Candidate {
    async fn epoch(&mut self) -> u64 {
        let leads = |standing: &Standing| matches!(standing, Standing::Leads(_));
        let standing = timeout(SOON, self.standing.wait_for(leads))
            .await
            .expect("a leader")
            .unwrap();
        match *standing {
            Standing::Leads(epoch) => epoch,
            _ => unreachable!("waited for"),
        }
    }
}

#[tokio::test]
async fn one_leads_and_the_other_knows_where() {
    let server = Server::default();
    let mut first = run(&server, "first");
    let epoch = first.epoch().await;
    let mut second = run(&server, "second");
    let knows = |standing: &Standing| {
        *standing == Standing::Follows(Some(SocketAddr::from(([10, 0, 0, 1], 4245))))
    };
    timeout(SOON, second.standing.wait_for(knows))
        .await
        .unwrap()
        .unwrap();
    // Two lease times later nothing has changed.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(*first.standing.borrow(), Standing::Leads(epoch));
    assert!(knows(&second.standing.borrow()));
}

#[tokio::test]
async fn a_leader_that_ends_gives_the_lease_back() {
    let server = Server::default();
    let mut first = run(&server, "first");
    let epoch = first.epoch().await;
    let mut second = run(&server, "second");
    first.stop.send_replace(true);
    let begun = tokio::time::Instant::now();
    let next = second.epoch().await;
    assert_eq!(next, epoch + 1);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "it need not run out"
    );
}

#[tokio::test]
async fn a_leader_cut_off_stops_leading_before_another_may() {
    let server = Server::default();
    let mut first = run(&server, "first");
    let epoch = first.epoch().await;
    server.set_down(true);
    let lost = timeout(
        SOON,
        first
            .standing
            .wait_for(|standing| *standing == Standing::Lost),
    );
    lost.await.expect("in time").unwrap();
    server.set_down(false);
    let mut second = run(&server, "second");
    assert_eq!(second.epoch().await, epoch + 1);
}

#[tokio::test]
async fn epochs_grow_also_where_somebody_deletes_the_lease() {
    let server = Server::default();
    let mut first = run(&server, "first");
    let epoch = first.epoch().await;
    first.stop.send_replace(true);
    sleep(Duration::from_millis(1200)).await;
    server.remove(LEASES.0, LEASES.1, Some("kube-system"), "sluice-operator");
    let mut second = run(&server, "second");
    assert!(second.epoch().await > epoch, "not back to the start");
}

#[tokio::test]
async fn the_first_leader_makes_the_authority_and_others_read_it() {
    let server = Server::default();
    let store = CaStore::new(server.client(), "kube-system");
    assert_eq!(store.get().await.unwrap(), None);
    let now = Timestamp::now();
    let made = store.keep(now).await.unwrap();
    assert_eq!(store.get().await.unwrap().as_ref(), Some(&made));
    assert_eq!(store.keep(now).await.unwrap(), made, "once");
    let map = server
        .get("v1", "configmaps", Some("kube-system"), NAME)
        .unwrap();
    assert_eq!(map["data"][BUNDLE], made.bundle());
    assert!(!map.to_string().contains("PRIVATE KEY"));

    let announced = store
        .keep(now + SignedDuration::from_hours(24 * 300))
        .await
        .unwrap();
    assert_eq!(announced.current, made.current);
    let map = server
        .get("v1", "configmaps", Some("kube-system"), NAME)
        .unwrap();
    assert_eq!(map["data"][BUNDLE], announced.bundle());
    let rotated = store
        .keep(now + SignedDuration::from_hours(24 * 302))
        .await
        .unwrap();
    assert_ne!(rotated.current, made.current);
    assert!(rotated.bundle().contains(&made.current.certificate));
    let _: &Authorities = &rotated;
}

fn review(user: &str, extra: &Value, audiences: &Value) -> Value {
    json!({
        "authenticated": true,
        "audiences": audiences,
        "user": { "username": format!("system:serviceaccount:kube-system:{user}"), "extra": extra },
    })
}

#[tokio::test]
async fn tokens_are_bound_to_nodes() {
    let server = Server::default();
    let ours = json!(["sluice-operator"]);
    let claim = |name: &str| format!("authentication.kubernetes.io/{name}");
    let on_node = json!({ claim("node-name"): ["n1"] });
    let in_pod = |uid: &str| json!({ claim("pod-name"): ["agent-x"], claim("pod-uid"): [uid] });
    server.put(
        "v1",
        "pods",
        json!({ "metadata": { "name": "agent-x", "namespace": "kube-system", "uid": "u" }, "spec": { "nodeName": "n2", "containers": [] } }),
    );
    let cases = [
        ("agent", review("sluice-agent", &on_node, &ours), Some("n1")),
        (
            "old-server",
            review("sluice-agent", &in_pod("u"), &ours),
            Some("n2"),
        ),
        (
            "operator",
            review("sluice-operator", &json!({}), &ours),
            Some("*"),
        ),
        (
            "pod-made-anew",
            review("sluice-agent", &in_pod("v"), &ours),
            None,
        ),
        ("unbound", review("sluice-agent", &json!({}), &ours), None),
        ("stranger", review("default", &on_node, &ours), None),
        (
            "other-audience",
            review("sluice-agent", &on_node, &json!(["https://kubernetes"])),
            None,
        ),
        (
            "no-audience",
            review("sluice-agent", &on_node, &Value::Null),
            None,
        ),
    ];
    let tokens = TokenReviews::new(
        server.client(),
        "kube-system",
        "sluice-agent",
        "sluice-operator",
        Metrics::default(),
    );
    for (token, answer, node) in cases {
        server.review(token, answer);
        let found = tokens.node_of(token).await;
        match node {
            Some(node) => assert_eq!(found.unwrap().0, node, "{token}"),
            None => assert!(
                matches!(found, Err(AuthError::Refused(_))),
                "{token}: {found:?}"
            ),
        }
    }
    assert!(matches!(
        tokens.node_of("unheard-of").await,
        Err(AuthError::Refused(_))
    ));

    server.set_down(true);
    assert_eq!(tokens.node_of("agent").await.unwrap().0, "n1", "remembered");
    assert!(matches!(
        tokens.node_of("new").await,
        Err(AuthError::Unavailable(_))
    ));
}

fn identity(number: u32, app: &str) -> Write {
    Write {
        object: Object {
            group: "sluice.io",
            version: "v1",
            kind: "Identity",
            plural: "identities",
            namespace: None,
            name: number.to_string(),
        },
        change: Change::Create(json!({
            "apiVersion": "sluice.io/v1",
            "kind": "Identity",
            "metadata": { "name": number.to_string() },
            "spec": { "number": number, "properties": [format!("k8s:app={app}")] },
        })),
    }
}

#[tokio::test]
async fn a_number_that_another_leader_gave_out_is_not_taken() {
    let server = Server::default();
    let writer = Writer::new(server.client(), 1000, Metrics::default());
    writer
        .first(vec![identity(256, "a"), identity(257, "b")])
        .await
        .unwrap();
    writer
        .first(vec![identity(256, "a")])
        .await
        .expect("it is what was to be stored");
    let overtaken = writer.first(vec![identity(256, "c")]).await;
    assert!(
        matches!(overtaken, Err(WriteError::Overtaken { .. })),
        "{overtaken:?}"
    );
}

#[tokio::test]
async fn what_others_wait_for_is_tried_until_it_succeeds() {
    let server = Server::default();
    server.set_down(true);
    let writer = Writer::new(server.client(), 1000, Metrics::default());
    let storing = tokio::spawn(async move { writer.first(vec![identity(256, "a")]).await });
    sleep(Duration::from_millis(300)).await;
    assert!(!storing.is_finished());
    server.set_down(false);
    timeout(SOON, storing).await.unwrap().unwrap().unwrap();
    assert_eq!(server.all("sluice.io/v1", "identities").len(), 1);
}

#[tokio::test]
async fn of_several_wishes_for_an_object_the_last_counts() {
    let server = Server::default();
    let writer = Writer::new(server.client(), 1000, Metrics::default());
    let wish = |name: &str, value: u32| {
        let object = Object {
            group: "",
            version: "v1",
            kind: "ConfigMap",
            plural: "configmaps",
            namespace: Some("default".to_owned()),
            name: name.to_owned(),
        };
        let change = Change::Apply(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": "default" },
            "data": { "value": value.to_string() },
        }));
        vec![Write { object, change }]
    };
    for value in 0..10 {
        writer.wish(wish("a", value));
    }
    server.set_down(true);
    tokio::spawn(writer.clone().run());
    sleep(Duration::from_millis(200)).await;
    server.set_down(false);
    let written = async {
        while server
            .get("v1", "configmaps", Some("default"), "a")
            .is_none()
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, written).await.unwrap();
    let found = server
        .get("v1", "configmaps", Some("default"), "a")
        .unwrap();
    assert_eq!(found["data"]["value"], "9");
    assert_eq!(server.all("v1", "configmaps").len(), 1);
    // What is deleted meanwhile needs no status any more.
    let gone = Write {
        object: identity(300, "x").object,
        change: Change::ApplyStatus(json!({ "status": { "endpoints": 1 } })),
    };
    writer.wish(vec![gone]);
    let empty = async {
        while writer.waiting() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, empty).await.unwrap();
}
