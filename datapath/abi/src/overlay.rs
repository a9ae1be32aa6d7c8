//! The overlay between nodes: what number a packet carries, which node it goes to, and whom a packet that arrives there is believed.
//!
//! How packets are wrapped is the kernel's tunnel device's; policy may not enter.

use crate::{
    Identity, Range, Reason, Scope,
    config::Config,
    conntrack::place,
    context::{Context, End},
    datapath::Datapath,
    ipcache::{Address, AddressInfo},
    judge,
    parse::protocol,
};

/// The network identifier of what is no pod's: the receiver finds out who sent it by its address.
pub const VNI_BY_ADDRESS: u32 = 0;

/// A node as the overlay knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeRecord {
    /// Its number: an element reused under a reader shows by it.
    pub number: u32,
    /// Where packets to it are sent to, and where its own come from.
    pub underlay: Address,
}

crate::map_data!(NodeRecord);
const _: () = assert!(size_of::<NodeRecord>() == 20);

/// The outside of a wrapped packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// The other node's address: where it goes to, or came from.
    pub remote: Address,
    /// Where a packet to be wrapped says that it comes from, by which the other node believes it.
    pub local: Address,
    /// Network identifier.
    pub vni: u32,
}

/// The network identifier for what an identity sends.
#[must_use]
#[inline(always)]
pub const fn vni(identity: Identity) -> u32 {
    match identity.range() {
        // The number's low 24 bits, which for this range are all of it.
        Some(Range::Pod) => identity.0,
        _ => VNI_BY_ADDRESS,
    }
}

/// Whether a node's packets come from this address of the network between nodes.
#[inline(always)]
fn comes_from<D: Datapath>(datapath: &D, node: u32, remote: &Address) -> bool {
    match datapath.node(node) {
        Some(record) => record.underlay.same(remote),
        None => false,
    }
}

/// Whether a connection's source end, known to be on some node, may have sent what came from `context.tunnel`.
#[inline(never)]
pub(crate) fn may_send<D: Datapath>(datapath: &D, context: &Context) -> bool {
    let source = &context.source;
    match place::node(source.generation) {
        Some(node) => source.slot == 0 && comes_from(datapath, node, &context.tunnel.remote),
        None => false,
    }
}

/// Finds the source end of a packet out of the overlay, as far as its sender is believed.
///
/// # Errors
/// [`Reason::ForgedOverlay`]: no known node sent it, or that node doesn't hold its source address.
#[inline(never)]
pub(crate) fn source<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    let AddressInfo {
        identity,
        mut node,
        flags,
        ..
    } = datapath
        .address(&context.headers.source)
        .unwrap_or_default();
    if node == 0 {
        context.prefix.prefix_bits = 128;
        context.prefix.address = context.headers.source;
        node = datapath.node_of(&context.prefix);
    }
    if node == 0 || node == context.node || !comes_from(datapath, node, &context.tunnel.remote) {
        return Err(Reason::ForgedOverlay);
    }
    // Whoever holds a pod's address knows its identity first: the address may not have come to this node yet, and is then unknown.
    let identity = if flags & AddressInfo::NODE == 0 && pods(context.tunnel.vni) {
        Identity(context.tunnel.vni)
    } else {
        identity
    };
    context.source = End {
        identity,
        slot: 0,
        generation: place::on_node(node),
        reserved: 0,
    };
    Ok(())
}

/// Whether a network identifier is a pod's identity.
#[inline(always)]
const fn pods(vni: u32) -> bool {
    matches!(Identity(vni).range(), Some(Range::Pod))
}

/// Refuses a pod's packet for the port at which nodes take packets out of their wrapping.
///
/// # Errors
/// [`Reason::OverlayPort`].
#[inline(never)]
pub(crate) fn refuse_wrapped<D: Datapath>(datapath: &D, context: &Context) -> Result<(), Reason> {
    let headers = &context.headers;
    let wrapped = context.flags & Config::OVERLAY != 0
        && headers.protocol == protocol::UDP
        && matches!(context.destination.identity.scope(), Scope::Nodes)
        && datapath
            .config()
            .is_some_and(|config| config.overlay_port == u32::from(headers.destination_port));
    if wrapped {
        return Err(Reason::OverlayPort);
    }
    Ok(())
}

/// Notes in `context.tunnel` how a packet for an end on another node is wrapped.
///
/// # Errors
/// [`Reason::NoRoute`]: the overlay doesn't know the node.
#[inline(never)]
pub(crate) fn wrap<D: Datapath>(
    datapath: &D,
    context: &mut Context,
    node: u32,
    identity: Identity,
) -> Result<(), Reason> {
    let (Some(record), Some(config)) = (datapath.node(node), datapath.config()) else {
        return Err(Reason::NoRoute);
    };
    context.tunnel.remote = record.underlay;
    context.tunnel.local = *config.underlay(record.underlay.is_v4());
    context.tunnel.vni = vni(identity);
    Ok(())
}

/// Decides where a packet goes that this node's stack sends into the overlay: its own, or what it forwards for one of its pods.
///
/// # Errors
/// The destination is no address of another node, or the source none of this node: nobody there would believe it.
#[inline(never)]
pub(crate) fn send<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    judge::locate(datapath, context);
    let (source, destination) = (context.source, context.destination);
    let Some(node) = place::node(destination.generation) else {
        return Err(Reason::NoRoute);
    };
    if source.slot == 0 && source.generation != place::HOST {
        return Err(Reason::ForgedOverlay);
    }
    wrap(datapath, context, node, source.identity)
}
