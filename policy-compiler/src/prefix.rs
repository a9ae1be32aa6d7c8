//! Prefixes that policies mention, the sets they form (atoms), and which sets an address is in. Knows neither rules nor identities.
//!
//! An address belongs to every mentioned prefix that contains it; the sets it is in follow from the longest of these alone, since the
//! others contain that one.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};
use sluice_abi::ipcache::PrefixKey;

use crate::{properties::Family, selector::AtomId};

/// A prefix of one family; bits are left-aligned, so that order puts a prefix right before what it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    family: Family,
    bits: u128,
    length: u8,
}

impl Prefix {
    /// All of a family.
    #[must_use]
    pub const fn everything(family: Family) -> Self {
        Self {
            family,
            bits: 0,
            length: 0,
        }
    }

    /// The family.
    #[must_use]
    pub const fn family(self) -> Family {
        self.family
    }

    /// Whether this is a single address.
    #[must_use]
    pub const fn is_address(self) -> bool {
        self.length == Self::width(self.family)
    }

    /// The first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        match self.family {
            Family::V4 => {
                let [a, b, c, d, ..] = self.bits.to_be_bytes();
                IpAddr::from([a, b, c, d])
            }
            Family::V6 => IpAddr::from(self.bits.to_be_bytes()),
        }
    }

    /// The key of the kernel's prefix trie.
    #[must_use]
    pub fn key(self) -> PrefixKey {
        PrefixKey::block(self.address(), self.length)
    }

    /// Everything this prefix contains, itself included, as a range of the order.
    #[must_use]
    pub fn range(self) -> std::ops::RangeInclusive<Self> {
        self..=self.last()
    }

    /// The last prefix in order that this one contains.
    fn last(self) -> Self {
        let bits = self.bits | !mask(self.length);
        Self {
            bits,
            length: 128,
            ..self
        }
    }

    fn shortened(self, length: u8) -> Self {
        Self {
            bits: self.bits & mask(length),
            length,
            ..self
        }
    }

    /// How many of this prefix's leading bits the other prefix shares. Both are of one family.
    fn common(self, other: Self) -> u8 {
        let bits = (self.bits ^ other.bits).leading_zeros();
        self.length
            .min(other.length)
            .min(u8::try_from(bits).unwrap_or(u8::MAX))
    }

    const fn width(family: Family) -> u8 {
        match family {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self::from(IpNet::from(address))
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        let (family, bits) = match net.network() {
            IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
        };
        Self {
            family,
            bits,
            length: net.prefix_len(),
        }
    }
}

const fn mask(length: u8) -> u128 {
    match 128u8.checked_sub(length) {
        None | Some(0) => u128::MAX,
        Some(128) => 0,
        Some(shift) => u128::MAX << shift,
    }
}

/// A set of addresses, by content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressSet {
    /// Pods and nodes may be members too, not only the outside.
    pub any_address: bool,
    /// Prefixes, each less its own exceptions. Sorted.
    pub entries: Vec<(IpNet, Vec<IpNet>)>,
}

impl AddressSet {
    /// The set of these entries.
    #[must_use]
    pub fn new(any_address: bool, mut entries: Vec<(IpNet, Vec<IpNet>)>) -> Self {
        for (_, except) in &mut entries {
            except.sort_unstable();
            except.dedup();
        }
        entries.sort_unstable();
        entries.dedup();
        Self {
            any_address,
            entries,
        }
    }
}

/// One entry of one atom.
type Entry = (AtomId, u32);

#[derive(Debug, Default)]
struct Mention {
    /// How many entries and exceptions are this prefix.
    mentions: u32,
    /// How many nodes take pod addresses from this prefix.
    pod_cidrs: u32,
    opens: Vec<Entry>,
    closes: Vec<Entry>,
}

/// What is known of a region whose longest mentioned prefix is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Sets that hold it, sorted.
    pub atoms: Vec<AtomId>,
    /// Inside some node's pod CIDR.
    pub pod_cidr: bool,
}

#[derive(Debug)]
struct Atom {
    set: AddressSet,
    users: u32,
}

/// All mentioned prefixes and the sets they form.
#[derive(Debug)]
pub struct PrefixBook {
    mentions: FxHashMap<Prefix, Mention>,
    /// The keys of `mentions`, for what lies inside a region.
    ordered: BTreeSet<Prefix>,
    lengths: [FxHashMap<u8, u32>; 2],
    atoms: FxHashMap<AtomId, Atom>,
    by_content: FxHashMap<AddressSet, AtomId>,
    next: u32,
    /// How many entries may hold pods and nodes.
    any_address: usize,
    /// By mentioned prefix, as far as asked for: the sets that hold pods and nodes whose longest mentioned prefix it is.
    holders: FxHashMap<Prefix, Vec<AtomId>>,
    dirty: FxHashSet<(Prefix, bool)>,
}

impl PrefixBook {
    /// The API server's addresses: always there, so that a selector can name it before any address is known.
    pub const API_SERVER: AtomId = AtomId(0);

    /// A book that mentions all of each family and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let mut book = Self {
            mentions: FxHashMap::default(),
            ordered: BTreeSet::new(),
            lengths: Default::default(),
            atoms: FxHashMap::default(),
            by_content: FxHashMap::default(),
            next: 1,
            any_address: 0,
            holders: FxHashMap::default(),
            dirty: FxHashSet::default(),
        };
        for family in [Family::V4, Family::V6] {
            let everything = Prefix::everything(family);
            book.mention(everything).mentions += 1;
            book.dirty.insert((everything, false));
        }
        let api_server = Atom {
            set: AddressSet {
                any_address: true,
                entries: Vec::new(),
            },
            users: 1,
        };
        book.atoms.insert(Self::API_SERVER, api_server);
        book
    }

    /// The atom of this content; counts a user.
    pub fn acquire(&mut self, set: AddressSet) -> AtomId {
        if let Some(&id) = self.by_content.get(&set) {
            if let Some(atom) = self.atoms.get_mut(&id) {
                atom.users += 1;
            }
            return id;
        }
        let id = AtomId(self.next);
        self.next += 1;
        self.put_entries(id, &set);
        self.by_content.insert(set.clone(), id);
        self.atoms.insert(id, Atom { set, users: 1 });
        id
    }

    /// Takes back one [`Self::acquire`].
    pub fn release(&mut self, id: AtomId) {
        let Some(atom) = self.atoms.get_mut(&id) else {
            return;
        };
        atom.users -= 1;
        if atom.users == 0
            && let Some(atom) = self.atoms.remove(&id)
        {
            self.take_entries(id, &atom.set);
            self.by_content.remove(&atom.set);
        }
    }

    /// Says which addresses the API server has; nobody's while no selector asks.
    pub fn set_api_server(&mut self, addresses: &[IpAddr]) {
        let entries = addresses
            .iter()
            .map(|&address| (IpNet::from(address), Vec::new()))
            .collect();
        let set = AddressSet::new(true, entries);
        let old = self
            .atoms
            .get(&Self::API_SERVER)
            .map(|atom| atom.set.clone())
            .unwrap_or_default();
        if old.entries != set.entries {
            self.take_entries(Self::API_SERVER, &old);
            self.put_entries(Self::API_SERVER, &set);
            self.atoms.insert(Self::API_SERVER, Atom { set, users: 1 });
        }
    }

    /// A node takes pod addresses from this prefix.
    pub fn add_pod_cidr(&mut self, net: IpNet) {
        let prefix = Prefix::from(net);
        self.mention(prefix).pod_cidrs += 1;
        self.dirty.insert((prefix, true));
    }

    /// Takes back one [`Self::add_pod_cidr`].
    pub fn remove_pod_cidr(&mut self, net: IpNet) {
        let prefix = Prefix::from(net);
        self.mention(prefix).pod_cidrs -= 1;
        self.unmention(prefix);
        self.dirty.insert((prefix, true));
    }

    /// The content of an atom.
    #[must_use]
    pub fn set(&self, id: AtomId) -> Option<&AddressSet> {
        self.atoms.get(&id).map(|atom| &atom.set)
    }

    /// An atom as a label.
    #[must_use]
    pub fn text(&self, id: AtomId) -> String {
        if id == Self::API_SERVER {
            return "reserved:kube-apiserver".to_owned();
        }
        let Some(set) = self.set(id) else {
            return String::new();
        };
        let entries: Vec<String> = set
            .entries
            .iter()
            .map(|(net, except)| {
                let parts: Vec<String> = [net]
                    .into_iter()
                    .chain(except)
                    .map(ToString::to_string)
                    .collect();
                parts.join("-")
            })
            .collect();
        let source = if set.any_address { "block" } else { "cidr" };
        format!("{source}:{}", entries.join(","))
    }

    /// Regions in which memberships may have changed, and whether pods and nodes in them are concerned; forgets them.
    pub fn take_dirty(&mut self) -> Vec<(Prefix, bool)> {
        self.dirty.drain().collect()
    }

    /// Whether the prefix is mentioned, pod CIDRs included.
    #[must_use]
    pub fn mentions(&self, prefix: Prefix) -> bool {
        self.mentions.contains_key(&prefix)
    }

    /// Mentioned prefixes inside `region`, itself included.
    pub fn inside(&self, region: Prefix) -> impl Iterator<Item = Prefix> {
        self.ordered.range(region.range()).copied()
    }

    /// What holds for an address or prefix: the sets that hold it; for a pod or node only those that may hold such, and never its pod CIDR.
    #[must_use]
    pub fn membership(&self, prefix: Prefix, only_any_address: bool) -> Membership {
        let mut membership = Membership::default();
        if only_any_address && self.any_address == 0 {
            return membership;
        }
        let (mut open, mut closed): (Vec<Entry>, Vec<Entry>) = (Vec::new(), Vec::new());
        for &length in self.lengths[prefix.family as usize].keys() {
            if length > prefix.length {
                continue;
            }
            let Some(mention) = self.mentions.get(&prefix.shortened(length)) else {
                continue;
            };
            membership.pod_cidr |= mention.pod_cidrs > 0;
            open.extend(&mention.opens);
            closed.extend(&mention.closes);
        }
        closed.sort_unstable();
        membership.atoms = open
            .into_iter()
            .filter(|entry| closed.binary_search(entry).is_err())
            .map(|entry| entry.0)
            .filter(|id| !only_any_address || self.atoms.get(id).is_some_and(|a| a.set.any_address))
            .collect();
        membership.atoms.sort_unstable();
        membership.atoms.dedup();
        membership
    }

    /// The sets that hold each of a pod's or node's addresses. One address of the API server makes its holder the API server, whichever
    /// of its addresses a packet has.
    #[must_use]
    pub fn holder_memberships(&mut self, addresses: &[IpAddr]) -> Vec<Vec<AtomId>> {
        let mut atoms: Vec<Vec<AtomId>> = addresses
            .iter()
            .map(|&address| self.holding(Prefix::from(address)).to_vec())
            .collect();
        if atoms
            .iter()
            .any(|atoms| atoms.first() == Some(&Self::API_SERVER))
        {
            for atoms in &mut atoms {
                if atoms.first() != Some(&Self::API_SERVER) {
                    atoms.insert(0, Self::API_SERVER);
                }
            }
        }
        atoms
    }

    /// The sets that hold a pod's or node's address.
    fn holding(&mut self, address: Prefix) -> &[AtomId] {
        if self.any_address == 0 {
            return &[];
        }
        let longest = self.longest(address);
        if !self.holders.contains_key(&longest) {
            let atoms = self.membership(longest, true).atoms;
            self.holders.insert(longest, atoms);
        }
        self.holders.get(&longest).map_or(&[], |atoms| atoms)
    }

    /// The longest mentioned prefix that holds an address.
    fn longest(&self, address: Prefix) -> Prefix {
        let mut probe = address;
        while let Some(&before) = self.ordered.range(..=probe).next_back() {
            let common = before.common(address);
            if common == before.length {
                return before;
            }
            // Whatever holds the address comes before it and holds what is between, so it is no longer than what the two share.
            probe = address.shortened(common);
        }
        // All of each family is mentioned.
        Prefix::everything(address.family)
    }

    fn put_entries(&mut self, id: AtomId, set: &AddressSet) {
        self.holders.clear();
        self.any_address += if set.any_address {
            set.entries.len()
        } else {
            0
        };
        for (index, (net, except)) in (0..).zip(&set.entries) {
            let mention = self.mention(Prefix::from(*net));
            mention.mentions += 1;
            mention.opens.push((id, index));
            for net in except {
                let mention = self.mention(Prefix::from(*net));
                mention.mentions += 1;
                mention.closes.push((id, index));
                // An exception of a CIDR group may lie outside this member of the group.
                self.dirty.insert((Prefix::from(*net), set.any_address));
            }
            self.dirty.insert((Prefix::from(*net), set.any_address));
        }
    }

    fn take_entries(&mut self, id: AtomId, set: &AddressSet) {
        self.holders.clear();
        self.any_address -= if set.any_address {
            set.entries.len()
        } else {
            0
        };
        for (index, (net, except)) in (0..).zip(&set.entries) {
            let prefix = Prefix::from(*net);
            let mention = self.mention(prefix);
            mention.mentions -= 1;
            mention.opens.retain(|entry| *entry != (id, index));
            self.unmention(prefix);
            for net in except {
                let mention = self.mention(Prefix::from(*net));
                mention.mentions -= 1;
                mention.closes.retain(|entry| *entry != (id, index));
                self.unmention(Prefix::from(*net));
                self.dirty.insert((Prefix::from(*net), set.any_address));
            }
            self.dirty.insert((prefix, set.any_address));
        }
    }

    fn mention(&mut self, prefix: Prefix) -> &mut Mention {
        let lengths = &mut self.lengths[prefix.family as usize];
        let ordered = &mut self.ordered;
        self.mentions.entry(prefix).or_insert_with(|| {
            *lengths.entry(prefix.length).or_default() += 1;
            ordered.insert(prefix);
            Mention::default()
        })
    }

    fn unmention(&mut self, prefix: Prefix) {
        let unused = |mention: &Mention| mention.mentions == 0 && mention.pod_cidrs == 0;
        if self.mentions.get(&prefix).is_some_and(unused) {
            self.mentions.remove(&prefix);
            self.ordered.remove(&prefix);
            let lengths = &mut self.lengths[prefix.family as usize];
            if let Some(count) = lengths.get_mut(&prefix.length) {
                *count -= 1;
                if *count == 0 {
                    lengths.remove(&prefix.length);
                }
            }
        }
    }
}

impl Default for PrefixBook {
    fn default() -> Self {
        Self::new()
    }
}
