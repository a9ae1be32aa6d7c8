//! Other nodes as the overlay knows them: where each is reached, and which blocks its pods' addresses are of. Whom a wrapped packet is
//! believed is decided by this, so a node that goes is taken out before another comes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use sluice_abi::ipcache::PrefixKey;
use sluice_abi::maps;
use sluice_abi::overlay::NodeRecord;

use crate::sys::{Map, SysError};

/// A node of the cluster other than this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherNode {
    /// Its number, as in the address table.
    pub number: u32,
    /// Its address in the network between nodes.
    pub underlay: std::net::IpAddr,
    /// The blocks that its pods' addresses are taken from.
    pub pod_cidrs: Vec<IpNet>,
}

/// The one writer of the nodes.
#[derive(Debug)]
pub struct Nodes {
    records: Map<u32, NodeRecord>,
    blocks: Map<PrefixKey, u32>,
    known: HashMap<u32, NodeRecord>,
    known_blocks: HashMap<PrefixKey, u32>,
}

impl Nodes {
    pub(crate) fn new(
        mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>,
    ) -> Result<Self, SysError> {
        let records = Map::new(maps::NODES.name, fd(maps::NODES.name)?)?;
        let blocks = Map::new(maps::NODE_CIDRS.name, fd(maps::NODE_CIDRS.name)?)?;
        Ok(Self {
            known: records.entries()?.into_iter().collect(),
            known_blocks: blocks.entries()?.into_iter().collect(),
            records,
            blocks,
        })
    }

    /// Makes the maps hold exactly these nodes. On failure some of the change is in force; the same call again does the rest.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses.
    pub fn sync(&mut self, nodes: &[OtherNode]) -> Result<(), SysError> {
        let (records, blocks) = wanted(nodes);
        for number in stale(&self.known, &records) {
            self.records.remove(&number)?;
            self.known.remove(&number);
        }
        for block in stale(&self.known_blocks, &blocks) {
            self.blocks.remove(&block)?;
            self.known_blocks.remove(&block);
        }
        for (number, record) in records {
            if self.known.get(&number) != Some(&record) {
                self.records.put(&number, &record)?;
                self.known.insert(number, record);
            }
        }
        for (block, number) in blocks {
            if self.known_blocks.get(&block) != Some(&number) {
                self.blocks.put(&block, &number)?;
                self.known_blocks.insert(block, number);
            }
        }
        Ok(())
    }
}

/// What the maps should hold.
fn wanted(nodes: &[OtherNode]) -> (HashMap<u32, NodeRecord>, HashMap<PrefixKey, u32>) {
    let records = nodes.iter().map(|node| {
        let record = NodeRecord {
            number: node.number,
            underlay: node.underlay.into(),
        };
        (node.number, record)
    });
    let blocks = nodes.iter().flat_map(|node| {
        let number = node.number;
        let block = |net: &IpNet| PrefixKey::block(net.network(), net.prefix_len());
        let blocks = node.pod_cidrs.iter();
        blocks.map(move |net| (block(net), number))
    });
    (records.collect(), blocks.collect())
}

/// Keys whose value is another now, or gone.
fn stale<K: Copy + Eq + std::hash::Hash, V: PartialEq>(
    known: &HashMap<K, V>,
    wanted: &HashMap<K, V>,
) -> Vec<K> {
    known
        .iter()
        .filter(|(key, value)| wanted.get(*key) != Some(*value))
        .map(|(key, _)| *key)
        .collect()
}

#[cfg(test)]
mod tests {
    use sluice_abi::ipcache::Address;

    use super::*;

    #[test]
    fn a_node_has_a_record_and_a_block_of_each_family() {
        let node = OtherNode {
            number: 3,
            underlay: "192.0.2.3".parse().unwrap(),
            pod_cidrs: vec![
                "10.1.0.0/24".parse().unwrap(),
                "fd00:1::/64".parse().unwrap(),
            ],
        };
        let (records, blocks) = wanted(std::slice::from_ref(&node));
        assert_eq!(records[&3].underlay, Address::v4([192, 0, 2, 3]));
        let lengths: std::collections::BTreeSet<u32> =
            blocks.keys().map(|block| block.prefix_bits).collect();
        assert_eq!(lengths, [64, 96 + 24].into());
        // A block that moves to another node is stale until it has.
        let moved = blocks.keys().map(|block| (*block, 4)).collect();
        assert_eq!(stale(&blocks, &moved).len(), 2);
        assert!(stale(&blocks, &blocks).is_empty());
    }
}
