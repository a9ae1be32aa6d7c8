//! `sluice identities`: by what policies tell pods, nodes and outside addresses apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use anstyle::Style;
use serde::Serialize;
use sluice_policy::Engine;
use sluice_world::{Learned, Mode, World};

use crate::{
    arguments::IdentitiesArguments,
    cluster,
    manifests::Manifests,
    output::{self, Table},
};

/// An identity as programs read it.
#[derive(Debug, Serialize)]
struct Row {
    number: u32,
    scope: String,
    labels: Vec<String>,
    /// Pods that have it with one of their addresses.
    endpoints: usize,
}

/// Runs the command.
///
/// # Errors
/// Where the manifests are invalid, or the cluster refuses.
pub(crate) fn run(arguments: &IdentitiesArguments) -> anyhow::Result<ExitCode> {
    if arguments.paths.is_empty() {
        return cluster::identities(&arguments.cluster, &arguments.scope, arguments.output);
    }
    let world = Manifests::read(&arguments.paths)?.world()?;
    let rows = rows(&world);
    output::document(arguments.output, &rows, || table(&rows))?;
    Ok(ExitCode::SUCCESS)
}

fn rows(world: &World) -> Vec<Row> {
    let mut engine = Engine::new(world, &Learned::default(), Mode::Default);
    let mut endpoints = BTreeMap::<_, usize>::new();
    for pod in world
        .pods
        .values()
        .filter(|pod| !pod.host_network && !pod.external)
    {
        let own: BTreeSet<_> = pod
            .addresses
            .iter()
            .filter_map(|address| engine.identity(*address))
            .collect();
        for identity in own {
            *endpoints.entry(identity).or_default() += 1;
        }
    }
    let identities = engine.index().identities();
    let rows = identities.into_iter().map(|(identity, labels)| Row {
        number: identity.0,
        scope: identity.range().map_or_else(
            || "unknown".into(),
            |range| format!("{range:?}").to_lowercase(),
        ),
        labels,
        endpoints: endpoints.get(&identity).copied().unwrap_or(0),
    });
    rows.collect()
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&["IDENTITY", "SCOPE", "PODS", "LABELS"]);
    for row in rows {
        let plain = |text: String| (Style::new(), text);
        table.row(vec![
            plain(row.number.to_string()),
            plain(row.scope.clone()),
            plain(row.endpoints.to_string()),
            plain(row.labels.join(" ")),
        ]);
    }
    table.render()
}
