//! Masquerade: what a pod opens to the world beyond the cluster leaves with the node's address, and comes back by it.
//!
//! ```text
//! the connection         (pod:p, world:443)     entry MASQUERADED: the node's port q ─┐ judged, counted and answered like any other
//! the world's name       (node:q, world:443)    entry OUTER ◀──────────────────────────┘ leads back to it
//! ```
//!
//! Which connections, and by which port, is decided when they begin; their packets bear [`MARK`] to where they leave the node, where they are
//! given the address.

use crate::{
    Identity, Reason, atomic,
    conntrack::{Connection, ConntrackEntry, State, place},
    context::{Context, Located, Through},
    datapath::Datapath,
    event::Hook,
    ipcache::Address,
    judge,
    packet::Packet,
    parse::{self, Headers, protocol, tcp},
    track::{self, Known},
    translate,
};

/// The bit of a packet's mark that says that it is to be masqueraded. No pod can set it: marks don't leave a namespace.
pub const MARK: u32 = 1 << 27;
/// How many of the node's ports are tried.
const PORTS: u32 = 8;

/// Whether the connection that begins is to be masqueraded: a pod opens it to an address that is neither the cluster's nor excluded.
#[inline(always)]
fn is_wanted<D: Datapath>(datapath: &D, context: &mut Context) -> bool {
    let headers = &context.headers;
    let destination = &context.destination;
    if context.reversed
        || destination.slot != 0
        || destination.generation != place::OUTSIDE
        // Of the pods, though it is not known whose.
        || destination.identity.0 == Identity::UNKNOWN.0
        || context.located != Located::Anywhere
        || headers.tcp_flags & (tcp::SYN | tcp::ACK) == (tcp::SYN | tcp::ACK)
        || judge::is_link_local(&headers.destination)
    {
        return false;
    }
    let ipv4 = !headers.is(Headers::IPV6);
    if !datapath
        .config()
        .is_some_and(|config| has(config.masquerade(ipv4)))
    {
        return false;
    }
    context.prefix.prefix_bits = 128;
    context.prefix.address = context.headers.destination;
    !datapath.excluded(&context.prefix)
}

/// Whether there is an address to masquerade with.
#[inline(always)]
const fn has(address: &Address) -> bool {
    !address.same(&Address([0; 16]))
}

/// Gives the connection that begins a port of the node's, if it is to be masqueraded.
///
/// # Errors
/// [`Reason::NatPortsExhausted`], or why the world's name for it can't be entered.
#[inline(never)]
pub(crate) fn begin<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    if context.flow & ConntrackEntry::MASQUERADED != 0 || !is_wanted(datapath, context) {
        return Ok(());
    }
    let Some(config) = datapath.config() else {
        return Err(Reason::Internal);
    };
    let headers = &context.headers;
    let own = headers.source_port;
    let (first, last) = (config.masquerade_first, config.masquerade_last);
    // SCTP's checksum is of its ports too, and other protocols have none.
    let fixed = !matches!(
        headers.protocol,
        protocol::TCP | protocol::UDP | protocol::ICMP | protocol::ICMPV6
    );
    let count = u32::from(last.saturating_sub(first)) + 1;
    let mut hash = translate::hash(headers);
    let mut attempt = 0;
    while attempt < PORTS {
        let port = if attempt == 0 && (fixed || (own >= first && own <= last)) {
            own
        } else {
            hash = translate::mix(hash);
            #[allow(clippy::cast_possible_truncation)] // below the number of ports
            let offset = translate::scale(hash, count) as u16;
            first + offset
        };
        if free(datapath, context, port) {
            if context.flow & ConntrackEntry::TRANSLATED == 0 {
                atomic::clear(&mut context.nat);
            }
            context.flow |= ConntrackEntry::MASQUERADED;
            context.nat.other = u32::from(port);
            return take(datapath, context);
        }
        if fixed {
            break;
        }
        attempt += 1;
    }
    Err(Reason::NatPortsExhausted)
}

/// Whether no other connection has this port of the node's, towards the same world. The world's name for the connection is in
/// `context.entry` then.
#[inline(never)]
fn free<D: Datapath>(datapath: &D, context: &mut Context, port: u16) -> bool {
    let headers = &context.headers;
    let Some(config) = datapath.config() else {
        return false;
    };
    let node = config.masquerade(!headers.is(Headers::IPV6));
    let entry = &mut context.entry;
    entry.key.protocol = headers.protocol;
    entry.key.leg = 0;
    entry.key.icmp = headers.icmp_query;
    entry.key.reserved = 0;
    let world_high = Context::ends(
        &mut entry.key,
        (&headers.destination, headers.destination_port),
        (node, port),
    );
    entry.flags = ConntrackEntry::OUTER | u8::from(world_high);
    let Some(other) = datapath.connection(&context.entry.key) else {
        return true;
    };
    if other.flags & ConntrackEntry::OUTER == 0 {
        return false;
    }
    is_free(datapath, context, other)
}

/// Enters the world's name for the connection, which [`free`] has found.
#[inline(never)]
fn take<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    // The rings are of connections' keys.
    atomic::copy(&context.key, &mut context.pending);
    atomic::copy(&context.entry.key, &mut context.key);
    let owner = context.source.slot;
    let taken = track::take_position(datapath, context, owner);
    atomic::copy(&context.pending, &mut context.key);
    taken?;
    let entry = &mut context.entry;
    entry.created = context.now;
    entry.last_seen = context.now;
    entry.packets = [0; 2];
    entry.bytes = [0; 2];
    entry.source.blank(0, place::OUTSIDE);
    entry.destination.blank(owner, context.source.generation);
    entry.epoch = context.epoch;
    entry.owner = owner;
    entry.state = State::Opening as u8;
    entry.closing = 0;
    entry.reserved = 0;
    entry.nat.address = context.headers.source;
    entry.nat.port = context.headers.source_port;
    entry.nat.client_port = 0;
    entry.nat.other = 0;
    // Of two CPUs that want the same port at once only one gets it; the other's packet is sent again, and finds another.
    if datapath.claim_connection(&context.entry) {
        return Ok(());
    }
    Err(Reason::NatPortsExhausted)
}

/// Whether a name may be taken from whoever has it: the same connection, or none that lives. It is gone then.
#[inline(never)]
fn is_free<D: Datapath>(datapath: &D, context: &mut Context, other: &Connection) -> bool {
    let (nat, headers) = (&other.nat, &context.headers);
    let own = nat.port == headers.source_port && nat.address.same(&headers.source);
    context.pending.protocol = headers.protocol;
    context.pending.leg = 0;
    context.pending.icmp = headers.icmp_query;
    context.pending.reserved = 0;
    Context::ends(
        &mut context.pending,
        (&nat.address, nat.port),
        (&headers.destination, headers.destination_port),
    );
    if !other.key.same(&context.entry.key) {
        return false;
    }
    let lives = !own
        && datapath.connection(&context.pending).is_some_and(|main| {
            let state = State::from_raw(main.state.load());
            !state.expired(headers.protocol, main.last_seen.load(), context.now)
        });
    if !lives {
        datapath.remove_connection(&context.entry.key);
    }
    !lives
}

/// [`track::recognise`] for a packet of the world's that bears its own name of a connection: it has the pod's address afterwards.
#[inline(never)]
pub(crate) fn recognise<D: Datapath>(
    datapath: &D,
    context: &mut Context,
    found: &Connection,
) -> Known {
    let world_high = found.flags & ConntrackEntry::SOURCE_HIGH != 0;
    atomic::copy(&found.nat, &mut context.alias);
    if !found.key.same(&context.key) || world_high != context.source_high {
        return Known::No;
    }
    let asked = u32::from(context.headers.destination_port);
    context.after.note(&context.headers);
    context.after.destination = context.alias.address;
    context.after.destination_port = context.alias.port;
    let after = &context.after;
    context.source_high = Context::ends(
        &mut context.key,
        (&after.source, after.source_port),
        (&after.destination, after.destination_port),
    );
    let Some(connection) = datapath.connection(&context.key) else {
        return Known::No;
    };
    if connection.flags & ConntrackEntry::MASQUERADED == 0 || connection.nat.other != asked {
        return Known::No;
    }
    let flags = connection.flags;
    let known =
        track::recognise_led::<_, { Hook::FromOutside as u8 }>(datapath, context, connection);
    if known == Known::No {
        return known;
    }
    found.last_seen.store(context.now);
    found.state.store(connection.state.load());
    atomic::copy(&connection.nat, &mut context.nat);
    translate::packet(context);
    if flags & ConntrackEntry::TRANSLATED != 0 {
        context.service = Through::Back;
    }
    known
}

/// A packet that bears [`MARK`], where it leaves the node: gives it the node's address.
///
/// # Errors
/// Why it can't leave: better not at all than with a pod's address.
#[inline(always)]
pub(crate) fn leave<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    let error = context.headers.is(Headers::ICMP_ERROR);
    let headers = if error {
        &context.inner
    } else {
        &context.headers
    };
    Context::flow_key(&mut context.key, headers);
    let Some(connection) = datapath.connection(&context.key) else {
        return Err(Reason::NotMasqueraded);
    };
    #[allow(clippy::cast_possible_truncation)] // it was made of a port
    let port = connection.nat.other as u16;
    let Some(config) = datapath.config() else {
        return Err(Reason::Internal);
    };
    let node = config.masquerade(!context.headers.is(Headers::IPV6));
    if connection.flags & ConntrackEntry::MASQUERADED == 0
        || !connection.key.same(&context.key)
        || !has(node)
    {
        return Err(Reason::NotMasqueraded);
    }
    context.after.note(&context.headers);
    context.after.source = *node;
    if error {
        // A pod complains of what the world sent it.
        context.inner_after.note(&context.inner);
        context.inner_after.destination = *node;
        context.inner_after.destination_port = port;
        translate::error(context);
    } else {
        if translate::ports_at(&context.headers).is_some() {
            context.after.source_port = port;
        }
        translate::packet(context);
    }
    Ok(())
}

/// Somebody complains of a packet that left with the node's address, which `found` is the world's name for: makes of it a complaint to the
/// pod, and of the key that connection's. Whether the quoted packet's source is the key's `high`.
///
/// # Errors
/// [`Reason::UnrelatedError`].
#[inline(never)]
pub(crate) fn error_in(context: &mut Context, found: &Connection) -> Result<bool, Reason> {
    atomic::copy(&found.nat, &mut context.alias);
    if !found.key.same(&context.key) {
        return Err(Reason::UnrelatedError);
    }
    context.after.note(&context.headers);
    context.inner_after.note(&context.inner);
    let (after, quoted, alias) = (&mut context.after, &mut context.inner_after, &context.alias);
    after.destination = alias.address;
    quoted.source = alias.address;
    quoted.source_port = alias.port;
    Ok(Context::ends(
        &mut context.key,
        (&quoted.source, quoted.source_port),
        (&quoted.destination, quoted.destination_port),
    ))
}

/// The world's name for a connection gives way: so does the connection, for its answers would be lost. Its next packet has both begin again,
/// with the same port if it is free.
#[inline(never)]
pub(crate) fn evict<D: Datapath>(datapath: &D, context: &mut Context, name: &Connection) {
    let (key, led, nat) = (&context.evicted, &mut context.led, &name.nat);
    let (world, port) = if name.flags & ConntrackEntry::SOURCE_HIGH != 0 {
        (&key.high, key.high_port)
    } else {
        (&key.low, key.low_port)
    };
    led.protocol = key.protocol;
    led.leg = 0;
    led.icmp = key.icmp;
    led.reserved = 0;
    Context::ends(led, (&nat.address, nat.port), (world, port));
    if let Some(connection) = datapath.connection(&context.led)
        && connection.flags & ConntrackEntry::MASQUERADED != 0
    {
        track::fold(datapath, connection);
        datapath.remove_connection(&context.led);
    }
}

/// Whether an ICMP error from outside, for this node, quotes a packet that left with its address: the key of it is in the context then.
#[inline(never)]
pub(crate) fn is_complaint<D: Datapath, P: Packet + ?Sized>(
    datapath: &D,
    packet: &P,
    context: &mut Context,
) -> bool {
    let ipv4 = !context.headers.is(Headers::IPV6);
    let destination = &context.headers.destination;
    if !datapath
        .config()
        .is_some_and(|config| config.masquerade(ipv4).same(destination))
        || parse::quoted(packet, &context.headers, &mut context.inner).is_err()
    {
        return false;
    }
    Context::flow_key(&mut context.key, &context.inner);
    datapath
        .connection(&context.key)
        .is_some_and(|found| found.flags & ConntrackEntry::OUTER != 0)
}
