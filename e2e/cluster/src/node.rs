//! A node: its containerd, kubelet and kube-proxy, and their configuration.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde_json::json;

use crate::{
    command,
    control::Service,
    error::{Error, Result},
    machine::{PATH, Running},
    options::Proxy,
    plan::{self, Machine, addresses},
};

/// Services of a node by the name that stop, start and kill take.
pub const SERVICES: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];

/// The image of every pod's first container; as the reference in `images`.
pub(crate) const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// Writes the configuration into the node's file system, which need not be mounted yet.
pub(crate) fn configure(node: Machine, root: &Path, pki: &Path, proxy: Proxy) -> Result<()> {
    let kubernetes = root.join("etc/kubernetes");
    fs::create_dir_all(&kubernetes).map_err(Error::at("creating", &kubernetes))?;
    let copies = [
        ("ca.crt".to_owned(), "ca.crt"),
        (format!("{node}.crt"), "kubelet.crt"),
        (format!("{node}.key"), "kubelet.key"),
        (format!("{node}.kubeconfig"), "kubelet.kubeconfig"),
        ("proxy.kubeconfig".to_owned(), "proxy.kubeconfig"),
    ];
    for (from, to) in copies {
        let (from, to) = (pki.join(from), kubernetes.join(to));
        fs::copy(&from, &to).map_err(Error::at("copying", from))?;
    }
    write(&kubernetes.join("kubelet.yaml"), &kubelet())?;
    write(&kubernetes.join("proxy.yaml"), &kube_proxy(node, proxy))?;
    write(&root.join("etc/containerd.toml"), &containerd())
}

/// Starts the services, having loaded the images.
pub(crate) fn start(
    node: Machine,
    running: &Running,
    images: &[std::path::PathBuf],
    proxy: Proxy,
) -> Result<()> {
    running.add(
        "containerd",
        &service(&["containerd", "--config=/etc/containerd.toml"]),
    )?;
    let hint = format!("see {}", running.log("containerd").display());
    command::wait("containerd's answer", &hint, Duration::from_mins(1), || {
        running.exec(&["ctr", "version"]).ok()
    })?;
    for image in images {
        load(running, image)?;
    }
    let own = addresses(node);
    running.add(
        "kubelet",
        &service(&[
            "kubelet",
            "--config=/etc/kubernetes/kubelet.yaml",
            "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
            &format!("--node-ip={},{}", own.v4, own.v6),
            &format!("--hostname-override={node}"),
            "--v=2",
        ]),
    )?;
    if proxy != Proxy::None {
        running.add(
            "kube-proxy",
            &service(&["kube-proxy", "--config=/etc/kubernetes/proxy.yaml", "--v=2"]),
        )?;
    }
    Ok(())
}

/// Loads the images of a file into the node's containerd.
pub(crate) fn load(running: &Running, image: &Path) -> Result<()> {
    let file = fs::File::open(image).map_err(Error::at("opening", image))?;
    let import = [
        "ctr",
        "--namespace=k8s.io",
        "images",
        "import",
        "--digests=false",
        "-",
    ];
    running.exec_fed(&import, file.into()).map(drop)
}

fn service(argv: &[&str]) -> Service {
    Service {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ]),
    }
}

fn containerd() -> String {
    format!(
        "version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
[grpc]
address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
# The process may lack the capability to lower its oom_score_adj.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/opt/cni/bin']
conf_dir = '/etc/cni/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '/opt/bin/runc'
SystemdCgroup = false
"
    )
}

/// JSON is YAML.
fn kubelet() -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/etc/kubernetes/kubelet.crt",
        "tlsPrivateKeyFile": "/etc/kubernetes/kubelet.key",
        "clusterDomain": "cluster.local",
        "clusterDNS": [plan::DNS.to_string()],
        "resolvConf": "/etc/resolv.conf",
        // All nodes share one disk and one memory: a full disk is for the user to notice, not for evictions.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 250,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        // Tests kill programs more often than a kubelet would forgive.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
    });
    format!("{config:#}")
}

fn kube_proxy(node: Machine, proxy: Proxy) -> String {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": if proxy == Proxy::Iptables { "iptables" } else { "nftables" },
        "clientConnection": {"kubeconfig": "/etc/kubernetes/proxy.kubeconfig"},
        "hostnameOverride": node.to_string(),
        "clusterCIDR": plan::both(plan::PODS_V4, plan::PODS_V6),
        "nodePortAddresses": ["0.0.0.0/0", "::/0"],
        // Zero: leave the settings as they are; they are the whole machine's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    });
    format!("{config:#}")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::at("writing", path))
}
