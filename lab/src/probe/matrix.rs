//! The matrix as text: rows are what is listened on, columns are who asks, a cell says whether it is reached and by which rule.
//! Making attempts may not enter.

use std::{collections::BTreeMap, fmt::Write as _};

use sluice_world::{Answer, Reason, Side, SideVerdict};

use super::{Transport, report::Cell};

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Use the terminal's colours.
    pub colour: bool,
}

/// The matrix and, below it, the numbered reasons its cells refer to.
#[must_use]
pub fn render(cells: &[Cell], style: Style) -> String {
    let mut reasons = Reasons::default();
    let rows = rows(cells, &mut reasons);
    let mut columns: Vec<&str> = cells.iter().map(|cell| cell.from.as_str()).collect();
    columns.sort_unstable();
    columns.dedup();
    let width = rows
        .keys()
        .map(|row| row.to_string().chars().count())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut text = String::new();
    heads(&mut text, &columns, width);
    for (row, by_source) in &rows {
        let _ = write!(text, "{:width$} ", row.to_string());
        for column in &columns {
            text.push_str(
                &by_source
                    .get(column)
                    .map_or_else(|| format!("{:WIDTH$}", "·"), |mark| mark.paint(style)),
            );
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    reasons.write(&mut text);
    text
}

/// How wide a column is: a sign and a number of up to three digits.
const WIDTH: usize = 5;

/// What is listened on, ordered and printed by pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row<'a> {
    to: &'a str,
    transport: Transport,
    port: u16,
}

impl std::fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.transport {
            Transport::Tcp => write!(f, "{} {}/TCP", self.to, self.port),
            Transport::Udp => write!(f, "{} {}/UDP", self.to, self.port),
            Transport::Icmp => write!(f, "{} ping", self.to),
        }
    }
}

/// One place of the matrix: all families of one flow together.
#[derive(Default)]
struct Mark {
    reached_v4: Option<bool>,
    reached_v6: Option<bool>,
    wrong: bool,
    reason: usize,
}

impl Mark {
    fn paint(&self, style: Style) -> String {
        let (sign, colour) = match (self.reached_v4, self.reached_v6) {
            _ if self.wrong => ("!", "\x1b[1;33m"),
            (Some(true) | None, Some(true)) | (Some(true), None) => ("✓", "\x1b[32m"),
            (Some(true), Some(false)) => ("4:", "\x1b[33m"),
            (Some(false), Some(true)) => ("6:", "\x1b[33m"),
            _ => ("✗", "\x1b[31m"),
        };
        let text = format!("{:WIDTH$}", format!("{sign}{}", self.reason));
        if style.colour {
            format!("{colour}{text}\x1b[0m")
        } else {
            text
        }
    }
}

fn rows<'a>(
    cells: &'a [Cell],
    reasons: &mut Reasons,
) -> BTreeMap<Row<'a>, BTreeMap<&'a str, Mark>> {
    let mut rows: BTreeMap<Row<'a>, BTreeMap<&'a str, Mark>> = BTreeMap::new();
    for cell in cells {
        let row = Row {
            to: &cell.to,
            transport: cell.transport,
            port: cell.port,
        };
        let mark = rows.entry(row).or_default().entry(&cell.from).or_default();
        let family = if cell.address.is_ipv4() {
            &mut mark.reached_v4
        } else {
            &mut mark.reached_v6
        };
        *family = Some(cell.reached);
        mark.wrong |= !cell.agrees();
        // Where the families differ, the denial is the more telling reason; else they are the same or the first is as good.
        if mark.reason == 0 || !cell.reached {
            mark.reason = reasons.number(explain(&cell.answer));
        }
    }
    rows
}

/// The names of the columns, each with a line down to its column.
fn heads(text: &mut String, columns: &[&str], width: usize) {
    let indent = " ".repeat(width + 1);
    for (index, column) in columns.iter().enumerate() {
        text.push_str(&indent);
        for _ in 0..index {
            let _ = write!(text, "{:WIDTH$}", "│");
        }
        let _ = writeln!(text, "┌ {column}");
    }
}

/// The different reasons, numbered from 1 in the order in which they turn up.
#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    fn number(&mut self, reason: String) -> usize {
        if let Some(index) = self.0.iter().position(|known| *known == reason) {
            return index + 1;
        }
        self.0.push(reason);
        self.0.len()
    }

    fn write(&self, text: &mut String) {
        text.push_str("\n✓ reached  ✗ not reached  4: 6: only over that family  ! not as policy says  · itself\n");
        for (index, reason) in self.0.iter().enumerate() {
            let _ = writeln!(text, "{:>4} {reason}", index + 1);
        }
    }
}

/// One line on what decided: of a denial the side that denied, of anything else both sides.
#[must_use]
pub fn explain(answer: &Answer) -> String {
    for (word, side) in [("egress", &answer.egress), ("ingress", &answer.ingress)] {
        if side.verdict == SideVerdict::Denied {
            return format!("denied at {word}: {}", side_text(side));
        }
    }
    if answer.egress == answer.ingress {
        return format!("allowed both ways: {}", side_text(&answer.egress));
    }
    format!(
        "allowed: egress {}, ingress {}",
        side_text(&answer.egress),
        side_text(&answer.ingress)
    )
}

fn side_text(side: &Side) -> String {
    let mut text = match (&side.rule, side.reason) {
        (Some(rule), _) => rule.to_string(),
        (None, _) if side.verdict == SideVerdict::NotEnforced => "no policy subject".to_owned(),
        (None, Reason::Rule) => "a rule".to_owned(),
        (None, Reason::DefaultDeny) => "selected, and no rule allows it".to_owned(),
        (None, Reason::DefaultAllow) => "no policy selects it".to_owned(),
        (None, Reason::LocalHost) => "the node reaches its own pods".to_owned(),
        (None, Reason::Itself) => "a pod reaches itself".to_owned(),
        (None, Reason::Mode) => "the enforcement mode".to_owned(),
        (None, Reason::Unknown) => "unknown address inside the cluster".to_owned(),
    };
    if side.verdict == SideVerdict::Redirected {
        text.push_str(" (to a proxy)");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use sluice_world::{RuleRef, Section};

    use super::*;
    use crate::probe::Outcome;

    fn side(verdict: SideVerdict, reason: Reason, rule: Option<RuleRef>) -> Side {
        Side {
            verdict,
            reason,
            rule,
        }
    }

    fn rule(name: &str) -> RuleRef {
        RuleRef {
            kind: "NetworkPolicy".to_owned(),
            namespace: Some("shop".to_owned()),
            name: name.to_owned(),
            spec: 0,
            section: Section::Ingress,
            index: 2,
            tier: "namespace".to_owned(),
            action: "allow".to_owned(),
        }
    }

    fn cell(from: &str, to: &str, v4: bool, reached: bool, ingress: Side) -> Cell {
        let address: IpAddr = if v4 {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        };
        let verdict = if ingress.verdict == SideVerdict::Denied {
            SideVerdict::Denied
        } else {
            SideVerdict::Allowed
        };
        Cell {
            from: from.to_owned(),
            to: to.to_owned(),
            transport: Transport::Tcp,
            port: 80,
            address,
            outcome: Outcome::Silence,
            reached,
            expected: verdict == SideVerdict::Allowed,
            answer: Answer {
                id: String::new(),
                verdict,
                egress: side(SideVerdict::Allowed, Reason::DefaultAllow, None),
                ingress,
            },
        }
    }

    #[test]
    fn a_cell_names_the_rule_and_both_families_share_a_sign() {
        let allowed = || side(SideVerdict::Allowed, Reason::Rule, Some(rule("front")));
        let denied = || side(SideVerdict::Denied, Reason::DefaultDeny, None);
        let text = render(
            &[
                cell("shop/a", "shop/b", true, true, allowed()),
                cell("shop/a", "shop/b", false, true, allowed()),
                cell("shop/c", "shop/b", true, false, denied()),
                cell("shop/c", "shop/b", false, false, denied()),
            ],
            Style::default(),
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].trim_start(), "┌ shop/a");
        assert_eq!(lines[1].trim_start(), "│    ┌ shop/c");
        assert_eq!(lines[2], "shop/b 80/TCP ✓1   ✗2");
        assert!(text.contains("   1 allowed: egress no policy selects it, ingress NetworkPolicy shop/front ingress[2] (allow)"));
        assert!(text.contains("   2 denied at ingress: selected, and no rule allows it"));
    }

    #[test]
    fn a_difference_between_families_or_from_policy_shows() {
        let allowed = || side(SideVerdict::Allowed, Reason::Rule, Some(rule("front")));
        let denied = || side(SideVerdict::Denied, Reason::DefaultDeny, None);
        let one_family = [
            cell("a", "b", true, true, allowed()),
            cell("a", "b", false, false, denied()),
        ];
        assert!(render(&one_family, Style::default()).contains("b 80/TCP 4:2"));
        let lie = [cell("a", "b", true, false, allowed())];
        assert!(render(&lie, Style::default()).contains("b 80/TCP !1"));
    }
}
