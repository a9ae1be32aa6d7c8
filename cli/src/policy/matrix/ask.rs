//! The questions of a matrix, and their answers as programs read them.

use serde::Serialize;
use serde_json::json;
use sluice_world::{Answer, PodRef, QueryParser, Side, SideVerdict, World, protocol_name};

use crate::{arguments::MatrixArguments, engine::Judge};

/// What is asked of a destination that has no container port.
const DEFAULT_PORT: u16 = 80;

/// Who reaches whom.
#[derive(Debug, Serialize)]
pub(super) struct Matrix {
    /// Rows and columns.
    pub(super) ends: Vec<String>,
    /// Row by row; only pairs about which something can be asked.
    pub(super) cells: Vec<Cell>,
}

/// One source, one destination, one port.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) protocol: String,
    pub(super) port: u16,
    /// `allowed`, `denied`, or `impossible` where no such packet exists (no common address family, two nodes).
    pub(super) verdict: &'static str,
    pub(super) egress: Option<Side>,
    pub(super) ingress: Option<Side>,
    /// Why it is impossible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// Asks about every pair.
///
/// # Errors
/// Where an end that was given is none.
pub(super) fn matrix(
    world: &World,
    judge: &Judge<'_>,
    ends: &[String],
    arguments: &MatrixArguments,
) -> anyhow::Result<Matrix> {
    let parser = QueryParser::new(world);
    let mut cells = Vec::new();
    for from in ends {
        for to in ends {
            for (protocol, port) in ports(world, to, arguments) {
                cells.push(cell(
                    &parser,
                    judge,
                    from,
                    to,
                    &protocol,
                    port,
                    arguments.family.as_deref(),
                )?);
            }
        }
    }
    // An end that can be asked nothing, not even about itself, is no end.
    for end in &arguments.ends {
        let own = cells
            .iter()
            .filter(|cell| cell.from == *end || cell.to == *end);
        if let Some(error) = own
            .map(|cell| cell.error.as_deref())
            .reduce(Option::and)
            .flatten()
        {
            anyhow::bail!("--with {end}: {error}");
        }
    }
    Ok(Matrix {
        ends: ends.to_vec(),
        cells,
    })
}

fn cell(
    parser: &QueryParser<'_>,
    judge: &Judge<'_>,
    from: &str,
    to: &str,
    protocol: &str,
    port: u16,
    family: Option<&str>,
) -> anyhow::Result<Cell> {
    let mut query =
        json!({"id": "cell", "from": from, "to": to, "protocol": protocol, "port": port});
    if let Some(family) = family {
        query["family"] = json!(family);
    }
    let mut cell = Cell {
        from: from.into(),
        to: to.into(),
        protocol: protocol.into(),
        port,
        verdict: "impossible",
        egress: None,
        ingress: None,
        error: None,
    };
    match parser.line(&query.to_string()) {
        Ok(query) => {
            let Answer {
                verdict,
                egress,
                ingress,
                ..
            } = judge.answer(&query)?;
            cell.verdict = if verdict == SideVerdict::Denied {
                "denied"
            } else {
                "allowed"
            };
            (cell.egress, cell.ingress) = (Some(egress), Some(ingress));
        }
        Err(error) => cell.error = Some(error.error),
    }
    Ok(cell)
}

/// What to ask of a destination: the port given, or else each port its containers listen on.
fn ports(world: &World, to: &str, arguments: &MatrixArguments) -> Vec<(String, u16)> {
    if let Some(port) = arguments.port {
        return vec![(arguments.protocol.clone(), port)];
    }
    let pod = to
        .strip_prefix("pod:")
        .and_then(|name| name.split_once('/'))
        .and_then(|(namespace, name)| {
            world.pods.get(&PodRef {
                namespace: namespace.into(),
                name: name.into(),
            })
        });
    let listens = pod.into_iter().flat_map(|pod| &pod.listens);
    let ports: Vec<_> = listens
        .filter_map(|(number, port)| Some((protocol_name(*number)?.to_owned(), *port)))
        .collect();
    if ports.is_empty() {
        vec![(arguments.protocol.clone(), DEFAULT_PORT)]
    } else {
        ports
    }
}
