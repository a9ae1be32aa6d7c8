//! `sluice policy eval`: an answer for every query.

use std::{
    io::{BufWriter, Write},
    process::ExitCode,
};

use anstyle::Style;
use serde_json::json;
use sluice_world::{Answer, Query, QueryError, Side, query};

use super::rule;
use crate::{
    arguments::{EvalArguments, TableOrJson},
    engine::Judge,
    manifests::{self, Manifests, Rejected},
    output::{self, BAD, Table},
};

/// Exit code where some query can't be judged.
const BAD_QUERY: u8 = 2;

/// Runs the command.
///
/// # Errors
/// Where an invalid policy is not to be skipped, or a file can't be read.
pub(crate) fn run(arguments: &EvalArguments) -> anyhow::Result<ExitCode> {
    let manifests = Manifests::read(&arguments.judge.manifests.paths)?;
    let (world, rejected) = if arguments.skip_invalid {
        manifests.world_of_valid()?
    } else {
        (manifests.world()?, Vec::new())
    };
    let learned = manifests::learned(arguments.judge.learned.as_deref())?;
    let queries = query::parse(&manifests::text_of(&arguments.queries)?, &world)?;
    let judge = Judge::new(
        arguments.engine,
        &world,
        &learned,
        arguments.judge.policy_mode.into(),
    )?;
    let bad = queries.iter().any(Result::is_err);
    match arguments.output {
        TableOrJson::Json => lines(&judge, &queries, &rejected)?,
        TableOrJson::Table => table(&judge, &queries, &rejected)?,
    }
    Ok(if bad {
        ExitCode::from(BAD_QUERY)
    } else {
        ExitCode::SUCCESS
    })
}

/// One line of JSON for each query, in order; before them what was rejected, if anything was.
fn lines(
    judge: &Judge<'_>,
    queries: &[Result<Query, QueryError>],
    rejected: &[Rejected],
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    if !rejected.is_empty() {
        writeln!(out, "{}", json!({"rejected": rejected}))?;
    }
    for query in queries {
        match query {
            Ok(query) => serde_json::to_writer(&mut out, &judge.answer(query)?)?,
            Err(error) => serde_json::to_writer(&mut out, error)?,
        }
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn table(
    judge: &Judge<'_>,
    queries: &[Result<Query, QueryError>],
    rejected: &[Rejected],
) -> anyhow::Result<()> {
    for policy in rejected {
        output::warning(&format!("left out: {}", policy.error()));
    }
    let mut table = Table::new(&["QUERY", "VERDICT", "EGRESS", "INGRESS"]);
    let mut errors = Vec::new();
    for query in queries {
        match query {
            Ok(query) => table.row(cells(&judge.answer(query)?)),
            Err(error) => {
                let id = error.id.clone().unwrap_or_else(|| "?".into());
                table.row(vec![
                    (Style::new(), id),
                    (BAD, "error".into()),
                    (BAD, error.error.clone()),
                ]);
                errors.push(error);
            }
        }
    }
    output::print(&table.render());
    if !errors.is_empty() {
        output::error(&format!(
            "{} of {} queries can't be judged",
            errors.len(),
            queries.len()
        ));
    }
    Ok(())
}

fn cells(answer: &Answer) -> Vec<(Style, String)> {
    vec![
        (Style::new(), answer.id.clone()),
        (
            rule::style(answer.verdict),
            rule::verdict(answer.verdict).into(),
        ),
        side(&answer.egress),
        side(&answer.ingress),
    ]
}

fn side(side: &Side) -> (Style, String) {
    (
        rule::style(side.verdict),
        format!(
            "{}: {}",
            rule::verdict(side.verdict),
            rule::decided_by(side)
        ),
    )
}
