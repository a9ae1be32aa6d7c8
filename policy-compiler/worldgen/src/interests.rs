//! What the manifests of a world name: ports and prefixes near whose ends questions are worth asking.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use crate::vocabulary::{OUTSIDE, PORTS};

/// Field names whose numbers are ports.
const PORT_FIELDS: [&str; 6] = ["port", "endPort", "number", "start", "end", "containerPort"];

/// Ports and addresses worth asking about.
#[derive(Clone, Debug)]
pub(crate) struct Interests {
    /// Ports that are named, ends of ranges included.
    pub(crate) ports: Vec<u16>,
    /// These and their neighbours.
    pub(crate) near: Vec<u16>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Interests {
    /// What these manifests name, the neighbours of each end included.
    pub(crate) fn of(documents: &[Value]) -> Self {
        let mut ports = BTreeSet::new();
        let mut prefixes = BTreeSet::new();
        for document in documents {
            walk(document, "", &mut ports, &mut prefixes);
        }
        if ports.is_empty() {
            ports.extend(PORTS);
        }
        let near: BTreeSet<u16> = ports
            .iter()
            .flat_map(|port| [*port, port.saturating_sub(1), port.saturating_add(1)])
            .collect();
        let mut addresses: BTreeSet<IpAddr> = prefixes.into_iter().flat_map(ends).collect();
        addresses.extend(
            OUTSIDE
                .iter()
                .filter_map(|text| text.parse::<IpAddr>().ok()),
        );
        Self {
            ports: ports.into_iter().collect(),
            near: near.into_iter().collect(),
            addresses: addresses.into_iter().filter(is_unicast).collect(),
        }
    }
}

fn walk(value: &Value, field: &str, ports: &mut BTreeSet<u16>, prefixes: &mut BTreeSet<IpNet>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                walk(value, name, ports, prefixes);
            }
        }
        Value::Array(items) => {
            for item in items {
                walk(item, field, ports, prefixes);
            }
        }
        Value::Number(number) if PORT_FIELDS.contains(&field) => {
            ports.extend(
                number
                    .as_u64()
                    .and_then(|number| u16::try_from(number).ok()),
            );
        }
        Value::String(text) => {
            if PORT_FIELDS.contains(&field) {
                ports.extend(text.parse::<u16>());
            }
            prefixes.extend(text.parse::<IpNet>());
            prefixes.extend(text.parse::<IpAddr>().map(IpNet::from));
        }
        _ => {}
    }
}

/// The first and last address of a prefix and their neighbours outside of it.
fn ends(prefix: IpNet) -> Vec<IpAddr> {
    match prefix {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .into_iter()
                .map(|bits| IpAddr::V4(bits.into()))
                .collect()
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .into_iter()
                .map(|bits| IpAddr::V6(bits.into()))
                .collect()
        }
    }
}

/// Whether a packet may come from the address and go to it: others are refused before policy is asked.
fn is_unicast(address: &IpAddr) -> bool {
    let first_byte_is_usable = match address {
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => v6.to_bits() >> 96 != 0 && v6.segments()[0] & 0xffc0 != 0xfe80,
    };
    first_byte_is_usable
        && !address.is_multicast()
        && !address.is_loopback()
        && !address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_sides_of_each_end_are_of_interest() {
        let found =
            Interests::of(&[json!({"cidr": "198.51.100.16/28", "port": "80", "endPort": 90})]);
        for port in [79, 80, 81, 89, 90, 91] {
            assert!(found.near.contains(&port), "{port}");
        }
        for address in [
            "198.51.100.15",
            "198.51.100.16",
            "198.51.100.31",
            "198.51.100.32",
        ] {
            assert!(
                found.addresses.contains(&address.parse().unwrap()),
                "{address}"
            );
        }
    }

    #[test]
    fn whole_spaces_give_no_impossible_address() {
        let found = Interests::of(&[json!(["0.0.0.0/0", "::/0"])]);
        assert!(found.addresses.iter().all(is_unicast));
    }
}
