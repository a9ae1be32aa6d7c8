//! What the programs must know of their node, in one array element, and the small arrays that userland raises.
//!
//! Nothing that changes with a pod or a policy may enter.

use crate::ipcache::Address;

/// Settings of the node, the only element of the config map. Written before any program is attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Config {
    /// The IPv4 gateway of every pod, mapped; ARP for it is answered by the program.
    pub gateway_ipv4: Address,
    /// The IPv6 gateway of every pod; solicitations for it are answered by the program.
    pub gateway_ipv6: Address,
    /// Mean time between two drop events of one endpoint and reason, in nanoseconds; 0 lets all through.
    pub drop_event_interval: u64,
    /// How many drop events of one endpoint and reason may come at once.
    pub drop_event_burst: u64,
    /// This node's number, as in [`crate::ipcache::AddressInfo::node`]; never 0.
    pub node: u32,
    /// [`Config::READY`], [`Config::FORWARD`], [`Config::OVERLAY`].
    pub flags: u32,
    /// Connections per endpoint; a power of two, at most what the ring map was sized for.
    pub conntrack_quota: u32,
    /// The first of the ports that masqueraded connections are given; none of them should be used by the node itself.
    pub masquerade_first: u16,
    /// The last of them.
    pub masquerade_last: u16,
    /// The node's IPv4 address, mapped, that pods' connections beyond the cluster leave with; zeros for none.
    pub masquerade_ipv4: Address,
    /// The IPv6 address likewise.
    pub masquerade_ipv6: Address,
    /// Index of the device that wraps packets for other nodes; meaningless without [`Config::OVERLAY`].
    pub overlay_ifindex: u32,
    /// UDP port that nodes receive wrapped packets at.
    pub overlay_port: u32,
    /// The IPv4 address, mapped, that packets wrapped for other nodes come from; zeros for whichever the kernel chooses.
    pub overlay_ipv4: Address,
    /// The IPv6 address likewise.
    pub overlay_ipv6: Address,
}

impl Config {
    /// Flag: the element is filled. Without it every packet is dropped.
    pub const READY: u32 = 1;

    /// Flag: what leaves for other machines takes the node's routes past its netfilter. Without it the stack forwards it.
    pub const FORWARD: u32 = 2;

    /// Flag: what goes to pods of other nodes is wrapped for their node; pods' packets that arrive unwrapped are forged.
    pub const OVERLAY: u32 = 4;

    /// The address that pods' connections of a family leave the cluster with; zeros for none.
    #[must_use]
    #[inline(always)]
    pub const fn masquerade(&self, ipv4: bool) -> &Address {
        if ipv4 {
            &self.masquerade_ipv4
        } else {
            &self.masquerade_ipv6
        }
    }

    /// The address that wrapped packets of a family come from; zeros for whichever the kernel chooses.
    #[must_use]
    #[inline(always)]
    pub const fn underlay(&self, ipv4: bool) -> &Address {
        if ipv4 {
            &self.overlay_ipv4
        } else {
            &self.overlay_ipv6
        }
    }

    /// The default of [`Config::conntrack_quota`].
    pub const DEFAULT_QUOTA: u32 = 4096;
    /// The default of [`Config::drop_event_interval`]: ten a second.
    pub const DEFAULT_DROP_EVENT_INTERVAL: u64 = 100_000_000;
    /// The default of [`Config::drop_event_burst`].
    pub const DEFAULT_DROP_EVENT_BURST: u64 = 20;
}

/// Indexes of the epochs array.
pub mod epoch {
    /// Raised whenever the identity of an address that was known before changes or an address is removed.
    pub const ADDRESSES: u32 = 0;
    /// How many epochs there are.
    pub const COUNT: u32 = 1;
}

crate::map_data!(Config);

const _: () = assert!(size_of::<Config>() == 136);
