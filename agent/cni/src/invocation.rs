//! What the runtime hands the plugin: variables of the environment and a configuration on standard input (CNI specification, section 2).
//! What is done with it may not enter.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::Deserialize;

use crate::{
    DELETIONS, SOCKET,
    protocol::{AttachmentId, Code, Failure, Pod},
};

/// The versions of the specification that are spoken, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The newest version spoken.
pub const NEWEST: &str = "1.1.0";

/// The configuration, as far as it is ours. The runtime adds fields of its own, so unknown ones are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// The version in which the result is wanted.
    #[serde(rename = "cniVersion", default)]
    pub version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// The agent's socket.
    pub socket: Option<PathBuf>,
    /// Where deletions wait for an agent.
    pub deletions: Option<PathBuf>,
    /// What ADD gave, for CHECK.
    #[serde(rename = "prevResult")]
    pub previous: Option<Previous>,
    /// What GC leaves.
    #[serde(rename = "cni.dev/valid-attachments", default)]
    pub valid: Vec<Valid>,
}

/// The addresses of an earlier result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Previous {
    /// Addresses.
    #[serde(default)]
    pub ips: Vec<PreviousAddress>,
}

/// One address of an earlier result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PreviousAddress {
    /// With its prefix length.
    pub address: String,
}

/// An attachment that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Valid {
    /// The runtime's id of the sandbox.
    #[serde(rename = "containerID")]
    pub container: String,
    /// Name of the interface.
    #[serde(rename = "ifname")]
    pub interface: String,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// It is no configuration, or asks for a version that is not spoken.
    pub fn parse(text: &[u8]) -> Result<Self, Failure> {
        let config: Self = serde_json::from_slice(text).map_err(|error| {
            Failure::new(
                Code::DECODING,
                "reading the network configuration",
                error.to_string(),
            )
        })?;
        if !config.version.is_empty() && !VERSIONS.contains(&config.version.as_str()) {
            return Err(Failure::new(
                Code::INCOMPATIBLE_VERSION,
                format!("cniVersion {} is not supported", config.version),
                format!("supported are {}", VERSIONS.join(", ")),
            ));
        }
        Ok(config)
    }

    /// The agent's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| SOCKET.into())
    }

    /// Where deletions wait.
    #[must_use]
    pub fn deletions(&self) -> PathBuf {
        self.deletions.clone().unwrap_or_else(|| DELETIONS.into())
    }

    /// The addresses of the earlier result.
    ///
    /// # Errors
    /// There is no earlier result, or it has an address that is none.
    pub fn previous_addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let previous = self.previous.as_ref().ok_or_else(|| {
            Failure::new(
                Code::BAD_CONFIG,
                "CHECK without prevResult",
                "the runtime must hand over what ADD gave",
            )
        })?;
        let parse = |given: &PreviousAddress| {
            let address = given.address.split('/').next().unwrap_or_default();
            address.parse().map_err(|_| {
                Failure::new(
                    Code::DECODING,
                    "reading prevResult",
                    format!("`{}` is no address", given.address),
                )
            })
        };
        previous.ips.iter().map(parse).collect()
    }
}

/// The environment, as the specification names it.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables that matter, out of all.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(
            all.into_iter()
                .filter(|(name, _)| name.starts_with("CNI_"))
                .collect(),
        )
    }

    /// The command.
    ///
    /// # Errors
    /// There is none.
    pub fn command(&self) -> Result<&str, Failure> {
        self.required("CNI_COMMAND")
    }

    /// The interface's key.
    ///
    /// # Errors
    /// A variable is missing, or could lead out of a folder.
    pub fn attachment(&self) -> Result<AttachmentId, Failure> {
        let container = self.required("CNI_CONTAINERID")?;
        let first = container.starts_with(|c: char| c.is_ascii_alphanumeric());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !first || !container.chars().all(plain) || container.len() > 128 {
            return Err(bad("CNI_CONTAINERID", container));
        }
        let interface = self.required("CNI_IFNAME")?;
        let odd = |c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control();
        if interface.len() > 15 || interface.contains(odd) || matches!(interface, "." | "..") {
            return Err(bad("CNI_IFNAME", interface));
        }
        Ok(AttachmentId {
            container: container.to_owned(),
            interface: interface.to_owned(),
        })
    }

    /// Path of the namespace.
    ///
    /// # Errors
    /// It is missing.
    pub fn namespace(&self) -> Result<&str, Failure> {
        self.required("CNI_NETNS")
    }

    /// The pod that the kubelet names in `CNI_ARGS`; `None` where it names none.
    ///
    /// # Errors
    /// The arguments are not `KEY=VALUE;…`, or name a pod by half.
    pub fn pod(&self) -> Result<Option<Pod>, Failure> {
        let text = self.0.get("CNI_ARGS").map_or("", String::as_str);
        let mut arguments = BTreeMap::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| bad("CNI_ARGS", text))?;
            arguments.insert(key, value);
        }
        let get = |key: &str| {
            arguments
                .get(key)
                .copied()
                .filter(|value| !value.is_empty())
        };
        match (get("K8S_POD_NAMESPACE"), get("K8S_POD_NAME")) {
            (Some(namespace), Some(name)) => Ok(Some(Pod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: get("K8S_POD_UID").unwrap_or_default().to_owned(),
            })),
            (None, None) => Ok(None),
            _ => Err(bad("CNI_ARGS", text)),
        }
    }

    fn required(&self, name: &str) -> Result<&str, Failure> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                Failure::new(
                    Code::BAD_ENVIRONMENT,
                    format!("{name} is missing"),
                    "the plugin is run by a container runtime, which sets it",
                )
            })
    }
}

fn bad(name: &str, value: &str) -> Failure {
    Failure::new(
        Code::BAD_ENVIRONMENT,
        format!("{name} is invalid"),
        format!("it is `{value}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn a_pod_is_read_from_the_arguments() {
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=ab;K8S_POD_UID=u-1";
        assert_eq!(
            environment(&[("CNI_ARGS", arguments)]).pod().unwrap(),
            Some(Pod {
                namespace: "shop".to_owned(),
                name: "web-0".to_owned(),
                uid: "u-1".to_owned(),
            })
        );
        assert_eq!(environment(&[]).pod().unwrap(), None);
        assert_eq!(
            environment(&[("CNI_ARGS", "IgnoreUnknown=1")])
                .pod()
                .unwrap(),
            None
        );
        for bad in ["K8S_POD_NAME=x", "nonsense"] {
            let error = environment(&[("CNI_ARGS", bad)]).pod().unwrap_err();
            assert_eq!(error.code, Code::BAD_ENVIRONMENT, "{bad}");
        }
    }

    #[test]
    fn keys_that_could_lead_out_of_a_folder_are_refused() {
        let of = |container, interface| {
            environment(&[("CNI_CONTAINERID", container), ("CNI_IFNAME", interface)]).attachment()
        };
        assert!(of("0f1e-2.d_c", "eth0").is_ok());
        for (container, interface) in [
            ("", "eth0"),
            ("../x", "eth0"),
            (".x", "eth0"),
            ("a b", "eth0"),
            ("a", "eth/0"),
            ("a", ".."),
            ("a", "sixteen-letters-"),
            ("a", ""),
        ] {
            let error = of(container, interface).unwrap_err();
            assert_eq!(error.code, Code::BAD_ENVIRONMENT, "{container} {interface}");
        }
    }

    #[test]
    fn the_configuration_s_own_fields_are_read_and_others_passed_over() {
        let config = Config::parse(
            br#"{"cniVersion":"1.1.0","name":"sluice","type":"sluice-cni","socket":"/s","args":{"cni":{}},
                "prevResult":{"ips":[{"address":"10.0.0.5/32"},{"address":"fd00::5/128","gateway":"fe80::1"}]},
                "cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}"#,
        )
        .unwrap();
        assert_eq!(config.socket(), PathBuf::from("/s"));
        assert_eq!(config.deletions(), PathBuf::from(DELETIONS));
        assert_eq!(
            config.previous_addresses().unwrap(),
            [
                "10.0.0.5".parse::<IpAddr>().unwrap(),
                "fd00::5".parse().unwrap()
            ]
        );
        assert_eq!(config.valid[0].container, "a");
        let old = Config::parse(br#"{"cniVersion":"2.0.0"}"#).unwrap_err();
        assert_eq!(old.code, Code::INCOMPATIBLE_VERSION);
        assert_eq!(Config::parse(b"{").unwrap_err().code, Code::DECODING);
        let without = Config::default().previous_addresses().unwrap_err();
        assert_eq!(without.code, Code::BAD_CONFIG);
    }
}
