//! Prefixes as text. Host bits are masked away, as every reader of these APIs does.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{Findings, Path, each, optional, selector};
use crate::parsed::{CidrRule, CidrSource};
use crate::policy;

/// `10.0.0.0/8`: an address with a prefix length.
pub(super) fn prefix(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<IpNet> {
    match parse(text) {
        Ok(prefix) => Some(prefix),
        Err(reason) => {
            findings.error(path, reason);
            None
        }
    }
}

/// `10.0.0.0/8` or a bare address, which stands for itself alone.
pub(super) fn prefix_or_address(
    text: &str,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => prefix(&IpNet::from(address).to_string(), path, findings),
        Err(_) => prefix(text, path, findings),
    }
}

/// An entry of `fromCIDR` / `toCIDR`.
pub(super) fn plain(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<CidrRule> {
    let prefix = prefix_or_address(text, path, findings)?;
    Some(CidrRule {
        source: CidrSource::Cidr(prefix),
        except: Vec::new(),
    })
}

/// An entry of `fromCIDRSet` / `toCIDRSet`.
pub(super) fn rule(
    raw: &policy::CidrRule,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<CidrRule> {
    let except_path = path.field("except");
    let cidr = optional(
        raw.cidr.as_deref(),
        &path.field("cidr"),
        findings,
        prefix_or_address,
    );
    let selector = optional(
        raw.cidr_group_selector.as_ref(),
        &path.field("cidrGroupSelector"),
        findings,
        selector::object_selector,
    );
    let except = each(
        raw.except.as_deref().unwrap_or_default(),
        &except_path,
        findings,
        |text, path, findings| prefix_or_address(text, path, findings),
    );
    let source = match (cidr?, &raw.cidr_group_ref, selector?) {
        (Some(prefix), None, None) => CidrSource::Cidr(prefix),
        (None, Some(name), None) => {
            if !selector::is_subdomain(name) {
                findings.error(
                    &path.field("cidrGroupRef"),
                    format!("{name:?} can't be the name of a CIDR group"),
                );
                return None;
            }
            CidrSource::Group(name.clone())
        }
        (None, None, Some(selector)) => CidrSource::GroupSelector(selector),
        (None, None, None) => {
            findings.error(
                path,
                "nothing is selected: write one of cidr, cidrGroupRef, cidrGroupSelector",
            );
            return None;
        }
        _ => {
            findings.error(
                path,
                "cidr, cidrGroupRef and cidrGroupSelector exclude each other: write one entry for each",
            );
            return None;
        }
    };
    let except = except?;
    if let CidrSource::Cidr(outer) = &source {
        inside(outer, &except, &except_path, findings).then_some(CidrRule { source, except })
    } else {
        Some(CidrRule { source, except })
    }
}

/// Whether every exception lies inside its prefix.
pub(super) fn inside(
    outer: &IpNet,
    except: &[IpNet],
    path: &Path<'_>,
    findings: &mut Findings,
) -> bool {
    let mut all = true;
    for (index, inner) in except.iter().enumerate() {
        if !outer.contains(inner) {
            findings.error(
                &path.index(index),
                format!("{inner} is not inside {outer}, so it takes nothing away: correct one of the two"),
            );
            all = false;
        }
    }
    all
}

fn parse(text: &str) -> Result<IpNet, String> {
    let Some((address, length)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => {
                format!(
                    "{text:?} has no prefix length: write {}",
                    IpNet::from(address)
                )
            }
            Err(_) => format!(
                "{text:?} is no CIDR: write an address, a slash and a prefix length, like 10.0.0.0/8 or fd00::/8"
            ),
        });
    };
    if address.contains('%') {
        return Err(format!(
            "{text:?} has a zone: a CIDR stands for addresses anywhere, drop `%` and what follows it"
        ));
    }
    let address: IpAddr = address.parse().map_err(|_| {
        format!("{address:?} is no IP address: IPv4 without leading zeros, or IPv6, is expected")
    })?;
    if let IpAddr::V6(v6) = address
        && is_mapped(v6)
    {
        return Err(format!(
            "{text:?} is an IPv4-mapped address, which never appears on the wire: write the IPv4 prefix"
        ));
    }
    let max = if address.is_ipv4() { 32 } else { 128 };
    let well_formed = !length.is_empty()
        && length.bytes().all(|byte| byte.is_ascii_digit())
        && (length == "0" || !length.starts_with('0'));
    let prefix = length
        .parse::<u8>()
        .ok()
        .filter(|length| well_formed && *length <= max)
        .and_then(|length| IpNet::new(address, length).ok())
        .ok_or_else(|| {
            format!(
                "{length:?} is no prefix length of {address}: a number from 0 to {max} is expected"
            )
        })?;
    Ok(prefix.trunc())
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}
