//! Histories: a generated world under random edits, as the compiler's deltas.

use proptest::prelude::*;
use sluice_policy::{Delta, Index, ItemRef, Settings};
use sluice_world::{Inputs, Learned, NodeName, PodRef, World, WorldItem, build};
use sluice_worldgen::{Parameters, generate_seeded};

/// One edit: which item, by a number, and what happens to it. Each is a commit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edit {
    Delete(usize),
    Restore(usize),
    Import(usize),
    Relabel(usize, usize),
    /// A pod of this name is on another node now.
    Move(usize, usize),
    Learn(bool),
}

pub(super) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        3 => any::<usize>().prop_map(Edit::Delete),
        3 => any::<usize>().prop_map(Edit::Restore),
        3 => any::<usize>().prop_map(Edit::Import),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(to, from)| Edit::Relabel(to, from)),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(pod, node)| Edit::Move(pod, node)),
        1 => any::<bool>().prop_map(Edit::Learn),
    ];
    prop::collection::vec(edit, 0..16)
}

/// The deltas of a history, and the nodes that its pods ever were on.
pub(super) fn history(seed: u64, edits: &[Edit]) -> (Vec<Delta>, Vec<NodeName>) {
    let (start, learned) = world(seed);
    let (other, _) = world(seed.wrapping_add(7_919));
    let own = start.items();
    let foreign: Vec<WorldItem> = other
        .items()
        .into_iter()
        .filter(|item| !matches!(item, WorldItem::Pod(_) | WorldItem::Node(_)))
        .collect();
    let nodes: Vec<NodeName> = start.nodes.keys().cloned().collect();
    let mut world = start;
    let mut index = Index::new(Settings::default());
    own.iter().cloned().for_each(|item| index.apply(item));
    let mut deltas = vec![index.commit()];
    for edit in edits {
        match *edit {
            Edit::Delete(n) => index.delete(reference(&own[n % own.len()])),
            Edit::Restore(n) => index.apply(own[n % own.len()].clone()),
            Edit::Import(n) if !foreign.is_empty() => {
                index.apply(foreign[n % foreign.len()].clone());
            }
            Edit::Learn(known) => index.set_learned(if known {
                learned.clone()
            } else {
                Learned::default()
            }),
            Edit::Relabel(to, from) => change_pod(&mut world, &mut index, to, |world, pod| {
                let ids: Vec<&PodRef> = world.pods.keys().collect();
                let from = &world.pods[ids[from % ids.len()]];
                pod.labels.clone_from(&from.labels);
                pod.service_account.clone_from(&from.service_account);
            }),
            Edit::Move(pod, node) if !nodes.is_empty() => {
                change_pod(&mut world, &mut index, pod, |_, pod| {
                    pod.node = nodes[node % nodes.len()].clone();
                });
            }
            Edit::Import(_) | Edit::Move(..) => {}
        }
        deltas.push(index.commit());
    }
    (deltas, nodes)
}

fn change_pod(
    world: &mut World,
    index: &mut Index,
    which: usize,
    change: impl FnOnce(&World, &mut sluice_world::Pod),
) {
    let ids: Vec<PodRef> = world.pods.keys().cloned().collect();
    if ids.is_empty() {
        return;
    }
    let mut pod = world.pods[&ids[which % ids.len()]].clone();
    change(world, &mut pod);
    world.insert(WorldItem::Pod(pod.clone()));
    index.apply(WorldItem::Pod(pod));
}

fn world(seed: u64) -> (World, Learned) {
    let generated = generate_seeded(&Parameters::small(), seed);
    let (objects, _) = sluice_crds::manifest::read("generated", &generated.manifest());
    let world = build(objects.into_iter().collect::<Inputs>()).expect("a world");
    let learned = Learned::parse(&generated.learned_json()).expect("names");
    (world, learned)
}

fn reference(item: &WorldItem) -> ItemRef {
    match item {
        WorldItem::Namespace(item) => ItemRef::Namespace(item.name.clone()),
        WorldItem::Pod(item) => ItemRef::Pod(item.id.clone()),
        WorldItem::Node(item) => ItemRef::Node(item.name.clone()),
        WorldItem::Service(item) => ItemRef::Service(item.id.clone()),
        WorldItem::CidrGroup(item) => ItemRef::CidrGroup(item.kind.clone(), item.name.clone()),
        WorldItem::Policy(item) => ItemRef::Policy(item.origin().clone()),
    }
}
