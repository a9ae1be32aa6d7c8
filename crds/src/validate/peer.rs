//! The peer of a Cilium-style rule: one kind per rule.

use super::{Findings, Path, cidr, each, fqdn, selector, word};
use crate::parsed::{CloudGroup, Entity, Peer, ServiceRef};
use crate::policy::{self, CidrRule, FqdnSelector, LabelSelector, Service};

/// The peer fields of any of the four rule types, with the prefix their names have there.
#[derive(Default)]
pub(super) struct RawPeer<'a> {
    pub(super) prefix: &'static str,
    pub(super) endpoints: Option<&'a [LabelSelector]>,
    pub(super) entities: Option<&'a [String]>,
    pub(super) cidr: Option<&'a [String]>,
    pub(super) cidr_set: Option<&'a [CidrRule]>,
    pub(super) nodes: Option<&'a [LabelSelector]>,
    pub(super) groups: Option<&'a [policy::CloudGroup]>,
    pub(super) services: Option<&'a [Service]>,
    pub(super) fqdns: Option<&'a [FqdnSelector]>,
}

impl RawPeer<'_> {
    fn field(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn present(&self) -> Vec<String> {
        [
            (self.endpoints.is_some(), "Endpoints"),
            (self.entities.is_some(), "Entities"),
            (self.cidr.is_some(), "CIDR"),
            (self.cidr_set.is_some(), "CIDRSet"),
            (self.nodes.is_some(), "Nodes"),
            (self.groups.is_some(), "Groups"),
            (self.services.is_some(), "Services"),
            (self.fqdns.is_some(), "FQDNs"),
        ]
        .into_iter()
        .filter(|(present, _)| *present)
        .map(|(_, name)| self.field(name))
        .collect()
    }
}

/// The peer, given whether the rule also names ports or ICMP types.
pub(super) fn peer(
    raw: &RawPeer<'_>,
    has_l4: bool,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Peer> {
    let present = raw.present();
    if present.len() > 1 {
        findings.error(
            path,
            format!(
                "{} are different kinds of peer, and a rule has one: write a rule entry for each (entries are OR'd)",
                present.join(" and ")
            ),
        );
    }
    let mut kinds = Vec::new();
    let mut list = |name: &str, parse: &mut dyn FnMut(&Path<'_>, &mut Findings) -> Option<Peer>| {
        kinds.push(parse(&path.field(&raw.field(name)), findings));
    };
    if let Some(raw) = raw.endpoints {
        list("Endpoints", &mut |path, findings| {
            each(raw, path, findings, selector::selector).map(Peer::Endpoints)
        });
    }
    if let Some(raw) = raw.entities {
        list("Entities", &mut |path, findings| {
            each(raw, path, findings, |text, path, findings| {
                entity(text, path, findings)
            })
            .map(Peer::Entities)
        });
    }
    if let Some(raw) = raw.cidr {
        list("CIDR", &mut |path, findings| {
            each(raw, path, findings, |text, path, findings| {
                cidr::plain(text, path, findings)
            })
            .map(Peer::Cidrs)
        });
    }
    if let Some(raw) = raw.cidr_set {
        list("CIDRSet", &mut |path, findings| {
            each(raw, path, findings, cidr::rule).map(Peer::Cidrs)
        });
    }
    if let Some(raw) = raw.nodes {
        list("Nodes", &mut |path, findings| {
            each(raw, path, findings, selector::selector).map(Peer::Nodes)
        });
    }
    if let Some(raw) = raw.groups {
        list("Groups", &mut |path, findings| {
            each(raw, path, findings, group).map(Peer::Groups)
        });
    }
    if let Some(raw) = raw.services {
        list("Services", &mut |path, findings| {
            each(raw, path, findings, service).map(Peer::Services)
        });
    }
    if let Some(raw) = raw.fqdns {
        list("FQDNs", &mut |path, findings| {
            each(raw, path, findings, fqdn::fqdn).map(Peer::Fqdns)
        });
    }
    match (present.len(), kinds.pop()) {
        (0, _) => Some(if has_l4 { Peer::Any } else { Peer::Nothing }),
        (1, Some(peer)) => peer,
        _ => None,
    }
}

fn entity(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<Entity> {
    word(
        text,
        &Entity::ALL.map(|entity| (entity.as_str(), entity)),
        path,
        findings,
    )
}

fn service(raw: &Service, path: &Path<'_>, findings: &mut Findings) -> Option<ServiceRef> {
    let non_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (&raw.k8s_service, &raw.k8s_service_selector) {
        (Some(named), None) => {
            let Some(name) = non_empty(&named.service_name) else {
                findings.error(
                    &path.field("k8sService").field("serviceName"),
                    "the service's name is missing",
                );
                return None;
            };
            Some(ServiceRef::Named {
                name,
                namespace: non_empty(&named.namespace),
            })
        }
        (None, Some(selected)) => Some(ServiceRef::Selected {
            selector: selector::object_selector(
                &selected.selector,
                &path.field("k8sServiceSelector").field("selector"),
                findings,
            )?,
            namespace: non_empty(&selected.namespace),
        }),
        (None, None) => {
            findings.error(
                path,
                "no service is named: write k8sService or k8sServiceSelector",
            );
            None
        }
        (Some(_), Some(_)) => {
            findings.error(
                path,
                "k8sService and k8sServiceSelector exclude each other: write two entries",
            );
            None
        }
    }
}

fn group(raw: &policy::CloudGroup, path: &Path<'_>, findings: &mut Findings) -> Option<CloudGroup> {
    let Some(aws) = &raw.aws else {
        findings.error(path, "no cloud is named: write `aws`");
        return None;
    };
    Some(CloudGroup::Aws {
        labels: aws.labels.clone().unwrap_or_default(),
        security_group_ids: aws.security_groups_ids.clone().unwrap_or_default(),
        security_group_names: aws.security_groups_names.clone().unwrap_or_default(),
        region: aws.region.clone().filter(|text| !text.is_empty()),
    })
}
