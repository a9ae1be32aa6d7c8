//! DNS selectors of rules, and which of them match a learned name. Own matching; when addresses are learned is the index's.

use rustc_hash::FxHashMap;

use crate::selector::FqdnId;

/// One DNS selector, normalised: lower case, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamePattern {
    /// This name.
    Name(String),
    /// Names of this form: `*` stops at a dot, `**.` at the front is one or more labels, `*` alone is every name.
    Pattern(String),
}

impl From<&sluice_crds::parsed::FqdnSelector> for NamePattern {
    fn from(selector: &sluice_crds::parsed::FqdnSelector) -> Self {
        match selector {
            sluice_crds::parsed::FqdnSelector::Name(name) => Self::Name(name.as_str().to_owned()),
            sluice_crds::parsed::FqdnSelector::Pattern(pattern) => {
                Self::Pattern(pattern.as_str().to_owned())
            }
        }
    }
}

impl NamePattern {
    /// As written. A name and a pattern of the same text mean the same unless it holds a `*`, which no name does.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Name(text) | Self::Pattern(text) => text,
        }
    }

    /// Whether the name is meant. Case and a trailing dot do not count.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match self {
            Self::Name(own) => *own == name,
            Self::Pattern(pattern) if pattern == "*" => true,
            Self::Pattern(pattern) => match pattern.strip_prefix("**.") {
                Some(rest) => name
                    .match_indices('.')
                    .any(|(dot, _)| dot > 0 && glob(rest.as_bytes(), &name.as_bytes()[dot + 1..])),
                None => glob(pattern.as_bytes(), name.as_bytes()),
            },
        }
    }
}

/// Matches `*` as any run of characters without a dot. Both cursors only move forward between retries: no exponential patterns.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, from));
                at += 1;
            }
            Some(byte) if *byte == name[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((after, start)) = retry else {
                    return false;
                };
                if name[start] == b'.' {
                    return false;
                }
                retry = Some((after, start + 1));
                at = after;
                from = start + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[derive(Debug)]
struct Entry {
    patterns: Vec<NamePattern>,
    users: u32,
}

/// Lists of DNS selectors, by content.
#[derive(Debug, Default)]
pub struct FqdnBook {
    entries: FxHashMap<FqdnId, Entry>,
    by_content: FxHashMap<Vec<NamePattern>, FqdnId>,
    next: u32,
    changed: bool,
}

impl FqdnBook {
    /// The list of this content; counts a user.
    pub fn acquire(&mut self, mut patterns: Vec<NamePattern>) -> FqdnId {
        patterns.sort_unstable();
        patterns.dedup();
        if let Some(&id) = self.by_content.get(&patterns) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.users += 1;
            }
            return id;
        }
        let id = FqdnId(self.next);
        self.next += 1;
        self.changed = true;
        self.by_content.insert(patterns.clone(), id);
        self.entries.insert(id, Entry { patterns, users: 1 });
        id
    }

    /// Takes back one [`Self::acquire`].
    pub fn release(&mut self, id: FqdnId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.users -= 1;
        if entry.users == 0
            && let Some(entry) = self.entries.remove(&id)
        {
            self.by_content.remove(&entry.patterns);
            self.changed = true;
        }
    }

    /// The lists that mean this name, sorted.
    #[must_use]
    pub fn matching(&self, name: &str) -> Vec<FqdnId> {
        let meant = |entry: &Entry| entry.patterns.iter().any(|pattern| pattern.matches(name));
        let mut ids: Vec<FqdnId> = self
            .entries
            .iter()
            .filter(|(_, entry)| meant(entry))
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        ids
    }

    /// Whether lists came or went since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The list as a label.
    #[must_use]
    pub fn text(&self, id: FqdnId) -> String {
        let patterns: Vec<&str> = self.entries.get(&id).map_or_else(Vec::new, |entry| {
            entry.patterns.iter().map(NamePattern::as_str).collect()
        });
        format!("fqdn:{}", patterns.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::NamePattern;

    #[test]
    fn patterns() {
        let rows = [
            ("*", "a.b.c", true),
            ("*.a.b", "x.a.b", true),
            ("*.a.b", "x.y.a.b", false),
            ("*.a.b", "a.b", false),
            ("**.a.b", "x.y.a.b", true),
            ("**.a.b", "x.a.b", true),
            ("**.a.b", "a.b", false),
            ("a*c.d", "abc.d", true),
            ("a*c.d", "a.c.d", false),
            ("a*.b*", "ax.by", true),
            ("*a*b", "xaab", true),
            ("a.b", "A.B.", true),
        ];
        for (pattern, name, expected) in rows {
            assert_eq!(
                NamePattern::Pattern(pattern.into()).matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }
}
