//! Why a query is answered as it is: for each side the deciding rule, every other rule that matched, and for a denial that no rule
//! decided the rules that nearly allowed it.

use std::fmt;

use serde::Serialize;
use sluice_world::{Answer, Query, Reason, RuleRef, Section, Side, SideVerdict};

use crate::{
    case::Direction,
    considered::{Considered, Effect},
    decide::Tiers,
    evaluator::Evaluator,
};

/// How many near misses the text form shows; the structured form has all.
const SHOWN_MISSES: usize = 3;

/// Both sides of a query, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The answer that is explained.
    pub answer: Answer,
    /// The source's side.
    pub egress: SideExplanation,
    /// The destination's side.
    pub ingress: SideExplanation,
}

/// One side of a query, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SideExplanation {
    /// In one sentence.
    pub because: String,
    /// Every rule that matched, the deciding one first, then in the order of tiers and names.
    pub matched: Vec<MatchedRule>,
    /// For a denial that no rule decided: rules that would have allowed it, the nearest first. Else empty.
    pub near_misses: Vec<NearMiss>,
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MatchedRule {
    /// Which rule.
    pub rule: RuleRef,
    /// What it does: `allow`, `redirect`, `deny` or `pass`.
    pub effect: &'static str,
    /// Whether it decided.
    pub deciding: bool,
}

/// A rule that would have allowed the traffic, but for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NearMiss {
    /// Which rule.
    pub rule: RuleRef,
    /// For what it does not match; at least one.
    pub but_for: Vec<Difference>,
}

/// One thing for which a rule does not match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `label`, `namespace`, `peer-kind`, `cidr`, `except`, `entity`, `name`, `service`, `port`, `protocol`, `icmp-type` or `nothing`.
    pub dimension: &'static str,
    /// In words: what the rule wants and what was found.
    pub text: String,
}

impl Evaluator<'_> {
    /// Judges one query and says why.
    #[must_use]
    pub fn explain(&self, query: &Query) -> Explanation {
        let (egress, egress_tiers) = self.side(query, Direction::Egress);
        let (ingress, ingress_tiers) = self.side(query, Direction::Ingress);
        Explanation {
            egress: explain_side(&egress, &egress_tiers),
            ingress: explain_side(&ingress, &ingress_tiers),
            answer: self.evaluate(query),
        }
    }
}

fn explain_side(side: &Side, tiers: &Tiers<'_>) -> SideExplanation {
    let all = || {
        tiers
            .admin
            .iter()
            .chain(&tiers.namespace)
            .chain(&tiers.baseline)
    };
    let mut matched: Vec<_> = all()
        .filter(|considered| considered.matches())
        .map(|it| matched_rule(it, side))
        .collect();
    matched.sort_by_key(|matched| !matched.deciding);
    let undecided = matches!(
        (side.verdict, side.reason),
        (SideVerdict::Denied, Reason::DefaultDeny | Reason::Mode)
    );
    let near_misses = if undecided {
        near_misses(tiers)
    } else {
        Vec::new()
    };
    SideExplanation {
        because: because(side),
        matched,
        near_misses,
    }
}

fn matched_rule(considered: &Considered<'_>, side: &Side) -> MatchedRule {
    let rule = considered.rule();
    MatchedRule {
        effect: match &considered.effect {
            Effect::Allow { proxies, .. } if !proxies.is_empty() => "redirect",
            effect => effect.action(),
        },
        deciding: side.rule.as_ref() == Some(&rule),
        rule,
    }
}

/// Rules that allow, by how many things they miss for, then how far off these are, then name.
fn near_misses(tiers: &Tiers<'_>) -> Vec<NearMiss> {
    let allows = tiers
        .admin
        .iter()
        .chain(&tiers.namespace)
        .filter(|it| it.is_allow() && !it.matches());
    let mut ranked: Vec<_> = allows
        .map(|considered| {
            let distance: usize = considered
                .misses
                .iter()
                .map(crate::miss::Miss::distance)
                .sum();
            (
                (considered.misses.len(), distance, considered.rule()),
                considered,
            )
        })
        .collect();
    ranked.sort_by(|(left, _), (right, _)| left.cmp(right));
    let miss = |((_, _, rule), considered): ((usize, usize, RuleRef), &Considered<'_>)| NearMiss {
        rule,
        but_for: considered
            .misses
            .iter()
            .map(|miss| Difference {
                dimension: miss.dimension(),
                text: miss.to_string(),
            })
            .collect(),
    };
    ranked.into_iter().map(miss).collect()
}

fn because(side: &Side) -> String {
    match (side.reason, &side.rule) {
        (Reason::Rule, Some(rule)) => format!("{} by {}", word(side.verdict), Named(rule)),
        (Reason::Rule, None) => format!("{} by a rule", word(side.verdict)),
        (Reason::DefaultDeny, _) => {
            "denied: a policy selects the pod in this direction, and no rule allows this".into()
        }
        (Reason::DefaultAllow, _) if side.verdict == SideVerdict::NotEnforced => {
            "not enforced: this side is no pod".into()
        }
        (Reason::DefaultAllow, _) => "allowed: no policy denies this".into(),
        (Reason::LocalHost, _) => "allowed: a node may reach the pods it runs".into(),
        (Reason::Itself, _) => "allowed: a pod always reaches itself".into(),
        (Reason::Mode, _) if side.verdict == SideVerdict::Denied => {
            "denied: in mode always what no rule allows is denied".into()
        }
        (Reason::Mode, _) => "allowed: in mode never no policy is enforced".into(),
        (Reason::Unknown, _) => {
            "denied: the peer's address is inside the cluster, but nothing there has it".into()
        }
    }
}

const fn word(verdict: SideVerdict) -> &'static str {
    match verdict {
        SideVerdict::Allowed => "allowed",
        SideVerdict::Denied => "denied",
        SideVerdict::Redirected => "redirected to a proxy",
        SideVerdict::NotEnforced => "not enforced",
    }
}

/// A rule's name for people: `SluiceNetworkPolicy shop/web ingress[0]`.
struct Named<'a>(&'a RuleRef);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        write!(f, "{} ", rule.kind)?;
        if let Some(namespace) = &rule.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{} ", rule.name)?;
        if rule.spec > 0 {
            write!(f, "specs[{}].", rule.spec)?;
        }
        let section = match rule.section {
            Section::Ingress => "ingress",
            Section::IngressDeny => "ingressDeny",
            Section::Egress => "egress",
            Section::EgressDeny => "egressDeny",
        };
        write!(f, "{section}[{}] (tier {})", rule.index, rule.tier)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", word(self.answer.verdict))?;
        write!(f, "egress:  {}", self.egress)?;
        write!(f, "ingress: {}", self.ingress)
    }
}

impl fmt::Display for SideExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.because)?;
        for matched in self.matched.iter().filter(|matched| !matched.deciding) {
            writeln!(
                f,
                "  also matched: {} ({})",
                Named(&matched.rule),
                matched.effect
            )?;
        }
        for miss in self.near_misses.iter().take(SHOWN_MISSES) {
            writeln!(f, "  would have allowed it: {}, but", Named(&miss.rule))?;
            for difference in &miss.but_for {
                writeln!(f, "    {}", difference.text)?;
            }
        }
        let hidden = self.near_misses.len().saturating_sub(SHOWN_MISSES);
        if hidden > 0 {
            writeln!(f, "  and {hidden} more rules, further off")?;
        }
        Ok(())
    }
}
