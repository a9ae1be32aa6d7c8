//! The way in: both sides of a query, each judged by its own pod's policies.

use std::{net::IpAddr, sync::OnceLock};

use sluice_world::{Answer, Learned, Mode, Query, Reason, Side, SideVerdict, World};

use crate::{
    case::{Case, Direction, Setting},
    decide::{Tiers, decide, without_rule},
    l7::Patterns,
    party::Party,
};

/// Judges queries in one world.
#[derive(Debug)]
pub struct Evaluator<'w> {
    setting: Setting<'w>,
    mode: Mode,
    patterns: OnceLock<Patterns>,
}

/// Judges one query. For many in one world make an [`Evaluator`].
#[must_use]
pub fn evaluate(world: &World, learned: &Learned, mode: Mode, query: &Query) -> Answer {
    Evaluator::new(world, learned, mode).evaluate(query)
}

impl<'w> Evaluator<'w> {
    /// For queries in this world, with these names learned, under this enforcement mode.
    #[must_use]
    pub fn new(world: &'w World, learned: &'w Learned, mode: Mode) -> Self {
        Self {
            setting: Setting::new(world, learned),
            mode,
            patterns: OnceLock::new(),
        }
    }

    /// Judges one query.
    #[must_use]
    pub fn evaluate(&self, query: &Query) -> Answer {
        let egress = self.side(query, Direction::Egress).0;
        let ingress = self.side(query, Direction::Ingress).0;
        let denied = [&egress, &ingress]
            .iter()
            .any(|side| side.verdict == SideVerdict::Denied);
        let verdict = if denied {
            SideVerdict::Denied
        } else {
            SideVerdict::Allowed
        };
        Answer {
            id: query.id.clone(),
            verdict,
            egress,
            ingress,
        }
    }

    /// One side, and the rules that were asked: none where policy had no say.
    pub(crate) fn side(&self, query: &Query, direction: Direction) -> (Side, Tiers<'w>) {
        let world = self.setting.world;
        let source = Party::of(world, &query.from, query.source);
        let destination = Party::of(world, &query.to, query.destination);
        let (subject, peer, address): (_, _, IpAddr) = match direction {
            Direction::Egress => (source, destination, query.destination),
            Direction::Ingress => (destination, source, query.source),
        };
        let unasked = |verdict, reason| (without_rule(verdict, reason), Tiers::default());
        let Party::Pod(subject) = subject else {
            return unasked(SideVerdict::NotEnforced, Reason::DefaultAllow);
        };
        if matches!(peer, Party::Pod(peer) if peer.id == subject.id) {
            return unasked(SideVerdict::Allowed, Reason::Itself);
        }
        if self.mode == Mode::Never {
            return unasked(SideVerdict::Allowed, Reason::Mode);
        }
        if matches!(peer, Party::Unknown) {
            return unasked(SideVerdict::Denied, Reason::Unknown);
        }
        let case = Case {
            setting: &self.setting,
            direction,
            subject,
            peer,
            address,
            protocol: query.protocol,
            port: query.port,
        };
        let tiers = Tiers::of(&case);
        let patterns = self.patterns.get_or_init(|| Patterns::of(world));
        (decide(&case, &tiers, self.mode, query, patterns), tiers)
    }
}
