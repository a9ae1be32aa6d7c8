//! The address table: which identity an address or block has, and the epoch that tells readers and connections that this changed.
//!
//! A hash element can be freed and used again for another address under a reader, which sees by the epoch that it must look again: so
//! the epoch is raised after whatever frees elements and before whatever may use them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use sluice_abi::config::epoch;
use sluice_abi::ipcache::{Address, AddressInfo, PrefixKey};
use sluice_abi::{Identity, maps};

use crate::sys::{Map, MappedWords, SysError};

/// Bits of an address.
const ADDRESS_BITS: u32 = 128;

/// What is to become of the table. What is not mentioned stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressChange {
    /// Addresses that appear or change.
    pub set: Vec<(Address, AddressInfo)>,
    /// Addresses that go.
    pub remove: Vec<Address>,
    /// Blocks that appear or change.
    pub set_prefixes: Vec<(PrefixKey, AddressInfo)>,
    /// Blocks that go.
    pub remove_prefixes: Vec<PrefixKey>,
}

/// The one writer of the address table.
#[derive(Debug)]
pub struct Addresses {
    exact: Map<Address, AddressInfo>,
    prefixes: Map<PrefixKey, AddressInfo>,
    epochs: MappedWords,
    known: HashMap<Address, AddressInfo>,
    known_prefixes: HashMap<PrefixKey, AddressInfo>,
}

impl Addresses {
    pub(crate) fn new(
        mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>,
    ) -> Result<Self, SysError> {
        let exact = Map::new(maps::IPCACHE.name, fd(maps::IPCACHE.name)?)?;
        let prefixes = Map::new(
            maps::IPCACHE_PREFIXES.name,
            fd(maps::IPCACHE_PREFIXES.name)?,
        )?;
        let epochs = Map::new(maps::EPOCHS.name, fd(maps::EPOCHS.name)?)?;
        Ok(Self {
            known: exact.entries()?.into_iter().collect(),
            known_prefixes: prefixes.entries()?.into_iter().collect(),
            exact,
            prefixes,
            epochs: MappedWords::new(maps::EPOCHS.name, &epochs)?,
        })
    }

    /// Writes what differs. Returns how many elements were written or removed. On failure some of the change is in force; the same
    /// change again does the rest.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses.
    pub fn apply(&mut self, change: &AddressChange) -> Result<u64, SysError> {
        let mut operations = self.remove(&change.remove)?;
        operations += self.change_prefixes(change)?;
        let (mut replaced, mut added) = (Vec::new(), Vec::new());
        for &(address, info) in &change.set {
            match self.known.get(&address) {
                Some(known) if *known == info => {}
                Some(_) => replaced.push((address, info)),
                None => added.push((address, info)),
            }
        }
        operations += (replaced.len() + added.len()) as u64;
        for (address, info) in replaced {
            let written = self.exact.put(&address, &info);
            self.raise_epoch();
            written?;
            self.known.insert(address, info);
        }
        if !added.is_empty() {
            let changes_meaning = added
                .iter()
                .any(|(address, _)| self.meant_something(address));
            let written = self.exact.put_all(&added);
            if changes_meaning {
                self.raise_epoch();
            }
            written?;
            self.known.extend(added);
        }
        Ok(operations)
    }

    /// Makes the table hold exactly this.
    ///
    /// # Errors
    /// As for [`Addresses::apply`].
    pub fn sync(
        &mut self,
        addresses: &HashMap<Address, AddressInfo>,
        prefixes: &HashMap<PrefixKey, AddressInfo>,
    ) -> Result<u64, SysError> {
        self.apply(&AddressChange {
            set: addresses
                .iter()
                .map(|(address, info)| (*address, *info))
                .collect(),
            remove: self
                .known
                .keys()
                .filter(|address| !addresses.contains_key(address))
                .copied()
                .collect(),
            set_prefixes: prefixes
                .iter()
                .map(|(prefix, info)| (*prefix, *info))
                .collect(),
            remove_prefixes: self
                .known_prefixes
                .keys()
                .filter(|prefix| !prefixes.contains_key(prefix))
                .copied()
                .collect(),
        })
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epochs.load(epoch::ADDRESSES)
    }

    fn remove(&mut self, addresses: &[Address]) -> Result<u64, SysError> {
        let gone: Vec<Address> = addresses
            .iter()
            .filter(|address| self.known.contains_key(address))
            .copied()
            .collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let removed = self.exact.remove_all(&gone);
        self.raise_epoch();
        removed?;
        for address in &gone {
            self.known.remove(address);
        }
        Ok(gone.len() as u64)
    }

    fn change_prefixes(&mut self, change: &AddressChange) -> Result<u64, SysError> {
        let set: Vec<_> = change
            .set_prefixes
            .iter()
            .filter(|(prefix, info)| self.known_prefixes.get(prefix) != Some(info))
            .copied()
            .collect();
        let known = |prefix: &&PrefixKey| self.known_prefixes.contains_key(prefix);
        let remove: Vec<_> = change
            .remove_prefixes
            .iter()
            .filter(known)
            .copied()
            .collect();
        let mut operations = 0;
        // One by one: a trie's nodes are used again as a hash's elements are.
        for (prefix, info) in set {
            let written = self.prefixes.put(&prefix, &info);
            self.raise_epoch();
            written?;
            self.known_prefixes.insert(prefix, info);
            operations += 1;
        }
        for prefix in remove {
            let removed = self.prefixes.remove(&prefix);
            self.raise_epoch();
            removed?;
            self.known_prefixes.remove(&prefix);
            operations += 1;
        }
        Ok(operations)
    }

    /// Whether an address without an entry had an identity nonetheless: that of a block around it, or the world's. Only an address that
    /// was unknown inside the cluster had none, and no connection.
    fn meant_something(&self, address: &Address) -> bool {
        let around = (0..=ADDRESS_BITS)
            .rev()
            .find_map(|bits| self.known_prefixes.get(&block(address, bits)));
        around.is_none_or(|info| info.identity != Identity::UNKNOWN)
    }

    fn raise_epoch(&self) {
        let next = self.epochs.load(epoch::ADDRESSES).wrapping_add(1);
        let within = self.epochs.store(epoch::ADDRESSES, next);
        debug_assert!(within, "the epochs array has an element for each epoch");
    }
}

/// The block of this many bits around an address.
fn block(address: &Address, bits: u32) -> PrefixKey {
    let mask = u128::MAX.checked_shl(ADDRESS_BITS - bits).unwrap_or(0);
    let network = u128::from_be_bytes(address.0) & mask;
    PrefixKey {
        prefix_bits: bits,
        address: Address(network.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cut_addresses_of_both_families() {
        let v4 = Address::v4([10, 1, 2, 3]);
        assert_eq!(block(&v4, 96 + 16).address, Address::v4([10, 1, 0, 0]));
        assert_eq!(block(&v4, 0).address, Address([0; 16]));
        assert_eq!(block(&v4, 128).address, v4);
        let v6 = Address::from(std::net::IpAddr::from([0xfd00, 1, 2, 3, 0, 0, 0, 9]));
        assert_eq!(
            block(&v6, 32).address,
            Address::from(std::net::IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, 0]))
        );
    }
}
