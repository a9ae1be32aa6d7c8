//! The rules of one table by rank, and what each of them says. Peers may not enter.

use sluice_abi::Scope;

use crate::{
    program::{Program, Rank},
    properties::NamedPort,
    rule::{Direction, Rule, Tier},
    sets::Installed,
};

/// The rules of one table, by rank: those of its rule sets one after another.
#[derive(Debug, Default)]
pub(super) struct Rules<'a> {
    /// Each with the rank of its first rule.
    sets: Vec<(u32, &'a Installed)>,
    pub(super) length: u32,
}

impl<'a> Rules<'a> {
    pub(super) fn push(&mut self, installed: &'a Installed) {
        self.sets.push((self.length, installed));
        self.length += count(installed.set().rules.len());
    }

    pub(super) fn get(&self, rank: u32) -> Option<(Tier, &'a Rule)> {
        let behind = self.sets.partition_point(|(first, _)| *first <= rank);
        let (first, installed) = self.sets.get(behind.checked_sub(1)?)?;
        let set = installed.set();
        let rule = set.rules.get((rank - first) as usize)?;
        Some((set.place.tier, rule))
    }

    /// All of them, in order of rank.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a Rule> {
        self.sets
            .iter()
            .flat_map(|(_, installed)| &installed.set().rules)
    }

    /// Those that cover the scope, with their ranks.
    pub(super) fn covering(&self, scope: Scope) -> impl Iterator<Item = u32> {
        self.sets.iter().flat_map(move |(first, installed)| {
            let rules = installed.covering();
            rules
                .filter(move |(_, rule)| rule.scopes.holds(scope))
                .map(move |(position, _)| first + position)
        })
    }
}

/// Which egress rules of a table are by port name, which the peer resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ByName {
    None,
    /// Some, none of which covers a scope.
    Some,
    /// One that covers a scope, perhaps among others.
    Covering,
}

impl ByName {
    pub(super) const fn of(rule: &Rule) -> Self {
        match (rule.name_holders.is_empty(), rule.scopes.is_empty()) {
            (true, _) => Self::None,
            (false, true) => Self::Some,
            (false, false) => Self::Covering,
        }
    }
}

/// A rule's program. Port names are resolved by the subject at ingress and by the peer at egress.
pub(super) fn rule_program(
    rules: &Rules<'_>,
    rank: u32,
    direction: Direction,
    subject: &[NamedPort],
    peer: &[NamedPort],
) -> Program {
    let Some((tier, rule)) = rules.get(rank) else {
        return Program::default();
    };
    let ports = match direction {
        Direction::Ingress => subject,
        Direction::Egress => peer,
    };
    rule.program(tier, Rank(rank), ports)
}

fn count(length: usize) -> u32 {
    // A table of four billion rules does not fit into memory.
    u32::try_from(length).unwrap_or(u32::MAX)
}
