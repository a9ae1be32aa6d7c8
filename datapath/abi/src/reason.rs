//! Why a packet was dropped: one list for programs, events, counters and people.

/// Declares the reasons once: number, name and text stay together.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a packet was dropped. Numbers are part of the event format and are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The reason with this number.
            #[must_use]
            pub const fn from_raw(raw: u8) -> Option<Self> {
                match raw {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// A short text for people, as the command line prints it.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

/// Upper bound of the numbers below; the size of per-reason counters.
pub const REASON_SLOTS: usize = 64;

reasons! {
    /// Not dropped.
    None = 0, "not dropped";
    /// A deny rule matched.
    PolicyDeny = 1, "denied by policy rule";
    /// The subject is selected and no rule allows the traffic.
    PolicyDefaultDeny = 2, "no rule allows it";
    /// Rules of equal precedence contradict each other.
    PolicyConflict = 3, "conflicting rules";
    /// The allowing rule demands an authentication that did not happen.
    AuthenticationRequired = 4, "authentication required";
    /// The allowing rule redirects to a proxy, and none serves it.
    NoProxy = 5, "no proxy serves the rule";
    /// The endpoint's tables are not loaded.
    TableNotReady = 6, "policy tables not ready";
    /// The peer's identity is newer than the tables on this node.
    IdentityNotReady = 7, "identity not ready";
    /// An address inside the cluster that nothing is known of.
    UnknownAddress = 8, "unknown address inside the cluster";
    /// The interface belongs to no known endpoint.
    UnknownEndpoint = 9, "unknown endpoint";
    /// The source MAC is not the endpoint's own.
    SpoofedMac = 10, "source MAC is not the pod's";
    /// The source address is not the endpoint's own.
    SpoofedAddress = 11, "source address is not the pod's";
    /// An ARP packet that speaks for another address.
    SpoofedArp = 12, "ARP speaks for another address";
    /// A neighbour-discovery packet that speaks for another address, or a router advertisement or redirect from a pod.
    SpoofedNeighbour = 13, "neighbour discovery speaks for another";
    /// A local pod's or node's address arrived from outside.
    AddressFromOutside = 14, "inside address arrived from outside";
    /// The frame is neither IPv4, IPv6 nor ARP.
    UnsupportedEtherType = 15, "unsupported Ethernet type";
    /// The packet ends before its headers do.
    Truncated = 16, "truncated packet";
    /// A header contradicts itself (version, lengths, offsets).
    Malformed = 17, "malformed header";
    /// More IPv6 extension headers than are followed.
    TooManyHeaders = 18, "too many extension headers";
    /// A later fragment whose first fragment was not seen.
    FragmentWithoutFirst = 19, "fragment without its first";
    /// The endpoint's connection quota is used up and nothing could be evicted.
    ConntrackQuota = 20, "connection quota used up";
    /// The connection table takes no further entry.
    ConntrackFull = 21, "connection table full";
    /// An ICMP error that belongs to no known connection.
    UnrelatedError = 22, "ICMP error without a connection";
    /// A source address that no host can have (multicast, loopback, unspecified).
    InvalidSource = 23, "invalid source address";
    /// No route to the destination.
    NoRoute = 24, "no route";
    /// The change that takes access away could not be written whole: its peers drop until it can.
    TableFull = 25, "policy table full";
    /// The hop limit is used up.
    HopLimit = 26, "hop limit exceeded";
    /// An internal limit of the program was hit; a defect if it is ever seen.
    Internal = 27, "internal limit";
    /// The address is a service's, and the service has no such port.
    NoSuchServicePort = 32, "service without such port";
    /// The service has no backend. Unless there are some that this node may not use, the sender is told so by an ICMP error.
    NoBackend = 33, "service without backends";
    /// The service's backends are not loaded.
    ServiceNotReady = 34, "service not ready";
    /// Another connection has the addresses and ports that the packet would have after translation, or has before.
    TranslationConflict = 35, "translated ports in use";
    /// The packet can't be translated: SCTP to another port.
    Untranslatable = 36, "packet can't be translated";
    /// None of the ports that were tried for a connection that leaves with the node's address is free for its destination.
    NatPortsExhausted = 37, "no port left to masquerade with";
    /// What was to leave with the node's address has lost its connection on the way.
    NotMasqueraded = 38, "lost before it was masqueraded";
    /// A packet out of the overlay whose sender is no known node, or doesn't hold its source address; or one that would be such a one.
    ForgedOverlay = 39, "overlay sender is not the source's node";
    /// A pod's packet for the port that nodes wrap packets for.
    OverlayPort = 40, "pod sends to the overlay's port";
}
