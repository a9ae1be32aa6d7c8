//! While a table is compiled: which rules name which identity. Identities that the same rules name share one list of ranks, so that
//! what follows from a list is found once. What a rank stands for may not enter.

use crate::identity::IdentityIndex;

/// A list of ranks, of a [`Gathering`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List(u32);

impl List {
    /// Stands for no list at all.
    const NONE: Self = Self(0);
    /// The list of no ranks.
    const EMPTY: Self = Self(1);

    /// Its number: small, from 1.
    pub(crate) const fn number(self) -> usize {
        self.0 as usize
    }
}

/// What a list is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// The list that it continues.
    pub(crate) before: List,
    /// Its last rank.
    pub(crate) rank: u32,
    /// How many ranks it has.
    pub(crate) length: u32,
}

/// Room for one table after another.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// By identity.
    lists: Vec<List>,
    /// Identities that have a list, a bit each.
    listed: Vec<u64>,
    /// By list.
    links: Vec<Link>,
    /// By list: the one that continues it with the current rank.
    longer: Vec<List>,
    /// Lists with an entry in `longer`.
    continued: Vec<List>,
    rank: u32,
}

impl Gathering {
    /// Starts over, for identities below `places`. All that was gathered before must have been taken.
    pub(crate) fn begin(&mut self, places: usize) {
        if self.lists.len() < places {
            self.lists.resize(places, List::NONE);
            self.listed.resize(places.div_ceil(64), 0);
        }
        self.links.clear();
        let none = Link {
            before: List::NONE,
            rank: u32::MAX,
            length: 0,
        };
        self.links.resize(2, none);
        self.longer.clear();
        self.longer.resize(2, List::NONE);
        self.continued.clear();
    }

    /// What is added from now on has this rank. Ranks must ascend.
    pub(crate) fn rank(&mut self, rank: u32) {
        self.rank = rank;
        for list in self.continued.drain(..) {
            self.longer[list.number()] = List::NONE;
        }
    }

    /// A rule of the current rank names the identity.
    pub(crate) fn add(&mut self, index: IdentityIndex) {
        let place = index.0 as usize;
        let mut list = self.lists[place];
        if list == List::NONE {
            self.listed[place / 64] |= 1 << (place % 64);
            list = List::EMPTY;
        }
        // A rule may name an identity by several selectors.
        if self.links[list.number()].rank == self.rank {
            return;
        }
        let known = self.longer[list.number()];
        self.lists[place] = if known == List::NONE {
            self.extend(list)
        } else {
            known
        };
    }

    /// The identity needs a look, named by a rule or not.
    pub(crate) fn touch(&mut self, index: IdentityIndex) {
        let place = index.0 as usize;
        if self.lists[place] == List::NONE {
            self.listed[place / 64] |= 1 << (place % 64);
            self.lists[place] = List::EMPTY;
        }
    }

    /// How many identities have a list.
    pub(crate) fn len(&self) -> usize {
        self.listed
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Takes out the first identity at or behind the cursor, which starts at 0 and goes to the end.
    pub(crate) fn take_next(&mut self, cursor: &mut usize) -> Option<(IdentityIndex, List)> {
        loop {
            let word = self.listed.get_mut(*cursor)?;
            if *word == 0 {
                *cursor += 1;
                continue;
            }
            let place = *cursor * 64 + word.trailing_zeros() as usize;
            *word &= *word - 1;
            let list = std::mem::replace(&mut self.lists[place], List::NONE);
            // Places are numbered by 32 bits.
            return Some((IdentityIndex(u32::try_from(place).ok()?), list));
        }
    }

    /// What a list is made of; `None` for the list of no ranks.
    pub(crate) fn link(&self, list: List) -> Option<Link> {
        Some(self.links[list.number()]).filter(|link| link.length > 0)
    }

    /// The ranks of a list, ascending.
    pub(crate) fn ranks(&self, list: List) -> Vec<u32> {
        let mut ranks = Vec::new();
        let mut at = list;
        while let Some(link) = self.link(at) {
            ranks.push(link.rank);
            at = link.before;
        }
        ranks.reverse();
        ranks
    }

    fn extend(&mut self, list: List) -> List {
        // A list takes at least one identity that no list before it took at this rank.
        let longer = List(u32::try_from(self.links.len()).unwrap_or(u32::MAX));
        self.links.push(Link {
            before: list,
            rank: self.rank,
            length: self.links[list.number()].length + 1,
        });
        self.longer.push(List::NONE);
        self.longer[list.number()] = longer;
        self.continued.push(list);
        longer
    }
}

#[cfg(test)]
mod tests {
    use super::Gathering;
    use crate::identity::IdentityIndex;

    #[test]
    fn identities_come_out_in_order_with_the_ranks_that_name_them() {
        let mut gathering = Gathering::default();
        for round in 0..2 {
            gathering.begin(200);
            for (rank, named) in [(0, vec![150, 3, 64]), (2, vec![3, 3, 64]), (5, vec![3])] {
                gathering.rank(rank);
                for index in named {
                    gathering.add(IdentityIndex(index));
                }
            }
            gathering.touch(IdentityIndex(199));
            gathering.touch(IdentityIndex(3));
            assert_eq!(gathering.len(), 4, "round {round}");
            let mut cursor = 0;
            let mut out = Vec::new();
            while let Some((index, list)) = gathering.take_next(&mut cursor) {
                out.push((index.0, gathering.ranks(list)));
            }
            let wanted = [
                (3, vec![0, 2, 5]),
                (64, vec![0, 2]),
                (150, vec![0]),
                (199, vec![]),
            ];
            assert_eq!(out, wanted, "round {round}");
        }
    }
}
