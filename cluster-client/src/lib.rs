//! What a person asks a cluster with Sluice: is it well, is a policy in force, do pods reach each other, what goes into a report of a
//! fault. Facts are read from the API server, and from agents through `exec`; how answers look on a terminal may not enter, nor does
//! anything here change Sluice's own objects.
//!
//! ```text
//! connect ─▶ Client ─▶ facts (what objects and agents say) ─▶ status::judge ─▶ Report
//!                   ├▶ policy (one policy's conditions; waiting)
//!                   ├▶ objects (identities, endpoints, nodes)
//!                   ├▶ connectivity (deploy, try, report, remove)
//!                   └▶ sysdump (everything of use in one archive, no secrets)
//! ```
#![forbid(unsafe_code)]

pub mod agent;
pub mod connect;
pub mod connectivity;
mod error;
pub mod exec;
pub mod facts;
pub mod objects;
pub mod policy;
pub mod status;
pub mod sysdump;

pub use connect::Target;
pub use error::Error;
/// The clock of objects and of this library.
pub use k8s_openapi::jiff::Timestamp;
pub use kube::Client;

/// What a chart of Sluice calls its agents' `DaemonSet`, and that set's pods' component.
pub const AGENT: &str = "sluice-agent";
/// What it calls its operator's Deployment and Lease.
pub const OPERATOR: &str = "sluice-operator";
/// Where it is installed unless told otherwise.
pub const NAMESPACE: &str = "kube-system";
