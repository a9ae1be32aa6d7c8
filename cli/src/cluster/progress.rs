//! A line that says what is waited for: one that changes in place on a terminal, a new one for each change in a file.

use std::io::{IsTerminal as _, Write as _};

/// The line. On a terminal it is gone when the value is.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    shown: String,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            shown: String::new(),
        }
    }

    /// Shows this in place of what was shown before.
    pub(super) fn show(&mut self, text: &str) {
        if text == self.shown {
            return;
        }
        text.clone_into(&mut self.shown);
        let mut out = std::io::stderr().lock();
        let _ = if self.terminal {
            write!(out, "\r\x1b[2K{text}")
        } else {
            writeln!(out, "{text}")
        };
        let _ = out.flush();
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.terminal && !self.shown.is_empty() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
        self.shown.clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
