//! The compiled engine of `policy eval`: a world compiled into tables in memory, and queries judged by the kernel's own look-up over
//! them. Rules are not looked at to judge, only to name the one that a cookie stands for.

use std::net::IpAddr;

use sluice_abi::{
    Cookie, Identity,
    ipcache::AddressInfo,
    policy::{Judgement, judge},
    program::Verdict,
};
use sluice_world::{
    Answer, Learned, Mode, PodRef, Query, Reason, Side, SideVerdict, Target, World,
};

use crate::{
    index::{Index, Settings},
    memory::MemTables,
};

/// A compiled world.
#[derive(Debug)]
pub struct Engine {
    index: Index,
    tables: MemTables,
    mode: Mode,
}

impl Engine {
    /// Compiles a world.
    #[must_use]
    pub fn new(world: &World, learned: &Learned, mode: Mode) -> Self {
        let mut index = Index::new(Settings {
            mode,
            ..Settings::default()
        });
        for item in world.items() {
            index.apply(item);
        }
        index.set_learned(learned.clone());
        let mut engine = Self::over(index, MemTables::default(), mode);
        engine.commit();
        engine
    }

    /// An engine over an index and the tables that its deltas so far have made.
    #[must_use]
    pub const fn over(index: Index, tables: MemTables, mode: Mode) -> Self {
        Self {
            index,
            tables,
            mode,
        }
    }

    /// The index, to change the world; [`Engine::commit`] makes changes hold.
    pub const fn index(&mut self) -> &mut Index {
        &mut self.index
    }

    /// Makes changes of the index hold.
    pub fn commit(&mut self) -> crate::Delta {
        let delta = self.index.commit();
        self.tables.apply(&delta);
        delta
    }

    /// The tables.
    #[must_use]
    pub const fn tables(&self) -> &MemTables {
        &self.tables
    }

    /// Judges a query.
    #[must_use]
    pub fn answer(&self, query: &Query) -> Answer {
        let egress = self.side(query, End::Source);
        let ingress = self.side(query, End::Destination);
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

    fn side(&self, query: &Query, end: End) -> Side {
        let (subject, peer, peer_address) = match end {
            End::Source => (&query.from, &query.to, query.destination),
            End::Destination => (&query.to, &query.from, query.source),
        };
        let Target::Pod(pod) = subject else {
            return bare(SideVerdict::NotEnforced, Reason::DefaultAllow);
        };
        if subject == peer {
            return bare(SideVerdict::Allowed, Reason::Itself);
        }
        let info = self.tables.lookup(peer_address).unwrap_or_default();
        if info.identity == Identity::UNKNOWN && self.mode != Mode::Never {
            return bare(SideVerdict::Denied, Reason::Unknown);
        }
        let judgement = self.judge(pod, end, info, query);
        self.decode(&judgement, query)
    }

    fn judge(&self, pod: &PodRef, end: End, info: AddressInfo, query: &Query) -> Judgement {
        let endpoint = self.tables.endpoint(pod);
        let (table, node) = endpoint.map_or((0, 0), |endpoint| match end {
            End::Source => (endpoint.egress, endpoint.node),
            End::Destination => (endpoint.ingress, endpoint.node),
        });
        let own_node = info.flags & AddressInfo::NODE != 0 && info.node == node;
        let peer = if own_node {
            info.host_identity
        } else {
            info.identity
        };
        judge(&self.tables, table, peer, query.protocol, query.port)
    }

    /// From a judgement to the words of an answer; requests are judged after a redirect.
    #[must_use]
    pub fn decode(&self, judgement: &Judgement, query: &Query) -> Side {
        let rule = self.index.rule(judgement.cookie);
        let reason = reason(judgement.cookie);
        let passed = match judgement.verdict {
            Verdict::Allow => {
                return Side {
                    verdict: SideVerdict::Allowed,
                    reason,
                    rule,
                };
            }
            Verdict::Deny | Verdict::DenyConflict | Verdict::DenyAuthentication => {
                return Side {
                    verdict: SideVerdict::Denied,
                    reason,
                    rule,
                };
            }
            Verdict::Redirect => self.tables.redirect(judgement.redirect).map(|set| {
                (
                    set.passes(query.http.as_ref(), query.dns.as_deref()),
                    set.pass_unmatched,
                )
            }),
        };
        let verdict = match passed {
            Some((None, _)) => SideVerdict::Redirected,
            Some((Some(true), _)) => SideVerdict::Allowed,
            Some((Some(false), true)) => {
                return bare(SideVerdict::Allowed, Reason::DefaultAllow);
            }
            Some((Some(false), false)) | None => SideVerdict::Denied,
        };
        Side {
            verdict,
            reason,
            rule,
        }
    }

    /// The identity that others see at an address, for people.
    #[must_use]
    pub fn identity(&self, address: IpAddr) -> Option<Identity> {
        self.tables.lookup(address).map(|info| info.identity)
    }
}

#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

const fn bare(verdict: SideVerdict, reason: Reason) -> Side {
    Side {
        verdict,
        reason,
        rule: None,
    }
}

/// The circumstance a cookie stands for.
const fn reason(cookie: Cookie) -> Reason {
    match cookie {
        Cookie::DEFAULT_ALLOW => Reason::DefaultAllow,
        Cookie::LOCAL_HOST => Reason::LocalHost,
        Cookie::SELF => Reason::Itself,
        Cookie::MODE_NEVER | Cookie::MODE_ALWAYS => Reason::Mode,
        Cookie::UNKNOWN => Reason::Unknown,
        cookie if cookie.is_rule() => Reason::Rule,
        // A missing table or default denies as one that allows nothing.
        _ => Reason::DefaultDeny,
    }
}
