//! Liveness, readiness and metrics over plain HTTP. What makes a replica ready is told here; what it does is not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, routing::get};

use crate::metrics::Metrics;

/// A main loop that has not turned for so long hangs.
const HANGS: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct State {
    turned: Instant,
    missing: Vec<String>,
}

/// How the process is. Clones are the same.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<State>>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            turned: Instant::now(),
            missing: vec!["the main loop has not started".to_owned()],
        })))
    }
}

impl Health {
    /// The main loop turned; `missing` is what agents can't be served well without.
    pub fn turned(&self, missing: Vec<String>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.turned = Instant::now();
        state.missing = missing;
    }

    fn alive(&self) -> (StatusCode, String) {
        let silent = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .turned
            .elapsed();
        if silent < HANGS {
            (StatusCode::OK, "ok\n".to_owned())
        } else {
            let text = format!("the main loop has not turned for {} s\n", silent.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }

    fn ready(&self) -> (StatusCode, String) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.missing.is_empty() {
            (StatusCode::OK, "ok\n".to_owned())
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{}\n", state.missing.join("\n")),
            )
        }
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(health: Health, metrics: Metrics) -> Router {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let ready = health.clone();
    Router::new()
        .route("/healthz", get(move || async move { health.alive() }))
        .route("/readyz", get(move || async move { ready.ready() }))
        .route(
            "/metrics",
            get(move || async move { ([("content-type", OPEN_METRICS)], metrics.text()) }),
        )
}
