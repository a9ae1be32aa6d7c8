//! What a caller can choose about a cluster. Doing anything with the choices may not enter.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    plan::{MAX_NODES, Name},
};

/// Who connects pods.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// Nobody yet: nodes stay `NotReady` until a plugin's configuration appears.
    #[default]
    None,
    /// The reference bridge plugin with routes between the nodes, to compare with.
    Bridge,
}

/// Who translates service addresses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// Nobody.
    None,
    /// kube-proxy with nftables.
    #[default]
    Nftables,
    /// kube-proxy with iptables.
    Iptables,
}

/// What a cluster is like.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Its name; clusters of different names could run beside each other, memory allowing.
    pub name: Name,
    /// How many nodes, from 1.
    pub nodes: u8,
    /// Who connects pods.
    pub cni: Cni,
    /// Who translates service addresses.
    pub proxy: Proxy,
    /// Image files that every node loads besides those that every cluster has.
    pub images: Vec<PathBuf>,
    /// Whether Kubernetes gives each node its pod addresses. The bridge plugin needs it.
    pub node_pod_cidrs: bool,
    /// Nodes without heartbeats stay what their status says, so that objects can stand for nodes. Real nodes that die are
    /// then not noticed either.
    pub fake_nodes: bool,
    /// Whether `CoreDNS` is installed. Its pods wait until nodes are ready.
    pub dns: bool,
    /// More switches for the API server, as `--name=value`.
    pub api_server_switches: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: Name::default(),
            nodes: 3,
            cni: Cni::None,
            proxy: Proxy::Nftables,
            images: Vec::new(),
            node_pod_cidrs: false,
            fake_nodes: false,
            dns: true,
            api_server_switches: Vec::new(),
        }
    }
}

impl Options {
    /// The baseline: the bridge plugin and kube-proxy.
    #[must_use]
    pub fn bridge() -> Self {
        Self {
            cni: Cni::Bridge,
            node_pod_cidrs: true,
            ..Self::default()
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str, why: String| {
            Err(Error::Argument {
                what: what.to_owned(),
                why,
            })
        };
        if self.nodes == 0 || self.nodes > MAX_NODES {
            return wrong(
                "the number of nodes",
                format!("it must be from 1 to {MAX_NODES}, not {}", self.nodes),
            );
        }
        if self.cni == Cni::Bridge && !self.node_pod_cidrs {
            return wrong(
                "the bridge plugin",
                "it needs node_pod_cidrs, its nodes' pod addresses".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        assert!(Options::default().check().is_ok());
        assert!(Options::bridge().check().is_ok());
        assert!(
            Options {
                nodes: 0,
                ..Options::default()
            }
            .check()
            .is_err()
        );
        assert!(
            Options {
                cni: Cni::Bridge,
                ..Options::default()
            }
            .check()
            .is_err()
        );
    }
}
