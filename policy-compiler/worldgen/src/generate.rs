//! Puts a world together: first everything policies can be about, then the policies, then the questions.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

use crate::{
    choices::{Choices, Recording},
    cilium,
    interests::Interests,
    network,
    parameters::{Kind, Parameters},
    pods::{PodSketch, pod, workload},
    queries, services, tiers,
    vocabulary::{NAMES, OUTSIDE, PREFIXES},
    world,
};

/// A world with its policies, and questions about it, as `sluice policy eval` reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// Manifests, the policies last.
    pub documents: Vec<Value>,
    /// How many of the manifests, from the end, are policies.
    pub policies: usize,
    /// Queries, one JSON object each.
    pub queries: Vec<Value>,
    /// Names the world has learned addresses for.
    pub learned: BTreeMap<String, Vec<IpAddr>>,
}

impl Generated {
    /// The manifests as one text that the manifest reader takes.
    #[must_use]
    pub fn manifest(&self) -> String {
        manifest(&self.documents)
    }

    /// The queries as a file of them, one on each line.
    #[must_use]
    pub fn query_lines(&self) -> String {
        self.queries
            .iter()
            .map(|query| format!("{query}\n"))
            .collect::<Vec<_>>()
            .concat()
    }

    /// The learned names as a file of them.
    #[must_use]
    pub fn learned_json(&self) -> String {
        serde_json::json!(self.learned).to_string()
    }
}

/// Manifests as one text: YAML documents, each written as JSON.
#[must_use]
pub fn manifest(documents: &[Value]) -> String {
    documents
        .iter()
        .map(|document| format!("---\n{document}\n"))
        .collect::<Vec<_>>()
        .concat()
}

/// What of a world the rooms of policies and queries need to know.
pub(crate) struct Scene<'a> {
    pub(crate) parameters: &'a Parameters,
    pub(crate) namespaces: u32,
    pub(crate) nodes: u32,
    pub(crate) services: u32,
    pub(crate) cidr_groups: u32,
    pub(crate) pods: Vec<PodSketch>,
    prefixes: Vec<String>,
}

/// The world of a recording: as many policies and queries as it has lists for.
#[must_use]
pub fn generate(parameters: &Parameters, recording: &Recording) -> Generated {
    let streams = |lists: &[Vec<u32>]| lists.iter().cloned().map(Choices::recorded).collect();
    assemble(
        parameters,
        Choices::recorded(recording.world.clone()),
        streams(&recording.policies),
        streams(&recording.queries),
    )
}

/// The world of a seed: as many policies and queries as the parameters say.
#[must_use]
pub fn generate_seeded(parameters: &Parameters, seed: u64) -> Generated {
    let mut choices = Choices::seeded(seed);
    let policies = choices.within(&parameters.policies);
    let queries = choices.within(&parameters.queries);
    let mut streams = |amount: u32| {
        (0..amount)
            .map(|_| Choices::seeded(u64::from(choices.below(u32::MAX)) ^ (seed << 32)))
            .collect()
    };
    let (policies, queries) = (streams(policies), streams(queries));
    assemble(parameters, choices, policies, queries)
}

fn assemble(
    parameters: &Parameters,
    mut choices: Choices,
    policies: Vec<Choices>,
    queries: Vec<Choices>,
) -> Generated {
    let choices = &mut choices;
    let mut scene = Scene {
        parameters,
        namespaces: choices.within(&parameters.namespaces),
        nodes: choices.within(&parameters.nodes),
        services: choices.within(&parameters.services),
        cidr_groups: choices.within(&parameters.cidr_groups),
        pods: Vec::new(),
        prefixes: random_prefixes(choices, parameters.random_prefixes),
    };
    let mut documents = Vec::new();
    for number in 0..scene.namespaces {
        let listed = world::namespace(choices, number);
        // A namespace may be known from its pods alone.
        if !choices.chance(parameters.corners) {
            documents.push(listed);
        }
    }
    documents.extend((0..scene.nodes).map(|number| world::node(choices, number)));
    documents.extend(draw_pods(choices, &mut scene));
    documents
        .extend((0..scene.services).flat_map(|number| services::service(choices, &scene, number)));
    if choices.chance(60) && parameters.corners > 0 {
        documents.extend(services::api_server(choices, &scene));
    }
    documents
        .extend((0..scene.cidr_groups).map(|number| world::cidr_group(choices, &scene, number)));
    let learned = learned(choices, parameters);
    let policies = draw_policies(policies, &scene);
    let count = policies.len();
    documents.extend(policies);

    let interests = Interests::of(&documents);
    let queries = queries
        .into_iter()
        .enumerate()
        .map(|(number, mut choices)| queries::query(&mut choices, &scene, &interests, number))
        .collect();
    Generated {
        documents,
        policies: count,
        queries,
        learned,
    }
}

fn draw_pods(choices: &mut Choices, scene: &mut Scene) -> Vec<Value> {
    let parameters = scene.parameters;
    let amount = choices.within(&parameters.workloads);
    let workloads: Vec<_> = (0..amount)
        .map(|_| workload(choices, parameters, scene.namespaces))
        .collect();
    let mut documents = Vec::new();
    for number in 0..choices.within(&parameters.pods) {
        let workload = match workloads.get(number as usize) {
            Some(first_of_its_kind) => first_of_its_kind,
            None => choices.pick(&workloads),
        };
        let (document, sketch) = pod(choices, parameters, workload, number, scene.nodes);
        documents.push(document);
        scene.pods.push(sketch);
    }
    documents
}

fn draw_policies(streams: Vec<Choices>, scene: &Scene) -> Vec<Value> {
    let mut documents = Vec::new();
    let mut baseline = false;
    for (number, mut choices) in (0..).zip(streams) {
        let choices = &mut choices;
        let kind = match *choices.pick(&scene.parameters.kinds) {
            // The API has one object of this kind; a second one is another kind of policy.
            Kind::BaselineAdminNetworkPolicy if baseline => Kind::ClusterNetworkPolicy,
            kind => kind,
        };
        baseline |= kind == Kind::BaselineAdminNetworkPolicy;
        documents.push(match kind {
            Kind::NetworkPolicy => network::policy(choices, scene, number),
            Kind::SluiceNetworkPolicy
            | Kind::SluiceClusterwideNetworkPolicy
            | Kind::CiliumNetworkPolicy
            | Kind::CiliumClusterwideNetworkPolicy => cilium::policy(choices, scene, kind, number),
            Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => tiers::policy(choices, scene, kind, number),
        });
    }
    documents
}

fn learned(choices: &mut Choices, parameters: &Parameters) -> BTreeMap<String, Vec<IpAddr>> {
    let mut learned = BTreeMap::new();
    if parameters.fqdn == 0 {
        return learned;
    }
    for name in NAMES {
        if choices.chance(60) {
            let addresses = (0..=choices.below(2))
                .filter_map(|_| choices.pick(&OUTSIDE).parse().ok())
                .collect();
            learned.insert(name.into(), addresses);
        }
    }
    learned
}

fn random_prefixes(choices: &mut Choices, amount: u32) -> Vec<String> {
    (0..amount)
        .map(|_| {
            let bits = choices.below(u32::MAX);
            if choices.chance(50) {
                let length = u8::try_from(choices.within(&(33..=64))).unwrap_or(64);
                let address = ((0x2001_0db8_u128 << 96) + (u128::from(bits) << 64)).into();
                Ipv6Net::new(address, length).map(|net| net.trunc().to_string())
            } else {
                let length = u8::try_from(choices.within(&(12..=32))).unwrap_or(32);
                // Multicast and above can't be peers; 0 to 191 leaves out the nodes' addresses as well.
                let address = (bits % (191 << 24)).into();
                Ipv4Net::new(address, length).map(|net| net.trunc().to_string())
            }
            .unwrap_or_else(|_| PREFIXES[0].into())
        })
        .collect()
}

impl Scene<'_> {
    /// The name of some namespace.
    pub(crate) fn namespace(&self, choices: &mut Choices) -> String {
        format!("ns-{}", choices.below(self.namespaces))
    }

    /// Some prefix: a fixed one, or one of the random ones where there are any.
    pub(crate) fn prefix(&self, choices: &mut Choices) -> &str {
        if self.prefixes.is_empty() {
            choices.pick::<&str>(&PREFIXES)
        } else {
            choices.pick::<String>(&self.prefixes)
        }
    }

    /// Prefixes inside this one, for `except`; often none.
    pub(crate) fn inside(choices: &mut Choices, prefix: &str) -> Vec<String> {
        let Ok(outer) = prefix.parse::<IpNet>() else {
            return vec![];
        };
        let inner: Vec<&str> = PREFIXES
            .into_iter()
            .filter(|candidate| {
                candidate
                    .parse::<IpNet>()
                    .is_ok_and(|net| net != outer && outer.contains(&net))
            })
            .collect();
        if inner.is_empty() || !choices.chance(45) {
            return vec![];
        }
        (0..=choices.below(2))
            .map(|_| (*choices.pick(&inner)).to_owned())
            .collect()
    }

    /// The address of some pod whose addresses are given.
    pub(crate) fn pod_address(&self, choices: &mut Choices) -> Option<String> {
        let pod = self
            .pods
            .get(choices.below(u32::try_from(self.pods.len()).ok()?) as usize)?;
        pod.addresses.first().cloned()
    }
}
