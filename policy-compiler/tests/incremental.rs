//! An index that went through any sequence of edits means the same, and holds as much, as one that compiles the final world at once.

use std::{net::IpAddr, sync::Arc};

use proptest::prelude::*;
use sluice_policy::{Engine, Index, ItemRef, MemTables, Settings};
use sluice_world::{Inputs, Learned, Mode, PodRef, Query, Target, World, WorldItem, build};
use sluice_worldgen::{Parameters, generate_seeded};

/// One edit: which item, by a number, and what happens to it.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Delete(usize),
    Restore(usize),
    /// A policy, service, group or namespace of another world.
    Import(usize),
    /// A pod takes another's labels and service account.
    Relabel(usize, usize),
    /// What names were learned changes.
    Learn(bool),
    Commit,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => any::<usize>().prop_map(Edit::Delete),
        3 => any::<usize>().prop_map(Edit::Restore),
        3 => any::<usize>().prop_map(Edit::Import),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(to, from)| Edit::Relabel(to, from)),
        1 => any::<bool>().prop_map(Edit::Learn),
        3 => Just(Edit::Commit),
    ]
}

fn world(seed: u64) -> (World, Learned) {
    let generated = generate_seeded(&Parameters::small(), seed);
    let (objects, _) = sluice_crds::manifest::read("generated", &generated.manifest());
    let world = build(objects.into_iter().collect::<Inputs>()).expect("a world");
    (
        world,
        Learned::parse(&generated.learned_json()).expect("names"),
    )
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

fn remove(world: &mut World, item: &ItemRef) {
    match item {
        ItemRef::Namespace(name) => drop(world.namespaces.remove(name)),
        ItemRef::Pod(id) => drop(world.pods.remove(id)),
        ItemRef::Node(name) => drop(world.nodes.remove(name)),
        ItemRef::Service(id) => drop(world.services.remove(id)),
        ItemRef::CidrGroup(kind, name) => {
            drop(world.cidr_groups.remove(&(kind.clone(), name.clone())));
        }
        ItemRef::Policy(id) => drop(world.policies.remove(id)),
    }
}

/// The world under edit and the index that follows it.
struct Bench {
    world: World,
    learned: Learned,
    engine: Engine,
}

impl Bench {
    fn put(&mut self, item: WorldItem) {
        self.world.insert(item.clone());
        self.engine.index().apply(item);
    }

    fn delete(&mut self, item: &ItemRef) {
        remove(&mut self.world, item);
        self.engine.index().delete(item.clone());
    }

    fn edit(&mut self, edit: Edit, own: &[WorldItem], foreign: &[WorldItem], learned: &Learned) {
        match edit {
            Edit::Delete(n) => self.delete(&reference(&own[n % own.len()])),
            Edit::Restore(n) => self.put(own[n % own.len()].clone()),
            Edit::Import(n) if !foreign.is_empty() => {
                self.put(foreign[n % foreign.len()].clone());
            }
            Edit::Import(_) => {}
            Edit::Relabel(to, from) => {
                let ids: Vec<PodRef> = self.world.pods.keys().cloned().collect();
                if !ids.is_empty() {
                    let from = self.world.pods[&ids[from % ids.len()]].clone();
                    let mut to = self.world.pods[&ids[to % ids.len()]].clone();
                    to.labels = from.labels;
                    to.service_account = from.service_account;
                    to.named_ports = from.named_ports;
                    self.put(WorldItem::Pod(to));
                }
            }
            Edit::Learn(known) => {
                self.learned = if known {
                    learned.clone()
                } else {
                    Learned::default()
                };
                self.engine.index().set_learned(self.learned.clone());
            }
            Edit::Commit => drop(self.engine.commit()),
        }
    }
}

fn targets(world: &World, learned: &Learned) -> Vec<(Target, IpAddr)> {
    let mut targets = Vec::new();
    for pod in world
        .pods
        .values()
        .filter(|pod| !pod.host_network && !pod.external)
    {
        targets.extend(
            pod.addresses
                .iter()
                .map(|ip| (Target::Pod(pod.id.clone()), *ip)),
        );
    }
    for node in world.nodes.values() {
        targets.extend(
            node.addresses
                .iter()
                .map(|ip| (Target::Node(node.name.clone()), *ip)),
        );
    }
    let mut outside: Vec<IpAddr> = [
        "8.8.8.8",
        "192.0.2.7",
        "198.51.100.9",
        "203.0.113.80",
        "2001:db8::7",
        "2606::1",
    ]
    .iter()
    .map(|ip| ip.parse().expect("an address"))
    .collect();
    outside.extend(
        learned
            .iter()
            .flat_map(|(_, addresses)| addresses.iter().copied()),
    );
    targets.extend(outside.into_iter().map(|ip| (Target::Outside(ip), ip)));
    targets
}

fn queries(world: &World, learned: &Learned) -> Vec<Query> {
    let targets = targets(world, learned);
    let mut queries = Vec::new();
    for (from, source) in &targets {
        for (to, destination) in &targets {
            if source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            let icmp = if source.is_ipv4() { 1 } else { 58 };
            for (protocol, port) in [(6, 80), (6, 8080), (17, 53), (6, 443), (icmp, 8), (47, 0)] {
                queries.push(Query {
                    id: queries.len().to_string(),
                    from: from.clone(),
                    to: to.clone(),
                    source: *source,
                    destination: *destination,
                    protocol,
                    port,
                    http: None,
                    dns: None,
                });
            }
        }
    }
    queries
}

fn check(seed: u64, mode: Mode, edits: &[Edit]) -> Result<(), TestCaseError> {
    let (start, learned) = world(seed);
    let (other, _) = world(seed.wrapping_add(7_919));
    let own = start.items();
    let foreign: Vec<WorldItem> = other
        .items()
        .into_iter()
        .filter(|item| !matches!(item, WorldItem::Pod(_) | WorldItem::Node(_)))
        .collect();
    let index = Index::new(Settings {
        mode,
        ..Settings::default()
    });
    let engine = Engine::over(index, MemTables::default(), mode);
    let mut bench = Bench {
        world: World::default(),
        learned: Learned::default(),
        engine,
    };
    own.iter().cloned().for_each(|item| bench.put(item));
    for edit in edits {
        bench.edit(*edit, &own, &foreign, &learned);
    }
    bench.engine.commit();
    let scratch = Engine::new(&bench.world, &bench.learned, mode);
    for query in queries(&bench.world, &learned) {
        prop_assert_eq!(
            bench.engine.answer(&query),
            scratch.answer(&query),
            "{:?}",
            query
        );
    }
    prop_assert_eq!(
        bench.engine.tables().sizes(),
        scratch.tables().sizes(),
        "nothing is left over"
    );
    let labels = |engine: &mut Engine| {
        let mut all: Vec<_> = engine.index().identities().into_values().collect();
        all.sort();
        all
    };
    let (mut incremental, mut scratch) = (bench.engine, scratch);
    prop_assert_eq!(labels(&mut incremental), labels(&mut scratch));
    let again = incremental.commit();
    prop_assert_eq!(
        again,
        sluice_policy::Delta::default(),
        "a commit of nothing changes nothing"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn edits_equal_compiling_from_scratch(
        seed in 0_u64..100_000,
        always in any::<bool>(),
        edits in prop::collection::vec(edit(), 0..25),
    ) {
        check(seed, if always { Mode::Always } else { Mode::Default }, &edits)?;
    }
}

/// A policy that is put again unchanged is no change, whatever object it comes in.
#[test]
fn the_same_policy_again_is_no_change() {
    let (world, learned) = world(3);
    let mut engine = Engine::new(&world, &learned, Mode::Default);
    for policy in world.policies.values() {
        engine
            .index()
            .apply(WorldItem::Policy(Arc::new((**policy).clone())));
    }
    assert_eq!(engine.commit(), sluice_policy::Delta::default());
}
