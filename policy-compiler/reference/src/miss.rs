//! Why a rule does not match: what `explain` shows, and what matching itself is written in. A rule matches where nothing is missed, so
//! that no explanation can differ from the evaluation.

use std::fmt;

use ipnet::IpNet;
use sluice_crds::parsed::{CidrRule, CidrSource, Entity, FqdnSelector, PortRange};

use crate::labels::Unmet;

/// One thing for which a rule does not match.
#[derive(Clone, Debug)]
pub(crate) enum Miss<'w> {
    /// Labels of the named object differ.
    Labels {
        of: &'static str,
        unmet: Vec<Unmet<'w>>,
    },
    /// The peer is in another namespace.
    Namespace { wanted: &'w str, found: &'w str },
    /// The peer is another kind of thing.
    Kind {
        wanted: &'static str,
        found: &'static str,
    },
    /// The address is not in the block.
    Block(IpNet),
    /// The address is in no group that the entry names.
    Group(&'w CidrRule),
    /// The address is carved out.
    Except(IpNet),
    /// The peer is no such entity.
    Entities(&'w [Entity]),
    /// The address was learned for none of these names.
    Names(&'w [FqdnSelector]),
    /// The peer is not behind the service.
    Service(String),
    /// Another port.
    Port { wanted: PortWanted<'w>, found: u16 },
    /// Another protocol.
    Protocol { wanted: &'static str, found: u8 },
    /// Another ICMP type.
    IcmpType { wanted: u8, found: u16 },
    /// The rule matches nothing at all.
    Nothing(&'static str),
}

/// The port a rule names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PortWanted<'w> {
    Range(PortRange),
    Name(&'w str),
}

impl Miss<'_> {
    /// The dimension it is in, as `explain` names it.
    pub(crate) const fn dimension(&self) -> &'static str {
        match self {
            Self::Labels { .. } => "label",
            Self::Namespace { .. } => "namespace",
            Self::Kind { .. } => "peer-kind",
            Self::Block(_) | Self::Group(_) => "cidr",
            Self::Except(_) => "except",
            Self::Entities(_) => "entity",
            Self::Names(_) => "name",
            Self::Service(_) => "service",
            Self::Port { .. } => "port",
            Self::Protocol { .. } => "protocol",
            Self::IcmpType { .. } => "icmp-type",
            Self::Nothing(_) => "nothing",
        }
    }

    /// How far off: the smaller, the likelier the author meant this traffic. Only the order has a meaning.
    pub(crate) fn distance(&self) -> usize {
        match self {
            Self::Port { .. } | Self::IcmpType { .. } => 1,
            Self::Protocol { .. } | Self::Except(_) => 2,
            Self::Namespace { .. } => 3,
            Self::Labels { unmet, .. } => 2 + 2 * unmet.len(),
            Self::Block(_) | Self::Group(_) | Self::Names(_) | Self::Service(_) => 6,
            Self::Entities(_) => 7,
            Self::Kind { .. } => 9,
            Self::Nothing(_) => 20,
        }
    }
}

/// Nothing missed by one of several alternatives, or else the least that any of them missed. No alternative: nobody is meant.
pub(crate) fn nearest<'w>(
    alternatives: impl IntoIterator<Item = Option<Miss<'w>>>,
) -> Option<Miss<'w>> {
    let mut nearest = None::<Miss<'w>>;
    for alternative in alternatives {
        let miss = alternative?;
        if nearest
            .as_ref()
            .is_none_or(|nearest| miss.distance() < nearest.distance())
        {
            nearest = Some(miss);
        }
    }
    Some(nearest.unwrap_or(Miss::Nothing("the rule's list of peers is empty")))
}

/// No miss where no label is unmet.
pub(crate) fn of_labels<'w>(of: &'static str, unmet: Vec<Unmet<'w>>) -> Option<Miss<'w>> {
    (!unmet.is_empty()).then_some(Miss::Labels { of, unmet })
}

impl fmt::Display for Miss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Labels { of, unmet } => {
                for (index, unmet) in unmet.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}{of} {unmet}")?;
                }
                Ok(())
            }
            Self::Namespace { wanted, found } => {
                write!(
                    f,
                    "namespace of the peer should be {wanted:?}, but is {found:?}"
                )
            }
            Self::Kind { wanted, found } => {
                write!(f, "the peer should be {wanted}, but is {found}")
            }
            Self::Block(block) => write!(f, "the address is not in {block}"),
            Self::Group(rule) => match &rule.source {
                CidrSource::Group(name) => write!(
                    f,
                    "the address is not in CIDR group {name:?}, or there is no such group"
                ),
                CidrSource::GroupSelector(selector) => {
                    write!(f, "the address is in no CIDR group with labels {selector}")
                }
                CidrSource::Cidr(block) => write!(f, "the address is not in {block}"),
            },
            Self::Except(block) => write!(f, "the address is carved out by except {block}"),
            Self::Entities(entities) => {
                let names: Vec<_> = entities.iter().map(|entity| entity.as_str()).collect();
                write!(f, "the peer is no such entity: {}", names.join(", "))
            }
            Self::Names(names) => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "the address was learned for none of these names: {}",
                    names.join(", ")
                )
            }
            Self::Service(service) => write!(f, "the peer is not behind {service}"),
            Self::Port {
                wanted: PortWanted::Range(range),
                found,
            } if range.first() == range.last() => {
                write!(f, "the port should be {}, but is {found}", range.first())
            }
            Self::Port {
                wanted: PortWanted::Range(range),
                found,
            } => {
                write!(
                    f,
                    "the port should be {} to {}, but is {found}",
                    range.first(),
                    range.last()
                )
            }
            Self::Port {
                wanted: PortWanted::Name(name),
                found,
            } => {
                write!(
                    f,
                    "{found} is no container port named {name:?} of the destination pod"
                )
            }
            Self::Protocol { wanted, found } => {
                write!(f, "the protocol should be {wanted}, but is ")?;
                match sluice_world::protocol_name(*found) {
                    Some(name) => f.write_str(name),
                    None => write!(f, "number {found}"),
                }
            }
            Self::IcmpType { wanted, found } => {
                write!(f, "the ICMP type should be {wanted}, but is {found}")
            }
            Self::Nothing(why) => f.write_str(why),
        }
    }
}
