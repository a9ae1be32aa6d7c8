//! A batch as the steps in which it may safely reach many nodes.
//!
//! Where running pods move to new identities or tables, a packet between two nodes is judged by both: all must know the new numbers
//! before anyone uses them, and nobody may forget the old ones while someone does.

use sluice_policy::Delta;

use crate::{
    catalog::Catalog,
    types::{Batch, Revision, Update},
};

/// The steps, not numbered yet: one, or up to three between which acknowledgements are to be awaited. None where nothing changes.
pub(crate) fn split(batch: Batch, catalog: &Catalog) -> Vec<Update> {
    let three_steps = brings(&batch.delta) && moves(&batch.delta, catalog);
    let update = whole(batch);
    let steps = if three_steps {
        three(update)
    } else {
        vec![update]
    };
    let told = |step: &Update| !step.is_empty();
    steps.into_iter().filter(told).collect()
}

fn brings(delta: &Delta) -> bool {
    !delta.identities.is_empty() || delta.tables.iter().any(|table| table.new)
}

/// Whether something that is there means something else from now on. What is new or goes altogether moves nobody.
fn moves(delta: &Delta, catalog: &Catalog) -> bool {
    let addresses = delta.addresses.iter().any(|(address, info)| {
        info.is_some_and(|new| {
            catalog
                .address(*address)
                .is_some_and(|old| old.identity != new.identity)
        })
    });
    addresses
        || delta.endpoints.iter().any(|(pod, endpoint)| {
            endpoint.is_some_and(|new| catalog.endpoint(pod).is_some_and(|old| *old != new))
        })
}

/// The batch as one step, without what stays with the compiler.
pub(crate) fn whole(mut batch: Batch) -> Update {
    batch.delta.warnings = Vec::new();
    batch.delta.errors = Vec::new();
    Update {
        revision: Revision::default(),
        snapshot: false,
        delta: batch.delta,
        settings: batch.settings,
        nodes: batch.nodes,
        services: batch.services,
    }
}

fn three(mut come: Update) -> Vec<Update> {
    let all = &mut come.delta;
    let shift = Delta {
        prefixes: std::mem::take(&mut all.prefixes),
        addresses: std::mem::take(&mut all.addresses),
        endpoints: std::mem::take(&mut all.endpoints),
        ..Delta::default()
    };
    let go = Delta {
        retired_peers: std::mem::take(&mut all.retired_peers),
        dropped_tables: std::mem::take(&mut all.dropped_tables),
        dropped_programs: std::mem::take(&mut all.dropped_programs),
        dropped_ranges: std::mem::take(&mut all.dropped_ranges),
        dropped_attributions: std::mem::take(&mut all.dropped_attributions),
        dropped_redirects: std::mem::take(&mut all.dropped_redirects),
        dropped_cookies: std::mem::take(&mut all.dropped_cookies),
        dropped_identities: std::mem::take(&mut all.dropped_identities),
        ..Delta::default()
    };
    let (gone, there) = std::mem::take(&mut come.nodes)
        .into_iter()
        .partition(|(_, node)| node.is_none());
    come.nodes = there;
    let shift = Update {
        delta: shift,
        services: std::mem::take(&mut come.services),
        ..Update::default()
    };
    let go = Update {
        delta: go,
        nodes: gone,
        ..Update::default()
    };
    vec![come, shift, go]
}
