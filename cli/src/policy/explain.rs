//! `sluice policy explain`: one query, and why it is answered so.

use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::{Value, json};
use sluice_reference::Evaluator;
use sluice_world::QueryParser;

use crate::{
    arguments::{ExplainArguments, TableOrJson},
    manifests::{self, Manifests},
    output,
};

/// Runs the command.
///
/// # Errors
/// Where the manifests are invalid or the query can't be judged.
pub(crate) fn run(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let world = Manifests::read(&arguments.judge.manifests.paths)?.world()?;
    let learned = manifests::learned(arguments.judge.learned.as_deref())?;
    let query = QueryParser::new(&world)
        .line(&query(arguments).to_string())
        .map_err(|error| anyhow!("the query can't be judged: {}", error.error))?;
    let explanation =
        Evaluator::new(&world, &learned, arguments.judge.policy_mode.into()).explain(&query);
    output::print(&match arguments.output {
        TableOrJson::Json => serde_json::to_string_pretty(&explanation)? + "\n",
        TableOrJson::Table => format!("{} -> {}: {explanation}", arguments.from, arguments.to),
    });
    Ok(ExitCode::SUCCESS)
}

/// The query as a file would hold it: there is one reader of queries.
fn query(arguments: &ExplainArguments) -> Value {
    let mut query = json!({
        "id": "explain", "from": arguments.from, "to": arguments.to, "protocol": arguments.protocol,
    });
    let optional = [
        ("port", arguments.port.map(Value::from)),
        ("icmpType", arguments.icmp_type.map(Value::from)),
        ("family", arguments.family.clone().map(Value::from)),
        ("dns", arguments.dns.clone().map(Value::from)),
        ("http", arguments.http.as_deref().map(http)),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            query[field] = value;
        }
    }
    query
}

fn http(words: &[String]) -> Value {
    let mut request = json!({});
    for (field, word) in ["method", "path", "host"].into_iter().zip(words) {
        request[field] = json!(word);
    }
    request
}
