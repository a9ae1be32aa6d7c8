//! A matrix as text that fits the terminal: numbered columns, in as many blocks as it takes, and a legend of the deciding rules.

use std::fmt::Write as _;

use anstyle::Style;

use super::ask::{Cell, Matrix};
use crate::{
    output::{BAD, GOOD, HEADING, NOTICE},
    policy::rule,
};
use sluice_world::{Side, SideVerdict};

/// Columns that a cell takes, the space before it included.
const CELL: usize = 6;

/// The matrix as text.
pub(super) fn text(matrix: &Matrix, width: usize) -> String {
    let mut legend = Legend::default();
    let count = matrix.ends.len();
    let labels: Vec<String> = matrix
        .ends
        .iter()
        .enumerate()
        .map(|(index, end)| format!("{:>3} {}", index + 1, short(end)))
        .collect();
    let label_width = labels
        .iter()
        .map(|label| label.chars().count())
        .max()
        .unwrap_or(0);
    let columns = (width.saturating_sub(label_width) / CELL).clamp(1, count.max(1));

    let mut text = String::new();
    for block in (0..count).step_by(columns) {
        let block = block..(block + columns).min(count);
        let _ = write!(text, "{HEADING}{:label_width$}", "from \\ to");
        for column in block.clone() {
            let _ = write!(text, "{:>CELL$}", column + 1);
        }
        let _ = writeln!(text, "{HEADING:#}");
        for (row, label) in labels.iter().enumerate() {
            let _ = write!(text, "{label:label_width$}");
            for column in block.clone() {
                let (style, word) = legend.cell(matrix, &matrix.ends[row], &matrix.ends[column]);
                let _ = write!(
                    text,
                    "{:>padding$}{style}{word}{style:#}",
                    "",
                    padding = CELL - word.chars().count()
                );
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text + &legend.text()
}

/// Deciding rules by number, as they turn up.
#[derive(Default)]
struct Legend {
    entries: Vec<String>,
}

impl Legend {
    /// What a pair's cell shows: whether it passes and the number of what decided.
    fn cell(&mut self, matrix: &Matrix, from: &str, to: &str) -> (Style, String) {
        let cells: Vec<&Cell> = matrix
            .cells
            .iter()
            .filter(|cell| cell.from == from && cell.to == to)
            .collect();
        let judged: Vec<&Cell> = cells
            .into_iter()
            .filter(|cell| cell.error.is_none())
            .collect();
        let Some(first) = judged.first() else {
            return (Style::new(), "-".into());
        };
        let allowed = judged
            .iter()
            .filter(|cell| cell.verdict == "allowed")
            .count();
        // Of several ports, one whose verdict is the pair's shows the rule.
        let (style, mark, shown) = if allowed == judged.len() {
            (GOOD, "✓", first)
        } else if allowed == 0 {
            (BAD, "✗", first)
        } else {
            let denied = judged
                .iter()
                .find(|cell| cell.verdict == "denied")
                .unwrap_or(first);
            (NOTICE, "±", denied)
        };
        (style, format!("{mark}{}", self.number(deciding(shown))))
    }

    fn number(&mut self, entry: String) -> usize {
        let known = self.entries.iter().position(|known| *known == entry);
        known.unwrap_or_else(|| {
            self.entries.push(entry);
            self.entries.len() - 1
        }) + 1
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{GOOD}✓{GOOD:#} allowed   {BAD}✗{BAD:#} denied   {NOTICE}±{NOTICE:#} some ports only   - no such packet\n"
        );
        for (index, entry) in self.entries.iter().enumerate() {
            let _ = writeln!(text, "{:>5}  {entry}", index + 1);
        }
        text
    }
}

/// What decided a pair: the side that denies, or else the one that a rule allows.
fn deciding(cell: &Cell) -> String {
    let sides = [("egress", &cell.egress), ("ingress", &cell.ingress)];
    let sides: Vec<(&str, &Side)> = sides
        .into_iter()
        .filter_map(|(name, side)| Some((name, side.as_ref()?)))
        .collect();
    let denying = sides
        .iter()
        .find(|(_, side)| side.verdict == SideVerdict::Denied);
    let ruled = sides.iter().rev().find(|(_, side)| side.rule.is_some());
    let enforced = sides
        .iter()
        .rev()
        .find(|(_, side)| side.verdict != SideVerdict::NotEnforced);
    match denying.or(ruled).or(enforced) {
        Some((name, side)) => format!("{}, {name} side", rule::decided_by(side)),
        None => "not enforced: no pod takes part".into(),
    }
}

/// An end without its form where that is clear.
fn short(end: &str) -> &str {
    end.strip_prefix("pod:").unwrap_or(end)
}
