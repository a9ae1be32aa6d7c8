//! Programs run in pods, as `kubectl exec` runs them: input in, output out. What is run may not enter.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::AttachParams};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

use crate::Error;

/// More than any answer needs; a stream is read while it comes.
const BUFFER: usize = 64 * 1024;

/// Where a program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its container.
    pub container: String,
}

/// Runs the first of `programs` that can be started with `arguments`, and gives what it prints.
///
/// # Errors
/// None can be started, the program fails, or does not end within `patience`.
pub async fn run(
    client: &Client,
    place: &Place,
    programs: &[&str],
    arguments: &[&str],
    patience: Duration,
) -> Result<String, Error> {
    let mut failed = None;
    for program in programs {
        let command: Vec<&str> = std::iter::once(program).chain(arguments).copied().collect();
        let why = match timeout(patience, once(client, place, &command)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {} s", patience.as_secs()),
        };
        let absent = is_absent(&why);
        failed = Some(Error::Exec {
            pod: format!("{}/{}", place.namespace, place.pod),
            program: (*program).to_owned(),
            why,
        });
        if !absent {
            break;
        }
    }
    Err(failed.unwrap_or_else(|| Error::Missing("no program to run was named".to_owned())))
}

async fn once(client: &Client, place: &Place, command: &[&str]) -> Result<String, String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &place.namespace);
    let parameters = AttachParams::default()
        .container(&place.container)
        .stdin(false)
        .stdout(true)
        .stderr(true)
        .max_stdout_buf_size(BUFFER)
        .max_stderr_buf_size(BUFFER);
    let mut process = pods
        .exec(&place.pod, command.iter().copied(), &parameters)
        .await
        .map_err(|error| refusal(&error))?;
    let status = process.take_status();
    let (output, errors) = tokio::join!(all(process.stdout()), all(process.stderr()));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let finished = process.join().await;
    match status {
        Some(status) if status.status.as_deref() == Some("Success") => Ok(output),
        Some(status) => Err(said(&errors, &status.message.unwrap_or_default())),
        None => Err(said(
            &errors,
            &finished.err().map_or_else(
                || "the connection ended before the program".to_owned(),
                |error| error.to_string(),
            ),
        )),
    }
}

/// All that comes until the end; what came before a broken connection counts as well.
async fn all(reader: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut reader) = reader {
        let _ = reader.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The upgrade of a connection hides the server's reasons; its code tells what people most often lack.
fn refusal(error: &kube::Error) -> String {
    let text = error.to_string();
    if text.contains("403") || crate::error::code(error) == Some(403) {
        return "forbidden: this needs the verbs `get` and `create` on `pods/exec`".to_owned();
    }
    text
}

fn said(errors: &str, reason: &str) -> String {
    let errors = errors.trim();
    if errors.is_empty() {
        reason.to_owned()
    } else {
        errors.to_owned()
    }
}

/// What runtimes say of a program that the image does not have.
fn is_absent(why: &str) -> bool {
    let why = why.to_lowercase();
    [
        "no such file",
        "not found",
        "stat /",
        "unable to start container process",
    ]
    .iter()
    .any(|words| why.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_fails() {
        for absent in [
            "failed to exec in container: OCI runtime exec failed: exec: \"x\": executable file not found in $PATH: unknown",
            "unable to start container process: exec: \"/x\": stat /x: no such file or directory",
        ] {
            assert!(is_absent(absent), "{absent}");
        }
        assert!(!is_absent("asking the agent: connection refused"));
        assert!(!is_absent(
            "command terminated with non-zero exit code: exit code 1"
        ));
    }

    #[test]
    fn what_the_program_says_goes_before_the_exit_code() {
        assert_eq!(
            said("asking the agent: refused\n", "exit code 1"),
            "asking the agent: refused"
        );
        assert_eq!(said(" \n", "exit code 1"), "exit code 1");
    }
}
