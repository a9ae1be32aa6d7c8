//! Figures as markdown, and the place in docs/benchmarks.md where they are kept. Measuring may not enter.

use std::{
    fmt::{self, Display},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, bail};

/// A table as markdown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        let heading = columns.iter().map(|&column| column.to_owned()).collect();
        let line = columns.iter().map(|_| "---".to_owned()).collect();
        Self {
            rows: vec![heading, line],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[&dyn Display]) {
        self.rows
            .push(cells.iter().map(ToString::to_string).collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}

/// Puts `text` between the markers of a section of the document, in place of what is there.
///
/// # Errors
/// The file can't be read or written, or lacks the markers.
pub fn write_section(document: &Path, section: &str, text: &str) -> Result<()> {
    let path = document.display();
    let whole = fs::read_to_string(document).with_context(|| format!("reading {path}"))?;
    let Some(changed) = replaced(&whole, section, text) else {
        bail!(
            "{path} lacks the lines `{}` and `{}`",
            opening(section),
            closing(section)
        );
    };
    fs::write(document, changed).with_context(|| format!("writing {path}"))
}

fn opening(section: &str) -> String {
    format!("<!-- measured: {section} -->")
}

fn closing(section: &str) -> String {
    format!("<!-- end: {section} -->")
}

fn replaced(whole: &str, section: &str, text: &str) -> Option<String> {
    let (before, rest) = whole.split_once(&opening(section))?;
    let (_, after) = rest.split_once(&closing(section))?;
    Some(format!(
        "{before}{}\n\n{}\n\n{}{after}",
        opening(section),
        text.trim(),
        closing(section)
    ))
}

/// What the machine is: processors, kernel. No names of hosts.
#[must_use]
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let values = |key: &str| -> Vec<String> {
        let lines = processors.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    };
    let models = values("model name");
    let model = models
        .first()
        .map_or("processors of unknown make", String::as_str);
    let load = read("/proc/loadavg");
    format!(
        "{} × {model}; Linux {}; {} GiB of memory; load average before: {}",
        values("processor").len(),
        read("/proc/sys/kernel/osrelease").trim(),
        memory_gib(&read("/proc/meminfo")),
        load.split(' ').next().unwrap_or("unknown"),
    )
}

fn memory_gib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    total.unwrap_or(0) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_its_surroundings_stay() {
        let whole = "a\n<!-- measured: x -->\nold\n<!-- end: x -->\nb\n";
        let changed = replaced(whole, "x", "new\n").unwrap();
        assert_eq!(
            changed,
            "a\n<!-- measured: x -->\n\nnew\n\n<!-- end: x -->\nb\n"
        );
        assert_eq!(replaced(&changed, "x", "new"), Some(changed.clone()));
        assert_eq!(replaced(whole, "y", "new"), None);
    }

    #[test]
    fn a_table_has_a_line_under_its_heading() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&[&1, &"x"]);
        assert_eq!(table.to_string(), "| a | b |\n| --- | --- |\n| 1 | x |\n");
    }
}
