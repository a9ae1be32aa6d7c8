//! How large the maps of an instance are made.

use sluice_abi::config::Config;
use sluice_abi::event::Hook;
use sluice_abi::maps::{self, Spec};
use sluice_abi::reason::REASON_SLOTS;

use super::LoadError;

/// Capacities. Arrays are taken from memory at once; hashes and tries grow into theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pods of the node, and one.
    pub endpoints: u32,
    /// Addresses known one by one.
    pub addresses: u32,
    /// Address blocks.
    pub prefixes: u32,
    /// Peer tables, and one.
    pub tables: u32,
    /// Entries of all peer tables.
    pub peers: u32,
    /// Programs, and one.
    pub programs: u32,
    /// Ranges of long programs.
    pub ranges: u32,
    /// Slots of all attributions.
    pub attributions: u32,
    /// Frontends of services, and the addresses that they have.
    pub services: u32,
    /// Backends of all frontends together, and one.
    pub backends: u32,
    /// Connections per endpoint, a power of two; [`Config::conntrack_quota`] may be at most this.
    pub connections: u32,
    /// Rules that are counted.
    pub rules: u32,
    /// Bytes of the ring of events: a power of two and a multiple of the page size.
    pub event_bytes: u32,
}

impl Default for Sizes {
    /// For a node.
    fn default() -> Self {
        Self {
            endpoints: maps::ENDPOINTS,
            addresses: maps::IPCACHE.entries,
            prefixes: maps::IPCACHE_PREFIXES.entries,
            tables: maps::TABLES,
            peers: maps::PEERS.entries,
            programs: maps::PROGRAMS.entries,
            ranges: maps::PROGRAM_RANGES.entries,
            attributions: maps::ATTRIBUTIONS.entries,
            services: maps::SERVICES.entries,
            backends: maps::SERVICE_BACKENDS.entries,
            connections: Config::DEFAULT_QUOTA,
            rules: maps::RULE_COUNTERS.entries,
            event_bytes: maps::EVENTS.entries,
        }
    }
}

impl Sizes {
    /// For a lab or a test: about a megabyte.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            endpoints: 64,
            addresses: 4096,
            prefixes: 4096,
            tables: 512,
            peers: 16_384,
            programs: 1024,
            ranges: 16_384,
            attributions: 16_384,
            services: 1024,
            backends: 4096,
            connections: 256,
            rules: 4096,
            event_bytes: 1 << 18,
        }
    }

    /// Capacity of a map.
    pub(super) fn entries(&self, spec: &Spec) -> u32 {
        let reasons = u32::try_from(REASON_SLOTS).unwrap_or(u32::MAX);
        match spec.name {
            name if name == maps::SLOTS_BY_IFINDEX.name
                || name == maps::ENDPOINT.name
                || name == maps::CONNTRACK_CURSORS.name =>
            {
                self.endpoints
            }
            name if name == maps::SLOTS_BY_ADDRESS.name => self.endpoints.saturating_mul(2),
            name if name == maps::IPCACHE.name => self.addresses,
            name if name == maps::IPCACHE_PREFIXES.name => self.prefixes,
            name if name == maps::TABLE_REVISIONS.name || name == maps::TABLE_DEFAULTS.name => {
                self.tables
            }
            name if name == maps::PEERS.name => self.peers,
            name if name == maps::PROGRAMS.name => self.programs,
            name if name == maps::PROGRAM_RANGES.name => self.ranges,
            name if name == maps::ATTRIBUTIONS.name => self.attributions,
            name if name == maps::SERVICES.name => self.services,
            name if name == maps::SERVICE_BACKENDS.name => self.backends,
            // A list is written beside the one that it replaces.
            name if name == maps::SERVICE_LISTS.name => self.backends.saturating_mul(2),
            name if name == maps::CONNTRACK.name || name == maps::CONNTRACK_SLOTS.name => {
                self.endpoints.saturating_mul(self.connections)
            }
            name if name == maps::RULE_COUNTERS.name => self.rules,
            name if name == maps::DROP_BUCKETS.name => self.endpoints.saturating_mul(reasons),
            name if name == maps::EVENTS.name => self.event_bytes,
            _ => spec.entries,
        }
    }

    /// Refuses what the kernel or the programs could not live with.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let refuse = |text: String| Err(LoadError::Sizes(text));
        if !self.connections.is_power_of_two() {
            return refuse(format!(
                "connections per endpoint must be a power of two, and are {}",
                self.connections
            ));
        }
        if !self.event_bytes.is_power_of_two() || self.event_bytes < 1 << 16 {
            return refuse(format!(
                "the ring of events must be a power of two and at least 65536 bytes, and is {}",
                self.event_bytes
            ));
        }
        if self.endpoints.checked_mul(self.connections).is_none() {
            return refuse(format!(
                "{} connections for each of {} endpoints are too many",
                self.connections, self.endpoints
            ));
        }
        let all = [
            ("endpoints", self.endpoints),
            ("addresses", self.addresses),
            ("prefixes", self.prefixes),
            ("tables", self.tables),
            ("peers", self.peers),
            ("programs", self.programs),
            ("ranges", self.ranges),
            ("attributions", self.attributions),
            ("services", self.services),
            ("backends", self.backends),
            ("rules", self.rules),
        ];
        match all.iter().find(|(_, size)| *size < 2) {
            Some((name, size)) => refuse(format!(
                "room for {size} {name} is too little: 2 is the least"
            )),
            None => Ok(()),
        }
    }
}

const _: () = assert!(Hook::COUNT == super::PROGRAMS.len());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_the_abi_s() {
        for spec in maps::ALL {
            assert_eq!(
                Sizes::default().entries(spec),
                spec.entries,
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let small = Sizes::small();
        assert!(small.check().is_ok() && Sizes::default().check().is_ok());
        assert!(
            Sizes {
                connections: 100,
                ..small
            }
            .check()
            .is_err()
        );
        assert!(
            Sizes {
                event_bytes: 4096 * 3,
                ..small
            }
            .check()
            .is_err()
        );
        assert!(Sizes { peers: 0, ..small }.check().is_err());
        assert!(
            Sizes {
                endpoints: u32::MAX,
                ..small
            }
            .check()
            .is_err()
        );
    }
}
