//! Selectors in use, shared by content, each with the identities it selects; and the inverted indices that find, for a new identity,
//! its selectors and, for a new selector, its identities, without trying all pairs.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    identity::{IdentityBook, IdentityIndex},
    intern::Symbol,
    properties::{Family, Kind, Properties},
    selector::{AtomId, Domain, FqdnId, Key, Requirement, Reserved, Selector, Test},
};
use sluice_abi::Identity;

/// A selector in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectorId(u32);

/// A rule set in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub(crate) u32);

/// Something an identity has and a selector asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Token {
    Label(Symbol, Symbol),
    HasLabel(Symbol),
    Kind(Kind),
    Atom(AtomId),
    Fqdn(FqdnId),
    Port(Symbol),
}

#[derive(Debug)]
struct Entry {
    selector: Selector,
    users: u32,
    members: Vec<IdentityIndex>,
    peer_of: FxHashSet<(SetId, u32)>,
    subject_of: Vec<SetId>,
    /// Where the selector is listed: found by identities that have one of these. `None` until settled or for selectors that every
    /// identity has to be tried on.
    anchors: Option<Vec<Token>>,
}

/// All selectors in use.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_content: FxHashMap<Selector, SelectorId>,
    anchored: FxHashMap<Token, Vec<SelectorId>>,
    unanchored: Vec<SelectorId>,
    postings: FxHashMap<Token, Vec<IdentityIndex>>,
    unsettled: Vec<SelectorId>,
}

impl Registry {
    /// The selector of this content, and whether it is new; counts a user.
    pub fn acquire(&mut self, selector: &Selector) -> (SelectorId, bool) {
        if let Some(&id) = self.by_content.get(selector) {
            if let Some(entry) = self.entries[id.0 as usize].as_mut() {
                entry.users += 1;
            }
            return (id, false);
        }
        let entry = Entry {
            selector: selector.clone(),
            users: 1,
            members: Vec::new(),
            peer_of: FxHashSet::default(),
            subject_of: Vec::new(),
            anchors: None,
        };
        let id = if let Some(free) = self.free.pop() {
            self.entries[free as usize] = Some(entry);
            SelectorId(free)
        } else {
            self.entries.push(Some(entry));
            SelectorId(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
        };
        self.by_content.insert(selector.clone(), id);
        self.unsettled.push(id);
        (id, true)
    }

    /// Takes back one [`Self::acquire`] of several.
    pub fn unshare(&mut self, id: SelectorId) {
        if let Some(entry) = self.entries[id.0 as usize].as_mut() {
            entry.users = entry.users.saturating_sub(1).max(1);
        }
    }

    /// Takes back one [`Self::acquire`]; the selector's content where that was the last.
    pub fn release(&mut self, id: SelectorId, identities: &mut IdentityBook) -> Option<Selector> {
        let entry = self.entries[id.0 as usize].as_mut()?;
        entry.users -= 1;
        if entry.users > 0 {
            return None;
        }
        let entry = self.entries[id.0 as usize].take()?;
        for &member in &entry.members {
            if let Some(record) = identities.get_mut(member) {
                remove_sorted(&mut record.selectors, &id);
            }
        }
        match &entry.anchors {
            Some(tokens) => {
                for token in tokens {
                    remove_from(&mut self.anchored, token, id);
                }
            }
            None => self.unanchored.retain(|known| *known != id),
        }
        self.unsettled.retain(|known| *known != id);
        self.by_content.remove(&entry.selector);
        self.free.push(id.0);
        Some(entry.selector)
    }

    /// Finds the identities of selectors acquired since the last call.
    pub fn settle(&mut self, identities: &mut IdentityBook, empty: Symbol) {
        let mut unsettled = std::mem::take(&mut self.unsettled);
        unsettled.sort_unstable();
        let whole = unsettled.len() > Self::MANY;
        // How many selectors each identity gets, where they are many.
        let mut found = vec![0_usize; if whole { identities.places() } else { 0 }];
        for &id in &unsettled {
            let Some(entry) = self.entries[id.0 as usize].as_ref() else {
                continue;
            };
            let anchors = anchors(&entry.selector, |token| {
                self.postings.get(token).map_or(0, Vec::len)
            });
            let matches = |index: &IdentityIndex| {
                identities
                    .get(*index)
                    .is_some_and(|record| entry.selector.matches(&record.properties, empty))
            };
            let mut members: Vec<IdentityIndex> = match &anchors {
                Some(tokens) => tokens
                    .iter()
                    .filter_map(|token| self.postings.get(token))
                    .flatten()
                    .copied()
                    .filter(matches)
                    .collect(),
                None => identities
                    .iter()
                    .map(|(index, _)| index)
                    .filter(matches)
                    .collect(),
            };
            if anchors.as_ref().is_none_or(|tokens| tokens.len() > 1) {
                members.sort_unstable();
                members.dedup();
            }
            members.shrink_to_fit();
            for &member in &members {
                if whole {
                    found[member.0 as usize] += 1;
                } else if let Some(record) = identities.get_mut(member) {
                    insert_sorted(&mut record.selectors, id);
                }
            }
            match &anchors {
                Some(tokens) => {
                    for token in tokens {
                        self.anchored.entry(*token).or_default().push(id);
                    }
                }
                None => self.unanchored.push(id),
            }
            if let Some(entry) = self.entries[id.0 as usize].as_mut() {
                entry.members = members;
                entry.anchors = anchors;
            }
        }
        if whole {
            self.enlist(&unsettled, &found, identities);
        }
    }

    /// So many new selectors at once are listed by their identities in one go.
    const MANY: usize = 1000;

    /// Lists selectors in the records of whom they select; `found` says how many each gets.
    fn enlist(&self, settled: &[SelectorId], found: &[usize], identities: &mut IdentityBook) {
        for (place, found) in (0..).zip(found) {
            if let Some(record) = identities.get_mut(IdentityIndex(place)) {
                record.selectors.reserve_exact(*found);
            }
        }
        for &id in settled {
            for &member in self.members(id) {
                if let Some(record) = identities.get_mut(member) {
                    insert_sorted(&mut record.selectors, id);
                }
            }
        }
    }

    /// Takes in a new identity and finds its (settled) selectors.
    pub fn insert(&mut self, index: IdentityIndex, identities: &mut IdentityBook, empty: Symbol) {
        let Some(record) = identities.get_mut(index) else {
            return;
        };
        let mut found: Vec<SelectorId> = self.unanchored.clone();
        for token in tokens(&record.properties) {
            found.extend(self.anchored.get(&token).into_iter().flatten());
            insert_sorted(self.postings.entry(token).or_default(), index);
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|id| {
            let entry = self.entries[id.0 as usize].as_mut();
            entry.is_some_and(|entry| {
                let matches = entry.selector.matches(&record.properties, empty);
                if matches {
                    insert_sorted(&mut entry.members, index);
                }
                matches
            })
        });
        record.selectors = found;
    }

    /// Takes an identity out.
    pub fn remove(
        &mut self,
        index: IdentityIndex,
        properties: &Properties,
        selectors: &[SelectorId],
    ) {
        for token in tokens(properties) {
            if let Some(posting) = self.postings.get_mut(&token) {
                remove_sorted(posting, &index);
                if posting.is_empty() {
                    self.postings.remove(&token);
                }
            }
        }
        for id in selectors {
            if let Some(entry) = self.entries[id.0 as usize].as_mut() {
                remove_sorted(&mut entry.members, &index);
            }
        }
    }

    /// The identities a selector selects, sorted.
    #[must_use]
    pub fn members(&self, id: SelectorId) -> &[IdentityIndex] {
        self.entries[id.0 as usize]
            .as_ref()
            .map_or(&[], |entry| &entry.members)
    }

    /// The rules that name the selector as peer.
    pub fn peer_of(&self, id: SelectorId) -> impl Iterator<Item = (SetId, u32)> {
        self.entries[id.0 as usize]
            .as_ref()
            .into_iter()
            .flat_map(|entry| entry.peer_of.iter().copied())
    }

    /// How many rules name the selector as peer.
    #[must_use]
    pub fn peer_count(&self, id: SelectorId) -> usize {
        self.entries[id.0 as usize]
            .as_ref()
            .map_or(0, |entry| entry.peer_of.len())
    }

    /// The rule sets whose subject the selector is.
    #[must_use]
    pub fn subject_of(&self, id: SelectorId) -> &[SetId] {
        self.entries[id.0 as usize]
            .as_ref()
            .map_or(&[], |entry| &entry.subject_of)
    }

    /// Says that a rule names the selector as peer, or no longer does.
    pub fn link_peer(&mut self, id: SelectorId, rule: (SetId, u32), linked: bool) {
        if let Some(entry) = self.entries[id.0 as usize].as_mut() {
            if linked {
                entry.peer_of.insert(rule);
            } else {
                entry.peer_of.remove(&rule);
            }
        }
    }

    /// Says that the selector is a rule set's subject, or no longer is.
    pub fn link_subject(&mut self, id: SelectorId, set: SetId, linked: bool) {
        if let Some(entry) = self.entries[id.0 as usize].as_mut() {
            if linked {
                entry.subject_of.push(set);
            } else {
                entry.subject_of.retain(|known| *known != set);
            }
        }
    }
}

fn tokens(properties: &Properties) -> Vec<Token> {
    let mut tokens = vec![Token::Kind(properties.kind)];
    for &(key, value) in &properties.labels {
        tokens.push(Token::Label(key, value));
        tokens.push(Token::HasLabel(key));
    }
    tokens.extend(properties.atoms.iter().copied().map(Token::Atom));
    tokens.extend(properties.fqdns.iter().copied().map(Token::Fqdn));
    let mut names: Vec<Symbol> = properties.ports.iter().map(|port| port.name).collect();
    names.dedup();
    tokens.extend(names.into_iter().map(Token::Port));
    tokens
}

/// The shortest list of tokens of which every selected identity has one, or `None` where there is no such list.
fn anchors(selector: &Selector, holders: impl Fn(&Token) -> usize) -> Option<Vec<Token>> {
    match selector {
        Selector::Atom(atom) => Some(vec![Token::Atom(*atom)]),
        Selector::Fqdn(fqdn) => Some(vec![Token::Fqdn(*fqdn)]),
        Selector::Reserved(label) => Some(reserved(*label)),
        Selector::PortName(name) => Some(vec![Token::Port(*name)]),
        Selector::Labels(domain, requirements) => requirements
            .iter()
            .filter_map(|requirement| requirement_anchors(*domain, requirement))
            .min_by_key(|tokens| {
                // Among equals, more so while nothing is known of the world, the shorter list.
                (tokens.iter().map(&holders).sum::<usize>(), tokens.len())
            })
            .or_else(|| kinds(*domain)),
    }
}

fn requirement_anchors(domain: Domain, requirement: &Requirement) -> Option<Vec<Token>> {
    let present = matches!(requirement.test, Test::In(_) | Test::Exists);
    match (requirement.key, &requirement.test) {
        (Key::Any(_, Some(_)), _) if domain == Domain::All => None,
        (Key::AnyNode(_, Some(_)), _) => None,
        (
            Key::Pod(key) | Key::Node(key) | Key::Any(key, _) | Key::AnyNode(key, _),
            Test::In(values),
        ) => Some(
            values
                .iter()
                .map(|&value| Token::Label(key, value))
                .collect(),
        ),
        (
            Key::Pod(key) | Key::Node(key) | Key::Any(key, _) | Key::AnyNode(key, _),
            Test::Exists,
        ) => Some(vec![Token::HasLabel(key)]),
        (Key::Reserved(label), _) if present => Some(reserved(label)),
        (Key::Atom(atom), _) if present => Some(vec![Token::Atom(atom)]),
        (Key::Fqdn(fqdn), _) if present => Some(vec![Token::Fqdn(fqdn)]),
        (Key::Nowhere, _) if present => Some(Vec::new()),
        _ => None,
    }
}

fn reserved(label: Reserved) -> Vec<Token> {
    match label {
        Reserved::Host => vec![Token::Kind(Kind::Host)],
        Reserved::RemoteNode => vec![Token::Kind(Kind::RemoteNode)],
        Reserved::World => [Family::V4, Family::V6]
            .map(|f| Token::Kind(Kind::Outside(f)))
            .to_vec(),
        Reserved::WorldOf(family) => vec![Token::Kind(Kind::Outside(family))],
        Reserved::ApiServer(atom) => {
            vec![
                Token::Atom(atom),
                Token::Kind(Kind::Special(Identity::KUBE_APISERVER)),
            ]
        }
        Reserved::Special(identity) => vec![Token::Kind(Kind::Special(identity))],
    }
}

fn kinds(domain: Domain) -> Option<Vec<Token>> {
    match domain {
        Domain::Pods => Some(vec![Token::Kind(Kind::Pod)]),
        Domain::Nodes => Some([Kind::Host, Kind::RemoteNode].map(Token::Kind).to_vec()),
        Domain::RemoteNodes => Some(vec![Token::Kind(Kind::RemoteNode)]),
        Domain::All => None,
    }
}

fn insert_sorted<T: Ord>(list: &mut Vec<T>, item: T) {
    if list.last().is_none_or(|greatest| *greatest < item) {
        list.push(item);
    } else if let Err(place) = list.binary_search(&item) {
        list.insert(place, item);
    }
}

fn remove_sorted<T: Ord>(list: &mut Vec<T>, item: &T) {
    if let Ok(place) = list.binary_search(item) {
        list.remove(place);
    }
}

fn remove_from(map: &mut FxHashMap<Token, Vec<SelectorId>>, token: &Token, id: SelectorId) {
    if let Some(list) = map.get_mut(token) {
        list.retain(|known| *known != id);
        if list.is_empty() {
            map.remove(token);
        }
    }
}
