//! What can go wrong, told with the program, file or object it went wrong with and what to do about it. Nothing that does
//! work may enter.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

/// Why a cluster could not be built, started, asked or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was tried, with the path or name it was tried on.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error(
        "cannot start `{command}`: {source}; `cargo xtask cluster build` installs and builds what a cluster needs"
    )]
    Start {
        /// The command as one would type it.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("`{command}` failed: {status}{}", said(.stderr))]
    Failed {
        /// The command as one would type it.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to its standard error, or to its standard output if that was empty.
        stderr: String,
    },
    /// Something that was waited for did not come.
    #[error("{what} did not happen within {} s; {hint}", .after.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// Where to look.
        hint: String,
    },
    /// Something that must be there is not.
    #[error("{what} is missing: {hint}")]
    Missing {
        /// What.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A file or an answer does not read as it should.
    #[error("{what} does not read as expected: {why}")]
    Unreadable {
        /// The file, or whose answer.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A cluster of this name runs.
    #[error("a cluster `{name}` is up: remove it with `cargo xtask cluster down --name {name}`")]
    AlreadyUp {
        /// The cluster's name.
        name: String,
    },
    /// No cluster of this name runs.
    #[error("no cluster `{name}` is up: start it with `cargo xtask cluster up --name {name}`")]
    NotUp {
        /// The cluster's name.
        name: String,
    },
    /// A number or a name given by the caller can't be.
    #[error("{what} can't be: {why}")]
    Argument {
        /// The argument.
        what: String,
        /// Why not.
        why: String,
    },
    /// Certificates could not be made.
    #[error("making the certificate of {subject}: {source}")]
    Certificate {
        /// Whose.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// Something of a removed cluster is still there.
    #[error(
        "left behind by cluster `{name}`: {what}; end what uses it and run `cargo xtask cluster down --name {name}` again"
    )]
    LeftBehind {
        /// The cluster's name.
        name: String,
        /// What is left.
        what: String,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!("\n{stderr}")
    }
}

/// What this crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds what was being done to an operating system's error.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System {
            doing: what(),
            source: source.into(),
        })
    }
}

/// So many of a log's last lines tell why something did not come.
const LINES: usize = 12;

impl Error {
    /// What was late, with the end of the log that may tell why.
    pub(crate) fn with_log(self, log: &Path) -> Self {
        match self {
            Self::Late { what, after, hint } => {
                let text = fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
                Self::Late {
                    what,
                    after,
                    hint: format!("{hint}, which ends with:\n{end}"),
                }
            }
            other => other,
        }
    }

    /// A system error with what was being done at a path.
    pub(crate) fn at(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::System {
            doing: format!("{doing} {}", path.display()),
            source,
        }
    }
}
