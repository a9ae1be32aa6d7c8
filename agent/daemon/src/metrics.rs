//! What is counted, for Prometheus. What the figures mean is said where they are made.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use sluice_datapath::load::Datapath;

use crate::engine::Board;

/// From half a millisecond to eight seconds.
const SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0,
];

/// A word known when the program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    request: Word,
    failed: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MapName {
    map: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    hook: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Subject {
    subject: Word,
}

/// See the module.
pub struct Metrics {
    registry: Registry,
    board: Arc<Board>,
    requests: Family<Request, Histogram>,
    applies: Family<Kind, Histogram>,
    failures: Counter,
    /// When the last update was in force.
    last: Mutex<Option<Instant>>,
    endpoints: Gauge,
    ready: Gauge,
    revision: Gauge,
    epoch: Gauge,
    age: Gauge,
    connected: Gauge,
    connections: Gauge,
    used: Family<MapName, Gauge>,
    capacity: Family<MapName, Gauge>,
    dropped: Family<Place, Gauge>,
    troubles: Family<Subject, Gauge>,
}

impl Metrics {
    /// Metrics that read the board when they are asked for.
    #[must_use]
    pub fn new(board: Arc<Board>) -> Self {
        let mut registry = Registry::with_prefix("sluice_agent");
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let metrics = Self {
            board,
            requests: Family::new_with_constructor(histogram),
            applies: Family::new_with_constructor(histogram),
            failures: Counter::default(),
            last: Mutex::default(),
            endpoints: Gauge::default(),
            ready: Gauge::default(),
            revision: Gauge::default(),
            epoch: Gauge::default(),
            age: Gauge::default(),
            connected: Gauge::default(),
            connections: Gauge::default(),
            used: Family::default(),
            capacity: Family::default(),
            dropped: Family::default(),
            troubles: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "cni_request_seconds",
            "Requests of the container runtime, by kind and whether they failed",
            metrics.requests.clone(),
        );
        registry.register(
            "apply_seconds",
            "Updates of the operator put in force, by kind",
            metrics.applies.clone(),
        );
        registry.register(
            "apply_failures",
            "Updates that were not in force at once",
            metrics.failures.clone(),
        );
        let gauges = [
            ("endpoints", "Interfaces of pods", &metrics.endpoints),
            (
                "endpoints_ready",
                "Interfaces of pods whose tables are in force",
                &metrics.ready,
            ),
            (
                "revision",
                "Number of the revision in force",
                &metrics.revision,
            ),
            (
                "revision_epoch",
                "Epoch of the revision in force",
                &metrics.epoch,
            ),
            (
                "revision_age_seconds",
                "Time since an update was put in force",
                &metrics.age,
            ),
            (
                "operator_connected",
                "Whether an operator serves this agent",
                &metrics.connected,
            ),
            ("connections", "Connections that live", &metrics.connections),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "map_used",
            "Elements in use of the kernel's maps",
            metrics.used.clone(),
        );
        registry.register(
            "map_capacity",
            "Elements that the kernel's maps can hold",
            metrics.capacity.clone(),
        );
        registry.register(
            "dropped_packets",
            "Packets dropped since the maps were made, by place and reason",
            metrics.dropped.clone(),
        );
        registry.register(
            "troubles",
            "What is wrong at the moment, by subject",
            metrics.troubles.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// A request of the container runtime is done.
    pub fn requested(&self, name: &'static str, took: Duration, failed: bool) {
        let labels = Request {
            request: Word(name),
            failed: Word(if failed { "true" } else { "false" }),
        };
        self.requests
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// An update is in force.
    pub fn applied(&self, snapshot: bool, took: Duration) {
        let kind = Word(if snapshot { "snapshot" } else { "delta" });
        self.applies
            .get_or_create(&Kind { kind })
            .observe(took.as_secs_f64());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// An update is not in force.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Reads the drop counters of the kernel.
    pub fn drops(&self, datapath: &Datapath) {
        let Ok(drops) = datapath.counters().and_then(|counters| counters.drops()) else {
            return;
        };
        for drop in drops {
            let place = Place {
                hook: format!("{:?}", drop.hook),
                reason: format!("{:?}", drop.reason),
            };
            let packets = i64::try_from(drop.counter.packets).unwrap_or(i64::MAX);
            self.dropped.get_or_create(&place).set(packets);
        }
    }

    /// All of it, in the text format.
    #[must_use]
    pub fn text(&self) -> String {
        self.gather();
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn gather(&self) {
        let known = self.board.read(Clone::clone);
        let ready = known
            .interfaces
            .keys()
            .filter(|pod| known.subjects.contains_key(*pod))
            .count();
        let revision = known.revision.unwrap_or_default();
        let age = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let age = age.map_or(0, |last| last.elapsed().as_secs());
        let connected = matches!(known.operator, crate::engine::Operator::Connected(_));
        let pairs = [
            (&self.endpoints, known.interfaces.len() as u64),
            (&self.ready, ready as u64),
            (&self.revision, revision.number),
            (&self.epoch, revision.epoch),
            (&self.age, age),
            (&self.connected, u64::from(connected)),
            (&self.connections, known.connections as u64),
        ];
        for (gauge, value) in pairs {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        for (name, used, capacity) in known.maps {
            let labels = MapName { map: Word(name) };
            let set = |family: &Family<MapName, Gauge>, value: u64| {
                family
                    .get_or_create(&labels)
                    .set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&self.used, used);
            set(&self.capacity, capacity);
        }
        self.troubles.clear();
        for (subject, what) in &known.troubles {
            let labels = Subject {
                subject: Word(subject),
            };
            self.troubles
                .get_or_create(&labels)
                .set(i64::try_from(what.len()).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_family_with_its_prefix() {
        let board = Arc::new(Board::default());
        board.trouble("tables", vec!["full".to_owned()]);
        let metrics = Metrics::new(board);
        metrics.requested("add", Duration::from_millis(3), false);
        metrics.applied(true, Duration::from_millis(30));
        let text = metrics.text();
        for line in [
            "sluice_agent_cni_request_seconds_count{request=\"add\",failed=\"false\"} 1",
            "sluice_agent_apply_seconds_count{kind=\"snapshot\"} 1",
            "sluice_agent_operator_connected 0",
            "sluice_agent_troubles{subject=\"tables\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
