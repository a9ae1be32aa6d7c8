//! A cluster's network tried in earnest: pods are made on two nodes, everything is tried from and to them, first without policies and
//! then with each of some, and all is removed. What a verdict should be is written down in `suite`, not computed: this is a test.

mod place;
pub mod pod;
mod run;
mod suite;

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use serde::Serialize;

pub use place::clean_up;
pub use run::run;
pub use suite::Role;

use crate::{AGENT, Error};

/// What is tried, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// An image whose program is `sluice`.
    pub image: String,
    /// The namespace that is made; a second one has this name with `-other` at its end.
    pub namespace: String,
    /// The port, of both protocols, that pods of the host network listen on.
    pub host_port: u16,
    /// How long pods may take to be ready.
    pub start: Duration,
    /// How long a policy may take until everything is as it says.
    pub settle: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Everything came out as it should.
    pub passed: bool,
    /// Nodes that pods were put on.
    pub nodes: Vec<String>,
    /// `IPv4`, `IPv6`: those that pods have.
    pub families: Vec<&'static str>,
    /// By scenario.
    pub scenarios: Vec<ScenarioResult>,
    /// What could not be tried, and why.
    pub skipped: Vec<String>,
}

/// What came of one scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioResult {
    /// What is the case.
    pub name: &'static str,
    /// Everything came out as it should.
    pub passed: bool,
    /// How many tries it has.
    pub tries: usize,
    /// From the policies' creation until everything first came out as it should, in milliseconds.
    pub settled_ms: Option<u64>,
    /// Tries that did not, at the end.
    pub failures: Vec<Failure>,
}

/// A try that did not come out as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What was tried.
    pub what: String,
    /// What should have come of it.
    pub expected: &'static str,
    /// What did.
    pub found: String,
}

/// The image of this program that belongs to the agents' image: of the same registry and tag, called `sluice-cli`.
///
/// # Errors
/// The API server refuses, or agents run an image that is called otherwise.
pub async fn default_image(client: &Client, namespace: &str) -> Result<String, Error> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let set = sets
        .get_opt(AGENT)
        .await
        .map_err(Error::api("reading the agents' DaemonSet"))?;
    let image = set
        .and_then(|set| set.spec.template.spec?.containers.into_iter().next()?.image)
        .ok_or_else(|| {
            Error::Missing(format!("Sluice is not installed in namespace {namespace}"))
        })?;
    sibling(&image).ok_or_else(|| {
        Error::Missing(format!("agents run the image {image}, which does not tell what this program's is called: give --image"))
    })
}

fn sibling(image: &str) -> Option<String> {
    let (registry, name) = image.rsplit_once('/').unwrap_or(("", image));
    let rest = name.strip_prefix(AGENT)?;
    // A digest is of one image; a tag is given to all of a release.
    if rest.contains('@') || !(rest.is_empty() || rest.starts_with(':')) {
        return None;
    }
    let name = format!("sluice-cli{rest}");
    Some(if registry.is_empty() {
        name
    } else {
        format!("{registry}/{name}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_this_program_is_beside_the_agents() {
        assert_eq!(
            sibling("registry.example.org/x/sluice-agent:1.2").as_deref(),
            Some("registry.example.org/x/sluice-cli:1.2")
        );
        assert_eq!(
            sibling("localhost:5000/sluice-agent").as_deref(),
            Some("localhost:5000/sluice-cli")
        );
        assert_eq!(
            sibling("sluice-agent:dev").as_deref(),
            Some("sluice-cli:dev")
        );
        for other in [
            "x/agent:1",
            "x/sluice-agent@sha256:00",
            "x/sluice-agent:1@sha256:00",
            "x/sluice-agents:1",
        ] {
            assert_eq!(sibling(other), None, "{other}");
        }
    }
}
