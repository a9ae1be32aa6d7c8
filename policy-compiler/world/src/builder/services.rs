//! Services and the addresses behind them.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::{core::v1::Service as ServiceObject, discovery::v1::EndpointSlice};

use super::BuildError;
use crate::{
    model::{Labels, Service, ServiceRef},
    world::World,
};

/// The label by which a slice says whose it is.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Puts in services with the endpoints of their slices. A slice whose service is not given implies one without a selector.
pub(super) fn add(
    world: &mut World,
    services: &[ServiceObject],
    slices: &[EndpointSlice],
) -> Result<(), BuildError> {
    for object in services {
        let service = service(object)?;
        let id = service.id.clone();
        if world.services.insert(id.clone(), service).is_some() {
            return Err(BuildError::Duplicate(format!("Service {id}")));
        }
    }
    for slice in slices {
        let Some((id, endpoints)) = slice_endpoints(slice)? else {
            continue;
        };
        let service = world.services.entry(id.clone()).or_insert_with(|| Service {
            id,
            labels: Labels::new(),
            selector: None,
            endpoints: BTreeSet::new(),
            cluster_ips: BTreeSet::new(),
        });
        service.endpoints.extend(endpoints);
    }
    Ok(())
}

/// A service, without the endpoints that its slices have.
///
/// # Errors
/// A field can't be read as what it should be.
pub fn service(object: &ServiceObject) -> Result<Service, BuildError> {
    let metadata = &object.metadata;
    let id = ServiceRef {
        namespace: metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into()),
        name: metadata
            .name
            .clone()
            .ok_or(BuildError::Unnamed("Service"))?,
    };
    let spec = object.spec.clone().unwrap_or_default();
    let mut cluster_ips = BTreeSet::new();
    for text in spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip) {
        if !matches!(text.as_str(), "" | "None") {
            let address = text.parse::<IpAddr>().map_err(|_| {
                BuildError::field(
                    &format!("Service {id}"),
                    "spec.clusterIPs",
                    text,
                    "is not an IP address",
                )
            })?;
            cluster_ips.insert(address);
        }
    }
    Ok(Service {
        labels: metadata.labels.clone().unwrap_or_default(),
        // The API's text: an empty selector is as good as none.
        selector: spec.selector.filter(|selector| !selector.is_empty()),
        endpoints: BTreeSet::new(),
        cluster_ips,
        id,
    })
}

/// Whose slice it is, and its addresses that are not said to be unready. Nothing for slices of names instead of addresses.
///
/// # Errors
/// A field can't be read as what it should be.
pub fn slice_endpoints(
    slice: &EndpointSlice,
) -> Result<Option<(ServiceRef, BTreeSet<IpAddr>)>, BuildError> {
    if slice.address_type == "FQDN" {
        return Ok(None);
    }
    let id = slice_service(slice)?;
    let object = slice_name(slice);
    let mut addresses = BTreeSet::new();
    for endpoint in slice.endpoints.iter().flatten() {
        let ready = endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready);
        if ready == Some(false) {
            continue;
        }
        for text in &endpoint.addresses {
            let address = text.parse().map_err(|_| {
                BuildError::field(
                    &object,
                    "endpoints[].addresses",
                    text,
                    "is not an IP address",
                )
            })?;
            addresses.insert(address);
        }
    }
    Ok(Some((id, addresses)))
}

fn slice_name(slice: &EndpointSlice) -> String {
    let metadata = &slice.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let name = metadata.name.as_deref().unwrap_or_default();
    format!("EndpointSlice {namespace}/{name}")
}

/// Whose slice it is.
///
/// # Errors
/// It does not say.
pub fn slice_service(slice: &EndpointSlice) -> Result<ServiceRef, BuildError> {
    let metadata = &slice.metadata;
    let namespace = metadata
        .namespace
        .clone()
        .unwrap_or_else(|| "default".into());
    let label = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(SERVICE_NAME_LABEL));
    let name = label.cloned().or_else(|| {
        // The API server's own slice is named after its service, and hand-written copies of it often lack the label.
        metadata
            .name
            .clone()
            .filter(|name| namespace == "default" && name == "kubernetes")
    });
    let Some(name) = name else {
        let field = format!("metadata.labels[{SERVICE_NAME_LABEL}]");
        return Err(BuildError::field(
            &slice_name(slice),
            &field,
            "",
            "is missing, so that it belongs to no service",
        ));
    };
    Ok(ServiceRef { namespace, name })
}
