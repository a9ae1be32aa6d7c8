//! The blocks of addresses that see pods' own addresses: the cluster's, and what else is excluded from masquerade.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use sluice_abi::ipcache::PrefixKey;
use sluice_abi::maps;

use crate::sys::{Map, SysError};

/// The one writer of the excluded blocks.
#[derive(Debug)]
pub struct Excluded {
    blocks: Map<PrefixKey, u32>,
    known: BTreeSet<PrefixKey>,
}

impl Excluded {
    pub(crate) fn new(
        mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>,
    ) -> Result<Self, SysError> {
        let name = maps::MASQUERADE_EXCLUDED.name;
        let blocks: Map<PrefixKey, u32> = Map::new(name, fd(name)?)?;
        let known = blocks.entries()?.into_iter().map(|(key, _)| key).collect();
        Ok(Self { blocks, known })
    }

    /// Makes the blocks exactly these; host bits must be zero. New ones come before old ones go. Connections that have begun stay as they
    /// are. Returns how many were written or removed.
    ///
    /// # Errors
    /// The map is full, or the kernel refuses; the same call again does the rest.
    pub fn sync(&mut self, blocks: &BTreeSet<PrefixKey>) -> Result<usize, SysError> {
        let new: Vec<PrefixKey> = blocks.difference(&self.known).copied().collect();
        for block in &new {
            self.blocks.put(block, &1)?;
            self.known.insert(*block);
        }
        let gone: Vec<PrefixKey> = self.known.difference(blocks).copied().collect();
        for block in &gone {
            self.blocks.remove(block)?;
            self.known.remove(block);
        }
        Ok(new.len() + gone.len())
    }
}
