//! Peer tables, and the look-up that turns (table, peer identity, protocol, port) into a verdict.
//!
//! Only what one end of a flow decides; packets, connections and addresses may not enter here.

use crate::{
    Cookie, Identity, Reason, Scope,
    program::{Cell, INLINE_RANGES, Program, RangeKey, Verdict},
};

/// Key of the peers map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// Peer-table id; never 0.
    pub table: u32,
    /// The other side.
    pub identity: Identity,
}

/// What a peer table says of one peer: which program, and how its slots map to rules. Program 0 means absent: the scope's default holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerCell {
    /// Program id, or 0 for absent.
    pub program: u32,
    /// How its slots map to rules: an id of the attributions map; or the rules themselves, where [`PeerCell::direct`] has put them;
    /// or 0 where no slot names a rule.
    pub attribution: u32,
}

impl PeerCell {
    /// No word on this peer.
    pub const ABSENT: Self = Self {
        program: 0,
        attribution: 0,
    };
    /// Access was taken away and the change could not be written whole: drops as [`Reason::TableFull`] until it can.
    pub const BLOCKED: Self = Self {
        program: u32::MAX,
        attribution: 0,
    };

    /// Bit of an attribution that is no id but says itself what its slots mean: bit 30 is the slot of the cookie in bits 0 to 26, and
    /// bits 27 to 29 are the cookie of the other one of slots 0 and 1.
    ///
    /// Nearly every entry has one rule and one built-in circumstance. That a new flow need not look for these in another map saves it
    /// three cache lines that nothing but that flow has use for.
    const DIRECT: u32 = 1 << 31;
    const FAR_SLOT: u32 = 30;
    const NEAR: u32 = 27;
    const NEAR_COOKIES: u32 = 1 << (Self::FAR_SLOT - Self::NEAR);
    const FAR_COOKIES: u32 = 1 << Self::NEAR;

    /// The attribution that names the rules of slots 0, 1 … by itself, where they are few and one of them is built in; `None` where the
    /// attributions map must hold them.
    #[must_use]
    pub const fn direct(cookies: &[Cookie]) -> Option<u32> {
        let (slot, far, near) = match *cookies {
            [] => (0, Cookie::NONE, Cookie::NONE),
            [far] => (0, far, Cookie::NONE),
            [far, near] if near.0 < Self::NEAR_COOKIES => (0, far, near),
            [near, far] if near.0 < Self::NEAR_COOKIES => (1, far, near),
            _ => return None,
        };
        if far.0 >= Self::FAR_COOKIES {
            return None;
        }
        Some(Self::DIRECT | slot << Self::FAR_SLOT | near.0 << Self::NEAR | far.0)
    }

    /// Whether an attribution is no id of the attributions map but made by [`PeerCell::direct`].
    #[must_use]
    #[inline(always)]
    pub const fn is_direct(attribution: u32) -> bool {
        attribution & Self::DIRECT != 0
    }

    /// Both rules that a direct attribution names; [`Cookie::NONE`] where it names one.
    #[must_use]
    pub const fn direct_names(attribution: u32) -> [Cookie; 2] {
        [Self::named(attribution, 0), Self::named(attribution, 1)]
    }

    /// The rule behind a slot of a direct attribution.
    #[inline(always)]
    const fn named(attribution: u32, slot: u32) -> Cookie {
        if slot == attribution >> Self::FAR_SLOT & 1 {
            Cookie(attribution & (Self::FAR_COOKIES - 1))
        } else {
            Cookie(attribution >> Self::NEAR & (Self::NEAR_COOKIES - 1))
        }
    }
}

/// A peer cell before and after a change: readers at a table revision below `from_revision` see `old`, the others `new`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Versioned {
    /// Holds below `from_revision`.
    pub old: PeerCell,
    /// Holds from `from_revision` on.
    pub new: PeerCell,
    /// A table revision.
    pub from_revision: u32,
    /// Zero.
    pub reserved: u32,
}

impl Versioned {
    /// The cell that holds at `revision`.
    #[must_use]
    #[inline(always)]
    pub const fn at(&self, revision: u32) -> PeerCell {
        if revision >= self.from_revision {
            self.new
        } else {
            self.old
        }
    }
}

/// Value of the peers map. `key` repeats the entry's own key: a slot reused under a reader shows by it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerValue {
    /// The entry's own key.
    pub key: PeerKey,
    /// What it says.
    pub cell: Versioned,
}

/// Value of the table-defaults array (index: table id): what holds for peers without an entry, by [`Scope`].
///
/// An array element is overwritten in place, under its readers, so old and new lie side by side: a change to revision r writes only the
/// cells of r's parity, which no reader of revision r - 1 looks at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableDefaults {
    /// Indexed by [`Scope`], then by the table's revision modulo 2. An absent cell drops as [`Reason::TableNotReady`].
    pub scopes: [[PeerCell; 2]; Scope::COUNT],
}

impl TableDefaults {
    /// Defaults that are the same at every revision; `cells` is indexed by [`Scope`].
    #[must_use]
    pub fn constant(cells: [PeerCell; Scope::COUNT]) -> Self {
        Self {
            scopes: cells.map(|cell| [cell; 2]),
        }
    }

    /// The cell of `scope` at `revision`.
    #[must_use]
    #[inline(always)]
    pub const fn at(&self, scope: Scope, revision: u32) -> PeerCell {
        self.scopes[scope as usize][(revision & 1) as usize]
    }
}

/// Key of the attributions map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributionKey {
    /// Attribution id.
    pub attribution: u32,
    /// A cell's slot.
    pub slot: u32,
}

/// The maps that policy look-ups read. The kernel's maps implement it, and so does ordinary memory.
pub trait PolicyTables {
    /// The table's current revision; 0 where the table is not loaded.
    fn revision(&self, table: u32) -> u32;
    /// The table's defaults.
    fn defaults(&self, table: u32) -> Option<&TableDefaults>;
    /// The entry of one peer.
    fn peer(&self, key: &PeerKey) -> Option<PeerValue>;
    /// A program.
    fn program(&self, id: u32) -> Option<&Program>;
    /// The cell of the longest matching range of a program whose ranges are in the trie.
    fn range(&self, key: &RangeKey) -> Option<Cell>;
    /// The rule behind a slot.
    fn attribution(&self, key: &AttributionKey) -> Option<Cookie>;
}

/// What one end of a flow decided.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Pass, drop or redirect.
    pub verdict: Verdict,
    /// Why it drops; [`Reason::None`] where the packet passes.
    pub reason: Reason,
    /// The deciding rule or circumstance.
    pub cookie: Cookie,
    /// For a redirect: rule set and listener.
    pub redirect: u32,
    /// The revision of the table that was read.
    pub revision: u32,
    /// The verdict is to be logged.
    pub log: bool,
}

/// Judges one point of one peer by `table`, as of the table's revision now.
///
/// Whatever is missing (table, default, program) drops as [`Reason::TableNotReady`]: a hole in the tables is never a hole in policy.
#[inline(always)]
pub fn judge<T: PolicyTables>(
    tables: &T,
    table: u32,
    peer: Identity,
    protocol: u8,
    port: u16,
) -> Judgement {
    let revision = tables.revision(table);
    if revision == 0 {
        return not_ready(0);
    }
    let Some(cell) = peer_cell(tables, table, peer, revision) else {
        return not_ready(revision);
    };
    let Some(program) = tables.program(cell.program) else {
        return if cell.program == PeerCell::BLOCKED.program {
            closed(Reason::TableFull, revision)
        } else {
            not_ready(revision)
        };
    };
    if program.flags & Program::PRESENT == 0 {
        return not_ready(revision);
    }
    let point = point(tables, cell.program, program, protocol, port);
    let cookie = cookie(tables, cell.attribution, u32::from(point.slot));
    let verdict = point.decision();
    Judgement {
        verdict,
        reason: reason_of(verdict, cookie),
        cookie,
        redirect: point.redirect,
        revision,
        log: point.flags & Cell::LOG != 0,
    }
}

/// The peer's own entry at `revision`, or its scope's default.
#[inline(always)]
fn peer_cell<T: PolicyTables>(
    tables: &T,
    table: u32,
    identity: Identity,
    revision: u32,
) -> Option<PeerCell> {
    let key = PeerKey { table, identity };
    let mut entry = tables.peer(&key);
    if let Some(value) = entry
        && value.key != key
    {
        // The slot was freed and filled again under this reader. The default would be the wrong answer where the entry was only replaced,
        // so look once more, and give up rather than guess.
        entry = tables.peer(&key);
        if let Some(value) = entry
            && value.key != key
        {
            return None;
        }
    }
    if let Some(value) = entry {
        let cell = value.cell.at(revision);
        if cell.program != 0 {
            return Some(cell);
        }
    }
    let cell = tables.defaults(table)?.at(identity.scope(), revision);
    (cell.program != 0).then_some(cell)
}

/// The cell at one point of a program.
#[inline(always)]
fn point<T: PolicyTables>(tables: &T, id: u32, program: &Program, protocol: u8, port: u16) -> Cell {
    if program.flags & Program::IN_TRIE != 0 {
        return tables
            .range(&RangeKey::point(id, protocol, port))
            .unwrap_or(program.other);
    }
    let mut index = 0;
    while index < INLINE_RANGES {
        if index >= program.count as usize {
            break;
        }
        let range = &program.ranges[index];
        if range.protocol == protocol && range.low <= port && port <= range.high {
            return range.cell;
        }
        index += 1;
    }
    program.other
}

/// The rule behind a slot of an attribution.
#[inline(always)]
fn cookie<T: PolicyTables>(tables: &T, attribution: u32, slot: u32) -> Cookie {
    if PeerCell::is_direct(attribution) {
        return PeerCell::named(attribution, slot);
    }
    tables
        .attribution(&AttributionKey { attribution, slot })
        .unwrap_or(Cookie::NONE)
}

#[inline(always)]
fn reason_of(verdict: Verdict, cookie: Cookie) -> Reason {
    match verdict {
        Verdict::Allow | Verdict::Redirect => Reason::None,
        Verdict::DenyConflict => Reason::PolicyConflict,
        Verdict::DenyAuthentication => Reason::AuthenticationRequired,
        Verdict::Deny if cookie.is_rule() => Reason::PolicyDeny,
        Verdict::Deny => Reason::PolicyDefaultDeny,
    }
}

#[inline(always)]
fn not_ready(revision: u32) -> Judgement {
    closed(Reason::TableNotReady, revision)
}

#[inline(always)]
fn closed(reason: Reason, revision: u32) -> Judgement {
    Judgement {
        verdict: Verdict::Deny,
        reason,
        cookie: Cookie::NONE,
        redirect: 0,
        revision,
        log: false,
    }
}

crate::map_data!(
    PeerKey,
    PeerCell,
    Versioned,
    PeerValue,
    TableDefaults,
    AttributionKey
);

const _: () = assert!(size_of::<PeerValue>() == 32 && size_of::<TableDefaults>() == 80);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_attribution_names_what_it_was_made_of() {
        let (rule, most) = (Cookie(1024), Cookie((1 << 27) - 1));
        for cookies in [
            &[][..],
            &[rule],
            &[Cookie::DEFAULT_DENY],
            &[rule, Cookie::DEFAULT_DENY],
            &[Cookie::DEFAULT_DENY, rule],
            &[Cookie::UNKNOWN, most],
            &[Cookie::LOCAL_HOST, Cookie::DEFAULT_ALLOW],
        ] {
            let attribution = PeerCell::direct(cookies).unwrap();
            assert!(PeerCell::is_direct(attribution));
            for (slot, &cookie) in (0..).zip(cookies) {
                assert_eq!(PeerCell::named(attribution, slot), cookie, "{cookies:?}");
            }
        }
    }

    #[test]
    fn what_has_no_room_is_left_to_the_map() {
        let (rule, beyond) = (Cookie(1024), Cookie(1 << 27));
        for cookies in [
            &[beyond][..],
            &[rule, Cookie(1025)],
            &[rule, Cookie(8)],
            &[Cookie::DEFAULT_DENY, beyond],
            &[rule, Cookie::DEFAULT_DENY, Cookie(1025)],
        ] {
            assert_eq!(PeerCell::direct(cookies), None, "{cookies:?}");
        }
    }

    #[test]
    fn different_cookies_have_different_attributions() {
        let some = [
            Cookie::NONE,
            Cookie::DEFAULT_DENY,
            Cookie(1024),
            Cookie(5000),
        ];
        let pairs = some
            .iter()
            .flat_map(|a| some.iter().map(move |b| [*a, *b]))
            .filter(|[a, b]| a != b);
        let mut seen = std::collections::HashMap::new();
        for pair in pairs {
            if let Some(attribution) = PeerCell::direct(&pair) {
                let named = [0, 1].map(|slot| PeerCell::named(attribution, slot));
                assert_eq!(named, pair);
                assert_eq!(seen.insert(attribution, pair), None);
            }
        }
    }
}
