//! Services: choosing the backend that a packet to a frontend goes to, staying with it, and giving its answers the service's address.
//!
//! ```text
//! client's name for it   (client:p, service:80)    entry SERVICE ──┐
//! the connection         (client:p, backend:8080)  entry TRANSLATED ◀┘ judged, counted and answered like any other
//! ```
//!
//! The client's port is another one where the connection's key is taken. A backend that is the client itself sees the service's address in
//! place of its own, which it would not answer.

use crate::{
    Reason, atomic,
    conntrack::{Connection, ConntrackEntry, State, place},
    context::{Context, Located, Through},
    datapath::Datapath,
    event::Hook,
    parse::protocol,
    service::{Affinity, AffinityKey, Backend, Frontend, Service},
    track::{self, Known},
    translate,
};

/// How many of a list's elements are tried where one turns out to be another service's: the list has just been replaced.
const ATTEMPTS: u32 = 3;
/// How many client ports are tried.
const PORTS: u32 = 4;
/// The ports that take the place of the client's own begin here, and there are as many of them.
const FIRST_PORT: u16 = 0x8000;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// [`track::recognise`] for what is more than a connection of the packet's own ends.
#[inline(never)]
pub(crate) fn recognise<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
    found: &Connection,
) -> Known {
    let leads = found.flags & ConntrackEntry::SERVICE != 0;
    let source_high = found.flags & ConntrackEntry::SOURCE_HIGH != 0;
    if leads {
        atomic::copy(&found.nat, &mut context.alias);
    } else {
        atomic::copy(&found.nat, &mut context.nat);
    }
    // Read last, as ever. Only the client speaks by its own name of a connection.
    if !found.key.same(&context.key) || (leads && source_high != context.source_high) {
        return Known::No;
    }
    if !leads {
        return recognise_answer::<_, HOOK>(datapath, context, found, source_high);
    }
    if HOOK != Hook::FromEndpoint as u8 {
        return Known::No;
    }
    context.after.note(&context.headers);
    lead(context);
    let Some(connection) = datapath.connection(&context.key) else {
        return begin_again(datapath, context);
    };
    let state = State::from_raw(connection.state.load());
    // Without a handshake nothing binds a flow to a backend that is no more; with one, nothing but the handshake's end.
    let bound = state != State::Opening && context.headers.has_handshake();
    if !is_the_client_s(context, connection) || !(bound || is_alive(datapath, context)) {
        return Known::No;
    }
    let known = track::recognise_led::<_, HOOK>(datapath, context, connection);
    if known == Known::No {
        return begin_again(datapath, context);
    }
    found.last_seen.store(context.now);
    found.state.store(state as u8);
    go(context);
    known
}

/// A packet that has the ends of a translated connection: an answer of the backend's, or a stranger.
#[inline(always)]
fn recognise_answer<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
    connection: &Connection,
    source_high: bool,
) -> Known {
    if source_high == context.source_high {
        context.occupied = true;
        // While the connection lives, a stranger's answers would be taken for the service's.
        return if is_over(context, connection) {
            Known::No
        } else {
            Known::Conflict
        };
    }
    let known = track::recognise_led::<_, HOOK>(datapath, context, connection);
    if known != Known::No {
        context.service = Through::Back;
    }
    known
}

/// A client's name leads to no connection that lives. What is in the midst of one goes to the same backend; all else chooses again.
#[inline(always)]
fn begin_again<D: Datapath>(datapath: &D, context: &mut Context) -> Known {
    if context.headers.has_handshake() && !context.headers.opens() && is_alive(datapath, context) {
        context.occupied = datapath.connection(&context.key).is_some();
        go(context);
    }
    Known::No
}

/// Whether the backend in `context.alias` still is one.
#[inline(always)]
fn is_alive<D: Datapath>(datapath: &D, context: &Context) -> bool {
    let alias = &context.alias;
    match datapath.backend(alias.other) {
        Some(backend) => {
            backend.service != 0
                && backend.port == alias.port
                && backend.address.same(&alias.address)
        }
        None => false,
    }
}

/// Writes into `context.after` where the packet in `context.headers` goes by `context.alias`, and the key of that connection.
#[inline(always)]
fn lead(context: &mut Context) {
    let (alias, after) = (&context.alias, &mut context.after);
    after.source = if alias.address.same(&context.headers.source) {
        context.headers.destination
    } else {
        context.headers.source
    };
    after.source_port = alias.client_port;
    after.destination = alias.address;
    after.destination_port = alias.port;
    context.source_high = Context::ends(
        &mut context.key,
        (&after.source, after.source_port),
        (&after.destination, after.destination_port),
    );
}

/// Sends the packet to its backend.
#[inline(always)]
fn go(context: &mut Context) {
    let (headers, nat) = (&context.headers, &mut context.nat);
    nat.address = headers.destination;
    nat.port = headers.destination_port;
    nat.client_port = headers.source_port;
    nat.other = 0;
    translate::packet(context);
    context.service = Through::Forth;
    context.flow |= ConntrackEntry::TRANSLATED;
}

/// Gives an answer that may pass the service's address.
#[inline(never)]
pub(crate) fn answer(context: &mut Context) {
    let (headers, nat, after) = (&context.headers, &context.nat, &mut context.after);
    after.source = nat.address;
    after.source_port = nat.port;
    after.destination = if nat.address.same(&headers.destination) {
        headers.source
    } else {
        headers.destination
    };
    after.destination_port = nat.client_port;
    translate::packet(context);
}

/// Whether the packet, which no connection is known for and whose ends are resolved, goes to a service. If so it has the backend's address
/// afterwards, and its ends must be resolved anew.
///
/// # Errors
/// Why a packet to a service's address goes nowhere.
#[inline(never)]
pub(crate) fn open<D: Datapath>(datapath: &D, context: &mut Context) -> Result<bool, Reason> {
    // What is known as a pod's or node's address is no service's.
    let destination = &context.destination;
    if context.service != Through::None
        || destination.slot != 0
        || destination.generation != place::OUTSIDE
        || context.located != Located::Anywhere
    {
        return Ok(false);
    }
    context.frontend = Frontend {
        address: context.headers.destination,
        port: context.headers.destination_port,
        protocol: context.headers.protocol,
        reserved: 0,
    };
    let has_ports = matches!(
        context.headers.protocol,
        protocol::TCP | protocol::UDP | protocol::SCTP
    );
    let found = if has_ports {
        frontend(datapath, &context.frontend)
    } else {
        None
    };
    let Some(service) = found else {
        context.frontend.port = 0;
        context.frontend.protocol = 0;
        return match frontend(datapath, &context.frontend) {
            Some(_) => Err(Reason::NoSuchServicePort),
            None => Ok(false),
        };
    };
    if service.flags & Service::NOT_READY != 0 {
        return Err(Reason::ServiceNotReady);
    }
    if service.count == 0 {
        context.silent = service.flags & Service::SILENT != 0;
        return Err(Reason::NoBackend);
    }
    let hash = translate::hash(&context.headers);
    choose(datapath, context, &service, hash)?;
    take_key(datapath, context, hash)?;
    go(context);
    Ok(true)
}

/// What is under a key in the services map.
#[inline(always)]
fn frontend<D: Datapath>(datapath: &D, key: &Frontend) -> Option<Service> {
    datapath
        .service(key)
        .filter(|service| service.frontend.same(key))
}

/// Chooses a backend into `context.alias`. The same packet always comes to the same one, so that a connection whose entries had to give way
/// finds it again.
#[inline(always)]
fn choose<D: Datapath>(
    datapath: &D,
    context: &mut Context,
    service: &Service,
    hash: u64,
) -> Result<(), Reason> {
    if service.affinity != 0 && stay(datapath, context, service) {
        return Ok(());
    }
    let mut hash = hash;
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let element = service.first + translate::scale(hash, service.count);
        if let Some(id) = datapath.listed_backend(element)
            && let Some(backend) = datapath.backend(id)
            && backend.service == service.number
        {
            take(context, &backend, id);
            if service.affinity != 0 {
                keep(datapath, context, service, id);
            }
            return Ok(());
        }
        hash = translate::mix(hash);
        attempt += 1;
    }
    Err(Reason::ServiceNotReady)
}

#[inline(always)]
fn take(context: &mut Context, backend: &Backend, id: u32) {
    let alias = &mut context.alias;
    alias.address = backend.address;
    alias.port = backend.port;
    alias.client_port = context.headers.source_port;
    alias.other = id;
}

/// Whether the client stays with the backend that it went to last, which is chosen then.
#[inline(always)]
fn stay<D: Datapath>(datapath: &D, context: &mut Context, service: &Service) -> bool {
    context.affinity.key = AffinityKey {
        client: context.headers.source,
        service: service.number,
    };
    let Some(last) = datapath.affinity(&context.affinity.key) else {
        return false;
    };
    let Affinity { key, backend, time } = last;
    if key.service != service.number
        || !key.client.same(&context.headers.source)
        || context.now.saturating_sub(time) > u64::from(service.affinity) * SECOND
    {
        return false;
    }
    match datapath.backend(backend) {
        Some(record) if record.service == service.number => {
            take(context, &record, backend);
            keep(datapath, context, service, backend);
            true
        }
        _ => false,
    }
}

#[inline(always)]
fn keep<D: Datapath>(datapath: &D, context: &mut Context, service: &Service, backend: u32) {
    context.affinity.key = AffinityKey {
        client: context.headers.source,
        service: service.number,
    };
    context.affinity.backend = backend;
    context.affinity.time = context.now;
    datapath.set_affinity(&context.affinity);
}

/// Finds a key for the connection to the backend in `context.alias`, with another port of the client's where its own is taken.
#[inline(always)]
fn take_key<D: Datapath>(datapath: &D, context: &mut Context, hash: u64) -> Result<(), Reason> {
    let sctp = context.headers.protocol == protocol::SCTP;
    // SCTP's checksum is of the whole packet: no port can change.
    if sctp && context.alias.port != context.headers.destination_port {
        return Err(Reason::Untranslatable);
    }
    context.after.note(&context.headers);
    let mut hash = hash;
    let mut attempt = 0;
    while attempt < PORTS {
        lead(context);
        let Some(other) = datapath.connection(&context.key) else {
            context.occupied = false;
            return Ok(());
        };
        if gives_way(context, other) {
            context.occupied = true;
            return Ok(());
        }
        if sctp {
            break;
        }
        hash = translate::mix(hash);
        #[allow(clippy::cast_possible_truncation)] // any 15 bits will do
        let port = FIRST_PORT | hash as u16;
        context.alias.client_port = port;
        attempt += 1;
    }
    Err(Reason::TranslationConflict)
}

/// Whether a connection under the key is over, or this very one, whose client's name for it had to give way.
#[inline(always)]
fn gives_way(context: &Context, other: &Connection) -> bool {
    is_the_client_s(context, other) || !other.key.same(&context.key) || is_over(context, other)
}

/// Whether a connection is the one that the packet's client has with its service.
#[inline(always)]
fn is_the_client_s(context: &Context, connection: &Connection) -> bool {
    let (nat, headers) = (&connection.nat, &context.headers);
    connection.flags & ConntrackEntry::TRANSLATED != 0
        && nat.port == headers.destination_port
        && nat.client_port == headers.source_port
        && nat.address.same(&headers.destination)
}

/// Whether a connection has ended, as the packet that has its key shows at the latest.
#[inline(always)]
fn is_over(context: &Context, connection: &Connection) -> bool {
    let state = State::from_raw(connection.state.load());
    let last_seen = connection.last_seen.load();
    state.expired(context.key.protocol, last_seen, context.now)
        || track::reopens(&context.headers, state, false)
}

/// Enters the client's name for the connection that was just admitted.
///
/// # Errors
/// [`Reason::ConntrackFull`] or [`Reason::ConntrackQuota`].
#[inline(never)]
pub(crate) fn remember<D: Datapath>(
    datapath: &D,
    context: &mut Context,
    state: State,
) -> Result<(), Reason> {
    let before = &context.before;
    let source_high = Context::ends(
        &mut context.key,
        (&before.source, before.source_port),
        (&before.destination, before.destination_port),
    );
    let owner = context.source.slot;
    track::take_position(datapath, context, owner)?;
    let entry = &mut context.entry;
    atomic::copy(&context.key, &mut entry.key);
    // What is counted is counted by the connection.
    entry.packets = [0; 2];
    entry.bytes = [0; 2];
    entry.source.cookie = 0;
    entry.destination.cookie = 0;
    entry.destination.slot = 0;
    entry.destination.generation = place::OUTSIDE;
    entry.owner = owner;
    entry.state = state as u8;
    entry.flags = ConntrackEntry::SERVICE;
    if source_high {
        entry.flags |= ConntrackEntry::SOURCE_HIGH;
    }
    entry.closing = 0;
    atomic::copy(&context.alias, &mut entry.nat);
    if !datapath.insert_connection(&context.entry) {
        return Err(Reason::ConntrackFull);
    }
    Ok(())
}

/// A client complains of an answer under the name that it knows the connection by: makes of it a complaint to the backend, and of the key
/// that connection's. Whether the quoted packet's source is the key's `high`.
///
/// # Errors
/// [`Reason::UnrelatedError`].
#[inline(never)]
pub(crate) fn error_forth(context: &mut Context, found: &Connection) -> Result<bool, Reason> {
    atomic::copy(&found.nat, &mut context.alias);
    if !found.key.same(&context.key) {
        return Err(Reason::UnrelatedError);
    }
    let (inner, alias) = (&context.inner, &context.alias);
    let (after, quoted) = (&mut context.after, &mut context.inner_after);
    quoted.source = alias.address;
    quoted.source_port = alias.port;
    quoted.destination = if alias.address.same(&inner.destination) {
        inner.source
    } else {
        inner.destination
    };
    quoted.destination_port = alias.client_port;
    after.source = if context.headers.source.same(&inner.destination) {
        quoted.destination
    } else {
        context.headers.source
    };
    after.destination = alias.address;
    Ok(Context::ends(
        &mut context.key,
        (&quoted.source, quoted.source_port),
        (&quoted.destination, quoted.destination_port),
    ))
}

/// Somebody complains of a packet to a backend: makes of it a complaint to the client, in the words that it knows the connection by.
#[inline(never)]
pub(crate) fn error_back(context: &mut Context, connection: &Connection) {
    let (inner, nat) = (&context.inner, &connection.nat);
    let (after, quoted) = (&mut context.after, &mut context.inner_after);
    quoted.source = if nat.address.same(&inner.source) {
        inner.destination
    } else {
        inner.source
    };
    quoted.source_port = nat.client_port;
    quoted.destination = nat.address;
    quoted.destination_port = nat.port;
    after.source = if context.headers.source.same(&inner.destination) {
        nat.address
    } else {
        context.headers.source
    };
    after.destination = quoted.source;
}
