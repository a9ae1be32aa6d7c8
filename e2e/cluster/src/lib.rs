//! A real Kubernetes of several nodes on one machine, for tests.
//!
//! Everything is built from source by [`Cluster::build`]: Kubernetes, etcd, containerd, runc, CNI plugins, helm, `CoreDNS` and
//! the upstream tests from Go modules pinned in `modules/`, root file systems of images from Debian packages. A *machine* is a
//! set of namespaces (network, mount, process, host name, IPC, control group); a node's machine has its own containerd and
//! kubelet. Every cluster is dual-stack.
//!
//! ```text
//!   outside ── router ─┐
//!               control plane: etcd, API server, …
//!                 br0 ─┴─ one Ethernet segment ─┬───────────┐
//!                                             node1       node2  …  containerd, kubelet, kube-proxy, pods
//! ```
//!
//! What Sluice is and how it is installed may not enter: a test brings images and a chart.
#![forbid(unsafe_code)]

mod build;
mod cache;
mod cgroups;
mod cluster;
mod command;
mod control;
mod control_plane;
mod error;
pub mod fake;
pub mod init;
mod kubectl;
mod machine;
mod net;
mod node;
pub mod oci;
mod options;
mod pki;
pub mod plan;
mod program;
pub mod traffic;
pub mod upstream;

pub use build::build_plugins;
pub use cache::Cache;
pub use cluster::{Cluster, Owned};
pub use control_plane::SERVICES as CONTROL_PLANE_SERVICES;
pub use error::{Error, Result};
pub use kubectl::Kubectl;
pub use node::SERVICES as NODE_SERVICES;
pub use options::{Cni, Options, Proxy};
pub use plan::{Machine, Name};
pub use program::cargo;
