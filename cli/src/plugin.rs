//! The program under its other name: kubectl runs `kubectl-sluice` for `kubectl sluice`, and help should then say what the person types.

use std::{ffi::OsStr, path::Path};

use clap::Command;

/// What kubectl looks for in `PATH`; an extension may follow.
const FILE: &str = "kubectl-sluice";
/// What people type then.
const TYPED: &str = "kubectl sluice";

/// The words of the program as started under this name.
pub(crate) fn command(command: Command, started_as: Option<&OsStr>) -> Command {
    let stem = started_as.and_then(|name| Path::new(name).file_stem());
    if stem == Some(OsStr::new(FILE)) {
        retold(command).bin_name(TYPED)
    } else {
        // Whatever the file is called: the pods of a test start it as `/proc/1/exe`.
        command.bin_name("sluice")
    }
}

/// Examples as they are typed with kubectl.
fn retold(command: Command) -> Command {
    let examples = command.get_after_help().map(|help| {
        help.to_string()
            .replace("  sluice ", &format!("  {TYPED} "))
            .replace("| sluice ", &format!("| {TYPED} "))
            .replace("&& sluice ", &format!("&& {TYPED} "))
    });
    let command = match examples {
        Some(examples) => command.after_help(examples),
        None => command,
    };
    command.mut_subcommands(retold)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::arguments::Sluice;

    fn help(name: &str, path: &[&str]) -> String {
        let words = [&[name], path, &["--help"]].concat();
        let command = command(Sluice::command(), Some(OsStr::new(name)));
        command.try_get_matches_from(words).unwrap_err().to_string()
    }

    #[test]
    fn help_says_what_the_person_types() {
        let plugin = help("/usr/local/bin/kubectl-sluice", &["status"]);
        assert!(plugin.contains("Usage: kubectl sluice status"), "{plugin}");
        assert!(
            plugin.contains("  kubectl sluice status --wait"),
            "{plugin}"
        );
        assert!(!plugin.contains("  sluice status"), "{plugin}");
        for name in ["sluice", "/proc/1/exe", "./target/debug/sluice"] {
            let own = help(name, &["status"]);
            assert!(own.contains("Usage: sluice status"), "{own}");
            assert!(own.contains("  sluice status --wait"), "{own}");
        }
    }

    #[test]
    fn the_words_fit_together() {
        Sluice::command().debug_assert();
    }
}
