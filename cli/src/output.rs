//! What the commands print with: colours that a terminal shows and a file doesn't get, tables, the structured forms.

use std::{fmt::Write as _, io::Write as _};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::arguments::AnyFormat;

/// What passes.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What doesn't.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// What one should look at.
pub(crate) const NOTICE: Style = AnsiColor::Yellow.on_default();
/// Headings.
pub(crate) const HEADING: Style = Style::new().bold();

/// Width to print to where standard output is no terminal.
const PLAIN_WIDTH: usize = 120;

/// Text in a style.
pub(crate) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints to standard output; colours only reach a terminal, and `NO_COLOR` is heeded. That nobody reads on is no error.
pub(crate) fn print(text: &str) {
    let _ = anstream::stdout().lock().write_all(text.as_bytes());
}

/// Prints an error to standard error.
pub(crate) fn error(text: &str) {
    let _ = writeln!(
        anstream::stderr(),
        "{} {text}",
        styled(BAD.bold(), "error:")
    );
}

/// Prints a warning to standard error.
pub(crate) fn warning(text: &str) {
    let _ = writeln!(
        anstream::stderr(),
        "{} {text}",
        styled(NOTICE.bold(), "warning:")
    );
}

/// Prints a remark to standard error.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Prints a document in a structured form, or as the text that `table` makes.
///
/// # Errors
/// Where it can't be written in this form.
pub(crate) fn document<T: Serialize>(
    format: AnyFormat,
    document: &T,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match format {
        AnyFormat::Table => print(&table()),
        AnyFormat::Json => print(&(serde_json::to_string_pretty(document)? + "\n")),
        AnyFormat::Yaml => print(&serde_yaml_ng::to_string(document)?),
    }
    Ok(())
}

/// The columns there are to print on.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(PLAIN_WIDTH, |(width, _)| usize::from(width.0))
}

/// The columns of the terminal that is printed to; `None` where it is none, and nothing need be cut.
pub(crate) fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0))
}

/// A table of cells, each with its style, under headings.
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<(Style, String)>) {
        self.rows.push(cells);
    }

    /// The table as text.
    pub(crate) fn render(&self) -> String {
        self.render_within(None)
    }

    /// The table as text, its widest columns cut until it is no wider than this.
    pub(crate) fn render_within(&self, limit: Option<usize>) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| heading.len()).collect();
        for row in &self.rows {
            for (width, (_, text)) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        if let Some(limit) = limit {
            narrow(&mut widths, limit);
        }
        let headings: Vec<_> = self
            .headings
            .iter()
            .map(|heading| (HEADING, (*heading).to_owned()))
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            line(&mut text, row, &widths);
        }
        text
    }
}

/// Takes from the widest until all fit with their gaps, or are so narrow that cutting more would leave nothing.
fn narrow(widths: &mut [usize], limit: usize) {
    const LEAST: usize = 6;
    let gaps = 2 * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > limit {
        match widths.iter_mut().max() {
            Some(widest) if *widest > LEAST => *widest -= 1,
            _ => return,
        }
    }
}

/// The text, cut to a width where it is wider.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

fn line(text: &mut String, cells: &[(Style, String)], widths: &[usize]) {
    let last = cells.len().saturating_sub(1);
    for (index, ((style, cell), width)) in cells.iter().zip(widths).enumerate() {
        let cell = cut(cell, *width);
        let padding = if index == last {
            0
        } else {
            width - cell.chars().count() + 2
        };
        let _ = write!(text, "{style}{cell}{style:#}{:padding$}", "");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec![
            (Style::new(), "wide".into()),
            (Style::new(), "x".into()),
        ]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(plain, "A     B\nwide  x\n");
    }

    #[test]
    fn the_widest_column_is_cut_and_no_other() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec![
            (Style::new(), "short".into()),
            (Style::new(), "x".repeat(40)),
        ]);
        let plain = anstream::adapter::strip_str(&table.render_within(Some(20))).to_string();
        assert_eq!(plain, format!("A      B\nshort  {}…\n", "x".repeat(12)));
        // Nothing is cut to nothing.
        let least = anstream::adapter::strip_str(&table.render_within(Some(1))).to_string();
        assert!(least.contains("xxxxx…"), "{least}");
    }
}
