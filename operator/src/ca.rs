//! The cluster's certificate authority: a Secret with its key, a `ConfigMap` with the certificates to trust, made and rotated by the leader.
//! Who serves with it is [`crate::serving`]'s.
//!
//! ```text
//! current ──(two thirds of its life)──▶ a next one is made and trusted ──(a day)──▶ it becomes current; the last one stays trusted
//! ```

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;
use x509_parser::{pem::Pem, prelude::ASN1Time};

use crate::writer::MANAGER;

/// The name of the Secret and of the `ConfigMap`.
pub const NAME: &str = "sluice-ca";
/// The key of the `ConfigMap` under which agents find the certificates to trust.
pub const BUNDLE: &str = "ca.crt";
/// How long an authority is good for.
const LIFE: Duration = Duration::from_hours(365 * 24);
/// How long everybody has to learn of a new authority before it signs.
const NOTICE: Duration = Duration::from_hours(24);
/// Clocks of machines differ.
const SKEW: Duration = Duration::from_hours(1);

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The API server said no, or nothing.
    #[error("the certificate authority can't be read or stored: {0}")]
    Api(#[from] kube::Error),
    /// A certificate could not be made.
    #[error("a certificate can't be made: {0}")]
    Make(#[from] rcgen::Error),
    /// What is stored is no certificate, or no key.
    #[error(
        "the Secret {NAME} holds {0:?} that can't be read: delete the Secret to have a new one made"
    )]
    Unreadable(&'static str),
    /// A certificate and its key do not work together.
    #[error("the certificate can't be served with: {0}")]
    Serve(#[from] rustls::Error),
}

/// An authority: its certificate and key as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// It signs.
    pub current: Authority,
    /// It will.
    next: Option<Authority>,
    /// It did.
    previous: Option<String>,
}

impl Authority {
    fn make(now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, format!("sluice-ca-{}", now.as_second()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        date(&mut params, now, LIFE)?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Authorities {
    fn new(now: Timestamp) -> Result<Self, CaError> {
        Ok(Self {
            current: Authority::make(now)?,
            next: None,
            previous: None,
        })
    }

    /// Every certificate to trust.
    #[must_use]
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        [
            Some(self.current.certificate.as_str()),
            next,
            self.previous.as_deref(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What is to be stored from now on, if something else than is.
    ///
    /// # Errors
    /// A new certificate can't be made, or a stored one not be read.
    pub fn rotated(&self, now: Timestamp) -> Result<Option<Self>, CaError> {
        let (begins, ends) = validity(&self.current.certificate)?;
        let now_seconds = now.as_second();
        if let Some(next) = &self.next {
            let (made, _) = validity(&next.certificate)?;
            let known_since = now_seconds - made - seconds(SKEW);
            // One that nobody can sign with any more waits for nobody.
            if known_since >= seconds(NOTICE) || now_seconds >= ends {
                return Ok(Some(Self {
                    current: next.clone(),
                    next: None,
                    previous: Some(self.current.certificate.clone()),
                }));
            }
            return Ok(None);
        }
        if now_seconds >= begins + (ends - begins) / 3 * 2 {
            return Ok(Some(Self {
                next: Some(Authority::make(now)?),
                ..self.clone()
            }));
        }
        Ok(None)
    }

    fn read(data: &BTreeMap<String, ByteString>) -> Result<Self, CaError> {
        let text = |name: &'static str| {
            let bytes = data.get(name).map(|bytes| bytes.0.clone());
            bytes
                .map(|bytes| String::from_utf8(bytes).map_err(|_| CaError::Unreadable(name)))
                .transpose()
        };
        let authority = |certificate, key| -> Result<Option<Authority>, CaError> {
            Ok(text(certificate)?
                .zip(text(key)?)
                .map(|(certificate, key)| Authority { certificate, key }))
        };
        let current = authority("ca.crt", "ca.key")?.ok_or(CaError::Unreadable("ca.crt"))?;
        validity(&current.certificate)?;
        Ok(Self {
            current,
            next: authority("next.crt", "next.key")?,
            previous: text("previous.crt")?,
        })
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        let mut put = |name: &str, text: &str| {
            data.insert(name.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        put("ca.crt", &self.current.certificate);
        put("ca.key", &self.current.key);
        if let Some(next) = &self.next {
            put("next.crt", &next.certificate);
            put("next.key", &next.key);
        }
        if let Some(previous) = &self.previous {
            put("previous.crt", previous);
        }
        data
    }
}

/// Where authorities are stored.
#[derive(Clone)]
pub struct CaStore {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    namespace: String,
}

impl CaStore {
    /// The store of the operator's namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// What is stored; nothing before a leader has made it.
    ///
    /// # Errors
    /// It can't be had, or not be read.
    pub async fn get(&self) -> Result<Option<Authorities>, CaError> {
        let secret = self.secrets.get_opt(NAME).await?;
        let data = secret.and_then(|secret| secret.data);
        data.map(|data| Authorities::read(&data)).transpose()
    }

    /// Makes what is missing, rotates what is due, and publishes what is to be trusted. For the leader.
    ///
    /// # Errors
    /// It can't be had, read, made or stored.
    pub async fn keep(&self, now: Timestamp) -> Result<Authorities, CaError> {
        let stored = self.secrets.get_opt(NAME).await?;
        let known = stored
            .as_ref()
            .and_then(|secret| secret.data.as_ref())
            .map(Authorities::read)
            .transpose()?;
        let (authorities, changed) = match known {
            None => (Authorities::new(now)?, true),
            Some(known) => match known.rotated(now)? {
                Some(rotated) => (rotated, true),
                None => (known, false),
            },
        };
        // Trusted first, signed with later: a certificate must never come before what it is checked with.
        self.publish(&authorities).await?;
        if changed {
            self.store(stored, &authorities).await?;
            tracing::info!("the certificate authority is new or rotated");
        }
        Ok(authorities)
    }

    async fn store(
        &self,
        stored: Option<Secret>,
        authorities: &Authorities,
    ) -> Result<(), CaError> {
        let parameters = PostParams::default();
        if let Some(mut secret) = stored {
            secret.data = Some(authorities.data());
            // Its resource version goes with it: what somebody else stored meanwhile is not overwritten.
            self.secrets.replace(NAME, &parameters, &secret).await?;
        } else {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                data: Some(authorities.data()),
                type_: Some("sluice.io/ca".to_owned()),
                ..Secret::default()
            };
            self.secrets.create(&parameters, &secret).await?;
        }
        Ok(())
    }

    async fn publish(&self, authorities: &Authorities) -> Result<(), CaError> {
        let bundle = authorities.bundle();
        let found = self.maps.get_opt(NAME).await?.and_then(|map| map.data);
        if found.is_some_and(|data| data.get(BUNDLE) == Some(&bundle)) {
            return Ok(());
        }
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": NAME, "namespace": self.namespace },
            "data": { BUNDLE: bundle },
        });
        let apply = PatchParams::apply(MANAGER).force();
        self.maps.patch(NAME, &apply, &Patch::Apply(map)).await?;
        Ok(())
    }
}

/// From when to when a certificate holds, in seconds since 1970.
pub(crate) fn validity(certificate: &str) -> Result<(i64, i64), CaError> {
    let unreadable = || CaError::Unreadable("ca.crt");
    let (pem, _) = Pem::read(std::io::Cursor::new(certificate)).map_err(|_| unreadable())?;
    let parsed = pem.parse_x509().map_err(|_| unreadable())?;
    let validity = parsed.validity();
    Ok((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

/// Has a certificate hold from a little before now until so long after.
pub(crate) fn date(
    params: &mut CertificateParams,
    now: Timestamp,
    life: Duration,
) -> Result<(), CaError> {
    let at = |seconds| {
        ASN1Time::from_timestamp(seconds)
            .map(|time| time.to_datetime())
            .map_err(|_| CaError::Unreadable("the clock"))
    };
    params.not_before = at(now.as_second() - seconds(SKEW))?;
    params.not_after = at(now.as_second() + seconds(life))?;
    Ok(())
}

/// Seconds of a span that is far below what they can count.
pub(crate) fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 24 * 60 * 60).unwrap()
    }

    #[test]
    fn an_authority_is_trusted_before_it_signs() {
        let first = Authorities::new(later(0)).unwrap();
        assert_eq!(first.rotated(later(200)).unwrap(), None);

        let announced = first.rotated(later(250)).unwrap().unwrap();
        assert_eq!(announced.current, first.current);
        let next = announced.next.clone().unwrap();
        assert!(announced.bundle().contains(&next.certificate));
        assert_eq!(announced.rotated(later(250)).unwrap(), None);

        let rotated = announced.rotated(later(252)).unwrap().unwrap();
        assert_eq!(rotated.current, next);
        assert!(
            rotated.bundle().contains(&first.current.certificate),
            "certificates of the last one are still served for a while"
        );
    }

    #[test]
    fn an_authority_that_ran_out_is_replaced_without_waiting() {
        let first = Authorities::new(later(0)).unwrap();
        let announced = first.rotated(later(400)).unwrap().unwrap();
        let rotated = announced.rotated(later(400)).unwrap().unwrap();
        assert_ne!(rotated.current, first.current);
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let announced = Authorities::new(later(0))
            .unwrap()
            .rotated(later(300))
            .unwrap()
            .unwrap();
        assert_eq!(Authorities::read(&announced.data()).unwrap(), announced);
        let rotated = announced.rotated(later(302)).unwrap().unwrap();
        assert_eq!(Authorities::read(&rotated.data()).unwrap(), rotated);
    }

    #[test]
    fn a_spoilt_secret_is_told_and_not_used() {
        let mut data = Authorities::new(later(0)).unwrap().data();
        data.insert("ca.crt".to_owned(), ByteString(b"no certificate".to_vec()));
        assert!(matches!(
            Authorities::read(&data),
            Err(CaError::Unreadable(_))
        ));
    }
}
