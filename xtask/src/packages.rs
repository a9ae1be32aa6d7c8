//! Debian packages that tests, the demo and the benchmarks call, told by the programs they bring.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    machine,
    process::{self, say},
};

/// A program and the Debian package it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// What the lab and the tests against the kernel call.
pub(crate) const KERNEL_TESTS: &[Tool] = &[
    tool("ip", "iproute2"),
    tool("tc", "iproute2"),
    tool("ping", "iputils-ping"),
    tool("nft", "nftables"),
];

/// What the benchmarks measure beside Sluice.
pub(crate) const BENCHES: &[Tool] = &[
    tool("ip", "iproute2"),
    tool("iptables", "iptables"),
    tool("ipset", "ipset"),
    tool("nft", "nftables"),
    tool("taskset", "util-linux"),
];

/// What building and running a test cluster calls. Its nodes see this machine's programs, so what kubelet, kube-proxy and the
/// reference plugins call is here too.
pub(crate) const CLUSTER: &[Tool] = &[
    tool("go", "golang-go"),
    tool("gcc", "gcc"),
    tool("pkg-config", "pkg-config"),
    tool("ip", "iproute2"),
    tool("iptables", "iptables"),
    tool("ipset", "ipset"),
    tool("nft", "nftables"),
    tool("conntrack", "conntrack"),
    tool("ethtool", "ethtool"),
    tool("socat", "socat"),
    tool("nsenter", "util-linux"),
    tool("pgrep", "procps"),
    tool("sysctl", "procps"),
    tool("ping", "iputils-ping"),
];

/// What checks shell scripts.
pub(crate) const SHELL: &[Tool] = &[tool("shellcheck", "shellcheck")];

/// Parts of the Rust toolchain that Debian packages apart.
pub(crate) const RUST: &[Tool] = &[
    tool("cargo-clippy", "rust-web-clippy"),
    tool("cargo-fmt", "rustfmt-web"),
];

/// Installs the packages of the programs that are missing.
pub(crate) fn ensure(tools: &[Tool], why: &str) -> Result<()> {
    let missing = missing(tools, |program| process::find(program).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "these programs are missing: {} ({why}); Debian's packages of them are {}",
            tools_of(tools, &missing).join(" "),
            missing.join(" ")
        );
    }
    machine::apt_install(&missing, why)?;
    say(format!("installed {}", missing.join(" ")));
    Ok(())
}

fn missing(tools: &[Tool], present: impl Fn(&str) -> bool) -> Vec<String> {
    let mut packages: Vec<String> = tools
        .iter()
        .filter(|tool| !present(tool.program))
        .map(|tool| tool.package.to_owned())
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

fn tools_of(tools: &[Tool], packages: &[String]) -> Vec<&'static str> {
    tools
        .iter()
        .filter(|tool| packages.iter().any(|package| package == tool.package))
        .map(|tool| tool.program)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_of_missing_programs_are_asked_for_and_once_each() {
        assert_eq!(
            missing(KERNEL_TESTS, |p| p == "ping" || p == "nft"),
            ["iproute2"]
        );
        assert!(missing(KERNEL_TESTS, |_| true).is_empty());
    }
}
