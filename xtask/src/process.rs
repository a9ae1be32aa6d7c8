//! Running other programs: each is shown before it runs, and a failure names it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Tells the user what is happening, apart from what the programs being run say.
pub(crate) fn say(message: impl AsRef<str>) {
    eprintln!("==> {}", message.as_ref());
}

/// Shows the command and runs it with this process's output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    say(format!("$ {}", shown(command)));
    let status = command
        // Nothing here may wait for an answer: CI has nobody to give one.
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`; is it installed?", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        bail!("`{}` failed: {status}", shown(command))
    }
}

/// As [`run`], with the terminal as the program's input.
pub(crate) fn run_interactive(command: &mut Command) -> Result<()> {
    say(format!("$ {}", shown(command)));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`; is it installed?", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        bail!("`{}` failed: {status}", shown(command))
    }
}

/// What the command prints on its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`; is it installed?", shown(command)))?;
    if !status.success() {
        bail!(
            "`{}` failed: {status}\n{}",
            shown(command),
            String::from_utf8_lossy(&stderr).trim_end()
        );
    }
    String::from_utf8(stdout)
        .with_context(|| format!("the output of `{}` is not UTF-8", shown(command)))
}

/// The program of this name in `PATH`, or where administrators' programs lie, which a user's `PATH` may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The command as one would type it, with the variables it was given.
fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        value.map(|value| format!("{}={}", name.to_string_lossy(), quoted(value)))
    });
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    // Cargo separates encoded flags by this character, which no terminal shows.
    let word = word.to_string_lossy().replace('\x1f', " ");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo no such bridge >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no such bridge") && error.contains("exit status: 3"),
            "{error}"
        );
    }

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("cargo");
        command
            .env("RUSTC", "/usr/bin/rustc")
            .env_remove("PATH")
            .args(["test", "a b", ""]);
        assert_eq!(shown(&command), "RUSTC=/usr/bin/rustc cargo test 'a b' ''");
    }

    #[test]
    fn only_programs_that_exist_are_found() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
