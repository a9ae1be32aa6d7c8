//! Who the two ends of a packet are, and what each decides.
//!
//! Reads endpoints, addresses and policy tables; connections may not enter.

use crate::{
    Cookie, Identity, Range, Reason,
    config::Config,
    conntrack::place,
    context::{Context, Decision, End, Located},
    datapath::Datapath,
    endpoint::Endpoint,
    event::Hook,
    ipcache::{Address, AddressInfo},
    overlay,
    parse::Headers,
    policy,
    program::Verdict,
};

/// How often the ends are read again when addresses change meanwhile.
const ATTEMPTS: u32 = 3;

/// Finds out both ends of the packet in `context.headers`: where it came from decides its source, the address its destination.
///
/// # Errors
/// Why the source may not be where it claims to be; [`Reason::IdentityNotReady`] if addresses change faster than they can be read.
#[inline(never)]
pub fn resolve<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
) -> Result<(), Reason> {
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        // An element of a hash can be reused under its reader. The writer raises the epoch between taking an address out and putting
        // another in, so that what was read within one epoch was whole.
        context.epoch = datapath.epoch();
        if HOOK == Hook::Trace as u8 {
            anywhere(datapath, context, false);
        } else {
            resolve_source::<_, HOOK>(datapath, context)?;
        }
        anywhere(datapath, context, true);
        if datapath.epoch() == context.epoch {
            return destined::<_, HOOK>(datapath, context);
        }
        attempt += 1;
    }
    Err(Reason::IdentityNotReady)
}

/// Finds out anew where the packet goes, which has been given another destination since its ends were resolved.
///
/// # Errors
/// [`Reason::IdentityNotReady`] if addresses have changed meanwhile.
#[inline(never)]
pub(crate) fn resolve_destination<D: Datapath>(
    datapath: &D,
    context: &mut Context,
) -> Result<(), Reason> {
    anywhere(datapath, context, true);
    if datapath.epoch() == context.epoch {
        return Ok(());
    }
    Err(Reason::IdentityNotReady)
}

/// The source end, by where the packet came from.
#[inline(never)]
fn resolve_source<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
) -> Result<(), Reason> {
    let source = context.headers.source;
    if HOOK == Hook::FromEndpoint as u8 {
        // `claim` has put the endpoint's slot there.
        let Some(endpoint) = present(datapath, context.slot) else {
            return Err(Reason::UnknownEndpoint);
        };
        let source = *context.sender();
        if !endpoint.owns(&source) {
            return Err(if impossible_source(&source) {
                Reason::InvalidSource
            } else {
                Reason::SpoofedAddress
            });
        }
        context.source = local(context.slot, endpoint, &source);
        return Ok(());
    }
    if impossible_source(&source) || is_link_local(&source) {
        return Err(Reason::InvalidSource);
    }
    if HOOK == Hook::FromOverlay as u8 {
        return overlay::source(datapath, context);
    }
    elsewhere(datapath, context, false);
    // What is known to be on another node is no endpoint of this one.
    if context.located != Located::OnOtherNode {
        let slot = datapath.slot_by_address(&source);
        if slot != 0 {
            return pod_through_stack::<_, HOOK>(datapath, context, slot);
        }
    }
    let own = context.source.generation == place::HOST;
    let made_here = HOOK == Hook::ToEndpoint as u8 && context.ingress_ifindex == 0;
    // In the node's name answers also whom netfilter sent a pod's packets on to.
    let answers = HOOK == Hook::ToEndpoint as u8 && context.reversed;
    if own && !made_here && !answers {
        return Err(Reason::AddressFromOutside);
    }
    if made_here && !own {
        return Err(Reason::InvalidSource);
    }
    if HOOK == Hook::FromOutside as u8 && comes_wrapped(context.flags, context.source.identity) {
        return Err(Reason::AddressFromOutside);
    }
    Ok(())
}

/// A packet out of the stack under the address of a pod of this node: the pod's own, which netfilter translated on its way.
#[inline(always)]
fn pod_through_stack<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
    slot: u32,
) -> Result<(), Reason> {
    if HOOK != Hook::ToEndpoint as u8 || !through_stack(datapath, slot, context) {
        return Err(Reason::AddressFromOutside);
    }
    let Some(endpoint) = present(datapath, slot) else {
        return Err(Reason::AddressFromOutside);
    };
    context.source = local(slot, endpoint, &context.headers.source);
    Ok(())
}

/// Whether the stack forwards this packet for the endpoint in `slot`, whose own the source address is: it came in by the endpoint's
/// interface, where both were checked.
#[inline(always)]
pub(crate) fn through_stack<D: Datapath>(datapath: &D, slot: u32, context: &Context) -> bool {
    let Some(endpoint) = present(datapath, slot) else {
        return false;
    };
    context.ingress_ifindex != 0
        && endpoint.ifindex == context.ingress_ifindex
        && endpoint.owns(&context.headers.source)
}

/// A packet that the stack routed to a pod's interface must be for that pod.
#[inline(always)]
fn destined<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
) -> Result<(), Reason> {
    if HOOK != Hook::ToEndpoint as u8 || is_at(datapath, context.destination.slot, context) {
        return Ok(());
    }
    Err(Reason::UnknownEndpoint)
}

/// Whether the interface that the packet was seen at is the endpoint's in `slot`; notes the endpoint if so.
#[inline(always)]
pub(crate) fn is_at<D: Datapath>(datapath: &D, slot: u32, context: &mut Context) -> bool {
    let Some(endpoint) = present(datapath, slot) else {
        return false;
    };
    context.slot = slot;
    endpoint.ifindex == context.ifindex
}

/// The packet's destination end if `destination`, else its source end, by nothing but the address.
#[inline(never)]
fn anywhere<D: Datapath>(datapath: &D, context: &mut Context, destination: bool) {
    let address = if destination {
        &context.headers.destination
    } else {
        &context.headers.source
    };
    let slot = datapath.slot_by_address(address);
    let end = match present(datapath, slot) {
        // The slot may have been given to another pod since.
        Some(endpoint) if endpoint.owns(address) => local(slot, endpoint, address),
        _ => return elsewhere(datapath, context, destination),
    };
    context.located = Located::OnThisNode;
    if destination {
        context.destination = end;
    } else {
        context.source = end;
    }
}

/// As [`anywhere`], for an address that is no endpoint's of this node.
#[inline(never)]
fn elsewhere<D: Datapath>(datapath: &D, context: &mut Context, destination: bool) {
    let end = beyond(datapath, context, destination);
    if destination {
        context.destination = end;
    } else {
        context.source = end;
    }
}

#[inline(always)]
fn beyond<D: Datapath>(datapath: &D, context: &mut Context, destination: bool) -> End {
    let address = if destination {
        &context.headers.destination
    } else {
        &context.headers.source
    };
    context.located = Located::Anywhere;
    let info = match datapath.address(address) {
        Some(info) => Some(info),
        None if is_gateway(datapath, address) => {
            return if context.forwarded {
                End {
                    identity: Identity::REMOTE_NODE,
                    ..End::default()
                }
            } else {
                End {
                    identity: Identity::HOST,
                    slot: 0,
                    generation: place::HOST,
                    reserved: 0,
                }
            };
        }
        None => {
            context.prefix.prefix_bits = 128;
            context.prefix.address = *address;
            datapath.prefix(&context.prefix)
        }
    };
    let Some(info) = info else {
        return End {
            identity: if context.headers.is(Headers::IPV6) {
                Identity::WORLD_IPV6
            } else {
                Identity::WORLD_IPV4
            },
            slot: 0,
            generation: place::OUTSIDE,
            reserved: 0,
        };
    };
    if info.node != 0 {
        context.located = if info.node == context.node {
            Located::OnThisNode
        } else {
            Located::OnOtherNode
        };
    }
    let own = info.flags & AddressInfo::NODE != 0
        && info.node == context.node
        // Others' packets that netfilter gave the node's address are not the node's, which may always reach its pods.
        && !context.forwarded;
    End {
        identity: if own {
            info.host_identity
        } else {
            info.identity
        },
        slot: 0,
        generation: if own {
            place::HOST
        } else if info.node != 0 && info.node != context.node {
            place::on_node(info.node)
        } else {
            place::OUTSIDE
        },
        reserved: 0,
    }
}

/// Finds both ends by nothing but their addresses.
#[inline(always)]
pub(crate) fn locate<D: Datapath>(datapath: &D, context: &mut Context) {
    anywhere(datapath, context, false);
    anywhere(datapath, context, true);
}

/// Whether packets of such an identity come to this node through the overlay only, if from outside at all. An address of the pods' that
/// nothing is known of is a pod's.
#[inline(always)]
pub(crate) const fn comes_wrapped(flags: u32, identity: Identity) -> bool {
    flags & Config::OVERLAY != 0
        && (identity.0 == Identity::UNKNOWN.0 || matches!(identity.range(), Some(Range::Pod)))
}

/// Whether the address is the one that this node has on its pods' links.
#[inline(always)]
fn is_gateway<D: Datapath>(datapath: &D, address: &Address) -> bool {
    match datapath.config() {
        Some(config) => config.gateway_ipv4.same(address) || config.gateway_ipv6.same(address),
        None => false,
    }
}

/// An IPv6 address that no router forwards for (RFC 4291, section 2.5.6).
#[inline(always)]
pub(crate) const fn is_link_local(address: &Address) -> bool {
    address.0[0] == 0xfe && address.0[1] & 0xc0 == 0x80
}

/// The record in a slot, if the slot is in use.
#[inline(always)]
pub(crate) fn present<D: Datapath>(datapath: &D, slot: u32) -> Option<&Endpoint> {
    if slot == 0 {
        return None;
    }
    let endpoint = datapath.endpoint(slot)?;
    (endpoint.flags & Endpoint::PRESENT != 0).then_some(endpoint)
}

#[inline(always)]
fn local(slot: u32, endpoint: &Endpoint, address: &Address) -> End {
    End {
        identity: endpoint.identity_of(address.is_v4()),
        slot,
        generation: endpoint.generation,
        reserved: 0,
    }
}

/// An address that no host can send from: unspecified, loopback, multicast, the IPv4 ones of class E, and IPv4 dressed as IPv6.
#[inline(always)]
fn impossible_source(address: &Address) -> bool {
    if address.is_v4() {
        return matches!(address.0[12], 0 | 127 | 224..=255);
    }
    let [a, b, c, d] = address.words();
    address.0[0] == 0xff || (a == 0 && b == 0 && c == 0 && (d == 0 || d == 1_u32.to_be()))
}

/// An address that no router forwards to: unspecified or loopback.
#[inline(always)]
pub(crate) fn impossible_destination(address: &Address) -> bool {
    if address.is_v4() {
        return matches!(address.0[12], 0 | 127);
    }
    let [a, b, c, d] = address.words();
    a == 0 && b == 0 && c == 0 && (d == 0 || d == 1_u32.to_be())
}

/// Judges the flow of `context`, taking its source as the opener, or its destination if `context.reversed`. The decisions are in
/// `context.egress` (the opener's) and `context.ingress`.
///
/// # Errors
/// The reason of the first end that drops.
#[inline(never)]
pub fn judge_flow<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    context.ingress = Decision::NOT_JUDGED;
    judge_end(datapath, context, true);
    let egress = context.egress.reason;
    if egress != Reason::None && !context.both {
        return Err(egress);
    }
    judge_end(datapath, context, false);
    if egress != Reason::None {
        return Err(egress);
    }
    match context.ingress.reason {
        Reason::None => Ok(()),
        reason => Err(reason),
    }
}

/// Judges one end: the opener if `opener`, else the other.
#[inline(never)]
fn judge_end<D: Datapath>(datapath: &D, context: &mut Context, opener: bool) {
    let source_is_subject = opener != context.reversed;
    let (subject, peer) = if source_is_subject {
        (context.source, context.destination)
    } else {
        (context.destination, context.source)
    };
    let point = context.headers.point(context.reversed);
    let decision = decide(
        datapath,
        subject,
        peer,
        opener,
        (context.headers.protocol, point),
    );
    if opener {
        context.egress = decision;
    } else {
        context.ingress = decision;
    }
}

#[inline(always)]
fn decide<D: Datapath>(
    datapath: &D,
    subject: End,
    peer: End,
    opener: bool,
    (protocol, point): (u8, u16),
) -> Decision {
    if subject.slot == 0 {
        return Decision::NOT_JUDGED;
    }
    if subject.slot == peer.slot {
        return Decision::built_in(Verdict::Allow, Reason::None, Cookie::SELF);
    }
    let Some(endpoint) = present(datapath, subject.slot) else {
        return Decision::built_in(Verdict::Deny, Reason::UnknownEndpoint, Cookie::NONE);
    };
    let table = if opener {
        endpoint.egress_table
    } else {
        endpoint.ingress_table
    };
    if !ready(datapath, peer.identity) {
        return Decision {
            table,
            ..Decision::built_in(Verdict::Deny, Reason::IdentityNotReady, Cookie::NONE)
        };
    }
    let judgement = policy::judge(datapath, table, peer.identity, protocol, point);
    let mut decision = Decision {
        cookie: judgement.cookie,
        table,
        revision: judgement.revision,
        redirect: judgement.redirect,
        verdict: judgement.verdict as u8,
        reason: judgement.reason,
        log: judgement.log,
    };
    if peer.identity == Identity::UNKNOWN && judgement.cookie != Cookie::MODE_NEVER {
        // No table can know what an unknown address is, so that no default may speak for it.
        decision.cookie = Cookie::UNKNOWN;
        decision.verdict = Verdict::Deny as u8;
        decision.reason = Reason::UnknownAddress;
    } else if judgement.verdict == Verdict::Redirect {
        decision.reason = Reason::NoProxy;
    }
    decision
}

/// Whether the tables on this node know all identities up to this one.
#[inline(always)]
fn ready<D: Datapath>(datapath: &D, identity: Identity) -> bool {
    match identity.range() {
        Some(Range::Reserved) => true,
        Some(range) => identity.0 & 0x00ff_ffff <= datapath.watermark(range),
        None => false,
    }
}
