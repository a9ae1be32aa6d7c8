//! Addresses in blocks. Whether pods and nodes have addresses in this sense is for each API to say.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_crds::parsed::{CidrRule, CidrSource};
use sluice_world::World;

use crate::{labels, miss::Miss};

/// An address in a block and in none of its exceptions.
pub(crate) fn block_miss<'w>(address: IpAddr, block: IpNet, except: &[IpNet]) -> Option<Miss<'w>> {
    if !block.contains(&address) {
        return Some(Miss::Block(block));
    }
    except_miss(address, except)
}

/// An entry of `fromCIDRSet` and its like; `except` applies to its own entry only.
pub(crate) fn rule_miss<'w>(
    world: &World,
    address: IpAddr,
    rule: &'w CidrRule,
) -> Option<Miss<'w>> {
    let inside = match &rule.source {
        CidrSource::Cidr(block) => return block_miss(address, *block, &rule.except),
        CidrSource::Group(name) => {
            let mut groups = world
                .cidr_groups
                .values()
                .filter(|group| group.name == *name);
            groups.any(|group| group.cidrs.iter().any(|block| block.contains(&address)))
        }
        CidrSource::GroupSelector(selector) => {
            let mut groups = world
                .cidr_groups
                .values()
                .filter(|group| labels::matches(selector, &group.labels));
            groups.any(|group| group.cidrs.iter().any(|block| block.contains(&address)))
        }
    };
    if inside {
        except_miss(address, &rule.except)
    } else {
        Some(Miss::Group(rule))
    }
}

fn except_miss<'w>(address: IpAddr, except: &[IpNet]) -> Option<Miss<'w>> {
    except
        .iter()
        .find(|block| block.contains(&address))
        .map(|block| Miss::Except(*block))
}
