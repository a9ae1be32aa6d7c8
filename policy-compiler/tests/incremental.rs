//! An index that went through any sequence of edits means the same, and holds as much, as one that compiles the final world at once.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use proptest::prelude::*;
use sluice_crds::parsed::PolicyRef;
use sluice_policy::{Delta, Engine, Index, ItemRef, MemTables, Prepared, Settings, Warning};
use sluice_world::{Inputs, Learned, Mode, PodRef, Policy, Query, Target, World, WorldItem, build};
use sluice_worldgen::{Parameters, generate_seeded};

fn settings(mode: Mode) -> Settings {
    Settings {
        mode,
        ..Settings::default()
    }
}

/// One edit: which item, by a number, and what happens to it.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Delete(usize),
    Restore(usize),
    /// A policy, service, group or namespace of another world.
    Import(usize),
    /// A pod takes another's labels and service account.
    Relabel(usize, usize),
    /// One rule of a policy in force comes, goes, moves or changes, the policy being given as read or prepared.
    Rule(usize, RuleEdit, bool),
    /// What names were learned changes.
    Learn(bool),
    Commit,
}

/// What happens to a rule list; the number says where.
#[derive(Clone, Copy, Debug)]
enum RuleEdit {
    Remove(usize),
    /// A rule comes in before another, as a copy of a third.
    Insert(usize, usize),
    Swap(usize, usize),
    /// A rule takes another's place.
    Overwrite(usize, usize),
}

impl RuleEdit {
    fn apply<T: Clone>(self, rules: &mut Vec<T>) {
        let length = rules.len();
        if length == 0 {
            return;
        }
        match self {
            Self::Remove(at) => drop(rules.remove(at % length)),
            Self::Insert(at, from) => rules.insert(at % (length + 1), rules[from % length].clone()),
            Self::Swap(one, other) => rules.swap(one % length, other % length),
            Self::Overwrite(at, from) => rules[at % length] = rules[from % length].clone(),
        }
    }
}

fn rule_edit() -> impl Strategy<Value = RuleEdit> {
    let number = any::<usize>;
    prop_oneof![
        number().prop_map(RuleEdit::Remove),
        (number(), number()).prop_map(|(at, from)| RuleEdit::Insert(at, from)),
        (number(), number()).prop_map(|(one, other)| RuleEdit::Swap(one, other)),
        (number(), number()).prop_map(|(at, from)| RuleEdit::Overwrite(at, from)),
    ]
}

/// The policy with one rule list edited, of those it has.
fn with_rule_edited(policy: &Policy, list: usize, edit: RuleEdit) -> Policy {
    let mut policy = policy.clone();
    match &mut policy {
        Policy::Network(policy) => match (&mut policy.ingress, &mut policy.egress) {
            (Some(ingress), Some(egress)) => {
                edit.apply(if list.is_multiple_of(2) {
                    ingress
                } else {
                    egress
                });
            }
            (Some(rules), None) | (None, Some(rules)) => edit.apply(rules),
            (None, None) => {}
        },
        Policy::Tier(policy) => edit.apply(if list.is_multiple_of(2) {
            &mut policy.ingress
        } else {
            &mut policy.egress
        }),
        Policy::Rules(policy) => {
            let specs = policy.specs.len();
            let spec = &mut policy.specs[list / 4 % specs];
            match list % 4 {
                0 => spec.ingress.iter_mut().for_each(|rules| edit.apply(rules)),
                1 => spec.egress.iter_mut().for_each(|rules| edit.apply(rules)),
                2 => spec
                    .ingress_deny
                    .iter_mut()
                    .for_each(|rules| edit.apply(rules)),
                _ => spec
                    .egress_deny
                    .iter_mut()
                    .for_each(|rules| edit.apply(rules)),
            }
        }
    }
    policy
}

/// The policy with the rules of others of its API in its own lists, so that it is long.
fn lengthened(policy: &Policy, others: &[Arc<Policy>]) -> Policy {
    fn extend<T: Clone>(rules: Option<&mut Vec<T>>, more: Option<&Vec<T>>) {
        if let (Some(rules), Some(more)) = (rules, more) {
            rules.extend(more.iter().cloned());
        }
    }
    let mut policy = policy.clone();
    for other in others {
        match (&mut policy, &**other) {
            (Policy::Network(own), Policy::Network(other)) => {
                extend(own.ingress.as_mut(), other.ingress.as_ref());
                extend(own.egress.as_mut(), other.egress.as_ref());
            }
            (Policy::Tier(own), Policy::Tier(other)) => {
                own.ingress.extend(other.ingress.iter().cloned());
                own.egress.extend(other.egress.iter().cloned());
            }
            (Policy::Rules(own), Policy::Rules(other)) => {
                for (own, other) in own.specs.iter_mut().zip(&other.specs) {
                    extend(own.ingress.as_mut(), other.ingress.as_ref());
                    extend(own.egress.as_mut(), other.egress.as_ref());
                    extend(own.ingress_deny.as_mut(), other.ingress_deny.as_ref());
                    extend(own.egress_deny.as_mut(), other.egress_deny.as_ref());
                }
            }
            _ => {}
        }
    }
    policy
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => any::<usize>().prop_map(Edit::Delete),
        3 => any::<usize>().prop_map(Edit::Restore),
        3 => any::<usize>().prop_map(Edit::Import),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(to, from)| Edit::Relabel(to, from)),
        4 => (any::<usize>(), rule_edit(), any::<bool>())
            .prop_map(|(list, edit, prepared)| Edit::Rule(list, edit, prepared)),
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
    /// What authors were told last, where it was anything.
    warnings: Warnings,
}

type Warnings = BTreeMap<PolicyRef, Vec<Warning>>;

/// Takes in what a delta tells authors. Which of two policies of equal priority hears of the other hangs on which was there first.
fn note_warnings(known: &mut Warnings, delta: &Delta) {
    for (policy, warnings) in &delta.warnings {
        let mut warnings = warnings.clone();
        warnings.retain(|warning| *warning != Warning::EqualPriority);
        known.remove(policy);
        if !warnings.is_empty() {
            known.insert(policy.clone(), warnings);
        }
    }
}

impl Bench {
    fn put(&mut self, item: WorldItem) {
        self.world.insert(item.clone());
        self.engine.index().apply(item);
    }

    fn commit(&mut self) {
        let delta = self.engine.commit();
        note_warnings(&mut self.warnings, &delta);
    }

    fn put_policy(&mut self, policy: Arc<Policy>, prepared: bool) {
        self.world.insert(WorldItem::Policy(Arc::clone(&policy)));
        if prepared {
            self.engine.index().apply_prepared(Prepared::new(policy));
        } else {
            self.engine.index().apply(WorldItem::Policy(policy));
        }
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
            Edit::Rule(number, edit, prepared) => {
                let policies = &self.world.policies;
                let Some(policy) = policies.values().nth(number % policies.len().max(1)) else {
                    return;
                };
                let policy = with_rule_edited(policy, number / 7, edit);
                self.put_policy(Arc::new(policy), prepared);
            }
            Edit::Learn(known) => {
                self.learned = if known {
                    learned.clone()
                } else {
                    Learned::default()
                };
                self.engine.index().set_learned(self.learned.clone());
            }
            Edit::Commit => self.commit(),
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
    let index = Index::new(settings(mode));
    let engine = Engine::over(index, MemTables::default(), mode);
    let mut bench = Bench {
        world: World::default(),
        learned: Learned::default(),
        engine,
        warnings: Warnings::default(),
    };
    own.iter().cloned().for_each(|item| bench.put(item));
    for edit in edits {
        bench.edit(*edit, &own, &foreign, &learned);
    }
    bench.commit();
    same_as_from_scratch(bench, &learned, mode)
}

/// Long policies, of whose rules some come, go, move and change, with a commit after each.
fn check_long(
    seed: u64,
    mode: Mode,
    edits: &[(usize, RuleEdit, bool)],
) -> Result<(), TestCaseError> {
    let (start, learned) = world(seed);
    let others: Vec<Arc<Policy>> = (1..=20)
        .flat_map(|further| world(seed + further * 7_919).0.policies.into_values())
        .collect();
    let index = Index::new(settings(mode));
    let mut bench = Bench {
        world: World::default(),
        learned: learned.clone(),
        engine: Engine::over(index, MemTables::default(), mode),
        warnings: Warnings::default(),
    };
    bench.engine.index().set_learned(learned.clone());
    start.items().into_iter().for_each(|item| bench.put(item));
    for (number, policy) in start.policies.values().enumerate() {
        bench.put_policy(Arc::new(lengthened(policy, &others)), number % 2 == 0);
    }
    bench.commit();
    for &(number, edit, prepared) in edits {
        bench.edit(Edit::Rule(number, edit, prepared), &[], &[], &learned);
        bench.commit();
    }
    same_as_from_scratch(bench, &learned, mode)
}

fn same_as_from_scratch(bench: Bench, learned: &Learned, mode: Mode) -> Result<(), TestCaseError> {
    let mut scratch = Engine::over(Index::new(settings(mode)), MemTables::default(), mode);
    for item in bench.world.items() {
        scratch.index().apply(item);
    }
    scratch.index().set_learned(bench.learned.clone());
    let mut warnings = Warnings::default();
    note_warnings(&mut warnings, &scratch.commit());
    prop_assert_eq!(&bench.warnings, &warnings, "authors know the same");
    for query in queries(&bench.world, learned) {
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
        Delta::default(),
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

    #[test]
    fn edits_of_single_rules_equal_compiling_from_scratch(
        seed in 0_u64..100_000,
        always in any::<bool>(),
        edits in prop::collection::vec((any::<usize>(), rule_edit(), any::<bool>()), 1..12),
    ) {
        check_long(seed, if always { Mode::Always } else { Mode::Default }, &edits)?;
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
    assert_eq!(engine.commit(), Delta::default());
}
