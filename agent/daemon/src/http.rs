//! What people and machines can ask a running agent: health and metrics at an address, everything else at a socket that only root may use.
//! What the answers mean is said where they are made.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use sluice_datapath::probe::Feature;
use sluice_stream::Overlay;
use sluice_world::PodUid;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Notify,
};

use crate::{
    endpoint::Manager,
    engine::{Board, Operator},
    metrics::Metrics,
};

/// An engine that has done nothing for so long hangs: it is asked something every second.
const HANG: Duration = Duration::from_secs(30);

/// What is asked about.
#[derive(Clone)]
pub struct Asked {
    /// The node's name.
    pub node: String,
    /// What is known.
    pub board: Arc<Board>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The interfaces; once the agent has begun.
    pub manager: Arc<OnceLock<Arc<Manager>>>,
    /// What the kernel has.
    pub features: Arc<Vec<Feature>>,
    /// Who translates service addresses.
    pub services: &'static str,
    /// To end the agent.
    pub stop: Arc<Notify>,
}

/// Serves `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// The address can't be listened at.
pub async fn serve_health(address: SocketAddr, asked: Asked) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .with_state(asked);
    serve(address, router).await
}

/// Serves `/healthz` and `/readyz` where there is no agent any more: all is well, for as long as the process lives.
///
/// # Errors
/// The address can't be listened at.
pub async fn serve_clean(address: SocketAddr) -> io::Result<()> {
    let clean = || async { "clean\n" };
    let router = Router::new()
        .route("/healthz", get(clean))
        .route("/readyz", get(clean));
    serve(address, router).await
}

async fn serve(address: SocketAddr, router: Router) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// Serves `/status`, `/endpoints`, `/nodes` and `/stop` at a socket that only root may use.
///
/// # Errors
/// The path can't be listened at.
pub fn serve_status(path: &Path, asked: Asked) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let half = path.with_extension("new");
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o600))?;
    fs::rename(&half, path)?;
    let router = Router::new()
        .route("/status", get(status))
        .route("/endpoints", get(endpoints))
        .route("/nodes", get(nodes))
        .route("/metrics", get(metrics))
        .route("/stop", post(stop))
        .with_state(asked);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// The engine does its work.
async fn health(State(asked): State<Asked>) -> impl IntoResponse {
    let idle = asked
        .board
        .read(|known| known.heartbeat.map(|last| last.elapsed()));
    match idle {
        Some(idle) if idle > HANG => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the engine has done nothing for {} s\n", idle.as_secs()),
        ),
        _ => (StatusCode::OK, "ok\n".to_owned()),
    }
}

/// Pods can be started: what an operator said is in force.
async fn readiness(State(asked): State<Asked>) -> impl IntoResponse {
    let Some(manager) = asked.manager.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned());
    };
    match manager.status() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")),
    }
}

async fn metrics(State(asked): State<Asked>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([("content-type", kind)], asked.metrics.text())
}

async fn status(State(asked): State<Asked>) -> Json<Value> {
    let addresses = asked.manager.get().map(|manager| manager.address_counts());
    let known = asked.board.read(Clone::clone);
    let operator = match known.operator {
        Operator::Unknown => json!({"connected": false, "why": "none has been reached yet"}),
        Operator::Connected(to) => json!({"connected": true, "address": to}),
        Operator::Lost(why) => json!({"connected": false, "why": why}),
    };
    let ready = known
        .interfaces
        .keys()
        .filter(|pod| known.subjects.contains_key(*pod))
        .count();
    let [tables, entries, programs, identities, told, prefixes, ..] = known.sizes;
    let maps: Vec<Value> = known
        .maps
        .iter()
        .map(|(name, used, size)| json!({"name": name, "used": used, "size": size}))
        .collect();
    let features: Vec<Value> = asked
        .features
        .iter()
        .map(|feature| {
            let present = matches!(feature.state, sluice_datapath::probe::State::Present);
            json!({"name": feature.name, "present": present, "required": feature.required, "text": feature.to_string()})
        })
        .collect();
    Json(json!({
        "release": env!("CARGO_PKG_VERSION"),
        "node": asked.node,
        "operator": operator,
        "revision": known.revision.map(|revision| revision.to_string()),
        "endpoints": known.interfaces.len(),
        "ready": ready,
        "addresses": addresses.map(|(used, resting)| json!({"used": used, "resting": resting})),
        "connections": known.connections,
        "told": {"tables": tables, "entries": entries, "programs": programs, "identities": identities,
                 "addresses": told, "prefixes": prefixes, "services": known.services},
        "maps": maps,
        "devices": known.devices,
        "routing": match known.settings.overlay { Overlay::Direct => "direct", Overlay::Vxlan { .. } => "vxlan" },
        "masquerade": known.settings.masquerade,
        "services": asked.services,
        "mtu": known.site.as_ref().map(|site| site.mtu),
        "troubles": known.troubles,
        "features": features,
    }))
}

async fn endpoints(State(asked): State<Asked>) -> Json<Value> {
    let records = asked
        .manager
        .get()
        .map(|manager| manager.records())
        .unwrap_or_default();
    let known = asked.board.read(Clone::clone);
    let one = |record: &crate::endpoint::Record| {
        let pod = record.pod_ref();
        let subject = known.subjects.get(&pod);
        let subject = subject.filter(|subject| PodUid::may_be(subject.uid, record.pod_uid()));
        let identity = subject.map(|subject| subject.identity);
        let state = match (&record.pod, identity) {
            (None, _) => "unmanaged",
            (_, Some(_)) => "ready",
            (_, None) => "waiting",
        };
        json!({
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": record.uid(),
            "container": record.id.container,
            "interface": record.host_name,
            "index": known.interfaces.get(&pod),
            "mac": record.mac().to_string(),
            "addresses": record.addresses,
            "identity": identity,
            "state": state,
            "since": record.since,
        })
    };
    Json(records.iter().map(one).collect())
}

async fn nodes(State(asked): State<Asked>) -> Json<Value> {
    let nodes = asked.board.read(|known| known.nodes.clone());
    let one = |node: &sluice_stream::NodeInfo| {
        json!({
            "name": node.name.0,
            "number": node.number,
            "own": node.name.0 == asked.node,
            "addresses": node.addresses,
            "podCIDRs": node.pod_cidrs,
        })
    };
    Json(nodes.values().map(one).collect())
}

async fn stop(State(asked): State<Asked>) -> &'static str {
    asked.stop.notify_one();
    "ending\n"
}
