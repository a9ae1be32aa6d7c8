//! What the operator is told of this node: interfaces that come and go, and how the agent is. When is the subscriber's.

use std::sync::{Arc, OnceLock};

use sluice_datapath::probe::{Feature, State};
use sluice_stream::{AgentStatus, Condition, Handle, MapUse, Report};

use crate::{
    endpoint::{Record, Reports},
    engine::Board,
};

/// Reports over the stream, once there is one. What happens before is reported when it is there: see
/// [`sluice_stream::Event::Connected`].
#[derive(Clone, Debug, Default)]
pub struct StreamReports(Arc<OnceLock<Handle>>);

impl StreamReports {
    /// There is a stream now.
    pub fn begin(&self, handle: Handle) {
        // A process has one subscription.
        let _ = self.0.set(handle);
    }

    /// Reports, if there is a stream.
    pub fn report(&self, report: &Report) {
        if let Some(handle) = self.0.get() {
            handle.report(report);
        }
    }
}

impl Reports for StreamReports {
    fn up(&self, record: &Record) {
        if record.pod.is_some() {
            self.report(&up(record));
        }
    }

    fn down(&self, record: &Record) {
        if record.pod.is_some() {
            self.report(&Report::EndpointDown {
                pod: record.pod_ref(),
                uid: record.uid().to_owned(),
            });
        }
    }
}

/// A pod has its interface.
pub(super) fn up(record: &Record) -> Report {
    Report::EndpointUp {
        pod: record.pod_ref(),
        uid: record.uid().to_owned(),
        addresses: record.addresses.clone(),
        container: record.id.container.clone(),
    }
}

/// How the agent is.
pub(super) fn status(board: &Board, features: &[Feature]) -> AgentStatus {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    board.read(|known| AgentStatus {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        revision: known.revision,
        endpoints: count(known.interfaces.len()),
        ready: count(
            known
                .interfaces
                .keys()
                .filter(|pod| known.subjects.contains_key(*pod))
                .count(),
        ),
        maps: known
            .maps
            .iter()
            .map(|(name, used, size)| MapUse {
                name: (*name).to_owned(),
                used: *used,
                size: *size,
            })
            .collect(),
        conditions: known
            .troubles
            .iter()
            .map(|(subject, what)| Condition {
                kind: format!("{}Ready", capital(subject)),
                holds: false,
                reason: "Failed".to_owned(),
                message: what.join("; "),
            })
            .collect(),
        features: features.iter().map(feature).collect(),
    })
}

fn feature(feature: &Feature) -> (String, String) {
    let state = match &feature.state {
        State::Present => "present".to_owned(),
        State::Absent(why) => format!("absent ({why}): {}", feature.consequence),
    };
    (feature.name.to_owned(), state)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
        .unwrap_or_default()
}
