//! Identities and their numbers: equal properties share a number, numbers are never reused, and a store given back after a restart
//! yields the same numbers again. Who uses an identity is counted here; who is selected by what is [`crate::registry`]'s.

use std::{collections::BTreeMap, fmt::Write};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use sluice_abi::{Identity, Range, Scope};

use crate::{
    fqdn::FqdnBook,
    intern::Interner,
    prefix::PrefixBook,
    properties::{Family, Kind, Properties},
    registry::SelectorId,
};

/// Place of an identity in the book; reused only after the identity has left every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityIndex(pub(crate) u32);

/// What outlives a restart: which properties have which number, and how far each range is used up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Canonical text of the properties → number.
    pub numbers: BTreeMap<String, u32>,
    /// Range (as its number) → next unused index.
    pub next: BTreeMap<u8, u32>,
}

/// An identity in use.
#[derive(Debug)]
pub struct Record {
    /// Its number.
    pub number: Identity,
    /// What it stands for.
    pub properties: Properties,
    /// Selectors that select it, sorted.
    pub selectors: Vec<SelectorId>,
    /// What the store knows it by.
    text: Box<str>,
    users: u32,
    /// Nobody outside has heard of it.
    pub fresh: bool,
}

impl Record {
    /// The properties as labels with their sources, found when the identity was made.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }
}

/// What compiling an entry asks of its identity. Kept apart from the records, close together: tables have millions of entries.
#[derive(Clone, Copy, Debug)]
pub struct Brief {
    /// Its number.
    pub number: Identity,
    /// Its scope.
    pub scope: Scope,
    /// It stands for a node as its own pods see it.
    pub host: bool,
    /// In use. The rest stays until the place is reused: entries of an identity that is gone are still to be told of.
    pub alive: bool,
}

/// All identities in use.
#[derive(Debug)]
pub struct IdentityBook {
    records: Vec<Option<Record>>,
    /// By the same index.
    briefs: Vec<Brief>,
    free: Vec<u32>,
    by_properties: FxHashMap<Properties, IdentityIndex>,
    store: Store,
    /// Made since the last [`IdentityBook::take_made`].
    made: Vec<IdentityIndex>,
    /// Without users since the last [`IdentityBook::take_unused`].
    unused: Vec<IdentityIndex>,
}

/// A range of numbers is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no identity number is left in range {0:?}: fewer label keys in policies, or a new epoch of the range, is needed"
)]
pub struct Exhausted(pub Range);

/// What texts of properties are made of.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Label strings.
    pub interner: &'a Interner,
    /// Address sets.
    pub prefixes: &'a PrefixBook,
    /// DNS selectors.
    pub fqdns: &'a FqdnBook,
}

impl IdentityBook {
    /// A book that continues from `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            records: Vec::new(),
            briefs: Vec::new(),
            free: Vec::new(),
            by_properties: FxHashMap::default(),
            store,
            made: Vec::new(),
            unused: Vec::new(),
        }
    }

    /// The identity of these properties; counts a user.
    ///
    /// # Errors
    /// Its range of numbers is used up.
    pub fn acquire(
        &mut self,
        properties: Properties,
        names: Names<'_>,
    ) -> Result<IdentityIndex, Exhausted> {
        if let Some(&index) = self.by_properties.get(&properties) {
            if let Some(record) = self.records[index.0 as usize].as_mut() {
                record.users += 1;
            }
            return Ok(index);
        }
        let text = text(&properties, names);
        let number = match properties.reserved() {
            Some(number) => number,
            None => self.store.number(&properties, &text)?,
        };
        let brief = Brief {
            number,
            scope: properties.scope(),
            host: properties.kind == Kind::Host,
            alive: true,
        };
        let record = Record {
            number,
            properties: properties.clone(),
            selectors: Vec::new(),
            text: text.into(),
            users: 1,
            fresh: true,
        };
        let index = if let Some(free) = self.free.pop() {
            self.records[free as usize] = Some(record);
            self.briefs[free as usize] = brief;
            IdentityIndex(free)
        } else {
            self.records.push(Some(record));
            self.briefs.push(brief);
            // Numbers have 24 bits in each of five ranges, so 32 bits can't be used up before them.
            IdentityIndex(u32::try_from(self.records.len() - 1).unwrap_or(u32::MAX))
        };
        self.by_properties.insert(properties, index);
        self.made.push(index);
        Ok(index)
    }

    /// Counts one more user of an identity in use.
    pub fn share(&mut self, index: IdentityIndex) {
        if let Some(record) = self.records[index.0 as usize].as_mut() {
            record.users += 1;
        }
    }

    /// Takes back one [`Self::acquire`] or [`Self::share`].
    pub fn release(&mut self, index: IdentityIndex) {
        if let Some(record) = self.records[index.0 as usize].as_mut() {
            record.users -= 1;
            if record.users == 0 {
                self.unused.push(index);
            }
        }
    }

    /// Identities made since the last call; some may be without users again.
    pub fn take_made(&mut self) -> Vec<IdentityIndex> {
        std::mem::take(&mut self.made)
    }

    /// Identities that have no user now, each once.
    pub fn take_unused(&mut self) -> Vec<IdentityIndex> {
        let mut unused = std::mem::take(&mut self.unused);
        unused.sort_unstable();
        unused.dedup();
        unused.retain(|&index| self.get(index).is_some_and(|record| record.users == 0));
        unused
    }

    /// Forgets an identity without users. Its number is not given out again.
    pub fn forget(&mut self, index: IdentityIndex) -> Option<Record> {
        let record = self.records.get_mut(index.0 as usize)?.take()?;
        self.briefs[index.0 as usize].alive = false;
        self.by_properties.remove(&record.properties);
        self.store.numbers.remove(&*record.text);
        self.free.push(index.0);
        Some(record)
    }

    /// An identity in use.
    #[must_use]
    pub fn get(&self, index: IdentityIndex) -> Option<&Record> {
        self.records.get(index.0 as usize)?.as_ref()
    }

    /// An identity in use, or one that was the last in its place, in brief. The index must be one of this book's.
    #[must_use]
    pub fn brief(&self, index: IdentityIndex) -> Brief {
        self.briefs[index.0 as usize]
    }

    /// How many places there are, free ones included.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.records.len()
    }

    /// An identity in use, to change.
    pub fn get_mut(&mut self, index: IdentityIndex) -> Option<&mut Record> {
        self.records.get_mut(index.0 as usize)?.as_mut()
    }

    /// All identities in use.
    pub fn iter(&self) -> impl Iterator<Item = (IdentityIndex, &Record)> {
        (0..)
            .map(IdentityIndex)
            .zip(&self.records)
            .filter_map(|(index, record)| Some((index, record.as_ref()?)))
    }

    /// What has to be kept for the next start.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }
}

impl Store {
    fn number(&mut self, properties: &Properties, text: &str) -> Result<Identity, Exhausted> {
        let range = range(properties);
        let known = self.numbers.get(text).copied().map(Identity);
        if let Some(number) = known.filter(|number| number.range() == Some(range)) {
            return Ok(number);
        }
        let next = self
            .next
            .entry(range as u8)
            .or_insert(Identity::FIRST_ALLOCATED);
        let number = Identity::new(range, *next).ok_or(Exhausted(range))?;
        *next += 1;
        self.numbers.insert(text.to_owned(), number.0);
        Ok(number)
    }
}

/// Which allocator numbers such properties.
const fn range(properties: &Properties) -> Range {
    match properties.kind {
        Kind::Pod => Range::Pod,
        Kind::Host | Kind::RemoteNode => Range::Node,
        Kind::Outside(_) if properties.fqdns.is_empty() => Range::Cidr,
        Kind::Outside(_) => Range::Local,
        Kind::Special(_) => Range::Reserved,
    }
}

/// The properties as text: labels with their sources, as people and the store read them. Equal exactly for equal properties.
fn labels(properties: &Properties, names: Names<'_>) -> Vec<String> {
    let mut labels = Vec::new();
    let (kind, source) = match properties.kind {
        Kind::Pod => ("", "k8s"),
        Kind::Host => ("reserved:host", "node"),
        Kind::RemoteNode => ("reserved:remote-node", "node"),
        Kind::Outside(Family::V4) => ("reserved:world-ipv4", ""),
        Kind::Outside(Family::V6) => ("reserved:world-ipv6", ""),
        Kind::Special(Identity::HEALTH) => ("reserved:health", ""),
        Kind::Special(Identity::INIT) => ("reserved:init", ""),
        Kind::Special(Identity::UNMANAGED) => ("reserved:unmanaged", ""),
        Kind::Special(Identity::INGRESS) => ("reserved:ingress", ""),
        Kind::Special(_) => ("reserved:kube-apiserver", ""),
    };
    if !kind.is_empty() {
        labels.push(kind.to_owned());
    }
    let mut own: Vec<String> = properties
        .labels
        .iter()
        .map(|&(key, value)| {
            format!(
                "{source}:{}={}",
                names.interner.text(key),
                names.interner.text(value)
            )
        })
        .collect();
    own.extend(properties.ports.iter().map(|port| {
        format!(
            "port:{}={}/{}",
            names.interner.text(port.name),
            port.protocol,
            port.port
        )
    }));
    own.extend(
        properties
            .atoms
            .iter()
            .map(|&atom| names.prefixes.text(atom)),
    );
    own.extend(properties.fqdns.iter().map(|&fqdn| names.fqdns.text(fqdn)));
    own.sort_unstable();
    labels.append(&mut own);
    labels
}

fn text(properties: &Properties, names: Names<'_>) -> String {
    let mut text = String::new();
    for label in labels(properties, names) {
        // Writing to a string can't fail. Labels hold no control characters, so a line break separates them for sure.
        let _ = writeln!(text, "{label}");
    }
    text
}
