//! Stored endpoints: what is written of each pod. When and how fast is the writer's.

use std::collections::BTreeMap;

use serde_json::json;
use sluice_crds::resources::{EndpointState, GROUP, SluiceEndpointSpec, VERSION};
use sluice_world::{NodeName, PodRef};

use super::{
    absence::Absence,
    pods::{Interface, Pods},
    write::{Change, Object, Write},
};

/// Brings a pod's stored endpoint up to date; nothing where it is. Of the `lost` nodes nobody knows how their pods are.
pub(super) fn write(
    pods: &mut Pods,
    lost: &BTreeMap<NodeName, Absence>,
    id: &PodRef,
) -> Option<Write> {
    let object = Object::own(
        "SluiceEndpoint",
        "sluiceendpoints",
        Some(id.namespace.clone()),
        id.name.clone(),
    );
    if pods.get(id).is_none() || pods.is_host(id) {
        return pods.is_remembered(id).then_some(Write {
            object,
            change: Change::Delete,
        });
    }
    let addresses = pods.addresses(id);
    let state = pods.get_mut(id)?;
    let spec = SluiceEndpointSpec {
        pod_uid: state.uid.clone(),
        node: state.node.0.clone(),
        identity: state.endpoint.map(|endpoint| endpoint.identity.0),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        policy_revision: state.revision.map(|revision| revision.to_string()),
        state: match state.interface {
            _ if lost.get(&state.node).is_some_and(|absence| absence.noted) => {
                EndpointState::Disconnected
            }
            Some(Interface::Up(_)) => EndpointState::Ready,
            Some(Interface::Down) => EndpointState::Disconnected,
            None => EndpointState::Waiting,
        },
    };
    let digest = digest(&spec);
    if state.written == Some(digest) {
        return None;
    }
    state.written = Some(digest);
    // The API server's garbage collection takes it away with its pod even if no operator is there to.
    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": id.name, "uid": state.uid }]);
    Some(Write {
        object,
        change: Change::Apply(json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "SluiceEndpoint",
            "metadata": { "name": id.name, "namespace": id.namespace, "ownerReferences": owner },
            "spec": spec,
        })),
    })
}

/// Tells contents apart, all but the revision: a new leader counts revisions anew, and need not write all endpoints for that.
pub(super) fn digest(spec: &SluiceEndpointSpec) -> u64 {
    let text = format!(
        "{} {} {:?} {:?} {:?}",
        spec.pod_uid, spec.node, spec.identity, spec.addresses, spec.state
    );
    fnv(text.as_bytes())
}

/// The hash FNV-1a, 64 bits.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
