//! Rule sets in use by number, each with what a table has to know of its rules without looking at all of them. What a rule set says
//! about its subjects is `rule`'s, who they are the index's.

use rustc_hash::FxHashSet;

use crate::{
    registry::SetId,
    rule::{Rule, RuleSet},
};

/// A rule set in use.
#[derive(Debug)]
pub(crate) struct Installed {
    set: RuleSet,
    /// Positions of rules that cover scopes, ascending.
    covering: Vec<u32>,
    /// Positions of rules by port name, ascending.
    naming: Vec<u32>,
    /// The tables it is part of, as places in the index.
    pub(crate) tables: FxHashSet<u32>,
}

impl Installed {
    pub(crate) const fn set(&self) -> &RuleSet {
        &self.set
    }

    /// Everything but the rules may be changed.
    pub(crate) const fn set_mut(&mut self) -> &mut RuleSet {
        &mut self.set
    }

    /// Rules that cover scopes, with their positions.
    pub(crate) fn covering(&self) -> impl Iterator<Item = (u32, &Rule)> {
        self.at(&self.covering)
    }

    /// Rules by port name, with their positions.
    pub(crate) fn naming(&self) -> impl Iterator<Item = (u32, &Rule)> {
        self.at(&self.naming)
    }

    /// Puts a rule at a position, or behind the last one; the rule that was there.
    pub(crate) fn put(&mut self, position: u32, rule: Rule) -> Option<Rule> {
        mark(&mut self.covering, position, !rule.scopes.is_empty());
        mark(&mut self.naming, position, rule.uses_names());
        if let Some(place) = self.set.rules.get_mut(position as usize) {
            return Some(std::mem::replace(place, rule));
        }
        self.set.rules.push(rule);
        None
    }

    /// Takes out the rules from a position on.
    pub(crate) fn truncate(&mut self, length: u32) -> Vec<Rule> {
        for list in [&mut self.covering, &mut self.naming] {
            list.truncate(list.partition_point(|position| *position < length));
        }
        let length = (length as usize).min(self.set.rules.len());
        self.set.rules.split_off(length)
    }

    fn at<'a>(&'a self, positions: &'a [u32]) -> impl Iterator<Item = (u32, &'a Rule)> {
        let rule = |position: &u32| Some((*position, self.set.rules.get(*position as usize)?));
        positions.iter().filter_map(rule)
    }
}

/// Says whether a position is in a sorted list.
fn mark(positions: &mut Vec<u32>, position: u32, present: bool) {
    match (positions.binary_search(&position), present) {
        (Ok(place), false) => drop(positions.remove(place)),
        (Err(place), true) => positions.insert(place, position),
        _ => {}
    }
}

/// All rule sets in use. A number that is given up is given out again only after the next [`Self::rest`], so that within one commit a
/// number has one meaning.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    // Boxed, so that room for more is made without moving them.
    slots: Vec<Option<Box<Installed>>>,
    free: Vec<u32>,
    resting: Vec<u32>,
}

impl Sets {
    /// Takes in a rule set that has no rules yet, with room for so many.
    pub(crate) fn insert(&mut self, mut set: RuleSet, rules: usize) -> SetId {
        set.rules.reserve_exact(rules);
        let installed = Some(Box::new(Installed {
            set,
            covering: Vec::new(),
            naming: Vec::new(),
            tables: FxHashSet::default(),
        }));
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = installed;
            return SetId(slot);
        }
        self.slots.push(installed);
        // Four billion rule sets do not fit into memory.
        SetId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
    }

    pub(crate) fn get(&self, id: SetId) -> Option<&Installed> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: SetId) -> Option<&mut Installed> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    pub(crate) fn remove(&mut self, id: SetId) -> Option<RuleSet> {
        let installed = self.slots.get_mut(id.0 as usize)?.take()?;
        self.resting.push(id.0);
        Some(installed.set)
    }

    /// Nothing means the numbers any more that were given up so far.
    pub(crate) fn rest(&mut self) {
        self.free.append(&mut self.resting);
    }
}
