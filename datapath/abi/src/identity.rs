//! Security identities: the numbers, how they are partitioned, and which scope a number belongs to.
//!
//! The meaning of a number (its labels) is the compiler's; only what can be read off the number itself is here.

/// A number standing for a set of security-relevant properties.
///
/// The top byte names the allocator, so that the scope can be read off the number; the low 24 bits fit a VXLAN network identifier.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub u32);

impl Identity {
    /// No identity: an address inside the cluster that nothing is known of.
    pub const UNKNOWN: Self = Self(0);
    /// The node itself, seen from its own pods.
    pub const HOST: Self = Self(1);
    /// Any address outside the cluster, of either family. Never in a packet's place: those are [`Self::WORLD_IPV4`] and [`Self::WORLD_IPV6`].
    pub const WORLD: Self = Self(2);
    /// A pod that Sluice does not manage.
    pub const UNMANAGED: Self = Self(3);
    /// The health endpoint of a node.
    pub const HEALTH: Self = Self(4);
    /// An endpoint whose labels are not known yet.
    pub const INIT: Self = Self(5);
    /// Another node of the cluster.
    pub const REMOTE_NODE: Self = Self(6);
    /// The API server where it is neither node nor known address.
    pub const KUBE_APISERVER: Self = Self(7);
    /// The ingress proxy of a node.
    pub const INGRESS: Self = Self(8);
    /// An IPv4 address outside the cluster that no CIDR selector names.
    pub const WORLD_IPV4: Self = Self(9);
    /// An IPv6 address outside the cluster that no CIDR selector names.
    pub const WORLD_IPV6: Self = Self(10);
    /// The first number that is not reserved.
    pub const FIRST_ALLOCATED: u32 = 256;

    const RANGE_SHIFT: u32 = 24;

    /// The number with index `local` in `range`, or `None` if the range is full or `local` is taken by reserved numbers.
    #[must_use]
    pub const fn new(range: Range, local: u32) -> Option<Self> {
        let reserved = local < Self::FIRST_ALLOCATED;
        if local >> Self::RANGE_SHIFT != 0 || reserved != matches!(range, Range::Reserved) {
            return None;
        }
        let top = match range {
            Range::Reserved | Range::Pod => 0,
            Range::Cidr => 1,
            Range::Node => 2,
            Range::Local => 3,
            Range::OtherCluster => 4,
        };
        Some(Self(top << Self::RANGE_SHIFT | local))
    }

    /// The allocator that gave the number out, or `None` for a number in no known range.
    #[must_use]
    #[inline(always)]
    pub const fn range(self) -> Option<Range> {
        match self.0 >> Self::RANGE_SHIFT {
            0 if self.0 < Self::FIRST_ALLOCATED => Some(Range::Reserved),
            0 => Some(Range::Pod),
            1 => Some(Range::Cidr),
            2 => Some(Range::Node),
            3 => Some(Range::Local),
            4 => Some(Range::OtherCluster),
            _ => None,
        }
    }

    /// The scope whose default a peer table uses for this identity where it has no entry of its own.
    #[must_use]
    #[inline(always)]
    pub const fn scope(self) -> Scope {
        match self.range() {
            Some(Range::Pod) => Scope::Pods,
            Some(Range::OtherCluster) => Scope::OtherClusters,
            Some(Range::Node) => Scope::Nodes,
            Some(Range::Cidr | Range::Local) => Scope::World,
            Some(Range::Reserved) => match self {
                Self::HOST | Self::REMOTE_NODE => Scope::Nodes,
                Self::WORLD | Self::WORLD_IPV4 | Self::WORLD_IPV6 => Scope::World,
                _ => Scope::Special,
            },
            None => Scope::Special,
        }
    }
}

/// Who allocates a number; read off its top byte. Each range has its own watermark on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Range {
    /// Fixed by this crate.
    Reserved = 0,
    /// Pods of this cluster.
    Pod = 1,
    /// Addresses outside the cluster, by the set of CIDR selectors they match.
    Cidr = 2,
    /// Nodes of this cluster that some selector tells apart.
    Node = 3,
    /// Born on one agent (names learned from DNS); never on the wire.
    Local = 4,
    /// Pods of other clusters.
    OtherCluster = 5,
}

impl Range {
    /// How many ranges there are: the size of the watermark array.
    pub const COUNT: usize = 6;
}

/// A part of the world that a selector can cover by definition; a peer table has one default for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Pods of this cluster.
    Pods = 0,
    /// Pods of other clusters.
    OtherClusters = 1,
    /// Nodes of this cluster, the local one included.
    Nodes = 2,
    /// Everything outside.
    World = 3,
    /// Health, init, unmanaged, ingress and other reserved identities.
    Special = 4,
}

impl Scope {
    /// How many scopes there are.
    pub const COUNT: usize = 5;
    /// All scopes in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Pods,
        Self::OtherClusters,
        Self::Nodes,
        Self::World,
        Self::Special,
    ];
}

crate::map_data!(Identity);
