//! What the writer needs of the maps. The kernel's maps offer it, and so does a fake whose every step can fail.

use sluice_abi::Cookie;
use sluice_abi::policy::{AttributionKey, PeerKey, PeerValue, TableDefaults};
use sluice_abi::program::{Cell, Program, RangeKey};
use thiserror::Error;

use crate::sys::SysError;

/// A step that failed. Steps before it, and part of it, may have happened.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A map call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The map takes no further entry, though by the writer's count it should.
    #[error("map {0} takes no further entry")]
    Full(&'static str),
}

/// How many elements each map can hold. Arrays hold one less: element 0 is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Table ids below this.
    pub tables: u32,
    /// Elements of the peers map.
    pub peers: u32,
    /// Program ids below this.
    pub programs: u32,
    /// Elements of the trie of long programs.
    pub ranges: u32,
    /// Elements of the attributions map.
    pub attributions: u32,
}

/// Everything in the maps.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Words of the revisions array that are not 0.
    pub revisions: Vec<(u32, u64)>,
    /// Defaults of these tables.
    pub defaults: Vec<(u32, TableDefaults)>,
    /// Peers.
    pub peers: Vec<(PeerKey, PeerValue)>,
    /// Programs that are present.
    pub programs: Vec<(u32, Program)>,
    /// Ranges of long programs.
    pub ranges: Vec<(RangeKey, Cell)>,
    /// Attributions.
    pub attributions: Vec<(AttributionKey, Cookie)>,
}

/// The maps of the policy tables. Each method's elements are written in order; a method that fails may have written some of them.
#[allow(clippy::missing_errors_doc)]
pub trait MapStore {
    /// How much fits.
    fn capacities(&self) -> Capacities;
    /// Reads everything.
    fn dump(&self) -> Result<Dump, StoreError>;
    /// Writes programs.
    fn put_programs(&mut self, entries: &[(u32, Program)]) -> Result<(), StoreError>;
    /// Writes ranges.
    fn put_ranges(&mut self, entries: &[(RangeKey, Cell)]) -> Result<(), StoreError>;
    /// Removes ranges; some may not be there.
    fn remove_ranges(&mut self, keys: &[RangeKey]) -> Result<(), StoreError>;
    /// Writes attributions.
    fn put_attributions(&mut self, entries: &[(AttributionKey, Cookie)]) -> Result<(), StoreError>;
    /// Removes attributions; some may not be there.
    fn remove_attributions(&mut self, keys: &[AttributionKey]) -> Result<(), StoreError>;
    /// Writes peers.
    fn put_peers(&mut self, entries: &[(PeerKey, PeerValue)]) -> Result<(), StoreError>;
    /// Removes peers; some may not be there.
    fn remove_peers(&mut self, keys: &[PeerKey]) -> Result<(), StoreError>;
    /// Writes defaults.
    fn put_defaults(&mut self, entries: &[(u32, TableDefaults)]) -> Result<(), StoreError>;
    /// Stores a table's revision word in one step that readers see after everything written before. The table id is within capacity.
    fn set_revision(&mut self, table: u32, word: u64);
    /// Waits until no reader that began before still reads.
    fn grace_period(&mut self) -> Result<(), StoreError>;
}
