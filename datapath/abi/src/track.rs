//! Connections: recognising a packet of a known one, keeping its state, judging it again when policy has changed, admitting new ones and
//! making room for them.
//!
//! How ends are found and judged is `judge`'s; what happens to the packet then is `classify`'s.

use crate::{
    Cookie, Identity, Reason, atomic, balance,
    config::Config,
    conntrack::{Connection, ConnectionEnd, ConntrackEnd, ConntrackEntry, State, place},
    context::{Context, Decision, End, Through},
    datapath::Datapath,
    event::Hook,
    judge, masquerade, overlay,
    parse::{Headers, is_icmp_answer, protocol, tcp},
    translate::{self, Changed},
};

/// How many connections are passed over when one must go.
const SECOND_CHANCES: u32 = 3;
/// A connection seen within this time is passed over, in nanoseconds.
const LIVELY: u64 = 5_000_000_000;

/// What the connection table says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Known {
    /// No connection, or one that this packet may not be taken for: the packet opens a new one.
    No = 0,
    /// A connection whose verdict holds. The ends are in the context.
    Yes = 1,
    /// A connection whose verdict is out of date. The ends' slots are not to be trusted.
    Stale = 2,
    /// Another connection, of other ends before translation, that the packet can't be told from.
    Conflict = 3,
}

/// Looks for the connection of the packet in `context.headers`; passes the packet if its verdict still holds.
#[inline(always)]
pub fn recognise<D: Datapath, const HOOK: u8>(datapath: &D, context: &mut Context) -> Known {
    context.source_high = Context::flow_key(&mut context.key, &context.headers);
    let Some(connection) = datapath.connection(&context.key) else {
        return Known::No;
    };
    if connection.flags & ConntrackEntry::UNUSUAL != 0 {
        return if connection.flags & ConntrackEntry::OUTER == 0 {
            balance::recognise::<_, HOOK>(datapath, context, connection)
        } else if HOOK == Hook::FromOutside as u8 {
            masquerade::recognise(datapath, context, connection)
        } else {
            Known::No
        };
    }
    recognise_as::<_, HOOK>(datapath, context, connection)
}

/// [`recognise_as`] for those that do not come there straight.
#[inline(never)]
pub(crate) fn recognise_led<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
    connection: &Connection,
) -> Known {
    recognise_as::<_, HOOK>(datapath, context, connection)
}

/// Whether the packet is of the connection that was found under its key.
#[inline(always)]
fn recognise_as<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
    connection: &Connection,
) -> Known {
    context.occupied = true;
    let source_high = connection.flags & ConntrackEntry::SOURCE_HIGH != 0;
    let reply = source_high != context.source_high;
    let state = State::from_raw(connection.state.load());
    if state.expired(
        context.key.protocol,
        connection.last_seen.load(),
        context.now,
    ) || reopens(&context.headers, state, reply)
    {
        return Known::No;
    }
    let fresh = holds(datapath, connection);
    let (opener, other) = (end(&connection.source), end(&connection.destination));
    (context.source, context.destination) = if reply {
        (other, opener)
    } else {
        (opener, other)
    };
    // Read last: an element that was reused meanwhile has another key by now, and all of the above was another connection's.
    if !connection.key.same(&context.key) {
        return Known::No;
    }
    context.reversed = reply;
    context.flow = connection.flags & ConntrackEntry::KEPT;
    if !fresh || !may_send::<_, HOOK>(datapath, context) {
        // Who an address of this node's own stood for when the connection began, it stands for still.
        let via_stack = context.flow & ConntrackEntry::VIA_STACK != 0;
        context.forwarded = (context.forwarded || via_stack)
            && !is_host(context.source)
            && !is_host(context.destination);
        atomic::copy(&connection.nat, &mut context.nat);
        return Known::Stale;
    }
    pass(context, connection, reply, state);
    Known::Yes
}

/// Whether a packet starts the connection anew: the same ports are used again after the end, or the answering end asks to open one.
#[inline(always)]
pub(crate) fn reopens(headers: &Headers, state: State, reply: bool) -> bool {
    headers.opens() && (state >= State::Closing || (reply && state != State::Opening))
}

/// Whether both ends' verdicts are of the tables as they are, for the ends as they are.
#[inline(always)]
fn holds<D: Datapath>(datapath: &D, connection: &Connection) -> bool {
    let ipv4 = connection.key.low.is_v4();
    connection.epoch.load() == datapath.epoch()
        && end_holds(datapath, &connection.source, ipv4, true)
        && end_holds(datapath, &connection.destination, ipv4, false)
}

#[inline(always)]
fn end_holds<D: Datapath>(datapath: &D, end: &ConnectionEnd, ipv4: bool, opener: bool) -> bool {
    if end.slot == 0 {
        return true;
    }
    let Some(endpoint) = judge::present(datapath, end.slot) else {
        return false;
    };
    if endpoint.generation != end.generation || endpoint.identity_of(ipv4).0 != end.identity.load()
    {
        return false;
    }
    let table = end.table.load();
    let current = if opener {
        endpoint.egress_table
    } else {
        endpoint.ingress_table
    };
    // A pod's traffic with itself is nobody's to judge and has no table.
    table == 0 || (table == current && end.revision.load() == datapath.revision(table))
}

#[inline(always)]
pub(crate) fn end(end: &ConnectionEnd) -> End {
    End {
        identity: Identity(end.identity.load()),
        slot: end.slot,
        generation: end.generation,
        reserved: 0,
    }
}

/// Whether the source end may be where this packet came from. Where not, the slow way finds the reason.
#[inline(always)]
fn may_send<D: Datapath, const HOOK: u8>(datapath: &D, context: &mut Context) -> bool {
    let source = context.source;
    if HOOK == Hook::FromEndpoint as u8 {
        let Some(endpoint) = judge::present(datapath, source.slot) else {
            return false;
        };
        context.slot = source.slot;
        return endpoint.ifindex == context.ifindex
            && same_mac(&endpoint.mac, &context.headers.source_mac)
            && endpoint.owns(&context.headers.source);
    }
    if HOOK == Hook::FromOutside as u8 {
        return source.slot == 0
            && source.generation != place::HOST
            && !judge::comes_wrapped(context.flags, source.identity);
    }
    if HOOK == Hook::FromOverlay as u8 {
        return overlay::may_send(datapath, context);
    }
    let made_here = context.ingress_ifindex == 0;
    let may = if source.slot == 0 {
        let own = source.generation == place::HOST;
        // Whom netfilter sent the pod's packets on to, answers in this node's name.
        made_here == own || (own && context.reversed)
    } else {
        judge::through_stack(datapath, source.slot, context)
    };
    may && judge::is_at(datapath, context.destination.slot, context)
}

/// Whether an end is this node itself.
#[inline(always)]
const fn is_host(end: End) -> bool {
    end.slot == 0 && end.generation == place::HOST
}

/// Whether two hardware addresses are the same, by half words and without a call to `memcmp`.
#[inline(always)]
pub(crate) const fn same_mac(a: &[u8; 6], b: &[u8; 6]) -> bool {
    let [a, b] = [half_words(a), half_words(b)];
    a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
}

#[inline(always)]
#[allow(clippy::many_single_char_names)] // bytes have no better names
const fn half_words(&[a, b, c, d, e, f]: &[u8; 6]) -> [u16; 3] {
    [
        u16::from_ne_bytes([a, b]),
        u16::from_ne_bytes([c, d]),
        u16::from_ne_bytes([e, f]),
    ]
}

/// Counts the packet and moves the connection's state on.
#[inline(always)]
fn pass(context: &Context, connection: &Connection, reply: bool, state: State) {
    connection.last_seen.store(context.now);
    let bytes = u64::from(context.length);
    if reply {
        connection.packets[1].add(1);
        connection.bytes[1].add(bytes);
    } else {
        connection.packets[0].add(1);
        connection.bytes[0].add(bytes);
    }
    if !context.headers.has_handshake() {
        if reply && state == State::Opening {
            connection.state.store(State::Established as u8);
        }
        return;
    }
    let flags = context.headers.tcp_flags;
    // Nearly every packet of a connection: data or acknowledgements while it is open.
    if state == State::Established && flags & (tcp::FIN | tcp::RST) == 0 {
        return;
    }
    advance(connection, flags, reply, state);
}

/// The state after a packet of a handshake's beginning or end.
#[inline(never)]
fn advance(connection: &Connection, flags: u8, reply: bool, state: State) {
    let mut next = state;
    if flags & tcp::RST != 0 {
        next = State::Closed;
    } else if flags & tcp::FIN != 0 {
        let direction = if reply { 2 } else { 1 };
        let closing = connection.closing.load() | direction;
        connection.closing.store(closing);
        next = if closing == 3 {
            State::Closed
        } else {
            State::Closing
        };
    } else if flags & tcp::SYN != 0 {
        if reply && state == State::Opening {
            next = State::Answered;
        }
    } else if flags & tcp::ACK != 0 && state < State::Established {
        // A data packet of the answering end shows that it has seen the handshake's end even if this program has not.
        if state == State::Answered || reply {
            next = State::Established;
        }
    }
    // Nothing leads back, whatever another CPU wrote meanwhile: the worst is a timeout a little longer than it need be.
    if next > state {
        connection.state.store(next as u8);
    }
}

/// Judges a known connection again by its original direction, as tables and addresses are now. `context` has the ends, newly resolved,
/// and `context.reversed` says which of them opened it.
///
/// # Errors
/// Why the connection may not go on. Its entry stays, with the revisions of before, so that each further packet is judged by the direction
/// that opened it: without the entry a packet in midstream is judged in both orientations, and the other one may be allowed.
#[inline(never)]
pub fn judge_again<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    let verdict = judge::judge_flow(datapath, context);
    let Some(connection) = datapath.connection(&context.key) else {
        // Forgotten by another CPU meanwhile; if the verdict is good, it begins again.
        return match verdict {
            Ok(()) => admit(datapath, context, State::Established),
            Err(reason) => Err(reason),
        };
    };
    fold(datapath, connection);
    verdict?;
    let (opener, other) = openers(context);
    if connection.source.slot != opener.slot
        || connection.source.generation != opener.generation
        || connection.destination.slot != other.slot
        || connection.destination.generation != other.generation
    {
        // An address has moved: what is written once must be written anew.
        let state = State::from_raw(connection.state.load());
        return admit(datapath, context, state);
    }
    renew(&connection.source, opener, &context.egress);
    renew(&connection.destination, other, &context.ingress);
    connection.epoch.store(context.epoch);
    let state = State::from_raw(connection.state.load());
    pass(context, connection, context.reversed, state);
    Ok(())
}

/// The revision goes last: until it is there, other CPUs judge for themselves.
#[inline(always)]
fn renew(kept: &ConnectionEnd, end: End, decision: &Decision) {
    kept.identity.store(end.identity.0);
    kept.cookie.store(decision.cookie.0);
    kept.table.store(decision.table);
    kept.revision.store(decision.revision);
}

/// The opening end and the other.
#[inline(always)]
fn openers(context: &Context) -> (End, End) {
    if context.reversed {
        (context.destination, context.source)
    } else {
        (context.source, context.destination)
    }
}

/// Judges a packet that no connection is known for. A packet from the middle of a connection (the programs were loaded after it began,
/// or its entry had to give way) is judged in both orientations; the allowed one is its original.
///
/// # Errors
/// Why the packet, as the opener of a flow, is dropped.
#[inline(always)]
pub fn judge_new<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    context.reversed = false;
    let Err(reason) = judge::judge_flow(datapath, context) else {
        return Ok(());
    };
    if !context.headers.has_handshake() || context.headers.opens() {
        return Err(reason);
    }
    let (egress, ingress) = (context.egress, context.ingress);
    context.reversed = true;
    if judge::judge_flow(datapath, context).is_ok() {
        return Ok(());
    }
    context.reversed = false;
    context.egress = egress;
    context.ingress = ingress;
    Err(reason)
}

/// Enters the judged packet's flow into the table, unless it is none that goes on.
///
/// # Errors
/// [`Reason::ConntrackFull`].
#[inline(always)]
pub fn begin<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
) -> Result<(), Reason> {
    let headers = &context.headers;
    // An answer that nobody asked for, or a reset of what is not known, opens nothing.
    if headers.is(Headers::CONNECTIONLESS)
        || is_icmp_answer(headers)
        || headers.tcp_flags & tcp::RST != 0
    {
        return Ok(());
    }
    let midway = headers.has_handshake() && !headers.opens();
    let state = if !midway {
        State::Opening
    } else if headers.tcp_flags & tcp::SYN != 0 {
        State::Answered
    } else {
        State::Established
    };
    if HOOK == Hook::FromEndpoint as u8 {
        masquerade::begin(datapath, context)?;
    }
    admit(datapath, context, state)?;
    if HOOK == Hook::FromEndpoint as u8 && context.service == Through::Forth {
        balance::remember(datapath, context, state)?;
    }
    crate::report::connection(datapath, context);
    Ok(())
}

/// Writes the entry of the flow in `context`.
#[inline(never)]
fn admit<D: Datapath>(datapath: &D, context: &mut Context, state: State) -> Result<(), Reason> {
    let (opener, other) = openers(context);
    let owner = if opener.slot == 0 {
        other.slot
    } else {
        opener.slot
    };
    // What was counted under this key so far must not be lost with the entry that is overwritten.
    if context.occupied
        && let Some(connection) = datapath.connection(&context.key)
    {
        fold(datapath, connection);
    }
    take_position(datapath, context, owner)?;
    let mut flags = 0;
    if context.source_high != context.reversed {
        flags |= ConntrackEntry::SOURCE_HIGH;
    }
    if context.egress.log || context.ingress.log {
        flags |= ConntrackEntry::LOG;
    }
    flags |= context.flow;
    if context.hook == Hook::ToEndpoint && !context.reversed {
        flags |= ConntrackEntry::VIA_STACK;
    }
    let bytes = u64::from(context.length);
    let entry = &mut context.entry;
    atomic::copy(&context.key, &mut entry.key);
    entry.created = context.now;
    entry.last_seen = context.now;
    if context.reversed {
        entry.packets = [0, 1];
        entry.bytes = [0, bytes];
    } else {
        entry.packets = [1, 0];
        entry.bytes = [bytes, 0];
    }
    write_end(&mut entry.source, opener, &context.egress);
    write_end(&mut entry.destination, other, &context.ingress);
    entry.epoch = context.epoch;
    entry.owner = owner;
    entry.state = state as u8;
    entry.flags = flags;
    entry.closing = closing_bits(&context.headers, context.reversed);
    entry.reserved = 0;
    if context.flow & (ConntrackEntry::TRANSLATED | ConntrackEntry::MASQUERADED) != 0 {
        atomic::copy(&context.nat, &mut entry.nat);
    } else {
        atomic::clear(&mut entry.nat);
    }
    if !datapath.insert_connection(&context.entry) {
        return Err(Reason::ConntrackFull);
    }
    Ok(())
}

#[inline(always)]
const fn closing_bits(headers: &Headers, reply: bool) -> u8 {
    match (headers.tcp_flags & tcp::FIN != 0, reply) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}

#[inline(always)]
fn write_end(kept: &mut ConntrackEnd, end: End, decision: &Decision) {
    kept.identity = end.identity.0;
    kept.table = decision.table;
    kept.revision = decision.revision;
    kept.cookie = decision.cookie.0;
    kept.slot = end.slot;
    kept.generation = end.generation;
}

/// Takes the next position of the owner's ring and evicts what lies there: a flood can only take the place of its own endpoint's
/// connections. Lively established ones are passed over a few times. The position goes into the entry.
#[inline(never)]
pub(crate) fn take_position<D: Datapath>(
    datapath: &D,
    context: &mut Context,
    owner: u32,
) -> Result<(), Reason> {
    let Some(&Config {
        conntrack_quota: quota,
        ..
    }) = datapath.config()
    else {
        return Err(Reason::Internal);
    };
    if quota == 0 {
        return Err(Reason::ConntrackQuota);
    }
    let mut chances = SECOND_CHANCES;
    loop {
        #[allow(clippy::cast_possible_truncation)] // a position is a number modulo the quota
        let position = datapath.next_position(owner) as u32 & (quota - 1);
        let element = owner * quota + position;
        if !datapath.ring_key(element, &mut context.evicted) {
            return Err(Reason::ConntrackQuota);
        }
        if !context.evicted.is_empty()
            && let Some(old) = datapath.connection(&context.evicted)
            && old.owner == owner
            && old.position == position
        {
            if chances > 0 && lively(old, context.now) {
                chances -= 1;
                continue;
            }
            fold(datapath, old);
            if old.flags & ConntrackEntry::OUTER != 0 {
                masquerade::evict(datapath, context, old);
            }
            datapath.remove_connection(&context.evicted);
        }
        datapath.set_ring_key(element, &context.key);
        context.entry.position = position;
        return Ok(());
    }
}

#[inline(always)]
fn lively(connection: &Connection, now: u64) -> bool {
    connection.state.load() == State::Established as u8
        && now.saturating_sub(connection.last_seen.load()) < LIVELY
}

/// Moves an entry's counts to the rules that allowed it.
#[inline(never)]
pub(crate) fn fold<D: Datapath>(datapath: &D, connection: &Connection) {
    let packets = connection.packets[0].take() + connection.packets[1].take();
    let bytes = connection.bytes[0].take() + connection.bytes[1].take();
    if packets == 0 {
        return;
    }
    let source = Cookie(connection.source.cookie.load());
    let destination = Cookie(connection.destination.cookie.load());
    if source != Cookie::NONE {
        datapath.count_rule(source, packets, bytes);
    }
    // What decided at both ends decided once, as userland counts live connections.
    if destination != Cookie::NONE && destination != source {
        datapath.count_rule(destination, packets, bytes);
    }
}

/// Looks for the connection that the packet quoted in an ICMP error belongs to, and passes the error if that connection's verdict holds.
/// `context.inner` says what is quoted.
///
/// # Errors
/// [`Reason::UnrelatedError`].
#[inline(never)]
pub fn relate<D: Datapath, const HOOK: u8>(
    datapath: &D,
    context: &mut Context,
) -> Result<(), Reason> {
    let (outer, inner) = (&context.headers, &context.inner);
    // An error goes to who sent the packet. A pod is no router: it can only complain of what was sent to it.
    if !inner.source.same(&outer.destination)
        || (context.hook == Hook::FromEndpoint && !inner.destination.same(&outer.source))
    {
        return Err(Reason::UnrelatedError);
    }
    let mut quoted_high = Context::flow_key(&mut context.key, &context.inner);
    let Some(mut connection) = datapath.connection(&context.key) else {
        return Err(Reason::UnrelatedError);
    };
    let by = connection.flags & (ConntrackEntry::SERVICE | ConntrackEntry::OUTER);
    if by != 0 {
        let forth = by & ConntrackEntry::SERVICE != 0;
        let led = if HOOK == Hook::FromEndpoint as u8 && forth {
            quoted_high = balance::error_forth(context, connection)?;
            ConntrackEntry::TRANSLATED
        } else if HOOK == Hook::FromOutside as u8 && !forth {
            quoted_high = masquerade::error_in(context, connection)?;
            ConntrackEntry::MASQUERADED
        } else {
            return Err(Reason::UnrelatedError);
        };
        connection = match datapath.connection(&context.key) {
            Some(connection) if connection.flags & led != 0 => connection,
            _ => return Err(Reason::UnrelatedError),
        };
    }
    let source_high = connection.flags & ConntrackEntry::SOURCE_HIGH != 0;
    let state = State::from_raw(connection.state.load());
    let over = state.expired(
        context.key.protocol,
        connection.last_seen.load(),
        context.now,
    );
    // A verdict that is out of date is judged again by the connection's own next packet, not by what somebody says of it.
    if over || !holds(datapath, connection) || !connection.key.same(&context.key) {
        return Err(Reason::UnrelatedError);
    }
    context.flow = connection.flags & ConntrackEntry::KEPT;
    // The quoted packet travelled against the error.
    let direction = usize::from(source_high == quoted_high);
    if by & ConntrackEntry::SERVICE != 0 {
        context.destination = end(&connection.destination);
        translate::error(context);
        return count_error(context, connection, direction);
    }
    if by & ConntrackEntry::OUTER != 0 {
        context.destination = end(&connection.source);
        translate::error(context);
    }
    if context.flow & ConntrackEntry::TRANSLATED != 0 {
        if direction == 0 {
            // Nobody but the service's clients is sent what is translated back, and they know it by other addresses.
            return Err(Reason::UnrelatedError);
        }
        context.destination = end(&connection.source);
        balance::error_back(context, connection);
        translate::error(context);
    }
    count_error(context, connection, direction)
}

/// Counts an error that passes for a connection's.
#[inline(always)]
#[allow(clippy::unnecessary_wraps)] // it is `relate`'s last word
fn count_error(context: &Context, connection: &Connection, direction: usize) -> Result<(), Reason> {
    let bytes = u64::from(context.length);
    if direction == 0 {
        connection.packets[0].add(1);
        connection.bytes[0].add(bytes);
    } else {
        connection.packets[1].add(1);
        connection.bytes[1].add(bytes);
    }
    Ok(())
}

/// Gives a later fragment the ports of its packet's first one.
///
/// # Errors
/// [`Reason::FragmentWithoutFirst`].
#[inline(never)]
pub fn recall_fragment<D: Datapath>(datapath: &D, context: &mut Context) -> Result<(), Reason> {
    fragment_key(context);
    let Some(first) = datapath.fragment(&context.fragment_key) else {
        return Err(Reason::FragmentWithoutFirst);
    };
    if first.key != context.fragment_key
        || context.now.saturating_sub(first.time) > crate::conntrack::FragmentValue::TIMEOUT
    {
        return Err(Reason::FragmentWithoutFirst);
    }
    let headers = &mut context.headers;
    headers.protocol = first.protocol;
    headers.source_port = first.source_port;
    headers.destination_port = first.destination_port;
    headers.icmp_type = first.icmp_type;
    headers.icmp_code = first.icmp_code;
    headers.icmp_query = first.icmp_query;
    if matches!(first.protocol, protocol::ICMP | protocol::ICMPV6) && first.icmp_query == 0 {
        headers.flags |= Headers::CONNECTIONLESS;
    }
    Ok(())
}

/// Remembers a first fragment that passed: later ones come as it came, and where it is changed once more on its way, as it leaves here.
#[inline(never)]
pub fn remember_fragment<D: Datapath>(datapath: &D, context: &mut Context) {
    if context.changed == Changed::Nothing {
        remember_fragment_as(datapath, context, false);
        return;
    }
    remember_fragment_as(datapath, context, true);
    if context.flow & ConntrackEntry::MASQUERADED != 0 {
        remember_fragment_as(datapath, context, false);
    }
}

#[inline(never)]
fn remember_fragment_as<D: Datapath>(datapath: &D, context: &mut Context, before: bool) {
    fragment_key(context);
    if before {
        context.fragment_key.source = context.before.source;
        context.fragment_key.destination = context.before.destination;
    }
    let (headers, value) = (&context.headers, &mut context.fragment);
    value.key = context.fragment_key;
    value.time = context.now;
    (value.source_port, value.destination_port) = if before {
        (context.before.source_port, context.before.destination_port)
    } else {
        (headers.source_port, headers.destination_port)
    };
    value.icmp_type = headers.icmp_type;
    value.icmp_code = headers.icmp_code;
    value.protocol = headers.protocol;
    value.icmp_query = headers.icmp_query;
    datapath.insert_fragment(&context.fragment);
}

#[inline(always)]
fn fragment_key(context: &mut Context) {
    let (headers, key) = (&context.headers, &mut context.fragment_key);
    key.source = headers.source;
    key.destination = headers.destination;
    key.id = headers.fragment_id;
    key.protocol = headers.fragment_protocol;
    key.reserved = [0; 3];
}
