//! The control plane: etcd, API server, controllers and scheduler, as services of its machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    command,
    control::Service,
    error::Result,
    kubectl::Kubectl,
    machine::Running,
    options::Options,
    plan::{self, API_PORT, Machine, addresses},
};

/// Services of the control plane by the name that stop, start and kill take.
pub const SERVICES: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

pub(crate) struct ControlPlane<'a> {
    pub(crate) machine: &'a Running,
    /// Folder of the built programs.
    pub(crate) programs: PathBuf,
    /// Folder of the certificates.
    pub(crate) pki: PathBuf,
    /// Folder for etcd's data.
    pub(crate) data: PathBuf,
    pub(crate) options: &'a Options,
}

impl ControlPlane<'_> {
    /// Starts everything and waits until the API server is ready and the controllers work.
    pub(crate) fn start(&self, kubectl: &Kubectl) -> Result<()> {
        self.add("etcd", self.etcd())?;
        self.add("kube-apiserver", self.api_server())?;
        self.wait("kube-apiserver", "the API server's readiness", || {
            kubectl.is_ready()
        })?;
        self.add("kube-controller-manager", self.controllers())?;
        self.add("kube-scheduler", self.scheduler())?;
        self.wait(
            "kube-controller-manager",
            "the first work of the controllers",
            || {
                kubectl
                    .run(&["get", "serviceaccount", "default", "--namespace", "default"])
                    .is_ok()
            },
        )
    }

    fn wait(&self, service: &str, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let hint = format!("see {}", self.machine.log(service).display());
        command::wait(what, &hint, Duration::from_mins(2), || done().then_some(()))
    }

    fn add(&self, name: &str, switches: Vec<String>) -> Result<()> {
        let program = self.programs.join(name).display().to_string();
        let path = format!("{}:{}", self.programs.display(), crate::machine::PATH);
        let service = Service {
            argv: [program].into_iter().chain(switches).collect(),
            env: BTreeMap::from([
                ("PATH".to_owned(), path),
                ("HOME".to_owned(), "/root".to_owned()),
            ]),
        };
        self.machine.add(name, &service)
    }

    fn etcd(&self) -> Vec<String> {
        let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
        switches(&[
            ("name", "one"),
            ("data-dir", &shown(&self.data)),
            ("listen-client-urls", clients),
            ("advertise-client-urls", clients),
            ("listen-peer-urls", peers),
            ("initial-advertise-peer-urls", peers),
            ("initial-cluster", &format!("one={peers}")),
            // The data lives as long as the test.
            ("unsafe-no-fsync", "true"),
        ])
    }

    fn api_server(&self) -> Vec<String> {
        let authority = self.file("ca.crt");
        let mut all = switches(&[
            ("etcd-servers", "http://127.0.0.1:2379"),
            ("bind-address", "::"),
            ("secure-port", &API_PORT.to_string()),
            (
                "advertise-address",
                &addresses(Machine::ControlPlane).v4.to_string(),
            ),
            ("tls-cert-file", &self.file("apiserver.crt")),
            ("tls-private-key-file", &self.file("apiserver.key")),
            ("client-ca-file", &authority),
            (
                "kubelet-client-certificate",
                &self.file("apiserver-kubelet.crt"),
            ),
            ("kubelet-client-key", &self.file("apiserver-kubelet.key")),
            ("kubelet-preferred-address-types", "InternalIP"),
            ("service-account-key-file", &self.file("tokens.pub")),
            ("service-account-signing-key-file", &self.file("tokens.key")),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc.cluster.local",
            ),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("allow-privileged", "true"),
            (
                "service-cluster-ip-range",
                &plan::both(plan::SERVICES_V4, plan::SERVICES_V6),
            ),
            // Nobody translates service addresses here: webhooks are called at their endpoints.
            ("enable-aggregator-routing", "true"),
            ("requestheader-client-ca-file", &authority),
            ("requestheader-allowed-names", "front-proxy-client"),
            ("requestheader-username-headers", "X-Remote-User"),
            ("requestheader-group-headers", "X-Remote-Group"),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            ("proxy-client-cert-file", &self.file("front-proxy.crt")),
            ("proxy-client-key-file", &self.file("front-proxy.key")),
        ]);
        all.extend(self.options.api_server_switches.iter().cloned());
        all
    }

    fn controllers(&self) -> Vec<String> {
        let config = self.file("controllers.kubeconfig");
        let mut all = switches(&[
            ("kubeconfig", &config),
            ("authentication-kubeconfig", &config),
            ("authorization-kubeconfig", &config),
            ("bind-address", "127.0.0.1"),
            ("service-account-private-key-file", &self.file("tokens.key")),
            ("root-ca-file", &self.file("ca.crt")),
            ("cluster-signing-cert-file", &self.file("ca.crt")),
            ("cluster-signing-key-file", &self.file("ca.key")),
            ("use-service-account-credentials", "true"),
            ("leader-elect", "false"),
            ("cluster-cidr", &plan::both(plan::PODS_V4, plan::PODS_V6)),
            (
                "service-cluster-ip-range",
                &plan::both(plan::SERVICES_V4, plan::SERVICES_V6),
            ),
            (
                "allocate-node-cidrs",
                if self.options.node_pod_cidrs {
                    "true"
                } else {
                    "false"
                },
            ),
        ]);
        if self.options.node_pod_cidrs {
            all.extend(switches(&[
                ("node-cidr-mask-size-ipv4", "24"),
                ("node-cidr-mask-size-ipv6", "64"),
            ]));
        }
        if self.options.fake_nodes {
            // Nobody sends heartbeats for them.
            all.extend(switches(&[("node-monitor-grace-period", "24h")]));
        }
        all
    }

    fn scheduler(&self) -> Vec<String> {
        let config = self.file("scheduler.kubeconfig");
        switches(&[
            ("kubeconfig", &config),
            ("authentication-kubeconfig", &config),
            ("authorization-kubeconfig", &config),
            ("bind-address", "127.0.0.1"),
            ("leader-elect", "false"),
        ])
    }

    fn file(&self, name: &str) -> String {
        shown(&self.pki.join(name))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn switches(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs
        .iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}
