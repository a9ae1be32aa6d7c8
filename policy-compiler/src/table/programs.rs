//! What the rules that name a peer say together: their programs joined, lowered to what the kernel runs, and given to the pool.

use std::sync::Arc;

use sluice_abi::{Cookie, Scope, policy::PeerCell};
use sluice_world::Mode;

use super::{compilation::Compilation, rules::rule_program};
use crate::{
    delta::RedirectSet,
    pool::Pool,
    program::{Lowering, Part, Program, Proxies, Rank, Shape},
    properties::NamedPort,
    rule::ProxyRule,
};

impl<'a> Compilation<'a> {
    pub(super) fn new_cell(
        &self,
        scope: Scope,
        local_host: bool,
        ports: &[NamedPort],
        ranks: &[u32],
        pool: &mut Pool,
    ) -> PeerCell {
        self.lowered(&self.program(scope, ports, ranks), local_host, pool)
    }

    pub(super) fn lowered(&self, program: &Program, local_host: bool, pool: &mut Pool) -> PeerCell {
        let lowering = Lowering {
            mode: self.sources.mode,
            default_deny: self.default_deny,
            local_host,
        };
        let lowered = lowering.lower(program, self);
        let pass_unmatched = !self.default_deny && self.sources.mode == Mode::Default;
        let (shape, slots) = Shape::of(
            &lowered,
            |rank| {
                self.rules
                    .get(rank.0)
                    .map_or(Cookie::NONE, |(_, rule)| rule.cookie)
            },
            |cell| {
                let rules = cell.redirect.iter().filter_map(|&(rank, part)| {
                    let cookie = self.rules.get(rank.0)?.1.cookie;
                    Some((cookie, Arc::clone(self.proxy(rank, part)?)))
                });
                pool.redirect(RedirectSet {
                    rules: rules.collect(),
                    pass_unmatched,
                })
            },
        );
        pool.cell(shape, slots)
    }

    fn program(&self, scope: Scope, ports: &[NamedPort], ranks: &[u32]) -> Program {
        let scope_wide = if ports.is_empty() {
            self.scopes[scope as usize].clone()
        } else {
            self.scope_program(scope, ports)
        };
        if ranks.is_empty() {
            return scope_wide;
        }
        let mut programs: Vec<Program> = ranks
            .iter()
            .map(|&rank| self.rule_program(rank, ports))
            .collect();
        programs.push(scope_wide);
        Program::join_all(programs)
    }

    pub(super) fn scope_program(&self, scope: Scope, ports: &[NamedPort]) -> Program {
        Program::join_all(
            self.rules
                .covering(scope)
                .map(|rank| self.rule_program(rank, ports))
                .collect(),
        )
    }

    fn rule_program(&self, rank: u32, ports: &[NamedPort]) -> Program {
        rule_program(&self.rules, rank, self.direction, &self.ports, ports)
    }

    fn proxy(&self, rank: Rank, part: Part) -> Option<&'a Arc<ProxyRule>> {
        let (_, rule) = self.rules.get(rank.0)?;
        rule.traffic.get(usize::from(part))?.proxy.as_ref()
    }
}

impl Proxies for Compilation<'_> {
    fn conflict(&self, entries: &[(Rank, Part)]) -> bool {
        let rules: Vec<&ProxyRule> = entries
            .iter()
            .filter_map(|&(rank, part)| Some(&**self.proxy(rank, part)?))
            .collect();
        crate::proxy::conflict(&rules)
    }
}
