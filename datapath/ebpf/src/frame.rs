//! The packet as the kernel hands it over: reading its bytes, and sending it where it was judged to go.

// Lengths here are constants below 256, which no cast can change, and a frame's start is aligned for half words.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_ptr_alignment
)]

use core::ptr::from_mut;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
        BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup,
        bpf_redir_neigh, bpf_tunnel_key,
        tcx_action_base::{TCX_DROP, TCX_NEXT},
    },
    helpers::generated::{
        bpf_csum_diff, bpf_fib_lookup as fib_lookup, bpf_l3_csum_replace, bpf_l4_csum_replace,
        bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_tail,
        bpf_skb_change_type, bpf_skb_get_tunnel_key, bpf_skb_load_bytes, bpf_skb_pull_data,
        bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
    },
};
use sluice_abi::{
    classify::Seen,
    conntrack::ConntrackEntry,
    context::{Context, Outcome},
    endpoint::Endpoint,
    event::Hook,
    ipcache::Address,
    masquerade::MARK,
    neighbour::Reply,
    overlay::Tunnel,
    packet::{HEAD, Head, Packet},
    parse::{Headers, protocol},
    translate::{Changed, checksum_at, checksum_has_addresses, identifier, ports_at},
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_SUCCESS`.
const FIB_SUCCESS: i64 = 0;
/// `PACKET_HOST` of the kernel's `if_packet.h`: for this machine.
const PACKET_HOST: u32 = 0;
/// Hop limit of the outer packet, as tunnels of the kernel have by default.
const TUNNEL_TTL: u8 = 64;
/// Ethernet and IPv4 without options: what is written to.
const WRITTEN: usize = 34;
/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;
const PSEUDO: u64 = BPF_F_PSEUDO_HDR as u64;

/// One frame.
#[derive(Clone, Copy)]
pub(crate) struct Frame(*mut __sk_buff);

impl Frame {
    /// The frame that a program was started for.
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    /// Where it was seen.
    #[inline(always)]
    pub(crate) fn seen(self) -> Seen {
        // SAFETY: the kernel's context is valid while the program runs.
        unsafe {
            Seen {
                ifindex: (*self.0).ifindex,
                ingress_ifindex: (*self.0).ingress_ifindex,
            }
        }
    }

    /// Gives it another mark.
    #[inline(always)]
    pub(crate) fn set_mark(self, mark: u32) {
        // SAFETY: the kernel's context is valid while the program runs, and lets this be written.
        unsafe { (*self.0).mark = mark };
    }

    /// The mark that it bears; for a test packet, that userland gave it.
    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        // SAFETY: the kernel's context is valid while the program runs.
        unsafe { (*self.0).mark }
    }

    /// Does what was decided; the program's return value.
    #[inline(always)]
    pub(crate) fn send(
        self,
        outcome: Outcome,
        context: &mut Context,
        target: Option<&Endpoint>,
        by_fib: bool,
        overlay: u32,
    ) -> i32 {
        if context.changed != Changed::Nothing
            && !matches!(outcome, Outcome::Drop | Outcome::Reply)
            && !self.translate(context)
        {
            return TCX_DROP;
        }
        if context.flow & ConntrackEntry::MASQUERADED != 0 && context.hook == Hook::FromEndpoint {
            self.set_mark(self.mark() | MARK);
        }
        match outcome {
            Outcome::Drop => TCX_DROP,
            Outcome::Deliver => match target {
                Some(endpoint) => self.deliver(context, endpoint),
                None => TCX_DROP,
            },
            Outcome::Route if by_fib => self.route(context),
            Outcome::Stack | Outcome::Route => TCX_NEXT,
            Outcome::Reply => self.reply(context),
            Outcome::Tunnel => {
                if !self.wrap(&context.tunnel) || !self.rewrite(context, None) {
                    return TCX_DROP;
                }
                // SAFETY: the helper takes numbers only.
                action(unsafe { bpf_redirect(overlay, 0) })
            }
            Outcome::Wrap => {
                if self.wrap(&context.tunnel) {
                    TCX_NEXT
                } else {
                    TCX_DROP
                }
            }
            Outcome::Accept => {
                // SAFETY: the context is valid; a packet that stays of another type is not taken, which harms nobody.
                unsafe { bpf_skb_change_type(self.0.cast(), PACKET_HOST) };
                TCX_NEXT
            }
        }
    }

    /// Reads what the packet was, or is to be, wrapped in; false if it isn't. A sub-program as [`Frame::wrap`] is.
    #[inline(never)]
    pub(crate) fn tunnel(self, into: &mut Tunnel) -> bool {
        // SAFETY: plain numbers, for which zero is valid.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        if self.tunnel_key(&mut key, 0) {
            // SAFETY: without the flag the kernel has written an IPv4 address, in host byte order.
            let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
            into.remote = Address::v4(remote.to_be_bytes());
            into.vni = key.tunnel_id;
            return true;
        }
        if self.tunnel_key(&mut key, u64::from(BPF_F_TUNINFO_IPV6)) {
            // SAFETY: with the flag the kernel has written an IPv6 address, in network byte order.
            let remote = unsafe { key.__bindgen_anon_1.remote_ipv6 };
            into.remote = Address::of_words(remote);
            into.vni = key.tunnel_id;
            return true;
        }
        false
    }

    #[inline(always)]
    fn tunnel_key(self, key: &mut bpf_tunnel_key, flags: u64) -> bool {
        let size = size_of::<bpf_tunnel_key>() as u32;
        // SAFETY: the context is valid, the structure is the kernel's and initialised whole.
        unsafe { bpf_skb_get_tunnel_key(self.0.cast(), from_mut(key), size, flags) == 0 }
    }

    /// Says how the tunnel device is to wrap the packet. A sub-program of its own: the programs' own stack is for what they read.
    #[inline(never)]
    fn wrap(self, tunnel: &Tunnel) -> bool {
        // SAFETY: plain numbers, for which zero is valid.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        key.tunnel_id = tunnel.vni;
        key.tunnel_ttl = TUNNEL_TTL;
        let flags = if tunnel.remote.is_v4() {
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be(tunnel.remote.words()[3]);
            key.__bindgen_anon_3.local_ipv4 = u32::from_be(tunnel.local.words()[3]);
            // The inner packet has its own checksums, and IPv4 lets the outer one be without (RFC 7348, section 5).
            BPF_F_ZERO_CSUM_TX
        } else {
            key.__bindgen_anon_1.remote_ipv6 = tunnel.remote.words();
            key.__bindgen_anon_3.local_ipv6 = tunnel.local.words();
            BPF_F_TUNINFO_IPV6
        };
        let size = size_of::<bpf_tunnel_key>() as u32;
        // SAFETY: the context is valid, the structure is the kernel's and initialised whole.
        unsafe {
            bpf_skb_set_tunnel_key(self.0.cast(), from_mut(&mut key), size, u64::from(flags)) == 0
        }
    }

    /// To a pod of this node, past the stack.
    #[inline(always)]
    fn deliver(self, context: &Context, endpoint: &Endpoint) -> i32 {
        if !self.rewrite(context, Some(endpoint)) {
            return TCX_DROP;
        }
        // SAFETY: the helper takes numbers only. It fails closed: an interface without a peer drops the packet.
        action(unsafe { bpf_redirect_peer(endpoint.ifindex, 0) })
    }

    /// By the node's routes, past the stack. What these do not say clearly is left to the stack.
    #[inline(never)]
    fn route(self, context: &Context) -> i32 {
        let headers = &context.headers;
        // SAFETY: plain numbers, for which zero is valid.
        let mut query: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        query.ifindex = context.ifindex;
        query.l4_protocol = headers.protocol;
        let (source, destination) = (headers.source.words(), headers.destination.words());
        if headers.is(Headers::IPV6) {
            query.family = AF_INET6;
            query.__bindgen_anon_3.ipv6_src = source;
            query.__bindgen_anon_4.ipv6_dst = destination;
        } else {
            query.family = AF_INET;
            query.__bindgen_anon_3.ipv4_src = source[3];
            query.__bindgen_anon_4.ipv4_dst = destination[3];
        }
        let size = size_of::<bpf_fib_lookup>();
        // SAFETY: the context is valid, the structure is the kernel's and initialised whole.
        let found = unsafe {
            fib_lookup(
                self.0.cast(),
                from_mut(&mut query),
                size as i32,
                BPF_FIB_LOOKUP_SKIP_NEIGH,
            )
        };
        if found != FIB_SUCCESS || !self.rewrite(context, None) {
            return TCX_NEXT;
        }
        // SAFETY: plain numbers, for which zero is valid.
        let mut hop: bpf_redir_neigh = unsafe { core::mem::zeroed() };
        // The route may lead an IPv4 packet over an IPv6 neighbour.
        hop.nh_family = u32::from(query.family);
        // SAFETY: both are the same words, whichever family they hold.
        unsafe {
            hop.__bindgen_anon_1.ipv6_nh = query.__bindgen_anon_4.ipv6_dst;
        }
        let size = size_of::<bpf_redir_neigh>();
        // SAFETY: the structure is the kernel's and initialised whole.
        action(unsafe { bpf_redirect_neigh(query.ifindex, from_mut(&mut hop), size as i32, 0) })
    }

    /// Back where it came from.
    #[inline(never)]
    fn reply(self, context: &mut Context) -> i32 {
        let bytes = context.reply.bytes.as_ptr().cast();
        // SAFETY: the context is valid, and both lengths are within the reply's bytes.
        let written = unsafe {
            match context.reply.length {
                Reply::ARP => {
                    bpf_skb_store_bytes(self.0.cast(), 0, bytes, u32::from(Reply::ARP), 0)
                }
                Reply::ADVERTISEMENT => self.replace(bytes, u32::from(Reply::ADVERTISEMENT)),
                Reply::RESET_IPV4 => self.replace(bytes, u32::from(Reply::RESET_IPV4)),
                Reply::RESET_IPV6 => self.replace(bytes, u32::from(Reply::RESET_IPV6)),
                Reply::UNREACHABLE_IPV4 => self.replace(bytes, u32::from(Reply::UNREACHABLE_IPV4)),
                _ => self.replace(bytes, u32::from(Reply::UNREACHABLE_IPV6)),
            }
        };
        if written != 0 {
            return TCX_DROP;
        }
        // A refusal comes out of the network, and not from the node: past the program that judges what the node sends.
        let inside = !matches!(context.reply.length, Reply::ARP | Reply::ADVERTISEMENT);
        // SAFETY: the helpers take numbers only.
        action(unsafe {
            if inside {
                bpf_redirect_peer(context.ifindex, 0)
            } else {
                bpf_redirect(context.ifindex, 0)
            }
        })
    }

    /// Makes the frame `length` bytes and writes them.
    ///
    /// # Safety
    /// `bytes` must have as many.
    #[inline(always)]
    unsafe fn replace(self, bytes: *const core::ffi::c_void, length: u32) -> i64 {
        // SAFETY: the context is valid, and the caller vouches for the bytes.
        unsafe {
            match bpf_skb_change_tail(self.0.cast(), length, 0) {
                0 => bpf_skb_store_bytes(self.0.cast(), 0, bytes, length, 0),
                error => error,
            }
        }
    }

    /// Writes the ends that the packet was given, and mends its checksums. False if that fails, with the packet in any state.
    #[inline(never)]
    fn translate(self, context: &Context) -> bool {
        let (headers, before) = (&context.headers, &context.before);
        let addresses = difference(addresses_of(before), addresses_of(headers));
        if !self.put_addresses(headers, ETHERNET, addresses, true) {
            return false;
        }
        let flags = checksum_flags(headers);
        if let Some(at) = checksum_at(headers)
            && checksum_has_addresses(headers)
            && !self.mend(headers.transport + at, addresses, flags | PSEUDO)
        {
            return false;
        }
        if context.changed == Changed::Packet {
            let ports = (before.source_port, before.destination_port);
            let Some(ports) = self.put_ports(headers, ports) else {
                return false;
            };
            return match checksum_at(headers) {
                Some(at) => self.mend(headers.transport + at, ports, flags),
                None => true,
            };
        }
        self.translate_quoted(context)
    }

    /// The same for the packet that an ICMP error quotes. The quoted packet's own transport checksum stays: it is hardly ever there whole
    /// to be checked.
    #[inline(never)]
    fn translate_quoted(self, context: &Context) -> bool {
        let (headers, inner, before) = (&context.headers, &context.inner, &context.inner_before);
        let addresses = difference(addresses_of(before), addresses_of(inner));
        if !self.put_addresses(inner, headers.transport + 8, addresses, false) {
            return false;
        }
        let ports = (before.source_port, before.destination_port);
        let Some(ports) = self.put_ports(inner, ports) else {
            return false;
        };
        let checksum = headers.transport + 2;
        // An IPv4 header's own checksum makes up for its addresses.
        (!headers.is(Headers::IPV6) || self.mend(checksum, addresses, 0))
            && self.mend(checksum, ports, 0)
    }

    /// Writes a packet's addresses, and for IPv4 mends its header's checksum. `own`: it is the frame's own packet, whose IPv6 header nothing
    /// makes up for.
    #[inline(always)]
    fn put_addresses(self, headers: &Headers, at: u32, difference: u64, own: bool) -> bool {
        if headers.is(Headers::IPV6) {
            let flags = if own { BPF_F_RECOMPUTE_CSUM } else { 0 };
            let bytes = addresses_of(headers).cast();
            // SAFETY: the context is valid, and both addresses are there in a row.
            return unsafe {
                bpf_skb_store_bytes(self.0.cast(), at + 8, bytes, 32, u64::from(flags)) == 0
            };
        }
        let (source, destination) = (headers.source.words(), headers.destination.words());
        let both = [source[3], destination[3]];
        // SAFETY: the context is valid, and so are eight bytes.
        unsafe {
            bpf_l3_csum_replace(self.0.cast(), at + 10, 0, difference, 0) == 0
                && bpf_skb_store_bytes(self.0.cast(), at + 12, both.as_ptr().cast(), 8, 0) == 0
        }
    }

    /// Writes a packet's ports if it has some; how the checksum differs. `None` if that fails.
    #[inline(always)]
    fn put_ports(self, headers: &Headers, before: (u16, u16)) -> Option<u64> {
        let Some(at) = ports_at(headers) else {
            return Some(0);
        };
        let at = headers.transport + at;
        let new = (headers.source_port, headers.destination_port);
        let (old, new) = if at == headers.transport {
            (
                [before.0.to_be(), before.1.to_be()],
                [new.0.to_be(), new.1.to_be()],
            )
        } else {
            (
                [identifier(before.0, before.1).to_be(), 0],
                [identifier(new.0, new.1).to_be(), 0],
            )
        };
        let length = if at == headers.transport { 4 } else { 2 };
        // SAFETY: the context is valid, and the bytes are there.
        let written = unsafe {
            if length == 4 {
                bpf_skb_store_bytes(self.0.cast(), at, new.as_ptr().cast(), 4, 0)
            } else {
                bpf_skb_store_bytes(self.0.cast(), at, new.as_ptr().cast(), 2, 0)
            }
        };
        // SAFETY: four bytes each.
        let difference = unsafe {
            bpf_csum_diff(
                old.as_ptr().cast_mut().cast(),
                4,
                new.as_ptr().cast_mut().cast(),
                4,
                0,
            )
        };
        (written == 0).then_some(difference.cast_unsigned())
    }

    /// Mends a transport checksum. `PSEUDO` says that the difference is of addresses.
    #[inline(always)]
    fn mend(self, at: u32, difference: u64, flags: u64) -> bool {
        // SAFETY: the context is valid, and the rest are numbers.
        unsafe { bpf_l4_csum_replace(self.0.cast(), at, 0, difference, flags) == 0 }
    }

    /// Lowers the hop limit, and for an endpoint writes the hardware addresses of its link. False, with the packet unchanged, if the
    /// headers can't be written to.
    #[inline(always)]
    fn rewrite(self, context: &Context, endpoint: Option<&Endpoint>) -> bool {
        let Some(bytes) = self.writable() else {
            return false;
        };
        let ipv6 = context.headers.is(Headers::IPV6);
        // SAFETY: `writable` has shown that `WRITTEN` bytes are there; the frame's start is aligned for half words.
        unsafe {
            if let Some(endpoint) = endpoint {
                bytes.cast::<[u8; 6]>().write(endpoint.mac);
                bytes.add(6).cast::<[u8; 6]>().write(endpoint.host_mac);
            }
            if !ipv6 {
                *bytes.add(22) -= 1;
                // The header's checksum after one less in the high byte of its word (RFC 1141).
                let checksum = bytes.add(24).cast::<u16>();
                let sum = u32::from(u16::from_be(*checksum)) + 0x100;
                #[allow(clippy::cast_possible_truncation)] // the carry is added back
                let folded = (sum + (sum >> 16)) as u16;
                *checksum = folded.to_be();
                return true;
            }
            if context.hook == Hook::FromEndpoint {
                *bytes.add(21) -= 1;
                return true;
            }
        }
        // A device may have summed the packet: nothing in an IPv6 header makes up for the change.
        let limit = [context.headers.hop_limit - 1];
        // SAFETY: the context is valid, and the byte is there.
        unsafe {
            bpf_skb_store_bytes(
                self.0.cast(),
                21,
                limit.as_ptr().cast(),
                1,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            ) == 0
        }
    }

    /// The frame's first [`WRITTEN`] bytes in memory.
    #[inline(always)]
    fn writable(self) -> Option<*mut u8> {
        if let Some(bytes) = self.linear() {
            return Some(bytes);
        }
        // SAFETY: the context is valid.
        if unsafe { bpf_skb_pull_data(self.0.cast(), WRITTEN as u32) } != 0 {
            return None;
        }
        self.linear()
    }

    #[inline(always)]
    fn linear(self) -> Option<*mut u8> {
        // SAFETY: the kernel's context is valid while the program runs.
        let (start, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        (start + WRITTEN <= end).then_some(start as *mut u8)
    }
}

/// Both addresses of a packet in a row, as `translate::Tuple` and `Headers` begin.
#[inline(always)]
fn addresses_of<T>(ends: &T) -> *mut u32 {
    core::ptr::from_ref(ends).cast_mut().cast()
}

/// How the sum over two pairs of addresses differs.
#[inline(always)]
fn difference(old: *mut u32, new: *mut u32) -> u64 {
    // SAFETY: both point to two addresses of 16 bytes in a row, as the layouts' tests show.
    unsafe { bpf_csum_diff(old, 32, new, 32, 0).cast_unsigned() }
}

/// Without a checksum none is to be made, and a sum of zero is written as its other form (RFC 768).
#[inline(always)]
fn checksum_flags(headers: &Headers) -> u64 {
    if headers.protocol == protocol::UDP {
        u64::from(BPF_F_MARK_MANGLED_0)
    } else {
        0
    }
}

/// A redirecting helper's word, which is the program's return value.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // one of the TCX actions
fn action(word: i64) -> i32 {
    word as i32
}

impl Packet for Frame {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the kernel's context is valid while the program runs.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn head(&self, into: &mut Head) -> u32 {
        const ALL: u32 = HEAD as u32;
        let length = self.length();
        let count = if length < ALL { length } else { ALL };
        if count == 0 {
            return 0;
        }
        // SAFETY: the context is valid and `count` is at most the size of the buffer.
        let failed =
            unsafe { bpf_skb_load_bytes(self.0.cast(), 0, into.bytes.as_mut_ptr().cast(), count) };
        if failed == 0 { count } else { 0 }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, into: &mut [u8; N]) -> bool {
        // SAFETY: the context is valid and the buffer has `N` bytes.
        unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, into.as_mut_ptr().cast(), N as u32) == 0
        }
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        // SAFETY: the kernel's context is valid while the program runs.
        unsafe { (*self.0).vlan_present != 0 }
    }
}
