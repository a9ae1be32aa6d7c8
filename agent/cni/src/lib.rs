#![forbid(unsafe_code)]
//! What the CNI plugin and the agent say to each other, and the forms that the CNI specification gives to what the plugin reads and
//! prints. How an interface is made may not enter: that is the agent's.
//!
//! ```text
//! container runtime ──env, stdin──▶ invocation ─▶ protocol::Request ──unix socket, netns descriptor──▶ agent
//!                   ◀──stdout────── output ◀───── protocol::Reply ◀────────────────────────────────────┘
//!                                   deletions: a DEL that finds no agent waits in a folder
//! ```

pub mod deletions;
pub mod invocation;
pub mod output;
pub mod plugin;
pub mod protocol;
pub mod wire;

/// The agent's socket, where nothing else is configured.
pub const SOCKET: &str = "/run/sluice/cni.sock";
/// Where deletions wait for an agent, where nothing else is configured.
pub const DELETIONS: &str = "/run/sluice/deletions";
