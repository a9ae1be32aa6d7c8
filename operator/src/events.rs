//! Events on objects that a user looks at. What is worth one is the core's to say.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::core::Notice;

/// Publishes notices; equal ones count up one event.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// Events that `instance` reports.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter {
            controller: "sluice.io/operator".to_owned(),
            instance: Some(instance),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Publishes, in the background: an event that gets lost is no harm.
    pub fn publish(&self, notices: Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        let recorder = self.0.clone();
        tokio::spawn(async move {
            for notice in notices {
                let reference = ObjectReference {
                    api_version: Some(notice.api_version),
                    kind: Some(notice.kind),
                    namespace: notice.namespace,
                    name: Some(notice.name),
                    uid: notice.uid,
                    ..ObjectReference::default()
                };
                let event = Event {
                    type_: if notice.warning {
                        EventType::Warning
                    } else {
                        EventType::Normal
                    },
                    reason: notice.reason,
                    note: Some(notice.note),
                    action: notice.action.to_owned(),
                    secondary: None,
                };
                if let Err(error) = recorder.publish(&event, &reference).await {
                    tracing::debug!(%error, "an event could not be published");
                }
            }
        });
    }
}
