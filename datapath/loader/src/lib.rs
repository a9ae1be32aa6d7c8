//! The only place that speaks bpf(2) and netlink: loads, attaches, pins and upgrades the programs, writes the maps, sets
//! up links and routes. Kubernetes and policy may not enter.

pub mod load;
pub mod net;
pub mod object;
pub mod probe;
pub mod state;
pub mod sys;
pub mod test_run;
pub mod writer;
