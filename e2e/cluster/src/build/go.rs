//! Programs built with Go from the pinned modules.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use crate::{
    cache::modules,
    command, control_plane,
    error::{Error, Result},
    node,
};

/// A program and how it is built.
#[derive(Debug)]
pub(super) struct Program {
    /// Its file name.
    pub(super) name: &'static str,
    /// The folder under `modules/` whose manifest pins it.
    module: &'static str,
    /// The package, `.` for the module's own.
    package: &'static str,
    tags: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Pure Go, linked statically.
    Plain,
    /// Knows its version from the linker, and tells it to the API server and to kubelet.
    Kubernetes,
    /// A test binary, as `go test -c` makes it.
    KubernetesTests,
    /// Uses C; linked statically still.
    C,
}

const fn plain(name: &'static str, module: &'static str, package: &'static str) -> Program {
    Program {
        name,
        module,
        package,
        tags: "",
        kind: Kind::Plain,
    }
}

const KUBERNETES: &str = "kubernetes";
const NO_SNAPSHOTTERS: &str = "no_btrfs,no_devmapper,no_zfs";

/// What a cluster needs comes before what only the upstream tests need.
pub(super) const PROGRAMS: &[Program] = &[
    Program {
        kind: Kind::Kubernetes,
        ..plain(KUBERNETES, "kubernetes", ".")
    },
    plain("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    containerd(
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
    ),
    containerd(
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    // containerd asks for a system call filter for every pod.
    Program {
        tags: "netgo,osusergo,seccomp",
        kind: Kind::C,
        ..plain("runc", "runc", "github.com/opencontainers/runc")
    },
    plain(
        "bridge",
        "cni",
        "github.com/containernetworking/plugins/plugins/main/bridge",
    ),
    plain(
        "loopback",
        "cni",
        "github.com/containernetworking/plugins/plugins/main/loopback",
    ),
    plain(
        "host-local",
        "cni",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
    ),
    plain(
        "portmap",
        "cni",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
    ),
    plain(
        "cnitool",
        "cni",
        "github.com/containernetworking/cni/cnitool",
    ),
    plain("helm", "helm", "helm.sh/helm/v3/cmd/helm"),
    plain("coredns", "coredns", "."),
    plain("pause", "pause", "."),
    Program {
        kind: Kind::Kubernetes,
        ..plain(
            "agnhost",
            "upstream-tests",
            "k8s.io/kubernetes/test/images/agnhost",
        )
    },
    plain(
        "ginkgo",
        "upstream-tests",
        "github.com/onsi/ginkgo/v2/ginkgo",
    ),
    Program {
        kind: Kind::KubernetesTests,
        ..plain("e2e.test", "upstream-tests", "k8s.io/kubernetes/test/e2e")
    },
];

const fn containerd(name: &'static str, package: &'static str) -> Program {
    Program {
        tags: NO_SNAPSHOTTERS,
        ..plain(name, "containerd", package)
    }
}

impl Program {
    /// Whether a cluster starts without it.
    pub(super) fn is_for_upstream_tests_only(&self) -> bool {
        matches!(self.name, "ginkgo" | "e2e.test")
    }

    pub(super) fn build(&self, target: &Path) -> Result<()> {
        let folder = modules().join(self.module);
        // Others work on the machine too, and a build that takes all of its memory takes longer.
        let mut go = Command::new("nice");
        go.args(["-n", "10", "go"]);
        match self.kind {
            Kind::KubernetesTests => go.args(["test", "-c"]),
            _ => go.arg("build"),
        };
        go.args(["-trimpath", "-mod=readonly", "-buildvcs=false"])
            .args(["-tags", self.tags, "-ldflags", &self.linker(&folder)?, "-o"])
            .arg(target)
            .arg(self.package)
            .current_dir(&folder)
            .env("CGO_ENABLED", if self.kind == Kind::C { "1" } else { "0" })
            // The manifest says what Go it needs: a newer one is not to be fetched silently.
            .env("GOTOOLCHAIN", "local")
            .env_remove("GOFLAGS");
        command::output(&mut go).map(drop)
    }

    fn linker(&self, folder: &Path) -> Result<String> {
        Ok(match self.kind {
            Kind::Plain => "-s -w".to_owned(),
            Kind::C => "-s -w -extldflags -static".to_owned(),
            Kind::Kubernetes | Kind::KubernetesTests => version_flags(&kubernetes_version(folder)?),
        })
    }
}

/// As upstream's own build sets it: clients and the upstream tests compare versions.
fn version_flags(version: &str) -> String {
    let minor = version.split('.').nth(1).unwrap_or_default();
    let values = [
        ("gitVersion", version),
        ("gitMajor", "1"),
        ("gitMinor", minor),
        ("gitCommit", "0000000000000000000000000000000000000000"),
        ("gitTreeState", "clean"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ];
    let mut flags = vec!["-s".to_owned(), "-w".to_owned()];
    for package in [
        "k8s.io/component-base/version",
        "k8s.io/client-go/pkg/version",
    ] {
        flags.extend(values.map(|(name, value)| format!("-X {package}.{name}={value}")));
    }
    flags.join(" ")
}

/// From the module's manifest, the one place where it is written.
fn kubernetes_version(folder: &Path) -> Result<String> {
    let manifest = folder.join("go.mod");
    let text = fs::read_to_string(&manifest).map_err(Error::at("reading", &manifest))?;
    required(&text, "k8s.io/kubernetes")
        .map(str::to_owned)
        .ok_or_else(|| Error::Unreadable {
            what: manifest.display().to_string(),
            why: "it requires no k8s.io/kubernetes".to_owned(),
        })
}

fn required<'a>(manifest: &'a str, module: &str) -> Option<&'a str> {
    manifest.lines().find_map(|line| {
        let mut words = line
            .trim()
            .trim_start_matches("require ")
            .split_whitespace();
        let found = words.next() == Some(module);
        words
            .next()
            .filter(|version| found && version.starts_with('v'))
    })
}

/// One file, under every name that it answers to.
pub(super) fn link_kubernetes(programs: &Path) -> Result<()> {
    let names = control_plane::SERVICES
        .into_iter()
        .chain(node::SERVICES)
        .chain(["kubectl"]);
    for name in names.filter(|name| name.starts_with("kube")) {
        let link = programs.join(name);
        if !link.exists() {
            symlink(KUBERNETES, &link).map_err(Error::at("linking", &link))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_manifests() {
        let manifest =
            "module a\n\nrequire (\n\tk8s.io/kubectl v0.1.0\n\tk8s.io/kubernetes v1.36.3\n)\n";
        assert_eq!(required(manifest, "k8s.io/kubernetes"), Some("v1.36.3"));
        assert_eq!(
            required("require k8s.io/kubernetes v1.2.3\n", "k8s.io/kubernetes"),
            Some("v1.2.3")
        );
        assert_eq!(
            required("replace k8s.io/kubernetes => ../x\n", "k8s.io/kubernetes"),
            None
        );
        assert!(version_flags("v1.36.3").contains("client-go/pkg/version.gitMinor=36"));
    }

    #[test]
    fn cluster_and_tests_are_of_one_version() {
        let version = |module: &str| kubernetes_version(&modules().join(module)).unwrap();
        assert_eq!(version("kubernetes"), version("upstream-tests"));
    }

    #[test]
    fn every_program_has_a_manifest_with_digests() {
        for program in PROGRAMS {
            let folder = modules().join(program.module);
            assert!(folder.join("go.mod").is_file(), "{}", program.module);
            assert!(
                folder.join("go.sum").is_file() || program.module == "pause",
                "{}",
                program.module
            );
        }
    }
}
