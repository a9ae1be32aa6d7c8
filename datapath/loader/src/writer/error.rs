//! How a change can fail.

use thiserror::Error;

use super::StoreError;

/// A map that would have to hold more than it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("map {map} would need room for {needed} entries and has it for {capacity}")]
pub struct Full {
    /// The map's name.
    pub map: &'static str,
    /// How many entries the change would make it hold; for arrays, the index and one.
    pub needed: u64,
    /// How many it may hold: for a change that only adds, less than its size by the reserve for changes that take away.
    pub capacity: u64,
}

/// One table that kept its last state because its change does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "table {table}: {full}; {blocked} peers or scopes whose access the change takes away drop until it fits"
)]
pub struct TableFull {
    /// Table id.
    pub table: u32,
    /// Which map.
    pub full: Full,
    /// Peers and default scopes that drop now, because the change takes access from them. If even that could not be written, the whole
    /// table drops.
    pub blocked: usize,
}

/// What is wrong with a change itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Ids begin at 1.
    #[error("{kind} 0 stands for none and can't be written")]
    Zero {
        /// Program, attribution or table.
        kind: &'static str,
    },
    /// The id is in use with other content.
    #[error("{kind} {id} is in use with other content")]
    Changed {
        /// Program or attribution.
        kind: &'static str,
        /// The id.
        id: u32,
    },
    /// A cell names something that is neither there nor in the change.
    #[error("table {table} uses {kind} {id}, which is not there")]
    Missing {
        /// The table.
        table: u32,
        /// Program or attribution.
        kind: &'static str,
        /// The id.
        id: u32,
    },
    /// The program's count, flags and ranges do not fit together, or its ranges are another program's.
    #[error("program {0} is malformed")]
    Malformed(u32),
    /// The number has the form of an attribution that names its rules itself, and can't be an id as well.
    #[error("attribution {0:#x} can't be an id: it is too large")]
    NoId(u32),
    /// A table or peer is mentioned twice.
    #[error("table {0} is mentioned twice, or one of its peers is")]
    Twice(u32),
    /// A default is absent: peers would drop as if the table were not ready.
    #[error("table {0} has no default for some scope")]
    NoDefault(u32),
    /// The table has changed 2³¹ times.
    #[error("table {0} has used up its revisions: load its content as another table")]
    RevisionsUsedUp(u32),
}

/// A change that is not in force.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Some tables do not fit and kept their last complete state, less the access that the change takes away. The others changed.
    #[error("{} of the tables do not fit: {}", .0.len(), .0[0])]
    Full(Vec<TableFull>),
    /// A map call failed. The tables of the change are as before it, less the access that the change takes away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change makes no sense; nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
}
