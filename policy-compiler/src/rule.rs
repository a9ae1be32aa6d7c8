//! One rule form for every policy API, after selectors, prefixes and names have become numbers. How an API's text becomes this is
//! [`crate::convert`]'s; how it becomes tables is `table`'s.

use std::sync::Arc;

use sluice_abi::{Cookie, Scope};
use sluice_crds::parsed::{Authentication, FqdnSelector, L7Rules, Listener, PolicyRef, TlsContext};
use sluice_world::Section;

use crate::{
    intern::Symbol,
    program::{Cell, NamespaceWord, Part, Program, Rank, Span, TierAction, TierWord},
    properties::NamedPort,
    registry::SelectorId,
};

/// Which way traffic goes, seen from the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the subject.
    Ingress,
    /// From the subject.
    Egress,
}

/// The tiers, first looked at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Ordered, before the namespaced policies.
    Admin,
    /// `NetworkPolicy` and Cilium-style rules together.
    Namespace,
    /// Ordered, after them.
    Baseline,
}

impl Tier {
    /// The tier as rule references spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Namespace => "namespace",
            Self::Baseline => "baseline",
        }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Allows.
    Allow,
    /// Denies.
    Deny,
    /// Skips the rest of its tier.
    Pass,
}

impl Action {
    /// The action as rule references spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Pass => "pass",
        }
    }
}

/// Where a rule set stands among all rule sets of a direction. The derived order is the order of precedence and, within the namespace
/// tier, of showing. Kinds are compared as spelled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The tier.
    pub tier: Tier,
    /// The priority within an ordered tier; 0 in the namespace tier.
    pub priority: u16,
    /// Kind of the policy.
    pub kind: &'static str,
    /// Namespace of the policy.
    pub namespace: Option<Arc<str>>,
    /// Name of the policy.
    pub name: Arc<str>,
    /// Which of its specs.
    pub spec: u32,
}

/// Everything one policy spec says about one direction of its subjects.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// Which policy object.
    pub policy: PolicyRef,
    /// Its place.
    pub place: Place,
    /// The direction.
    pub direction: Direction,
    /// Whom it governs.
    pub subject: SelectorId,
    /// Makes its subjects default-deny.
    pub default_deny: bool,
    /// Its rules, by section and index.
    pub rules: Vec<Rule>,
}

/// One rule: any of its peers AND any of its traffic.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which list of the policy it is in.
    pub section: Section,
    /// Where in that list.
    pub index: u32,
    /// What it does.
    pub action: Action,
    /// Scopes whose every member is a peer by definition, one bit each.
    pub scopes: Scopes,
    /// Selectors of further peers.
    pub peers: Vec<SelectorId>,
    /// For an egress rule by port name: selectors of the pods that have such a port.
    pub name_holders: Vec<SelectorId>,
    /// What traffic.
    pub traffic: Vec<Traffic>,
    /// Asks for its verdicts to be logged.
    pub log: bool,
    /// Mutual authentication asked for.
    pub authentication: Option<Authentication>,
    /// The number by which verdicts name the rule.
    pub cookie: Cookie,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub const ALL: Self = Self(0b1_1111);

    /// The set of these scopes.
    #[must_use]
    pub const fn of(scopes: &[Scope]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < scopes.len() {
            bits |= 1 << scopes[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the scope is in the set.
    #[must_use]
    pub const fn holds(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One `toPorts` entry or its equal: points, and what a proxy has to see to there.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Points given by number.
    pub spans: Vec<Span>,
    /// Points given by port name: (name, protocol), `None` for the port's own protocol.
    pub names: Vec<(Symbol, Option<u8>)>,
    /// What a proxy has to see to; `None` for plain traffic.
    pub proxy: Option<Arc<ProxyRule>>,
}

/// What a proxy has to see to, by content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyRule {
    /// Rules of an L7 protocol.
    pub l7: Option<L7Rules>,
    /// TLS towards the client.
    pub terminating_tls: Option<TlsContext>,
    /// TLS towards the server.
    pub originating_tls: Option<TlsContext>,
    /// Server names; none is any.
    pub server_names: Vec<FqdnSelector>,
    /// A custom listener.
    pub listener: Option<Listener>,
}

impl Rule {
    /// The rule as an unresolved program, with `ports` standing for the port names of whoever they are resolved by.
    #[must_use]
    pub fn program(&self, tier: Tier, rank: Rank, ports: &[NamedPort]) -> Program {
        let mut programs = Vec::with_capacity(self.traffic.len());
        for (part, traffic) in (0..).zip(&self.traffic) {
            let cell = self.cell(tier, rank, traffic.proxy.is_some().then_some(part));
            if traffic.names.is_empty() {
                programs.push(Program::of(&traffic.spans, &cell));
                continue;
            }
            let mut spans = traffic.spans.clone();
            for (name, protocol) in &traffic.names {
                let meant = |port: &&NamedPort| {
                    port.name == *name && protocol.is_none_or(|protocol| protocol == port.protocol)
                };
                spans.extend(
                    ports
                        .iter()
                        .filter(meant)
                        .map(|p| Span::ports(p.protocol, p.port, p.port)),
                );
            }
            programs.push(Program::of(&spans, &cell));
        }
        Program::join_all(programs)
    }

    /// Whether it is the other, cookies apart.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            section,
            index,
            action,
            scopes,
            peers,
            name_holders,
            traffic,
            log,
            authentication,
            cookie: _,
        } = self;
        (section, index, action, scopes, log, authentication)
            == (
                &other.section,
                &other.index,
                &other.action,
                &other.scopes,
                &other.log,
                &other.authentication,
            )
            && (peers, name_holders, traffic) == (&other.peers, &other.name_holders, &other.traffic)
    }

    /// Whether some of its traffic is given by port name.
    #[must_use]
    pub fn uses_names(&self) -> bool {
        self.traffic.iter().any(|traffic| !traffic.names.is_empty())
    }

    /// Whether some of its traffic is given by this port name.
    #[must_use]
    pub fn names_port(&self, name: Symbol) -> bool {
        self.traffic
            .iter()
            .any(|traffic| traffic.names.iter().any(|known| known.0 == name))
    }

    fn cell(&self, tier: Tier, rank: Rank, proxy: Option<Part>) -> Cell {
        let mut cell = Cell::default();
        match tier {
            Tier::Admin => cell.admin = Some(self.word(rank)),
            Tier::Baseline => cell.baseline = Some(self.word(rank)),
            Tier::Namespace => cell.namespace = self.namespace_word(rank, proxy),
        }
        cell
    }

    const fn word(&self, rank: Rank) -> TierWord {
        let action = match self.action {
            Action::Allow => TierAction::Accept,
            Action::Deny => TierAction::Deny,
            Action::Pass => TierAction::Pass,
        };
        TierWord { rank, action }
    }

    fn namespace_word(&self, rank: Rank, proxy: Option<Part>) -> NamespaceWord {
        let mut word = NamespaceWord::default();
        if self.action == Action::Deny {
            word.deny = Some(rank);
            word.deny_log = self.log;
            return word;
        }
        match proxy {
            Some(part) => word.redirects = vec![(rank, part)],
            None => word.allow = Some(rank),
        }
        word.authentication = self.authentication.map(|mode| (mode, rank));
        word.allow_log = self.log;
        word
    }
}
