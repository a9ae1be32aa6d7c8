//! Telling userland: drop counters, limited drop events, events of new connections and traces.
//!
//! Nothing here changes what happens to a packet.

use crate::{
    Cookie, Reason,
    context::{Context, Decision, End, Outcome},
    datapath::{Bucket, Datapath},
    event::{Event, EventEnd, EventKind, Hook},
    parse::Headers,
};

/// Drops the packet for `reason`: counts it, counts it for the rule that decided, and tells of it unless too many were told of already.
#[inline(never)]
pub fn dropped<D: Datapath>(datapath: &D, context: &mut Context, reason: Reason) -> Outcome {
    context.reason = reason;
    let bytes = u64::from(context.length);
    datapath.count_drop(context.hook, reason, bytes);
    let cookie = if context.egress.reason == Reason::None {
        context.ingress.cookie
    } else {
        context.egress.cookie
    };
    let decided = context.egress.reason == reason || context.ingress.reason == reason;
    if decided && cookie != Cookie::NONE {
        datapath.count_rule(cookie, 1, bytes);
    }
    if context.slot == 0 && matches!(context.hook, Hook::FromEndpoint | Hook::ToEndpoint) {
        context.slot = datapath.slot_by_ifindex(context.ifindex);
    }
    let suppressed = match datapath.bucket(context.slot, reason) {
        Some(bucket) if !admit(datapath, bucket, context.now) => return Outcome::Drop,
        Some(bucket) => bucket.suppressed.load(),
        None => 0,
    };
    write_event(datapath, context, EventKind::Drop, suppressed);
    Outcome::Drop
}

/// Takes a token; where there is none, counts the event as held back.
///
/// The generic cell rate algorithm in one word: the time at which the bucket would be full again moves on by one interval with each
/// token. A token is there while that time is less than the burst ahead.
#[inline(always)]
fn admit<D: Datapath>(datapath: &D, bucket: &Bucket, now: u64) -> bool {
    let Some(config) = datapath.config() else {
        return true;
    };
    let interval = config.drop_event_interval;
    if interval == 0 {
        return true;
    }
    let full_at = bucket.full_at.load();
    let next = if full_at > now { full_at } else { now } + interval;
    let allowed = next - now <= interval * config.drop_event_burst;
    // Of two CPUs that take the same token only one gets it.
    if allowed && bucket.full_at.replace(full_at, next) {
        return true;
    }
    bucket.suppressed.add(1);
    false
}

/// Tells of a connection that was admitted.
#[inline(never)]
pub fn connection<D: Datapath>(datapath: &D, context: &mut Context) {
    write_event(datapath, context, EventKind::NewConnection, 0);
}

/// Tells what both ends decided of a traced packet.
#[inline(never)]
pub fn traced<D: Datapath>(datapath: &D, context: &mut Context) {
    write_event(datapath, context, EventKind::Trace, 0);
}

/// Fills the event and sends it.
#[inline(always)]
fn write_event<D: Datapath>(datapath: &D, context: &mut Context, kind: EventKind, suppressed: u64) {
    let headers = &context.headers;
    let (source, destination) = (
        (context.source, headers.source, headers.source_port),
        (
            context.destination,
            headers.destination,
            headers.destination_port,
        ),
    );
    let (opener, other) = if context.reversed {
        (destination, source)
    } else {
        (source, destination)
    };
    let event = &mut context.event;
    write_end(&mut event.source, opener, &context.egress);
    write_end(&mut event.destination, other, &context.ingress);
    event.time = datapath.precise_now();
    event.suppressed = suppressed;
    event.ifindex = context.ifindex;
    event.length = context.length;
    event.slot = context.slot;
    event.kind = kind as u8;
    event.reason = context.reason as u8;
    event.hook = context.hook as u8;
    event.flags = 0;
    if context.reversed {
        event.flags |= Event::REPLY;
    }
    if context.egress.log || context.ingress.log {
        event.flags |= Event::LOG;
    }
    if headers.is(Headers::IPV6) {
        event.flags |= Event::IPV6;
    }
    event.protocol = headers.protocol;
    event.tcp_flags = headers.tcp_flags;
    event.icmp_type = headers.icmp_type;
    event.icmp_code = headers.icmp_code;
    event.ether_type = if headers.protocol == 0 && headers.end == 0 {
        headers.ether_type
    } else {
        0
    };
    event.reserved = 0;
    datapath.emit(&context.event);
}

#[inline(always)]
fn write_end(
    event: &mut EventEnd,
    (end, address, port): (End, crate::ipcache::Address, u16),
    decision: &Decision,
) {
    event.address = address;
    event.identity = end.identity;
    event.cookie = decision.cookie;
    event.table = decision.table;
    event.revision = decision.revision;
    event.redirect = decision.redirect;
    event.slot = end.slot;
    event.port = port;
    event.verdict = decision.verdict;
    event.reason = decision.reason as u8;
    event.reserved = 0;
}
