//! The programs in the kernel beside the datapath over memory: both have the same maps, judge the same frame, and must do the same.
//!
//! What is compared after every frame: what becomes of it, its bytes, the events, the connections, and all counters. The frames and what
//! is expected of them are the specification's.

mod bytes;
mod ground;
mod mirror;

use std::sync::{Mutex, PoisonError};

use sluice_abi::config::Config;
use sluice_abi::conntrack::{ConntrackEntry, ConntrackKey};
use sluice_abi::context::Outcome;
use sluice_abi::event::{Event, Hook};
use sluice_abi::parse::ether_type;
use sluice_datapath::load::{Datapath, Sizes};
use sluice_datapath::state::{Counters, Events};
use sluice_datapath::test_run::{Input, Output};

use crate::common::{Judged, Twin, ones_sum};
use mirror::Mirror;

/// What the programs return.
const DROP: u32 = 2;
const NEXT: u32 = u32::MAX;
const REDIRECT: u32 = 7;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Whether tests that need root and the programs are asked for.
pub(crate) fn kernel_tests() -> bool {
    std::env::var_os("SLUICE_KERNEL_TESTS").is_some()
}

/// A loaded datapath of its own, with maps that start empty.
pub(crate) struct Kernel {
    pub(crate) datapath: Datapath,
    events: Events,
    counters: Counters,
    mirror: Mirror,
    /// The time of the memory it was compared with last.
    now: u64,
}

impl Kernel {
    pub(crate) fn new(sizes: &Sizes) -> Self {
        ground::enter();
        let datapath = Datapath::open(None, sizes).unwrap();
        Self {
            events: datapath.events().unwrap(),
            counters: datapath.counters().unwrap(),
            mirror: Mirror::new(&datapath),
            datapath,
            now: 0,
        }
    }

    /// Runs a program on a frame.
    pub(crate) fn run(
        &self,
        hook: Hook,
        ifindex: u32,
        ingress: u32,
        mark: u32,
        frame: &[u8],
    ) -> Output {
        let input = Input {
            ifindex,
            ingress_ifindex: ingress,
            mark,
            repeat: 1,
        };
        self.datapath.test_run(hook, frame, &input).unwrap()
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.next_event()).collect()
    }
}

/// Datapaths that no node has at present: loading one takes longer than a test.
static IDLE: Mutex<Vec<Kernel>> = Mutex::new(Vec::new());

/// A datapath beside a node's memory; goes back to the idle ones with the node.
pub(crate) struct KernelTwin(Option<Kernel>);

impl KernelTwin {
    pub(crate) fn new() -> Self {
        ground::enter();
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut kernel = idle.unwrap_or_else(|| Kernel::new(&SIZES));
        kernel.mirror.forget();
        kernel.take_events();
        kernel.now = 0;
        Self(Some(kernel))
    }
}

/// As small as the node of the specification.
const SIZES: Sizes = Sizes {
    endpoints: 8,
    addresses: 64,
    prefixes: 64,
    tables: 16,
    peers: 256,
    programs: 16,
    ranges: 256,
    attributions: 64,
    services: 32,
    backends: 32,
    connections: 8,
    rules: 64,
    event_bytes: 1 << 16,
};

impl Drop for KernelTwin {
    fn drop(&mut self) {
        // After a failure nobody knows what is in its maps.
        if let Some(kernel) = self.0.take()
            && !std::thread::panicking()
        {
            IDLE.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(kernel);
        }
    }
}

impl Twin for KernelTwin {
    fn forget(&mut self, key: &ConntrackKey) {
        let kernel = self.0.as_ref().expect("it has one until it is dropped");
        kernel.mirror.forget_connection(key);
    }

    /// Whether the kernel runs a program on a frame at all: it wants a payload, and the whole of the first header that the frame
    /// announces (`bpf_prog_test_run_skb` in `net/bpf/test_run.c`).
    fn takes(&self, frame: &[u8]) -> bool {
        let least = match frame.get(12..ETHERNET) {
            Some([8, 0]) => ETHERNET + 20,
            Some([0x86, 0xdd]) => ETHERNET + 40,
            _ => ETHERNET + 1,
        };
        frame.len() >= least
    }

    fn judge(&mut self, judged: &Judged<'_>) {
        // A memory made smaller than its maps has no like in the kernel.
        if judged.memory.capacity.is_some() {
            return;
        }
        let kernel = self.0.as_mut().expect("it has one until it is dropped");
        let memory = judged.memory;
        kernel.mirror.write(memory);
        let passed = memory.now.saturating_sub(kernel.now);
        if kernel.now != 0 && passed != 0 {
            kernel.mirror.age(passed);
        }
        kernel.now = memory.now;
        let seen = judged.seen;
        let output = kernel.run(
            judged.hook,
            seen.ifindex,
            seen.ingress_ifindex,
            judged.sight,
            judged.frame,
        );
        let what = || {
            format!(
                "{:?} of {:?}: {:?} ({:?}) over memory, and the program returned {} in the kernel",
                judged.hook,
                judged.frame,
                judged.outcome,
                judged.context.reason,
                output.code.cast_signed()
            )
        };
        let events = kernel.take_events();
        assert_eq!(
            timeless(&events),
            timeless(judged.events),
            "events: {}",
            what()
        );
        assert_eq!(output.code, code_of(judged), "{}", what());
        check_bytes(judged, &output.packet, &what);
        assert_eq!(
            kernel.mirror.connections(),
            connections(&memory.entries()),
            "connections: {}",
            what()
        );
        assert_eq!(
            kernel.mirror.rules(),
            memory.all_rules(),
            "rules: {}",
            what()
        );
        let drops = kernel.counters.drops().unwrap();
        let drops: Vec<_> = drops
            .iter()
            .map(|drop| ((drop.hook, drop.reason), drop.counter))
            .collect();
        assert_eq!(drops, memory.all_drops(), "drops: {}", what());
    }
}

/// The program's word for what was decided.
const fn code_of(judged: &Judged<'_>) -> u32 {
    match judged.outcome {
        Outcome::Drop => DROP,
        Outcome::Deliver | Outcome::Reply | Outcome::Tunnel => REDIRECT,
        // The ground has a route to everywhere.
        Outcome::Route if by_fib(judged) => REDIRECT,
        Outcome::Stack | Outcome::Route | Outcome::Wrap | Outcome::Accept => NEXT,
    }
}

/// Whether what leaves the node takes its routes in the program.
const fn by_fib(judged: &Judged<'_>) -> bool {
    judged.memory.config.flags & Config::FORWARD != 0
}

/// What became of the frame's bytes.
fn check_bytes(judged: &Judged<'_>, after: &[u8], what: &dyn Fn() -> String) {
    if judged.outcome == Outcome::Reply {
        let reply = &judged.context.reply;
        let length = usize::from(reply.length);
        assert_eq!(after[..length], reply.bytes[..length], "{}", what());
        return;
    }
    let translated = bytes::translated(judged);
    let before = &translated.frame;
    // Whatever the sums were, right or wrong, they are after.
    for check in &translated.checks {
        assert!(check.holds(judged.frame, after), "{check:?}: {}", what());
    }
    let same = |wanted: &[u8], from: usize| {
        let mut after = after.to_vec();
        let mut wanted = [&after[..from], wanted].concat();
        for at in &translated.checksums {
            for bytes in [&mut after, &mut wanted] {
                bytes[*at..at + 2].fill(0);
            }
        }
        assert_eq!(after, wanted, "{}", what());
    };
    match judged.outcome {
        // The kernel writes the hardware addresses when it knows the next hop's.
        Outcome::Tunnel => {
            assert_eq!(after[..12], before[..12], "{}", what());
            same(&one_hop_on(before), 12);
        }
        Outcome::Route if by_fib(judged) => {
            assert_eq!(after[..12], before[..12], "{}", what());
            same(&one_hop_on(before), 12);
        }
        Outcome::Drop => assert_eq!(after, judged.frame, "{}", what()),
        Outcome::Stack | Outcome::Route | Outcome::Wrap | Outcome::Accept => same(before, 0),
        Outcome::Reply => unreachable!("looked at above"),
        Outcome::Deliver => {
            let endpoint = &judged.memory.endpoints[&judged.context.deliver];
            assert_eq!(
                (&after[..6], &after[6..12]),
                (&endpoint.mac[..], &endpoint.host_mac[..]),
                "{}",
                what()
            );
            same(&one_hop_on(before), 12);
            if judged.context.headers.ether_type == ether_type::IPV4 {
                assert_eq!(
                    ones_sum(&after[14..34]) % 0xffff,
                    ones_sum(&judged.frame[14..34]) % 0xffff,
                    "{}",
                    what()
                );
            }
        }
    }
}

/// The frame from its `EtherType` on with one hop less; the IPv4 header's checksum as whoever computes it anew would change it
/// (RFC 1624).
fn one_hop_on(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if bytes[12..14] == ether_type::IPV6.to_be_bytes() {
        bytes[21] -= 1;
        return bytes[12..].to_vec();
    }
    let old = u16::from_be_bytes([bytes[22], bytes[23]]);
    bytes[22] -= 1;
    let new = u16::from_be_bytes([bytes[22], bytes[23]]);
    let sum = u16::from_be_bytes([bytes[24], bytes[25]]);
    // HC' = ~(~HC + ~m + m'), with ones' complement sums.
    let added = [!sum, !old, new].map(u16::to_be_bytes).concat();
    let sum = !ones_sum(&added);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[12..].to_vec()
}

/// Events without the time, which no two clocks tell alike.
fn timeless(events: &[Event]) -> Vec<Event> {
    events
        .iter()
        .map(|event| Event { time: 0, ..*event })
        .collect()
}

/// Connections in an order, without their times.
fn connections(entries: &[ConntrackEntry]) -> Vec<ConntrackEntry> {
    let timeless = |entry: &ConntrackEntry| ConntrackEntry {
        created: 0,
        last_seen: 0,
        ..*entry
    };
    let mut entries: Vec<_> = entries.iter().map(timeless).collect();
    entries.sort_by_key(|entry| entry.key);
    entries
}
