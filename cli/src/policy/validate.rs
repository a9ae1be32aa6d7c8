//! `sluice policy validate`: every problem of every manifest, at once.

use std::process::ExitCode;

use serde::Serialize;
use sluice_crds::{manifest::Problem, validate::Severity};

use crate::{
    arguments::{TableOrJson, ValidateArguments},
    manifests::Manifests,
    output::{self, BAD, GOOD, NOTICE, styled},
};

/// The report as programs read it.
#[derive(Serialize)]
struct Report<'a> {
    files: usize,
    objects: usize,
    errors: usize,
    warnings: usize,
    problems: Vec<Row<'a>>,
}

/// One problem as programs read it.
#[derive(Serialize)]
struct Row<'a> {
    severity: String,
    file: &'a str,
    line: usize,
    kind: Option<&'a str>,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    field: &'a str,
    message: &'a str,
}

/// Runs the command.
///
/// # Errors
/// Where a path can't be read.
pub(crate) fn run(arguments: &ValidateArguments) -> anyhow::Result<ExitCode> {
    let manifests = Manifests::read(&arguments.manifests.paths)?;
    let errors = manifests.errors().count();
    let report = Report {
        files: manifests.files,
        objects: manifests.objects.len(),
        errors,
        warnings: manifests.problems.len() - errors,
        problems: manifests.problems.iter().map(row).collect(),
    };
    match arguments.output {
        TableOrJson::Json => output::print(&(serde_json::to_string_pretty(&report)? + "\n")),
        TableOrJson::Table => print(&report, &manifests.problems),
    }
    Ok(if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn row(problem: &Problem) -> Row<'_> {
    let object = problem.object.as_ref();
    Row {
        severity: problem.severity.to_string(),
        file: &problem.file,
        line: problem.line,
        kind: object.map(|object| object.kind.as_str()),
        namespace: object.and_then(|object| object.namespace.as_deref()),
        name: object.map(|object| object.name.as_str()),
        field: &problem.path,
        message: &problem.message,
    }
}

fn print(report: &Report<'_>, problems: &[Problem]) {
    for problem in problems {
        output::print(&(line(problem) + "\n"));
    }
    let (style, word) = if report.errors == 0 {
        (GOOD, "valid")
    } else {
        (BAD, "invalid")
    };
    output::remark(&format!(
        "{}: {} files, {} valid objects, {} errors, {} warnings",
        styled(style, word),
        report.files,
        report.objects,
        report.errors,
        report.warnings
    ));
}

/// `file:line: object: field: message`, with a word before the message where it is only a warning.
fn line(problem: &Problem) -> String {
    let mut parts = vec![format!("{}:{}", problem.file, problem.line)];
    parts.extend(problem.object.as_ref().map(ToString::to_string));
    if !problem.path.is_empty() {
        parts.push(problem.path.clone());
    }
    parts.push(match problem.severity {
        Severity::Error => styled(BAD, &problem.message),
        Severity::Warning => styled(NOTICE, &format!("warning: {}", problem.message)),
    });
    parts.join(": ")
}
