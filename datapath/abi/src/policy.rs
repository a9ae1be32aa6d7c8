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
    /// Attribution id, or 0 where no slot names a rule.
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
    let cookie = tables
        .attribution(&AttributionKey {
            attribution: cell.attribution,
            slot: u32::from(point.slot),
        })
        .unwrap_or(Cookie::NONE);
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
