//! Running other programs: a failure names the command as one would type it and says what it said. Deciding what to run may
//! not enter.

use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// So much of what a failed program said goes into the error.
const KEPT: usize = 4096;

/// Runs a command with nothing to read and gives what it prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            command: shown(command),
            source,
        })?;
    finish(command, &done)
}

/// As [`output`], with `input` as what the program reads.
pub(crate) fn fed(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start {
            command: shown(command),
            source,
        })?;
    let stdin = child.stdin.take();
    let done = thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(mut stdin) = stdin {
                // A program that stops reading has failed and says so itself.
                stdin.write_all(input).unwrap_or_default();
            }
        });
        child.wait_with_output()
    })
    .map_err(|source| Error::Start {
        command: shown(command),
        source,
    })?;
    finish(command, &done)
}

/// What a finished command printed, or the error that it failed.
pub(crate) fn finish(command: &Command, done: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&done.stderr);
    let said = if stderr.trim().is_empty() {
        stdout.as_str()
    } else {
        &stderr
    };
    Err(Error::Failed {
        command: shown(command),
        status: done.status,
        stderr: end_of(said.trim_end()).to_owned(),
    })
}

/// Runs a command with this process's terminal and says how it ended.
pub(crate) fn attended(command: &mut Command) -> Result<std::process::ExitStatus> {
    command.status().map_err(|source| Error::Start {
        command: shown(command),
        source,
    })
}

/// Tries until `attempt` gives something, for at most `limit`.
pub(crate) fn wait<T>(
    what: &str,
    hint: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return Ok(found);
        }
        if start.elapsed() > limit {
            return Err(Error::Late {
                what: what.to_owned(),
                after: limit,
                hint: hint.to_owned(),
            });
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn end_of(text: &str) -> &str {
    let start = text.len().saturating_sub(KEPT);
    let start = (start..text.len())
        .find(|&index| text.is_char_boundary(index))
        .unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such bridge >&2; exit 3"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert!(
            error.contains("no such bridge") && error.contains("exit status: 3"),
            "{error}"
        );
    }

    #[test]
    fn a_program_reads_what_it_is_fed_and_may_stop_reading() {
        assert_eq!(fed(&mut Command::new("cat"), b"abc").unwrap(), "abc");
        assert_eq!(
            fed(&mut Command::new("true"), &vec![0; 1 << 20]).unwrap(),
            ""
        );
    }

    #[test]
    fn waiting_ends() {
        let limit = Duration::from_millis(1);
        let error = wait("the moon's fall", "look up", limit, || None::<()>)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("the moon's fall") && error.contains("look up"),
            "{error}"
        );
        let mut tries = 0;
        let found = wait("x", "y", Duration::from_secs(10), || {
            tries += 1;
            (tries == 2).then_some(tries)
        });
        assert_eq!(found.unwrap(), 2);
    }

    #[test]
    fn only_the_end_of_long_output_is_kept_and_no_character_is_split() {
        let long = "ä".repeat(5000);
        assert!(end_of(&long).len() <= KEPT);
        assert_eq!(end_of("short"), "short");
    }
}
