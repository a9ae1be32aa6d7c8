//! What the plugin prints, in the form of the version that was asked for (CNI specification, section 5). What it means may not enter.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::{
    invocation::{NEWEST, VERSIONS},
    protocol::{Added, Failure, Given},
};

/// The result of ADD.
#[must_use]
pub fn result(version: &str, sandbox: &str, added: &Added) -> Value {
    let version = known(version);
    let legacy = version.starts_with("0.");
    let mut host = json!({"name": added.host.name, "mac": added.host.mac});
    let mut pod = json!({"name": added.pod.name, "mac": added.pod.mac, "sandbox": sandbox});
    if version == NEWEST {
        for link in [&mut host, &mut pod] {
            link["mtu"] = added.mtu.into();
        }
    }
    let address = |given: &Given| {
        let mut ip = json!({
            "address": format!("{}/{}", given.address, bits(given.address)),
            "gateway": given.gateway,
            "interface": 1,
        });
        if legacy {
            ip["version"] = family(given.address).into();
        }
        ip
    };
    let route = |given: &Given| {
        let everywhere = if given.address.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        json!({"dst": everywhere, "gw": given.gateway})
    };
    json!({
        "cniVersion": version,
        "interfaces": [host, pod],
        "ips": added.addresses.iter().map(address).collect::<Vec<_>>(),
        "routes": added.addresses.iter().map(route).collect::<Vec<_>>(),
        "dns": {},
    })
}

/// An error.
#[must_use]
pub fn failure(version: &str, failure: &Failure) -> Value {
    json!({
        "cniVersion": known(version),
        "code": failure.code.0,
        "msg": failure.message,
        "details": failure.details,
    })
}

/// The answer to VERSION.
#[must_use]
pub fn versions() -> Value {
    json!({"cniVersion": NEWEST, "supportedVersions": VERSIONS})
}

fn known(version: &str) -> &str {
    if VERSIONS.contains(&version) {
        version
    } else {
        NEWEST
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "4",
        IpAddr::V6(_) => "6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Code, Link};

    fn added() -> Added {
        let link = |name: &str| Link {
            name: name.to_owned(),
            mac: "02:51:00:00:00:01".to_owned(),
        };
        let given = |address: &str, gateway: &str| Given {
            address: address.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
        };
        Added {
            host: link("slu0123456789"),
            pod: link("eth0"),
            mtu: 1450,
            addresses: vec![
                given("10.0.0.5", "169.254.1.1"),
                given("fd00::5", "fe80::1"),
            ],
        }
    }

    #[test]
    fn the_newest_result_names_both_families_and_the_mtu() {
        let value = result("1.1.0", "/run/netns/x", &added());
        assert_eq!(
            value,
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    {"name": "slu0123456789", "mac": "02:51:00:00:00:01", "mtu": 1450},
                    {"name": "eth0", "mac": "02:51:00:00:00:01", "mtu": 1450, "sandbox": "/run/netns/x"},
                ],
                "ips": [
                    {"address": "10.0.0.5/32", "gateway": "169.254.1.1", "interface": 1},
                    {"address": "fd00::5/128", "gateway": "fe80::1", "interface": 1},
                ],
                "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}],
                "dns": {},
            })
        );
    }

    #[test]
    fn an_older_version_is_answered_in_its_own_form() {
        let value = result("0.4.0", "/x", &added());
        assert_eq!(value["cniVersion"], "0.4.0");
        assert_eq!(value["ips"][1]["version"], "6");
        assert_eq!(value["interfaces"][0].get("mtu"), None);
        assert_eq!(
            result("1.0.0", "/x", &added())["ips"][0].get("version"),
            None
        );
    }

    #[test]
    fn an_error_has_code_and_text() {
        let value = failure(
            "9.9.9",
            &Failure::new(Code::TRY_AGAIN, "no agent", "it starts"),
        );
        assert_eq!(
            value,
            json!({"cniVersion": "1.1.0", "code": 11, "msg": "no agent", "details": "it starts"})
        );
    }
}
