//! The cluster's certificates and the kubeconfigs that carry them: an own authority, made anew for each cluster. Writing them
//! into a machine's file system may not enter.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::{
    error::{Error, Result},
    plan::{self, API_PORT, Machine, addresses},
};

/// The authority and the folder that holds what it signed.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Whom a certificate is for.
struct Subject<'a> {
    /// The user's name, or the server's.
    name: &'a str,
    /// The group that access rights go by.
    group: Option<&'a str>,
    /// Addresses and names it serves under.
    serves: Vec<SanType>,
}

impl Authority {
    /// Makes the authority, with everything that the control plane needs, in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::at("creating", folder))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("sluice-test-cluster", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let issuer = KeyPair::generate()
            .and_then(|key| CertifiedIssuer::self_signed(params, key))
            .map_err(of("the authority"))?;
        let authority = Self {
            folder: folder.to_owned(),
            issuer,
        };
        authority.write("ca.crt", &authority.issuer.pem())?;
        authority.write("ca.key", &authority.issuer.key().serialize_pem())?;
        authority.control_plane()?;
        Ok(authority)
    }

    fn control_plane(&self) -> Result<()> {
        let tokens = KeyPair::generate().map_err(of("service accounts"))?;
        self.write("tokens.key", &tokens.serialize_pem())?;
        self.write("tokens.pub", &tokens.public_key_pem())?;
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        let local = [
            Ipv4Addr::LOCALHOST.into(),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        let own = addresses(Machine::ControlPlane).both();
        let addresses = [own, plan::api_service().both(), local].concat();
        let addresses = addresses
            .into_iter()
            .map(|address| Ok(SanType::IpAddress(address)));
        let serves = names
            .into_iter()
            .map(dns)
            .chain(addresses)
            .collect::<Result<_>>()?;
        self.sign(
            "apiserver",
            Subject {
                name: "kube-apiserver",
                group: None,
                serves,
            },
        )?;
        self.client(
            "apiserver-kubelet",
            "apiserver-kubelet",
            Some("system:masters"),
        )?;
        self.client("front-proxy", "front-proxy-client", None)?;
        self.user("admin", "admin", Some("system:masters"))?;
        self.user("controllers", "system:kube-controller-manager", None)?;
        self.user("scheduler", "system:kube-scheduler", None)?;
        self.user("proxy", "system:kube-proxy", None)
    }

    /// Certificate and kubeconfig of a node's kubelet, as `<machine>.crt`, `.key` and `.kubeconfig`.
    pub(crate) fn node(&self, machine: Machine) -> Result<()> {
        let name = machine.to_string();
        let serves = addresses(machine)
            .both()
            .into_iter()
            .map(|address| Ok(SanType::IpAddress(address)))
            .chain([dns(&name)])
            .collect::<Result<_>>()?;
        self.sign(
            &name,
            Subject {
                name: &format!("system:node:{name}"),
                group: Some("system:nodes"),
                serves,
            },
        )?;
        self.kubeconfig(&name)
    }

    fn user(&self, file: &str, name: &str, group: Option<&str>) -> Result<()> {
        self.client(file, name, group)?;
        self.kubeconfig(file)
    }

    fn client(&self, file: &str, name: &str, group: Option<&str>) -> Result<()> {
        self.sign(
            file,
            Subject {
                name,
                group,
                serves: Vec::new(),
            },
        )
    }

    fn sign(&self, file: &str, subject: Subject<'_>) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(subject.name, subject.group);
        params.subject_alt_names = subject.serves;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().map_err(of(subject.name))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(of(subject.name))?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    /// JSON is YAML. Certificates are embedded, so that the file works wherever it is copied to.
    fn kubeconfig(&self, file: &str) -> Result<()> {
        let embedded = |name: &str| -> Result<String> {
            let path = self.folder.join(name);
            Ok(STANDARD.encode(fs::read(&path).map_err(Error::at("reading", &path))?))
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": {
                "server": format!("https://{}:{API_PORT}", addresses(Machine::ControlPlane).v4),
                "certificate-authority-data": embedded("ca.crt")?,
            }}],
            "users": [{"name": "user", "user": {
                "client-certificate-data": embedded(&format!("{file}.crt"))?,
                "client-key-data": embedded(&format!("{file}.key"))?,
            }}],
            "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
            "current-context": "context",
        });
        self.write(&format!("{file}.kubeconfig"), &format!("{config:#}"))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text).map_err(Error::at("writing", &path))
    }
}

/// Kubernetes reads a user from the common name and its groups from the organization.
fn named(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    if let Some(group) = group {
        named.push(DnType::OrganizationName, group);
    }
    named.push(DnType::CommonName, name);
    named
}

fn dns(name: &str) -> Result<SanType> {
    Ok(SanType::DnsName(name.try_into().map_err(of(name))?))
}

fn of(subject: &str) -> impl FnOnce(rcgen::Error) -> Error {
    let subject = subject.to_owned();
    move |source| Error::Certificate { subject, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_the_control_plane_reads_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        authority.node(Machine::Node(1)).unwrap();
        for file in [
            "ca.crt",
            "tokens.pub",
            "apiserver.key",
            "admin.kubeconfig",
            "node1.crt",
            "node1.kubeconfig",
        ] {
            let text = fs::read_to_string(folder.path().join(file)).unwrap();
            assert!(
                text.starts_with("-----BEGIN") || text.starts_with('{'),
                "{file}: {text}"
            );
        }
    }
}
