//! What the operator counts, under `sluice_operator_…`.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// All counters and gauges. Clones are the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// 1 while this replica leads.
    pub leader: Gauge,
    /// The leader's epoch.
    pub epoch: Gauge,
    /// Number of the last revision.
    pub revision: Gauge,
    /// Kinds whose first list is still to come.
    pub listing: Gauge,
    /// Objects that watches told of.
    pub watch_events: Counter,
    /// Watches that failed and were tried again.
    pub watch_errors: Counter,
    /// Commits.
    pub commits: Counter,
    /// How long a commit took, in seconds.
    pub commit_seconds: Histogram,
    /// From a commit to its publication, in seconds.
    pub publish_seconds: Histogram,
    /// What the compiler could not take in.
    pub compile_errors: Counter,
    /// Writes to the API server.
    pub writes: Counter,
    /// Writes that failed and are tried again.
    pub write_errors: Counter,
    /// Writes that wait.
    pub writes_waiting: Gauge,
    /// Connected agents.
    pub agents: Gauge,
    /// Revisions that the agent furthest behind lacks.
    pub agents_behind: Gauge,
    /// Nodes.
    pub nodes: Gauge,
    /// Pods.
    pub pods: Gauge,
    /// Services.
    pub services: Gauge,
    /// Policies and CIDR groups.
    pub policies: Gauge,
    /// Those of them that are not valid.
    pub invalid_policies: Gauge,
    /// Policies that not all nodes enforce yet.
    pub pending_policies: Gauge,
    /// Stored identities.
    pub identities: Gauge,
    /// Reviews by the webhook.
    pub reviews: Counter,
    /// Objects that the webhook refused.
    pub refusals: Counter,
    /// Tokens that were refused.
    pub refused_tokens: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sluice_operator");
        let seconds = || {
            let bounds = [
                0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                10.0,
            ];
            Histogram::new(bounds)
        };
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let leader = gauge("leader", "1 while this replica leads");
        let epoch = gauge("epoch", "Epoch of the leader");
        let revision = gauge("revision", "Number of the last published revision");
        let listing = gauge("kinds_listing", "Kinds whose first list is still to come");
        let writes_waiting = gauge("writes_waiting", "Writes to the API server that wait");
        let agents = gauge("agents", "Connected agents");
        let agents_behind = gauge(
            "agents_behind",
            "Revisions that the agent furthest behind lacks",
        );
        let nodes = gauge("nodes", "Nodes");
        let pods = gauge("pods", "Pods that have a node");
        let services = gauge("services", "Services");
        let policies = gauge("policies", "Policies and CIDR groups");
        let invalid_policies = gauge(
            "invalid_policies",
            "Policies and CIDR groups that are not valid",
        );
        let pending_policies = gauge(
            "pending_policies",
            "Policies that not all nodes enforce yet",
        );
        let identities = gauge("identities", "Stored identities");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let watch_events = counter("watch_events", "Objects that watches told of");
        let watch_errors = counter("watch_errors", "Watches that failed and were tried again");
        let commits = counter("commits", "Commits of the compiler");
        let compile_errors = counter(
            "compile_errors",
            "Objects that the compiler could not take in",
        );
        let writes = counter("writes", "Writes to the API server");
        let write_errors = counter("write_errors", "Writes that failed and are tried again");
        let reviews = counter("webhook_reviews", "Objects that the webhook looked at");
        let refusals = counter("webhook_refusals", "Objects that the webhook refused");
        let refused_tokens = counter("refused_tokens", "Tokens of agents that were refused");
        let commit_seconds = seconds();
        registry.register(
            "commit_seconds",
            "How long a commit took",
            commit_seconds.clone(),
        );
        let publish_seconds = seconds();
        registry.register(
            "publish_seconds",
            "From a commit to the end of its publication",
            publish_seconds.clone(),
        );
        Self {
            registry: Arc::new(Mutex::new(registry)),
            leader,
            epoch,
            revision,
            listing,
            watch_events,
            watch_errors,
            commits,
            commit_seconds,
            publish_seconds,
            compile_errors,
            writes,
            write_errors,
            writes_waiting,
            agents,
            agents_behind,
            nodes,
            pods,
            services,
            policies,
            invalid_policies,
            pending_policies,
            identities,
            reviews,
            refusals,
            refused_tokens,
        }
    }
}

impl Metrics {
    /// Everything in the text format that Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string can't fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
