//! The images that every cluster has: pause, `CoreDNS`, and the two that upstream's network tests run in their pods.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use super::debs;
use crate::{
    cache::Cache,
    command,
    error::{Error, Result},
    node::PAUSE,
    oci::Image,
};

/// An image of every cluster.
#[derive(Debug)]
pub(super) struct Common {
    /// Its file is called so.
    pub(super) name: &'static str,
    /// What pods call it.
    references: &'static [&'static str],
    entrypoint: &'static [&'static str],
    arguments: &'static [&'static str],
    fill: fn(&Cache, &Path) -> Result<()>,
}

pub(super) const IMAGES: &[Common] = &[
    Common {
        name: "pause",
        references: &[
            PAUSE,
            "registry.k8s.io/pause:3.10.1",
            "registry.k8s.io/pause:3.10",
        ],
        entrypoint: &["/pause"],
        arguments: &[],
        fill: |cache, root| program(cache, "pause", root),
    },
    Common {
        name: "coredns",
        references: &["registry.k8s.io/coredns/coredns:v1.15.0"],
        entrypoint: &["/coredns"],
        arguments: &[],
        fill: |cache, root| program(cache, "coredns", root),
    },
    Common {
        name: "agnhost",
        references: &[
            "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
            "registry.k8s.io/e2e-test-images/agnhost:2.55",
            "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
        ],
        entrypoint: &["/agnhost"],
        arguments: &["pause"],
        fill: agnhost,
    },
    Common {
        name: "busybox",
        references: &[
            "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
            "docker.io/library/busybox:latest",
        ],
        entrypoint: &[],
        arguments: &["sh"],
        fill: busybox,
    },
];

/// What the tests call inside agnhost.
const AGNHOST_PACKAGES: &[&str] = &[
    "bash",
    "busybox-static",
    "curl",
    "bind9-dnsutils",
    "netcat-openbsd",
    "iproute2",
    "iperf",
    "libc-bin",
    "ca-certificates",
    "openssl",
];

impl Common {
    pub(super) fn build(&self, cache: &Cache, target: &Path) -> Result<()> {
        let root = cache.work().join(self.name);
        if root.exists() {
            fs::remove_dir_all(&root).map_err(Error::at("removing", &root))?;
        }
        fs::create_dir_all(&root).map_err(Error::at("creating", &root))?;
        (self.fill)(cache, &root)?;
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Image {
            references: owned(self.references),
            entrypoint: owned(self.entrypoint),
            arguments: owned(self.arguments),
            ..Image::default()
        }
        .write(&root, target)?;
        fs::remove_dir_all(&root).map_err(Error::at("removing", &root))
    }
}

fn program(cache: &Cache, name: &str, root: &Path) -> Result<()> {
    copy(&cache.programs().join(name), &root.join(name))
}

fn agnhost(cache: &Cache, root: &Path) -> Result<()> {
    debs::unpack(AGNHOST_PACKAGES, &cache.work().join("debs"), root)?;
    // The tests call `nc` with options that busybox lacks, and `sh` as bash.
    link("nc.openbsd", &root.join("usr/bin/nc"))?;
    link("bash", &root.join("usr/bin/sh"))?;
    applets(root)?;
    users(root)?;
    for folder in ["uploads", "root", "dev", "proc", "sys", "run"] {
        create(&root.join(folder))?;
    }
    program(cache, "agnhost", root)?;
    // Some tests upgrade themselves to a second copy.
    link("agnhost", &root.join("agnhost-2"))?;
    certificate(root)
}

/// For agnhost's servers that speak TLS.
fn certificate(root: &Path) -> Result<()> {
    let names = [
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let made = rcgen::generate_simple_self_signed(names).map_err(|source| Error::Certificate {
        subject: "agnhost".to_owned(),
        source,
    })?;
    write(&root.join("localhost.crt"), &made.cert.pem())?;
    write(
        &root.join("localhost.key"),
        &made.signing_key.serialize_pem(),
    )
}

fn busybox(cache: &Cache, root: &Path) -> Result<()> {
    debs::unpack(&["busybox-static"], &cache.work().join("debs"), root)?;
    applets(root)?;
    users(root)?;
    create(&root.join("root"))
}

/// Every busybox command that nothing better has the name of.
fn applets(root: &Path) -> Result<()> {
    let busybox = root.join("usr/bin/busybox");
    let listed = command::output(Command::new(&busybox).arg("--list"))?;
    for applet in listed.lines() {
        let taken = ["usr/bin", "usr/sbin"]
            .iter()
            .any(|folder| root.join(folder).join(applet).symlink_metadata().is_ok());
        if !taken {
            link("busybox", &root.join("usr/bin").join(applet))?;
        }
    }
    Ok(())
}

fn users(root: &Path) -> Result<()> {
    for folder in ["etc", "tmp"] {
        create(&root.join(folder))?;
    }
    write(
        &root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    write(&root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .map_err(Error::at("copying", from))
}

fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::at("creating", path))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::at("writing", path))
}

fn link(target: &str, at: &Path) -> Result<()> {
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at).map_err(Error::at("removing", at))?;
    }
    symlink(target, at).map_err(Error::at("linking", at))
}
