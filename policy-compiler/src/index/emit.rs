//! The end of a commit: what is told of addresses, endpoints, watermarks and the pool.

use std::collections::BTreeMap;

use sluice_abi::{Identity, Range};

use super::Index;
use crate::delta::{Delta, Endpoint};

impl Index {
    pub(super) fn emit(&mut self, delta: &mut Delta) {
        self.emit_addresses(delta);
        self.emit_endpoints(delta);
        self.emit_watermarks(delta);
        self.pool.sweep(delta);
    }

    fn emit_endpoints(&mut self, delta: &mut Delta) {
        let gone = std::mem::take(&mut self.workloads.gone);
        // A pod of the same name that came in the same commit follows and wins.
        delta
            .endpoints
            .extend(gone.into_iter().map(|id| (id, None)));
        let mut changed = std::mem::take(&mut self.workloads.changed);
        changed.sort_unstable();
        changed.dedup();
        delta.endpoints.reserve(changed.len());
        for pod in changed {
            let Some(entry) = self.workloads.pod(pod) else {
                continue;
            };
            let identity = entry.addresses.first().and_then(|address| address.1);
            let endpoint = identity.and_then(|index| {
                let [egress, ingress] = self.subjects.tables_of(index)?;
                let identity = self.identities.get(index)?.number;
                Some(Endpoint {
                    identity,
                    egress,
                    ingress,
                    node: entry.node,
                    uid: None,
                })
            });
            delta.endpoints.push(((*entry.id).clone(), endpoint));
        }
    }

    fn emit_watermarks(&mut self, delta: &mut Delta) {
        let mut greatest: BTreeMap<Range, Identity> = BTreeMap::new();
        for (identity, _) in &delta.identities {
            if let Some(range) = identity.range().filter(|range| *range != Range::Reserved) {
                let known = greatest.entry(range).or_insert(*identity);
                *known = (*known).max(*identity);
            }
        }
        for (range, identity) in greatest {
            let told = &mut self.told_watermarks[range as usize];
            if identity > *told {
                *told = identity;
                delta.watermarks.push((range, identity));
            }
        }
    }
}
