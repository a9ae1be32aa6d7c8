//! Sysctls of a network namespace. The namespace that the process itself runs in is refused unless it is meant by name: on a shared
//! machine that is everyone's.

use std::fs;
use std::io;
use std::path::Path;

use super::{NetError, NetNs, in_namespace};

/// What makes a namespace a dual-stack router between pods: forwarding in both families, no wait for duplicate-address detection
/// and no router advertisements believed.
#[must_use]
pub const fn dual_stack_forwarding() -> &'static [(&'static str, &'static str)] {
    &[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv6.conf.default.forwarding", "1"),
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.all.accept_ra", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
    ]
}

/// Writes sysctls (dotted names below `net.`; a dot inside an interface name is written as a slash, as sysctl(8) has it) in `ns`.
///
/// # Errors
/// `ns` is the caller's own namespace, a name is not below `net.`, or the kernel refuses a value.
pub fn set_sysctls(ns: &NetNs, values: &[(&str, &str)]) -> Result<(), NetError> {
    if ns.is_same(&NetNs::current()?)? {
        return Err(NetError::new(
            "setting sysctls",
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                "refused in the namespace this process runs in",
            ),
        ));
    }
    in_namespace(ns, || {
        values
            .iter()
            .try_for_each(|(name, value)| write(name, value))
    })?
}

/// Gives sysctls of the namespace that the calling thread is in these values, and returns those that had others: nothing is written where
/// nothing is to change, so that a read-only `/proc/sys` is no error there.
///
/// # Errors
/// A name is not below `net.`, there is no such sysctl, or the kernel refuses a value.
pub fn correct_own_sysctls(values: &[(String, &str)]) -> Result<Vec<String>, NetError> {
    let mut corrected = Vec::new();
    for (name, value) in values {
        if read(name)? != *value {
            write(name, value)?;
            corrected.push(name.clone());
        }
    }
    Ok(corrected)
}

/// As [`correct_own_sysctls`], in `ns`.
///
/// # Errors
/// As for [`correct_own_sysctls`], or the namespace may not be entered.
pub fn correct_sysctls(ns: &NetNs, values: &[(String, &str)]) -> Result<Vec<String>, NetError> {
    in_namespace(ns, || correct_own_sysctls(values))?
}

fn read(name: &str) -> Result<String, NetError> {
    let context = |source| NetError::new(format!("reading sysctl {name}"), source);
    let path = path_of(name).ok_or_else(|| context(io::ErrorKind::InvalidInput.into()))?;
    let text = fs::read_to_string(Path::new("/proc/sys").join(path)).map_err(context)?;
    Ok(text.trim().to_owned())
}

fn write(name: &str, value: &str) -> Result<(), NetError> {
    let path = path_of(name).ok_or_else(|| {
        NetError::new(
            format!("sysctl {name}"),
            io::Error::from(io::ErrorKind::InvalidInput),
        )
    })?;
    // `/proc/sys/net` shows the namespace of the thread that looks.
    fs::write(Path::new("/proc/sys").join(path), value)
        .map_err(|e| NetError::new(format!("setting sysctl {name} to {value}"), e))
}

fn path_of(name: &str) -> Option<String> {
    let swapped: String = name
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let inside = swapped.starts_with("net/")
        && swapped
            .split('/')
            .all(|part| !part.is_empty() && part != "..");
    inside.then_some(swapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_below_net_only() {
        assert_eq!(
            path_of("net.ipv4.ip_forward").as_deref(),
            Some("net/ipv4/ip_forward")
        );
        assert_eq!(
            path_of("net.ipv6.conf.eth0/1.forwarding").as_deref(),
            Some("net/ipv6/conf/eth0.1/forwarding")
        );
        for bad in ["kernel.panic", "net", "net..x", "net.//.kernel.panic"] {
            assert_eq!(path_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_own_namespace_is_refused() {
        let error = set_sysctls(&NetNs::current().unwrap(), dual_stack_forwarding()).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::PermissionDenied);
    }
}
