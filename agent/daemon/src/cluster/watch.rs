//! Looking for operators through the API server: the endpoint slices of their service and the `ConfigMap` of their authority. What is found
//! is remembered elsewhere.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::{core::v1::ConfigMap, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Operators;

/// Between two attempts at an API server that fails.
const AGAIN: Duration = Duration::from_secs(5);
/// How the slices of a service are found.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The port's name in the service.
const PORT_NAME: &str = "grpc";

/// What to look for.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The namespace of both.
    pub namespace: String,
    /// The operators' service.
    pub service: String,
    /// The `ConfigMap` with their authority's certificates at `ca.crt`.
    pub authority: String,
    /// Their port, where a slice names none.
    pub port: u16,
}

/// Follows both for ever.
pub async fn follow(client: Client, discovery: Discovery, operators: Operators) {
    let authority = authority(client.clone(), discovery.clone(), operators.clone());
    let addresses = addresses(client, discovery, operators);
    tokio::join!(addresses, authority);
}

async fn addresses(client: Client, discovery: Discovery, operators: Operators) {
    let slices: Api<EndpointSlice> = Api::namespaced(client, &discovery.namespace);
    let label = format!("{SERVICE_LABEL}={}", discovery.service);
    loop {
        let listed = slices.list(&ListParams::default().labels(&label)).await;
        match listed {
            Ok(list) => {
                operators.set_addresses(ready(&list.items, discovery.port));
                let version = list.metadata.resource_version.unwrap_or_default();
                changed(&slices, WatchParams::default().labels(&label), &version).await;
            }
            Err(error) => {
                warn!(%error, "looking for operators");
                sleep(AGAIN).await;
            }
        }
    }
}

async fn authority(client: Client, discovery: Discovery, operators: Operators) {
    let maps: Api<ConfigMap> = Api::namespaced(client, &discovery.namespace);
    let field = format!("metadata.name={}", discovery.authority);
    loop {
        let listed = maps.list(&ListParams::default().fields(&field)).await;
        match listed {
            Ok(list) => {
                let found = list
                    .items
                    .into_iter()
                    .filter_map(|map| map.data?.remove("ca.crt"));
                for certificates in found {
                    operators.set_authority(certificates);
                }
                let version = list.metadata.resource_version.unwrap_or_default();
                changed(&maps, WatchParams::default().fields(&field), &version).await;
            }
            Err(error) => {
                warn!(%error, "looking for the operators' authority");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Waits until something changes, or the watch ends. Both objects are few and small: they are listed again rather than patched.
async fn changed<K>(api: &Api<K>, params: WatchParams, version: &str)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let events = match api.watch(&params, version).await {
        Ok(events) => events,
        Err(error) => {
            debug!(%error, "watching");
            sleep(AGAIN).await;
            return;
        }
    };
    pin_mut!(events);
    match events.next().await {
        Some(Ok(
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object),
        )) => {
            debug!(object = %object.name_any(), "changed");
        }
        Some(Ok(_)) | None => {}
        Some(Err(error)) => {
            debug!(%error, "watching");
            sleep(AGAIN).await;
        }
    }
}

/// The addresses at which an operator is ready to serve.
fn ready(slices: &[EndpointSlice], otherwise: u16) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices {
        let port = slice
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(PORT_NAME))
            .and_then(|port| u16::try_from(port.port?).ok())
            .unwrap_or(otherwise);
        for endpoint in slice.endpoints.iter().flatten() {
            // Unknown counts as ready (the API's own words).
            let is_ready = endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true);
            let parsed = endpoint
                .addresses
                .iter()
                .filter_map(|text| text.parse().ok());
            if is_ready {
                found.extend(parsed.map(|address| SocketAddr::new(address, port)));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_endpoints_of_both_families_are_found() {
        let slices: Vec<EndpointSlice> = serde_json::from_value(serde_json::json!([
            {"addressType": "IPv4", "metadata": {}, "ports": [{"name": "metrics", "port": 4247}, {"name": "grpc", "port": 5000}],
             "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                           {"addresses": ["192.0.2.2"], "conditions": {"ready": false}},
                           {"addresses": ["192.0.2.3"], "conditions": {}}]},
            {"addressType": "IPv6", "metadata": {}, "endpoints": [{"addresses": ["2001:db8::1"]}]},
        ]))
        .unwrap();
        let found: Vec<String> = ready(&slices, 4245)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            ["192.0.2.1:5000", "192.0.2.3:5000", "[2001:db8::1]:4245"]
        );
    }
}
