//! Stored identities: which numbers are taken and what for, which are to be stored before they are used, which are of no use any more.
//! What an identity is, the index knows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use sluice_crds::resources::{GROUP, VERSION};
use sluice_policy::Store;

use super::{
    endpoints::fnv,
    input::IdentityInput,
    policies::Price,
    write::{Change, Object, Write},
};

/// Bits of a number below those that name its allocator.
const LOCAL_BITS: u32 = 24;
/// Numbers below are fixed, and never stored.
const FIRST_STORED: u32 = 256;

/// The property that tells an identity's namespace.
const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";

#[derive(Debug)]
struct Stored {
    text: String,
    /// Since when nobody has it; `None` while somebody does.
    unused_since: Option<Timestamp>,
    /// As its status says.
    endpoints: Option<i64>,
    /// The watch has told of it.
    seen: bool,
}

/// All stored identities.
#[derive(Debug, Default)]
pub(super) struct Identities {
    stored: BTreeMap<u32, Stored>,
    names: HashMap<String, u32>,
    counts: HashMap<u32, i64>,
    dirty: BTreeSet<u32>,
    /// Others are in use than when prices were last asked for.
    moved: bool,
}

/// What labels cost, each in every namespace that has it and in all together.
#[derive(Debug, Default)]
pub(super) struct Prices(HashMap<(String, Option<String>), Price>);

impl Prices {
    /// Of a label key, in one namespace or in all.
    pub(super) fn of(&self, key: &str, namespace: Option<&str>) -> Price {
        let place = (key.to_owned(), namespace.map(str::to_owned));
        self.0.get(&place).copied().unwrap_or_default()
    }
}

impl Identities {
    pub(super) fn put(&mut self, name: String, input: Option<IdentityInput>) {
        let Some(input) = input else {
            // Nobody else may delete one; where it is in use it stays known, and its object is made again with the next leader.
            if let Some(number) = self.names.remove(&name)
                && self
                    .stored
                    .get(&number)
                    .is_some_and(|stored| stored.unused_since.is_some())
            {
                self.stored.remove(&number);
            }
            return;
        };
        self.names.insert(name, input.number);
        let known = self.stored.entry(input.number).or_insert(Stored {
            text: input.text,
            unused_since: Some(Timestamp::UNIX_EPOCH),
            endpoints: None,
            seen: true,
        });
        known.seen = true;
        known.endpoints = input.endpoints;
    }

    pub(super) fn len(&self) -> usize {
        self.stored.len()
    }

    /// What an index needs to go on with the same numbers. None is used yet.
    pub(super) fn lead(&mut self, now: Timestamp) -> Store {
        let mut store = Store::default();
        // In the order of numbers: where two stand for the same, the later one is in use.
        for (&number, stored) in &mut self.stored {
            stored.unused_since = Some(now);
            store.numbers.insert(stored.text.clone(), number);
            let range = range_of(number);
            let next = (number & ((1 << LOCAL_BITS) - 1)) + 1;
            let known = store.next.entry(range).or_insert(next);
            *known = (*known).max(next);
        }
        store
    }

    /// What these label keys cost; nothing where no other identities are in use than when it was asked last.
    pub(super) fn prices(&mut self, keys: &BTreeSet<&str>) -> Option<Prices> {
        if !std::mem::take(&mut self.moved) {
            return None;
        }
        let mut tally = Tally::new();
        let in_use = self.stored.values();
        for stored in in_use.filter(|stored| stored.unused_since.is_none()) {
            count_labels(&stored.text, keys, &mut tally);
        }
        let mut prices = Prices::default();
        for ((key, namespace), (with, without)) in tally {
            let place = (key.to_owned(), namespace.map(str::to_owned));
            let without = without.len();
            prices.0.insert(place, Price { with, without });
        }
        Some(prices)
    }

    /// Asked for prices next, this answers, even where nothing has moved.
    pub(super) const fn ask_again(&mut self) {
        self.moved = true;
    }

    /// Takes in what a commit began to use; what has to be stored before anyone is told.
    pub(super) fn begin(&mut self, number: u32, properties: &[String]) -> Option<Write> {
        // Numbers born on agents are in the fourth range, and never here.
        if number < FIRST_STORED {
            return None;
        }
        self.moved = true;
        if let Some(known) = self.stored.get_mut(&number) {
            known.unused_since = None;
            return None;
        }
        let text = properties.iter().flat_map(|line| [line, "\n"]).collect();
        self.stored.insert(
            number,
            Stored {
                text,
                unused_since: None,
                endpoints: None,
                seen: false,
            },
        );
        Some(Write {
            object: object(number),
            change: Change::Create(manifest(number, properties)),
        })
    }

    /// Nobody has it any more.
    pub(super) fn end(&mut self, number: u32, now: Timestamp) {
        if let Some(known) = self.stored.get_mut(&number) {
            known.unused_since = Some(now);
            self.moved = true;
        }
    }

    /// An endpoint has it, or has it no more.
    pub(super) fn count(&mut self, number: u32, by: i64) {
        if number >= FIRST_STORED {
            *self.counts.entry(number).or_default() += by;
            self.dirty.insert(number);
        }
    }

    /// Statuses that tell another number of endpoints than there are.
    pub(super) fn statuses(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        for number in std::mem::take(&mut self.dirty) {
            let endpoints = self.counts.get(&number).copied().unwrap_or_default();
            if endpoints == 0 {
                self.counts.remove(&number);
            }
            let Some(stored) = self.stored.get_mut(&number) else {
                continue;
            };
            if stored.endpoints == Some(endpoints) {
                continue;
            }
            stored.endpoints = Some(endpoints);
            writes.push(Write {
                object: object(number),
                change: Change::ApplyStatus(json!({
                    "apiVersion": format!("{GROUP}/{VERSION}"),
                    "kind": "Identity",
                    "metadata": { "name": number.to_string() },
                    "status": { "endpoints": endpoints },
                })),
            });
        }
        writes
    }

    /// Marks all whose status may be of an earlier leader's time.
    pub(super) fn recount(&mut self) {
        let told = self
            .stored
            .iter()
            .filter(|(_, stored)| stored.endpoints.unwrap_or(0) != 0);
        self.dirty.extend(told.map(|(number, _)| *number));
    }

    /// Deletes what nobody has had for `grace`. The greatest number of each range stays: the next leader counts on from it, and a number
    /// that is given out twice would mean two things to an agent that was away.
    pub(super) fn collect(&self, now: Timestamp, grace: Duration) -> Vec<Write> {
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        let mut greatest: BTreeMap<u8, u32> = BTreeMap::new();
        for &number in self.stored.keys() {
            greatest.insert(range_of(number), number);
        }
        let old = |(number, stored): &(&u32, &Stored)| {
            stored.seen
                && greatest.get(&range_of(**number)) != Some(*number)
                && stored
                    .unused_since
                    .is_some_and(|since| now.duration_since(since) >= grace)
        };
        self.stored
            .iter()
            .filter(old)
            .map(|(number, _)| Write {
                object: object(*number),
                change: Change::Delete,
            })
            .collect()
    }
}

/// By label key and namespace (`None`: all together): how many identities carry it, and digests of what they are without it.
type Tally<'a> = HashMap<(&'a str, Option<&'a str>), (usize, HashSet<u64>)>;

/// Counts the labels of one identity, given by its properties, that are among `keys`.
fn count_labels<'a>(text: &'a str, keys: &BTreeSet<&str>, tally: &mut Tally<'a>) {
    let lines: Vec<&str> = text.lines().collect();
    let namespace = lines
        .iter()
        .find_map(|line| line.strip_prefix(NAMESPACE)?.strip_prefix('='));
    for (at, line) in lines.iter().enumerate() {
        let label = line.strip_prefix("k8s:").and_then(|l| l.split_once('='));
        let Some((key, _)) = label.filter(|(key, _)| keys.contains(key)) else {
            continue;
        };
        let others = lines[..at].iter().chain(&lines[at + 1..]);
        let others: String = others.flat_map(|line| [line, "\n"]).collect();
        let digest = fnv(others.as_bytes());
        let mut count = |place| {
            let (with, without) = tally.entry((key, place)).or_default();
            *with += 1;
            without.insert(digest);
        };
        count(None);
        if namespace.is_some() {
            count(namespace);
        }
    }
}

/// The allocator's number as the store of the index spells it: the range that the number is in.
fn range_of(number: u32) -> u8 {
    sluice_abi::Identity(number)
        .range()
        .map_or(u8::MAX, |range| range as u8)
}

fn object(number: u32) -> Object {
    Object::own("Identity", "identities", None, number.to_string())
}

fn manifest(number: u32, properties: &[String]) -> Value {
    let mut labels = Map::new();
    for property in properties {
        if let Some((key, value)) = property.split_once('=')
            && key.starts_with("k8s:")
        {
            labels.insert(key.to_owned(), json!(value));
        }
    }
    let mut spec = json!({ "number": number, "properties": properties });
    if let Some(namespace) = labels.get(NAMESPACE) {
        spec["namespace"] = namespace.clone();
    }
    if !labels.is_empty() {
        spec["labels"] = Value::Object(labels);
    }
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "Identity",
        "metadata": { "name": number.to_string() },
        "spec": spec,
    })
}
