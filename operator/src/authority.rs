//! Keeps certificates: the leader makes and rotates the authority and tells the API server of it, every replica serves with what it
//! signs. What a certificate is made of is [`crate::ca`]'s.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    ByteString, api::admissionregistration::v1::ValidatingWebhookConfiguration, jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::timeout};

use crate::{
    ca::{Authorities, CaError, CaStore},
    lease::Standing,
    options::Options,
    serving::Certificates,
    writer::MANAGER,
};

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(30);
/// How often while there is nothing yet.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Keeps certificates for ever.
pub async fn keep(
    store: CaStore,
    client: Client,
    options: Options,
    certificates: Arc<Certificates>,
    bundle: Arc<Mutex<String>>,
    mut standing: watch::Receiver<Standing>,
) {
    loop {
        let leads = matches!(*standing.borrow_and_update(), Standing::Leads(_));
        match authorities(&store, leads).await {
            Ok(Some(authorities)) => {
                let kept = certificates.keep(
                    &authorities.current,
                    &options.namespace,
                    &[options.address],
                    Timestamp::now(),
                );
                if let Err(error) = kept {
                    tracing::error!(%error, "no certificate to serve with");
                }
                let trusted = authorities.bundle();
                bundle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone_from(&trusted);
                if leads
                    && !options.webhook_configuration.is_empty()
                    && let Err(error) =
                        trust(&client, &options.webhook_configuration, &trusted).await
                {
                    tracing::warn!(%error, "the webhook's CA can't be told to the API server");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "certificates can't be kept now"),
        }
        let pause = if certificates.are_there() {
            LOOK
        } else {
            FIRST_LOOK
        };
        // Becoming the leader is a reason to look at once; an election that is over is none.
        if let Ok(Err(_)) = timeout(pause, standing.changed()).await {
            tokio::time::sleep(pause).await;
        }
    }
}

async fn authorities(store: &CaStore, leads: bool) -> Result<Option<Authorities>, CaError> {
    if leads {
        store.keep(Timestamp::now()).await.map(Some)
    } else {
        store.get().await
    }
}

/// Has the API server trust the webhook's certificate. A configuration that is not there needs none.
async fn trust(client: &Client, name: &str, bundle: &str) -> Result<(), kube::Error> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let Some(found) = api.get_opt(name).await? else {
        return Ok(());
    };
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let webhooks = found.webhooks.unwrap_or_default();
    let told = |webhook: &k8s_openapi::api::admissionregistration::v1::ValidatingWebhook| {
        webhook.client_config.ca_bundle.as_ref() == Some(&bundle)
    };
    if webhooks.iter().all(told) {
        return Ok(());
    }
    // Strategic: webhooks are merged by their names.
    let patch: Vec<_> = webhooks
        .iter()
        .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } }))
        .collect();
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(
        name,
        &params,
        &Patch::Strategic(json!({ "webhooks": patch })),
    )
    .await?;
    Ok(())
}
