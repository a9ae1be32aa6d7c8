//! Forwarding, which a node of a cluster needs in both families and which belongs to its network namespace.

use sluice_datapath::net::{NetError, correct_own_sysctls};

/// Switches forwarding on where it is off, in the namespace this process runs in, and returns what it switched.
///
/// A device that takes its default route from router advertisements stops to where the node forwards (`accept_ra` 1); for the `devices`
/// named, that is changed to 2: also while forwarding.
///
/// # Errors
/// `/proc/sys` can't be written: the process lacks `CAP_NET_ADMIN`, or the container mounts it read-only.
pub fn forward(devices: &[String]) -> Result<Vec<String>, NetError> {
    let mut changed = correct_own_sysctls(&[
        ("net.ipv4.ip_forward".to_owned(), "1"),
        ("net.ipv6.conf.all.forwarding".to_owned(), "1"),
    ])?;
    for device in devices {
        let name = format!("net.ipv6.conf.{}.accept_ra", device.replace('.', "/"));
        let path = format!("/proc/sys/net/ipv6/conf/{device}/accept_ra");
        // Without IPv6 there is no such file, and nothing to keep.
        if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
            changed.extend(correct_own_sysctls(&[(name, "2")])?);
        }
    }
    Ok(changed)
}
