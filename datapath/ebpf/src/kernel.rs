//! The datapath over the kernel's maps, clock and ring buffer. Nothing is decided here.

use aya_ebpf::{
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    maps::lpm_trie::Key,
};
use sluice_abi::{
    Cookie, Range, Reason,
    atomic::{self, Shared},
    config::{Config, epoch},
    conntrack::{Connection, ConntrackEntry, ConntrackKey, FragmentKey, FragmentValue},
    datapath::{Bucket, Datapath},
    endpoint::Endpoint,
    event::{Counter, Event, Hook},
    ipcache::{Address, AddressInfo, PrefixKey},
    overlay::NodeRecord,
    policy::{AttributionKey, PeerKey, PeerValue, PolicyTables, TableDefaults},
    program::{Cell, Program, RangeKey},
    reason::REASON_SLOTS,
    service::{Affinity, AffinityKey, Backend, Frontend, Service},
};

use crate::maps::{
    ATTRIBUTIONS, CONFIG, CONNTRACK, CONNTRACK_CURSORS, CONNTRACK_SLOTS, DROP_BUCKETS,
    DROP_COUNTERS, ENDPOINTS, EPOCHS, EVENTS, FRAGMENTS, IPCACHE, IPCACHE_PREFIXES,
    MASQUERADE_EXCLUDED, NODE_CIDRS, NODES, PEERS, PROGRAM_RANGES, PROGRAMS, RING_LOSSES,
    RULE_COUNTERS, RangeBits, SERVICE_AFFINITY, SERVICE_BACKENDS, SERVICE_LISTS, SERVICES,
    SLOTS_BY_ADDRESS, SLOTS_BY_IFINDEX, TABLE_DEFAULTS, TABLE_REVISIONS, WATERMARKS,
};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// The maps of the object that the program is in.
pub(crate) struct Kernel;

/// The low half of a word that userland stores whole.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // the low half is what counts
fn low_half(word: Option<*const u64>) -> u32 {
    match word {
        // SAFETY: an aligned word of a live array element; userland stores it as one word.
        Some(word) => unsafe { word.read_volatile() as u32 },
        None => 0,
    }
}

impl PolicyTables for Kernel {
    #[inline(always)]
    fn revision(&self, table: u32) -> u32 {
        low_half(TABLE_REVISIONS.get_ptr(table))
    }

    #[inline(always)]
    fn defaults(&self, table: u32) -> Option<&TableDefaults> {
        TABLE_DEFAULTS.get(table)
    }

    #[inline(always)]
    fn peer(&self, key: &PeerKey) -> Option<PeerValue> {
        let value = PEERS.get_ptr(key)?;
        // The kernel writes an element that it uses again from its start, the key before the cell: a key that still is the right one
        // after the cell was read shows that the cell was its own. Volatile, so that no compiler turns the order round.
        // SAFETY: a live element, aligned to its words, of which any bits are valid; the caller checks the key.
        unsafe {
            let cell = (&raw const (*value).cell).read_volatile();
            let key = (&raw const (*value).key).read_volatile();
            Some(PeerValue { key, cell })
        }
    }

    #[inline(always)]
    fn program(&self, id: u32) -> Option<&Program> {
        PROGRAMS.get(id)
    }

    #[inline(always)]
    fn range(&self, key: &RangeKey) -> Option<Cell> {
        let key = core::ptr::from_ref(key).cast::<Key<RangeBits>>();
        // SAFETY: both are a length followed by eight bytes, without padding.
        PROGRAM_RANGES.get(unsafe { &*key }).copied()
    }

    #[inline(always)]
    fn attribution(&self, key: &AttributionKey) -> Option<Cookie> {
        // SAFETY: the value is one word and copied at once.
        unsafe { ATTRIBUTIONS.get(key).copied() }
    }
}

impl Datapath for Kernel {
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper has no arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn precise_now(&self) -> u64 {
        // SAFETY: the helper has no arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn slot_by_ifindex(&self, ifindex: u32) -> u32 {
        // SAFETY: the value is one word and copied at once.
        unsafe { SLOTS_BY_IFINDEX.get(ifindex).copied().unwrap_or(0) }
    }

    #[inline(always)]
    fn slot_by_address(&self, address: &Address) -> u32 {
        // SAFETY: the value is one word and copied at once.
        unsafe { SLOTS_BY_ADDRESS.get(address).copied().unwrap_or(0) }
    }

    #[inline(always)]
    fn endpoint(&self, slot: u32) -> Option<&Endpoint> {
        ENDPOINTS.get(slot)
    }

    #[inline(always)]
    fn address(&self, address: &Address) -> Option<AddressInfo> {
        // SAFETY: the value is copied at once; the caller compares epochs before and after.
        unsafe { IPCACHE.get(address).copied() }
    }

    #[inline(always)]
    fn prefix(&self, key: &PrefixKey) -> Option<AddressInfo> {
        let key = core::ptr::from_ref(key).cast::<Key<Address>>();
        // SAFETY: both are a length followed by an address, without padding.
        IPCACHE_PREFIXES.get(unsafe { &*key }).copied()
    }

    #[inline(always)]
    fn node(&self, number: u32) -> Option<NodeRecord> {
        let record = NODES.get_ptr(number)?;
        // As for peers: an element that is used again has its number written before its address.
        // SAFETY: a live element, aligned to its words, of which any bits are valid.
        let record = unsafe {
            let underlay = (&raw const (*record).underlay).read_volatile();
            let number = (&raw const (*record).number).read_volatile();
            NodeRecord { number, underlay }
        };
        (record.number == number).then_some(record)
    }

    #[inline(always)]
    fn node_of(&self, key: &PrefixKey) -> u32 {
        let key = core::ptr::from_ref(key).cast::<Key<Address>>();
        // SAFETY: both are a length followed by an address, without padding.
        NODE_CIDRS.get(unsafe { &*key }).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn epoch(&self) -> u32 {
        low_half(EPOCHS.get_ptr(epoch::ADDRESSES))
    }

    #[inline(always)]
    fn watermark(&self, range: Range) -> u32 {
        low_half(WATERMARKS.get_ptr(range as u32))
    }

    #[inline(always)]
    fn connection(&self, key: &ConntrackKey) -> Option<&Connection> {
        let entry = CONNTRACK.get_ptr(key)?;
        // SAFETY: the same layout (checked where both are defined); what programs change after insertion is atomic, and a value stays
        // mapped while the program runs. What a reused element says is found out by its key.
        Some(unsafe { &*entry.cast::<Connection>() })
    }

    #[inline(always)]
    #[allow(clippy::needless_borrows_for_generic_args)] // the key would be copied
    fn insert_connection(&self, entry: &ConntrackEntry) -> bool {
        CONNTRACK.insert(&entry.key, entry, BPF_ANY).is_ok()
    }

    #[inline(always)]
    #[allow(clippy::needless_borrows_for_generic_args)] // the key would be copied
    fn claim_connection(&self, entry: &ConntrackEntry) -> bool {
        CONNTRACK.insert(&entry.key, entry, BPF_NOEXIST).is_ok()
    }

    #[inline(always)]
    fn excluded(&self, key: &PrefixKey) -> bool {
        let key = core::ptr::from_ref(key).cast::<Key<Address>>();
        // SAFETY: both are a length followed by an address, without padding.
        MASQUERADE_EXCLUDED.get(unsafe { &*key }).is_some()
    }

    #[inline(always)]
    fn remove_connection(&self, key: &ConntrackKey) {
        // Gone already is gone.
        let _ = CONNTRACK.remove(key);
    }

    #[inline(always)]
    fn next_position(&self, slot: u32) -> u64 {
        match CONNTRACK_CURSORS.get_ptr_mut(slot) {
            Some(cursor) => {
                // SAFETY: an aligned word of a live array element, changed by atomic operations only.
                let cursor = unsafe { &*cursor.cast::<Shared<u64>>() };
                cursor.fetch_add(1)
            }
            None => 0,
        }
    }

    #[inline(always)]
    fn ring_key(&self, element: u32, into: &mut ConntrackKey) -> bool {
        let Some(kept) = CONNTRACK_SLOTS.get(element) else {
            return false;
        };
        // A key torn by another CPU's store finds no connection and evicts nothing.
        atomic::copy(kept, into);
        true
    }

    #[inline(always)]
    fn set_ring_key(&self, element: u32, key: &ConntrackKey) {
        if let Some(kept) = CONNTRACK_SLOTS.get_ptr_mut(element) {
            // SAFETY: a live array element. The position is this program's alone until the ring comes round.
            atomic::copy(key, unsafe { &mut *kept });
        }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        // SAFETY: the value is copied at once; the caller checks the key that it carries.
        unsafe { FRAGMENTS.get(key).copied() }
    }

    #[inline(always)]
    #[allow(clippy::needless_borrows_for_generic_args)] // the key would be copied
    fn insert_fragment(&self, value: &FragmentValue) {
        // A fragment that can't be remembered costs the packet its later fragments, no more.
        let _ = FRAGMENTS.insert(&value.key, value, BPF_ANY);
    }

    #[inline(always)]
    fn service(&self, key: &Frontend) -> Option<Service> {
        // SAFETY: the value is copied at once; the caller checks the key that it carries.
        unsafe { SERVICES.get(key).copied() }
    }

    #[inline(always)]
    fn listed_backend(&self, element: u32) -> Option<u32> {
        SERVICE_LISTS.get(element).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend> {
        SERVICE_BACKENDS.get(id).copied()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: the value is copied at once; the caller checks the key that it carries.
        unsafe { SERVICE_AFFINITY.get(key).copied() }
    }

    #[inline(always)]
    #[allow(clippy::needless_borrows_for_generic_args)] // the key would be copied
    fn set_affinity(&self, value: &Affinity) {
        // The map evicts; a client that can't be remembered is balanced anew.
        let _ = SERVICE_AFFINITY.insert(&value.key, value, BPF_ANY);
    }

    #[inline(always)]
    fn count_drop(&self, hook: Hook, reason: Reason, bytes: u64) {
        let element = hook as u32 * SLOTS + reason as u32;
        if let Some(counter) = DROP_COUNTERS.get_ptr_mut(element) {
            add(counter, 1, bytes);
        }
    }

    #[inline(always)]
    fn count_rule(&self, cookie: Cookie, packets: u64, bytes: u64) {
        if let Some(counter) = RULE_COUNTERS.get_ptr_mut(cookie) {
            add(counter, packets, bytes);
        } else {
            // A full map loses counts, never packets.
            let _ = RULE_COUNTERS.insert(cookie, Counter { packets, bytes }, BPF_ANY);
        }
    }

    #[inline(always)]
    fn bucket(&self, slot: u32, reason: Reason) -> Option<&Bucket> {
        let bucket = DROP_BUCKETS.get_ptr(slot * SLOTS + reason as u32)?;
        // SAFETY: the same two words, changed by atomic operations only, in a live array element.
        Some(unsafe { &*bucket.cast::<Bucket>() })
    }

    #[inline(always)]
    fn emit(&self, event: &Event) {
        if EVENTS.output::<Event>(event, 0).is_err()
            && let Some(losses) = RING_LOSSES.get_ptr_mut(0)
        {
            // SAFETY: this CPU's copy of a live element, which no other program changes meanwhile.
            unsafe { *losses += 1 };
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // 64
const SLOTS: u32 = REASON_SLOTS as u32;

#[inline(always)]
fn add(counter: *mut Counter, packets: u64, bytes: u64) {
    // SAFETY: this CPU's copy of a live element, which no other program changes meanwhile.
    unsafe {
        (*counter).packets += packets;
        (*counter).bytes += bytes;
    }
}
