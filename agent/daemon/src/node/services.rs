//! Services in the node's datapath: what the operator says of them, as this node may use it. How packets are translated may not enter.

use std::collections::BTreeMap;

use sluice_abi::service;
use sluice_agent::Node;
use sluice_datapath::state::{Target, Targets};
use sluice_stream::{Frontend, ServiceEntry};
use sluice_world::NodeName;

use crate::engine::ServiceSink;

/// Pods' packets to cluster addresses are translated at the pod's own interface, whoever does it for the node itself.
#[derive(Clone, Debug)]
pub struct DatapathServices {
    own: NodeName,
}

impl DatapathServices {
    /// For the node of this name.
    #[must_use]
    pub const fn new(own: NodeName) -> Self {
        Self { own }
    }

    fn targets(&self, entry: &ServiceEntry) -> Targets {
        let usable = entry
            .backends
            .iter()
            .filter(|backend| !entry.internal_local || backend.node.as_ref() == Some(&self.own));
        let backends: Vec<Target> = usable
            .map(|backend| Target {
                address: backend.address.into(),
                port: backend.port,
            })
            .collect();
        Targets {
            silent: backends.is_empty() && !entry.backends.is_empty(),
            affinity_seconds: entry.affinity_seconds.unwrap_or(0),
            backends,
        }
    }
}

impl ServiceSink for DatapathServices {
    fn apply(
        &mut self,
        node: &mut Node,
        changes: &[(Frontend, Option<ServiceEntry>)],
        whole: bool,
    ) -> Result<(), String> {
        let changes = changes.iter().map(|(frontend, entry)| {
            let targets = entry.as_ref().map(|entry| self.targets(entry));
            (key(frontend), targets)
        });
        let done = if whole {
            let all: BTreeMap<_, _> = changes
                .filter_map(|(frontend, targets)| Some((frontend, targets?)))
                .collect();
            node.sync_services(&all)
        } else {
            node.apply_services(&changes.collect::<Vec<_>>())
        };
        done.map(drop).map_err(|error| error.to_string())
    }

    fn path(&self) -> &'static str {
        "per packet at the pod's interface"
    }
}

fn key(frontend: &Frontend) -> service::Frontend {
    service::Frontend {
        address: frontend.address.into(),
        port: frontend.port,
        protocol: frontend.protocol,
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use sluice_stream::Backend;
    use sluice_world::ServiceRef;

    use super::*;

    fn entry(internal_local: bool) -> ServiceEntry {
        let backend = |last: u8, node: &str| Backend {
            address: [10, 0, 0, last].into(),
            port: 8080,
            node: Some(NodeName(node.to_owned())),
        };
        ServiceEntry {
            name: ServiceRef::default(),
            frontend: Frontend {
                address: [10, 96, 0, 1].into(),
                protocol: 6,
                port: 80,
            },
            backends: vec![backend(1, "here"), backend(2, "there")],
            affinity_seconds: Some(30),
            internal_local,
        }
    }

    #[test]
    fn a_service_of_local_traffic_leads_to_local_backends_only() {
        let here = DatapathServices::new(NodeName("here".to_owned()));
        assert_eq!(here.targets(&entry(false)).backends.len(), 2);
        let local = here.targets(&entry(true));
        assert_eq!((local.backends.len(), local.silent), (1, false));
        assert_eq!(local.affinity_seconds, 30);
        // There are backends, and none that this node may use: packets are dropped, and not refused.
        let elsewhere = DatapathServices::new(NodeName("elsewhere".to_owned()));
        let none = elsewhere.targets(&entry(true));
        assert_eq!((none.backends.len(), none.silent), (0, true));
    }
}
