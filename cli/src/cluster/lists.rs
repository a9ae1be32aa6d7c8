//! `sluice endpoints`, `sluice nodes`, and `sluice identities` of a cluster: objects as tables.

use std::process::ExitCode;

use anstyle::Style;
use sluice_client::{
    facts::state_name,
    objects::{self, EndpointRow, IdentityRow, NodeRow, Scope},
};

use super::{ClusterArguments, EndpointsArguments, NodesArguments, ScopeArguments, with_cluster};
use crate::{
    arguments::AnyFormat,
    output::{self, BAD, GOOD, NOTICE, Table},
};

/// Identities of a cluster.
///
/// # Errors
/// The API server refuses.
pub(crate) fn identities(
    cluster: &ClusterArguments,
    scope: &ScopeArguments,
    format: AnyFormat,
) -> anyhow::Result<ExitCode> {
    with_cluster(cluster, async |client| {
        let rows = objects::identities(&client, &scope.scope(Scope::All)).await?;
        output::document(format, &rows, || {
            identity_table(&rows, output::terminal_width())
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Endpoints.
///
/// # Errors
/// The API server refuses.
pub(crate) fn endpoints(arguments: &EndpointsArguments) -> anyhow::Result<ExitCode> {
    with_cluster(&arguments.cluster, async |client| {
        let usual = Scope::Namespace(client.default_namespace().to_owned());
        // Whoever asks for a node's wants all of them.
        let usual = if arguments.node.is_some() {
            Scope::All
        } else {
            usual
        };
        let mut rows = objects::endpoints(&client, &arguments.scope.scope(usual)).await?;
        rows.retain(|row| arguments.node.as_ref().is_none_or(|node| row.node == *node));
        output::document(arguments.output, &rows, || {
            endpoint_table(&rows, output::terminal_width())
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Nodes.
///
/// # Errors
/// The API server refuses.
pub(crate) fn nodes(arguments: &NodesArguments) -> anyhow::Result<ExitCode> {
    with_cluster(&arguments.cluster, async |client| {
        let rows = objects::nodes(&client).await?;
        output::document(arguments.output, &rows, || {
            node_table(&rows, output::terminal_width())
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

fn plain(text: impl Into<String>) -> (Style, String) {
    (Style::new(), text.into())
}

/// What is not known.
fn or_dash(text: Option<String>) -> (Style, String) {
    plain(text.unwrap_or_else(|| "-".to_owned()))
}

fn identity_table(rows: &[IdentityRow], width: Option<usize>) -> String {
    let mut table = Table::new(&["IDENTITY", "NAMESPACE", "ENDPOINTS", "LABELS"]);
    for row in rows {
        table.row(vec![
            plain(row.number.to_string()),
            or_dash(row.namespace.clone()),
            plain(row.endpoints.to_string()),
            plain(row.labels.join(" ")),
        ]);
    }
    table.render_within(width)
}

fn endpoint_table(rows: &[EndpointRow], width: Option<usize>) -> String {
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "NODE",
        "IDENTITY",
        "STATE",
        "REVISION",
        "ADDRESSES",
    ]);
    for row in rows {
        let state = state_name(row.state);
        let style = match state {
            "ready" => GOOD,
            "waiting" => NOTICE,
            _ => BAD,
        };
        table.row(vec![
            plain(&row.namespace),
            plain(&row.name),
            plain(&row.node),
            or_dash(row.identity.map(|identity| identity.to_string())),
            (style, state.to_owned()),
            or_dash(row.revision.clone()),
            plain(row.addresses.join(" ")),
        ]);
    }
    table.render_within(width)
}

fn node_table(rows: &[NodeRow], width: Option<usize>) -> String {
    let mut table = Table::new(&[
        "NAME",
        "NUMBER",
        "AGENT",
        "RELEASE",
        "REVISION",
        "ENDPOINTS",
        "ROUTING",
        "POD CIDRS",
    ]);
    for row in rows {
        table.row(vec![
            plain(&row.name),
            plain(row.number.to_string()),
            if row.ready {
                (GOOD, "ready".to_owned())
            } else {
                (BAD, "not ready".to_owned())
            },
            or_dash(row.release.clone()),
            or_dash(row.revision.clone()),
            plain(format!("{}/{}", row.endpoints_ready, row.endpoints)),
            or_dash(row.routing.clone()),
            plain(row.pod_cidrs.join(" ")),
        ]);
    }
    table.render_within(width)
}

#[cfg(test)]
mod tests {
    use sluice_client::objects::EndpointRow;

    use super::*;

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn endpoint() -> EndpointRow {
        serde_json::from_value::<sluice_crds::resources::EndpointState>("ready".into())
            .map(|state| EndpointRow {
                namespace: "shop".to_owned(),
                name: "web-0".to_owned(),
                node: "n1".to_owned(),
                identity: Some(16_777_472),
                state,
                revision: None,
                addresses: vec!["10.0.1.7".to_owned(), "fd00:1::7".to_owned()],
            })
            .unwrap()
    }

    #[test]
    fn endpoints_are_a_table_that_is_cut_to_its_terminal() {
        let rows = [endpoint()];
        assert_eq!(
            stripped(&endpoint_table(&rows, None)),
            "NAMESPACE  NAME   NODE  IDENTITY  STATE  REVISION  ADDRESSES\n\
             shop       web-0  n1    16777472  ready  -         10.0.1.7 fd00:1::7\n"
        );
        let narrow = stripped(&endpoint_table(&rows, Some(60)));
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 60),
            "{narrow}"
        );
        assert!(narrow.contains('…'), "{narrow}");
    }

    #[test]
    fn nodes_are_a_table() {
        let row = NodeRow {
            name: "n1".to_owned(),
            number: 3,
            pod_cidrs: vec!["10.0.3.0/24".to_owned(), "fd00:3::/64".to_owned()],
            ready: true,
            revision: Some("7.42".to_owned()),
            release: Some("0.1.0".to_owned()),
            routing: Some("vxlan".to_owned()),
            endpoints: 5,
            endpoints_ready: 4,
            conditions: Vec::new(),
            features: Vec::new(),
        };
        assert_eq!(
            stripped(&node_table(&[row], None)),
            "NAME  NUMBER  AGENT  RELEASE  REVISION  ENDPOINTS  ROUTING  POD CIDRS\n\
             n1    3       ready  0.1.0    7.42      4/5        vxlan    10.0.3.0/24 fd00:3::/64\n"
        );
    }

    #[test]
    fn identities_are_a_table() {
        let row = IdentityRow {
            number: 256,
            namespace: Some("shop".to_owned()),
            labels: vec!["k8s:app=web".to_owned(), "k8s:tier=front".to_owned()],
            endpoints: 2,
        };
        assert_eq!(
            stripped(&identity_table(&[row], None)),
            "IDENTITY  NAMESPACE  ENDPOINTS  LABELS\n256       shop       2          k8s:app=web k8s:tier=front\n"
        );
    }
}
