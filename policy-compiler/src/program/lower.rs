//! Lowering: from every tier's word at a point to the one verdict that holds there.
//!
//! This is where tiers meet the subject's default deny, the local host and the enforcement mode. L7 content is judged through
//! [`Proxies`] only.

use sluice_abi::{Cookie, program::Verdict};
use sluice_crds::parsed::Authentication;
use sluice_world::Mode;

use super::{Builder, Cell, NamespaceWord, Part, Program, Rank, TierAction};

/// What holds around the rules of one subject, direction and peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lowering {
    /// The enforcement mode.
    pub mode: Mode,
    /// Some namespaced policy makes the subject default-deny in this direction.
    pub default_deny: bool,
    /// The peer is the subject's own node, at ingress, and some ingress rule of any tier selects the subject.
    pub local_host: bool,
}

/// What decided a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// A rule of the table.
    Rule(Rank),
    /// A circumstance that has its own cookie.
    BuiltIn(Cookie),
}

/// The verdict at a point.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoweredCell {
    /// What happens to the packet.
    pub verdict: Verdict,
    /// To be logged.
    pub log: bool,
    /// Who decided.
    pub decision: Decision,
    /// For a redirect: all rules whose proxy rules hold here; else empty.
    pub redirect: Vec<(Rank, Part)>,
}

/// A lowered program. Canonical like [`Program`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lowered {
    pub(crate) pieces: Vec<(u32, LoweredCell)>,
}

/// Answers what lowering has to know of proxy rules.
pub trait Proxies {
    /// Whether these entries contradict each other, so that no proxy could serve them all.
    fn conflict(&self, entries: &[(Rank, Part)]) -> bool;
}

impl Lowering {
    /// Turns the joined program into verdicts.
    #[must_use]
    pub fn lower(self, program: &Program, proxies: &impl Proxies) -> Lowered {
        let mut builder = Builder::default();
        for (start, cell) in program.pieces() {
            builder.push(*start, self.cell(cell, proxies));
        }
        Lowered {
            pieces: builder.pieces,
        }
    }

    /// Admin (Pass goes on), namespace, then default deny or the mode, else Baseline, else allow. The local host is the allow of lowest
    /// precedence: it comes before nothing but the denials that no rule spoke.
    fn cell(self, cell: &Cell, proxies: &impl Proxies) -> LoweredCell {
        if self.mode == Mode::Never {
            return built_in(Verdict::Allow, Cookie::MODE_NEVER);
        }
        if let Some(word) = cell.admin {
            match word.action {
                TierAction::Accept => return by_rule(Verdict::Allow, word.rank, false),
                TierAction::Deny => return by_rule(Verdict::Deny, word.rank, false),
                TierAction::Pass => {}
            }
        }
        if let Some(decided) = namespace(&cell.namespace, proxies) {
            return decided;
        }
        if !self.default_deny && self.mode == Mode::Default {
            match cell.baseline {
                Some(word) if word.action == TierAction::Deny => {
                    return by_rule(Verdict::Deny, word.rank, false);
                }
                Some(word) if word.action == TierAction::Accept => {
                    return by_rule(Verdict::Allow, word.rank, false);
                }
                _ => {}
            }
        }
        self.without_rule()
    }

    /// What holds where no rule decided.
    const fn without_rule(self) -> LoweredCell {
        if self.local_host {
            built_in(Verdict::Allow, Cookie::LOCAL_HOST)
        } else if self.default_deny {
            built_in(Verdict::Deny, Cookie::DEFAULT_DENY)
        } else if matches!(self.mode, Mode::Always) {
            built_in(Verdict::Deny, Cookie::MODE_ALWAYS)
        } else {
            built_in(Verdict::Allow, Cookie::DEFAULT_ALLOW)
        }
    }
}

/// What the namespaced policies decide, if they do: deny, failed authentication, plain allow, conflict, redirect.
fn namespace(word: &NamespaceWord, proxies: &impl Proxies) -> Option<LoweredCell> {
    if let Some(rank) = word.deny {
        return Some(by_rule(Verdict::Deny, rank, word.deny_log));
    }
    // Nothing authenticates yet, so traffic that must be authenticated can't pass: fail closed.
    if let Some((Authentication::Required | Authentication::TestAlwaysFail, rank)) =
        word.authentication
    {
        return Some(by_rule(Verdict::DenyAuthentication, rank, word.allow_log));
    }
    if let Some(rank) = word.allow {
        return Some(by_rule(Verdict::Allow, rank, word.allow_log));
    }
    let (first, _) = *word.redirects.first()?;
    if proxies.conflict(&word.redirects) {
        return Some(by_rule(Verdict::DenyConflict, first, word.allow_log));
    }
    Some(LoweredCell {
        redirect: word.redirects.clone(),
        ..by_rule(Verdict::Redirect, first, word.allow_log)
    })
}

const fn by_rule(verdict: Verdict, rank: Rank, log: bool) -> LoweredCell {
    LoweredCell {
        verdict,
        log,
        decision: Decision::Rule(rank),
        redirect: Vec::new(),
    }
}

const fn built_in(verdict: Verdict, cookie: Cookie) -> LoweredCell {
    LoweredCell {
        verdict,
        log: false,
        decision: Decision::BuiltIn(cookie),
        redirect: Vec::new(),
    }
}
