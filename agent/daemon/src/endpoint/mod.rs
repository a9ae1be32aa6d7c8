//! Pods' interfaces on this node: who has one, with which addresses, made and ended as the container runtime asks. What a pod may send is
//! the datapath's, how the runtime's requests arrive the server's.
//!
//! ```text
//! server ─▶ Manager ─▶ Ipam      addresses out of the node's pod CIDRs
//!                   ─▶ Store     a record, before the answer is given
//!                   ─▶ Links     the veth pair, its addresses and routes
//!                   ─▶ Datapath  the endpoint: programs attached, tables in force
//!                   ─▶ Reports   the operator hears of it
//!                   ─▶ Later     what the kernel takes its time for, when the answer is given
//! ```

mod ipam;
mod later;
mod links;
mod manager;
mod queue;
mod record;
mod server;
#[cfg(test)]
mod tests;

pub use ipam::{Exhausted, Ipam, REST_SECONDS};
pub use links::{HostLinks, LinkPlan, Links, pod_links};
pub use manager::{Datapath, Manager, Patience, Reports, Restored, Site};
pub use queue::follow_deletions;
pub use record::{Record, is_pod_link, pod_of};
pub use server::{Observe, serve};

/// The namespace under which an interface is known that no kubelet asked for. It has no subject in any policy, so nothing flows through
/// it: the programs drop what comes from an interface whose tables nobody gave.
pub const NO_POD: &str = "cni";
