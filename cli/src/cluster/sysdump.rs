//! `sluice sysdump`: an archive for whoever looks for a fault.

use std::process::ExitCode;

use sluice_client::{
    Timestamp,
    sysdump::{self, Options},
};

use super::{SysdumpArguments, progress::Progress, with_cluster};
use crate::output;

/// Runs the command. What could not be had is no error, but told.
///
/// # Errors
/// The file can't be written, or nothing of the cluster could be had.
pub(crate) fn run(arguments: &SysdumpArguments) -> anyhow::Result<ExitCode> {
    with_cluster(&arguments.cluster, async |client| {
        let path = arguments
            .output_file
            .clone()
            .unwrap_or_else(|| file_name(Timestamp::now()).into());
        let options = Options {
            log_lines: arguments.log_lines.into(),
        };
        let progress = std::cell::RefCell::new(Progress::new());
        let tell = |what: &str| progress.borrow_mut().show(&format!("collecting {what}"));
        let namespace = arguments.cluster.sluice_namespace.as_deref();
        let written = sysdump::write(&client, namespace, &path, options, &tell).await;
        progress.borrow_mut().clear();
        let written = written?;
        for missing in &written.missing {
            output::warning(missing);
        }
        output::print(&format!("{}: {} files\n", path.display(), written.files));
        Ok(ExitCode::SUCCESS)
    })
}

/// With the time to the second, without what file systems of other machines refuse.
fn file_name(now: Timestamp) -> String {
    let time: String = now
        .to_string()
        .chars()
        .take(19)
        .filter(char::is_ascii_alphanumeric)
        .collect();
    format!("sluice-sysdump-{time}Z.tar.gz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_apart_by_their_names() {
        let time: Timestamp = "2026-03-01T12:34:56.789Z".parse().unwrap();
        assert_eq!(file_name(time), "sluice-sysdump-20260301T123456Z.tar.gz");
    }
}
