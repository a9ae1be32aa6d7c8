//! The certificate that this replica serves with: signed by the stored authority, kept in memory only, made anew before it runs out.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::PrivateKeyDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::ca::{Authority, CaError, date, seconds};

/// How long a certificate is good for; it is made anew at half of that.
const LIFE: Duration = Duration::from_hours(7 * 24);
/// The name that agents and other replicas expect.
pub const SERVER_NAME: &str = "sluice-operator";

struct Served {
    key: Arc<CertifiedKey>,
    authority: Authority,
    made: Timestamp,
}

/// Hands out the certificate of the moment. Nothing before there is an authority.
#[derive(Default)]
pub struct Certificates {
    served: RwLock<Option<Served>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        served.as_ref().map(|served| Arc::clone(&served.key))
    }
}

impl Certificates {
    /// Whether there is one.
    #[must_use]
    pub fn are_there(&self) -> bool {
        self.served
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Sees to it that what is served is of this authority and not about to run out.
    ///
    /// # Errors
    /// A certificate can't be made.
    pub fn keep(
        &self,
        authority: &Authority,
        namespace: &str,
        addresses: &[IpAddr],
        now: Timestamp,
    ) -> Result<(), CaError> {
        let holds = |served: &Served| {
            served.authority == *authority
                && now.as_second() - served.made.as_second() < seconds(LIFE) / 2
        };
        let known = self.served.read().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(holds) {
            return Ok(());
        }
        drop(known);
        let served = Served {
            key: Arc::new(issue(authority, namespace, addresses, now)?),
            authority: authority.clone(),
            made: now,
        };
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Some(served);
        Ok(())
    }
}

fn issue(
    authority: &Authority,
    namespace: &str,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<CertifiedKey, CaError> {
    let mut names = vec![
        SERVER_NAME.to_owned(),
        format!("{SERVER_NAME}.{namespace}"),
        format!("{SERVER_NAME}.{namespace}.svc"),
        format!("{SERVER_NAME}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
    ];
    names.extend(addresses.iter().map(ToString::to_string));
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, SERVER_NAME);
    params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
    params.use_authority_key_identifier_extension = true;
    date(&mut params, now, LIFE)?;
    let issuer = Issuer::from_ca_cert_pem(
        &authority.certificate,
        KeyPair::from_pem(&authority.key).map_err(|_| CaError::Unreadable("ca.key"))?,
    )?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Ok(CertifiedKey::new(
        vec![certificate.der().clone()],
        any_supported_type(&der)?,
    ))
}
