//! The entry points: one function for each place where a packet is seen. Each says what is to be done with it.
//!
//! The order of the steps is here and nothing else; what a step does is in `parse`, `neighbour`, `track`, `judge` and `report`.

use crate::{
    Reason, atomic, balance,
    config::Config,
    conntrack::{ConntrackEntry, place},
    context::{Context, Outcome, Through},
    datapath::Datapath,
    event::Hook,
    judge, masquerade, neighbour, overlay,
    packet::Packet,
    parse::{self, Headers, ether_type, protocol},
    refuse, report,
    track::{self, Known},
};

// The hooks as numbers that the compiler knows, so that no program has in it what is another's to do.
const FROM_ENDPOINT: u8 = Hook::FromEndpoint as u8;
const TO_ENDPOINT: u8 = Hook::ToEndpoint as u8;
const FROM_OUTSIDE: u8 = Hook::FromOutside as u8;
const FROM_OVERLAY: u8 = Hook::FromOverlay as u8;

/// Where and when a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Index of the interface.
    pub ifindex: u32,
    /// Index of the interface it came in at, 0 if this node made it.
    pub ingress_ifindex: u32,
}

/// A packet that a pod sends, at its interface's host side.
#[inline(always)]
pub fn from_endpoint<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    seen: Seen,
) -> Outcome {
    begin(packet, context, Hook::FromEndpoint, seen);
    let outcome = finish(datapath, context, |datapath, context| {
        settings(datapath, context)?;
        open(packet, context)?;
        if context.headers.ether_type == ether_type::ARP {
            claim(datapath, context)?;
            neighbour::arp(datapath, context)?;
            return Ok(neighbour::outcome(context));
        }
        read(datapath, packet, context)?;
        if neighbour::is_of_link(&context.headers) {
            claim(datapath, context)?;
            neighbour::discovery(datapath, packet, context)?;
            return Ok(neighbour::outcome(context));
        }
        judge_packet::<_, _, FROM_ENDPOINT>(datapath, packet, context)?;
        forward(datapath, context)
    });
    if outcome == Outcome::Drop && context.reason == Reason::NoBackend {
        return refuse::unreachable(datapath, context);
    }
    outcome
}

/// A packet that the node's stack sends to a pod: its own, or one it forwards.
#[inline(always)]
pub fn to_endpoint<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    seen: Seen,
) -> Outcome {
    begin(packet, context, Hook::ToEndpoint, seen);
    finish(datapath, context, |datapath, context| {
        settings(datapath, context)?;
        open(packet, context)?;
        // The only other station on a pod's link is this node.
        if context.headers.ether_type == ether_type::ARP {
            return Ok(Outcome::Stack);
        }
        read(datapath, packet, context)?;
        if of_this_node(context) {
            return Ok(Outcome::Stack);
        }
        judge_packet::<_, _, TO_ENDPOINT>(datapath, packet, context)?;
        Ok(Outcome::Stack)
    })
}

/// A packet that arrives on a device that faces outward.
#[inline(always)]
pub fn from_outside<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    seen: Seen,
) -> Outcome {
    begin(packet, context, Hook::FromOutside, seen);
    finish(datapath, context, |datapath, context| {
        settings(datapath, context)?;
        if let Err(reason) = open(packet, context) {
            // Frames of the link, which never leave it, are not for pods.
            return match reason {
                Reason::UnsupportedEtherType => Ok(Outcome::Stack),
                reason => Err(reason),
            };
        }
        if !matches!(
            context.headers.ether_type,
            ether_type::IPV4 | ether_type::IPV6
        ) {
            return Ok(Outcome::Stack);
        }
        match arrive::<_, _, FROM_OUTSIDE>(datapath, packet, context)? {
            Arrival::ForPod => forward(datapath, context),
            Arrival::ForOthers => Ok(Outcome::Stack),
        }
    })
}

/// A packet that leaves on a device that faces outward, with the mark it bears: pods' packets to the world are given the node's address.
#[inline(always)]
pub fn to_outside<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    seen: Seen,
    mark: u32,
) -> Outcome {
    begin(packet, context, Hook::ToOutside, seen);
    if mark & masquerade::MARK == 0 {
        return Outcome::Stack;
    }
    finish(datapath, context, |datapath, context| {
        settings(datapath, context)?;
        open(packet, context)?;
        read(datapath, packet, context)?;
        if context.headers.is(Headers::ICMP_ERROR) {
            parse::quoted(packet, &context.headers, &mut context.inner)?;
        }
        masquerade::leave(datapath, context)?;
        Ok(Outcome::Stack)
    })
}

/// A packet that another node wrapped for this one, as it was before. `context.tunnel` is what it was wrapped in if `wrapped`; else the
/// device can't tell.
#[inline(always)]
pub fn from_overlay<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    seen: Seen,
    wrapped: bool,
) -> Outcome {
    begin(packet, context, Hook::FromOverlay, seen);
    finish(datapath, context, |datapath, context| {
        settings(datapath, context)?;
        open(packet, context)?;
        if !wrapped {
            return Err(Reason::ForgedOverlay);
        }
        match arrive::<_, _, FROM_OVERLAY>(datapath, packet, context)? {
            Arrival::ForPod => forward(datapath, context),
            // Nobody is routed through a node that isn't meant.
            Arrival::ForOthers if context.destination.generation != place::HOST => {
                Err(Reason::NoRoute)
            }
            Arrival::ForOthers => Ok(Outcome::Accept),
        }
    })
}

/// A packet that the node's stack sends to another node's pods: its own, or one it forwards for a pod of its own.
#[inline(always)]
pub fn to_overlay<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    seen: Seen,
) -> Outcome {
    begin(packet, context, Hook::ToOverlay, seen);
    finish(datapath, context, |datapath, context| {
        settings(datapath, context)?;
        open(packet, context)?;
        read_addresses(packet, context)?;
        // The stack's own talk on the link, which has no other station: the device drops it.
        if multicast(&context.headers) || neighbour::is_of_link(&context.headers) {
            return Ok(Outcome::Stack);
        }
        overlay::send(datapath, context)?;
        Ok(Outcome::Wrap)
    })
}

/// Judges a packet as if it went from wherever its source address lives to wherever its destination does, both ends whatever the other
/// says, and tells of it. Nothing is remembered and nothing is sent: the packet is always dropped.
///
/// `node` is the node from whose sight the packet is judged (which node counts as the local host); 0 for the configured one.
#[inline(always)]
pub fn trace<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    seen: Seen,
    node: u32,
) -> Outcome {
    begin(packet, context, Hook::Trace, seen);
    if let Err(reason) = trace_packet(datapath, packet, context, node) {
        context.reason = reason;
    }
    report::traced(datapath, context);
    Outcome::Drop
}

#[inline(always)]
fn trace_packet<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    node: u32,
) -> Result<(), Reason> {
    settings(datapath, context)?;
    if node != 0 {
        context.node = node;
    }
    context.both = true;
    open(packet, context)?;
    read(datapath, packet, context)?;
    judge::resolve::<_, { Hook::Trace as u8 }>(datapath, context)?;
    judge::judge_flow(datapath, context)
}

/// Notes what is known before the packet is read.
#[inline(always)]
fn begin<P: Packet + ?Sized>(packet: &P, context: &mut Context, hook: Hook, seen: Seen) {
    context.begin(hook, seen.ifindex, seen.ingress_ifindex, packet.length());
}

/// Turns an error into a drop.
#[inline(always)]
fn finish<D: Datapath>(
    datapath: &D,
    context: &mut Context,
    steps: impl FnOnce(&D, &mut Context) -> Result<Outcome, Reason>,
) -> Outcome {
    match steps(datapath, context) {
        Ok(outcome) => outcome,
        Err(reason) => report::dropped(datapath, context, reason),
    }
}

#[inline(always)]
fn settings<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    context.now = datapath.now();
    match datapath.config() {
        Some(config) if config.flags & Config::READY != 0 => {
            context.node = config.node;
            context.flags = config.flags;
            Ok(())
        }
        _ => {
            atomic::clear(&mut context.headers);
            Err(Reason::TableNotReady)
        }
    }
}

/// Reads the Ethernet header.
#[inline(always)]
fn open<P: Packet + ?Sized>(packet: &P, context: &mut Context) -> Result<(), Reason> {
    context.available = 0;
    context.available = parse::link(packet, &mut context.head, &mut context.headers)?;
    Ok(())
}

/// Reads the network and transport headers.
#[inline(never)]
fn read<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
) -> Result<(), Reason> {
    parse::network(
        packet,
        &context.head,
        context.available,
        &mut context.headers,
    )?;
    if context.headers.is(Headers::LATER) {
        return track::recall_fragment(datapath, context);
    }
    parse::transport(
        packet,
        &context.head,
        context.available,
        &mut context.headers,
    )
}

/// Reads the network header alone.
#[inline(never)]
fn read_addresses<P: Packet + ?Sized>(packet: &P, context: &mut Context) -> Result<(), Reason> {
    parse::network(
        packet,
        &context.head,
        context.available,
        &mut context.headers,
    )
}

/// Passes a packet whose connection is known and still holds, or judges it. `Ok` says that it may pass.
#[inline(always)]
fn judge_packet<D: Datapath, P: Packet + ?Sized, const HOOK: u8>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
) -> Result<(), Reason> {
    let known = recognise::<_, HOOK>(datapath, context);
    settle::<_, _, HOOK>(datapath, packet, context, known)
}

/// What the connection table says of a packet; nothing of those that are no connection's own.
#[inline(always)]
fn recognise<D: Datapath, const HOOK: u8>(datapath: &D, context: &mut Context) -> Known {
    if context.headers.flags & (Headers::ICMP_ERROR | Headers::CONNECTIONLESS) != 0 {
        return Known::No;
    }
    track::recognise::<_, HOOK>(datapath, context)
}

/// Judges a packet unless its connection is known and holds.
#[inline(always)]
fn settle<D: Datapath, P: Packet + ?Sized, const HOOK: u8>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
    known: Known,
) -> Result<(), Reason> {
    if known != Known::Yes {
        // By way of the context: a number that the verifier follows has it walk through all that is behind it once for each.
        context.known = known;
        judge_slowly::<_, _, HOOK>(datapath, packet, context)?;
    }
    if context.headers.is(Headers::FRAGMENT) && !context.headers.is(Headers::LATER) {
        track::remember_fragment(datapath, context);
    }
    if context.service == Through::Back {
        balance::answer(context);
    }
    Ok(())
}

/// Judges a packet from the start.
#[inline(never)]
fn judge_slowly<D: Datapath, P: Packet + ?Sized, const HOOK: u8>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
) -> Result<(), Reason> {
    if HOOK == FROM_ENDPOINT {
        claim(datapath, context)?;
    }
    judge::resolve::<_, HOOK>(datapath, context)?;
    if judge::impossible_destination(&context.headers.destination) {
        return Err(Reason::NoRoute);
    }
    if HOOK == FROM_ENDPOINT {
        overlay::refuse_wrapped(datapath, context)?;
    }
    if context.headers.is(Headers::ICMP_ERROR) {
        if HOOK == FROM_ENDPOINT && redirects(&context.headers) {
            return Err(Reason::SpoofedNeighbour);
        }
        parse::quoted(packet, &context.headers, &mut context.inner)?;
        return track::relate::<_, HOOK>(datapath, context);
    }
    match context.known {
        Known::Stale => return track::judge_again(datapath, context),
        Known::Conflict => return Err(Reason::TranslationConflict),
        Known::No | Known::Yes => {}
    }
    if HOOK == FROM_ENDPOINT && balance::open(datapath, context)? {
        judge::resolve_destination(datapath, context)?;
        // A service's backend may be anything.
        overlay::refuse_wrapped(datapath, context)?;
    }
    track::judge_new(datapath, context)?;
    track::begin::<_, HOOK>(datapath, context)
}

/// Whether an ICMP error is a router's advice to use another one.
#[inline(always)]
const fn redirects(headers: &Headers) -> bool {
    headers.protocol == protocol::ICMP && headers.icmp_type == 5
}

/// Finds the endpoint behind the interface, and holds the frame to its hardware address.
#[inline(never)]
fn claim<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    context.slot = datapath.slot_by_ifindex(context.ifindex);
    let Some(endpoint) = judge::present(datapath, context.slot) else {
        return Err(Reason::UnknownEndpoint);
    };
    context.source.slot = context.slot;
    context.source.identity = endpoint.identity_of(context.headers.source.is_v4());
    if !track::same_mac(&endpoint.mac, &context.headers.source_mac) {
        return Err(Reason::SpoofedMac);
    }
    Ok(())
}

/// Where a packet from outside is going.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    ForPod,
    ForOthers,
}

#[inline(always)]
fn arrive<D: Datapath, P: Packet + ?Sized, const HOOK: u8>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
) -> Result<Arrival, Reason> {
    let read = read(datapath, packet, context);
    let known = match read {
        Ok(()) => recognise::<_, HOOK>(datapath, context),
        Err(_) => Known::No,
    };
    if known == Known::No
        && context.headers.end != 0
        && datapath.slot_by_address(&context.headers.destination) == 0
    {
        if HOOK == FROM_OUTSIDE
            && read.is_ok()
            && context.headers.is(Headers::ICMP_ERROR)
            && masquerade::is_complaint(datapath, packet, context)
        {
            settle::<_, _, HOOK>(datapath, packet, context, known)?;
            return Ok(Arrival::ForPod);
        }
        // Not for a pod: what the packet is, is the stack's to find out; that it comes from where it says, is not.
        foreign::<_, HOOK>(datapath, context)?;
        return Ok(Arrival::ForOthers);
    }
    read?;
    settle::<_, _, HOOK>(datapath, packet, context, known)?;
    Ok(Arrival::ForPod)
}

/// Drops a packet from outside that claims to come from this node or one of its pods.
#[inline(never)]
fn foreign<D: Datapath, const HOOK: u8>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    match judge::resolve::<_, HOOK>(datapath, context) {
        Ok(()) => Ok(()),
        // The unspecified address asks for one, link-local ones resolve neighbours: of the link, and the stack's business.
        Err(Reason::InvalidSource) if HOOK == FROM_OUTSIDE => Ok(()),
        Err(reason) => Err(reason),
    }
}

/// Where an allowed packet goes.
#[inline(always)]
fn forward<D: Datapath>(datapath: &D, context: &mut Context) -> Result<Outcome, Reason> {
    // A router's stack answers a packet that has come too far; it will not forward it.
    if context.headers.hop_limit <= 1 {
        return Ok(Outcome::Stack);
    }
    // What netfilter translated on the way here, it must see on the way back.
    if context.flow & ConntrackEntry::VIA_STACK != 0 {
        return Ok(Outcome::Stack);
    }
    let destination = context.destination;
    if destination.slot != 0 {
        context.deliver = destination.slot;
        return Ok(Outcome::Deliver);
    }
    if destination.generation == place::HOST || multicast(&context.headers) {
        return Ok(Outcome::Stack);
    }
    if context.flags & Config::OVERLAY != 0
        && let Some(node) = place::node(destination.generation)
    {
        let identity = context.source.identity;
        overlay::wrap(datapath, context, node, identity)?;
        return Ok(Outcome::Tunnel);
    }
    Ok(Outcome::Route)
}

#[inline(always)]
const fn multicast(headers: &Headers) -> bool {
    let address = &headers.destination.0;
    if headers.is(Headers::IPV6) {
        address[0] == 0xff
    } else {
        address[12] >= 224
    }
}

/// Neighbour discovery and group membership that this node itself speaks on a pod's link.
#[inline(always)]
fn of_this_node(context: &Context) -> bool {
    let headers = &context.headers;
    if neighbour::is_of_link(headers) {
        return neighbour::is_of_this_node(headers);
    }
    headers.protocol == protocol::IGMP && context.ingress_ifindex == 0 && multicast(headers)
}
