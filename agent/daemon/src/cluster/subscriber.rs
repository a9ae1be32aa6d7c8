//! The stream's end on this node: updates go to the engine, reports to the operator. What updates do is the engine's.

use std::{sync::Arc, time::Duration};

use sluice_datapath::probe::Feature;
use sluice_stream::{Event, Report, Subscription};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{StreamReports, reports};
use crate::{
    endpoint::Manager,
    engine::{Acknowledge, EngineHandle, Operator},
};

/// How often the operator hears how the agent is.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What a session needs.
pub struct Session {
    /// The stream.
    pub subscription: Subscription,
    /// Where updates go.
    pub engine: EngineHandle,
    /// Whose interfaces are reported.
    pub manager: Arc<Manager>,
    /// How they are.
    pub reports: StreamReports,
    /// What the kernel has.
    pub features: Vec<Feature>,
}

/// Runs until the engine ends.
pub async fn run(mut session: Session) {
    let handle = session.subscription.handle();
    session.reports.begin(handle.clone());
    let acknowledge: Acknowledge = Arc::new(move |revision| handle.ack(revision));
    let mut status = interval(STATUS_EVERY);
    status.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = session.subscription.next() => {
                if !take(&session, event, &acknowledge).await {
                    return;
                }
            }
            _ = status.tick() => report_status(&session),
        }
    }
}

/// `false` if the engine has ended.
async fn take(session: &Session, event: Event, acknowledge: &Acknowledge) -> bool {
    let board = session.engine.board();
    match event {
        Event::Connected { to } => {
            info!(operator = %to, "connected");
            board.write(|known| known.operator = Operator::Connected(to.to_string()));
            board.trouble("operator", Vec::new());
            report_all(session);
        }
        Event::ReportAgain => report_all(session),
        Event::Update(update) => {
            return session.engine.update(update, Arc::clone(acknowledge)).await;
        }
        Event::Disconnected { why } => {
            warn!(why, "no operator: what was said last stays in force");
            board.write(|known| known.operator = Operator::Lost(why.clone()));
            board.trouble("operator", vec![why]);
        }
    }
    true
}

fn report_all(session: &Session) {
    for record in session.manager.records() {
        if record.pod.is_some() {
            session.reports.report(&reports::up(&record));
        }
    }
    report_status(session);
}

fn report_status(session: &Session) {
    let status = reports::status(session.engine.board(), &session.features);
    session.reports.report(&Report::Status(status));
}
