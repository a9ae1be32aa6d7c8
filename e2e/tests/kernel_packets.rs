//! Packets in, verdicts out, in the kernel. The specification is the datapath's own (`datapath/abi/tests/specification`), run frame by
//! frame through the programs in the kernel and over ordinary memory: whatever differs fails. Needs root: `cargo xtask test` runs it, by
//! setting `SLUICE_KERNEL_TESTS`; without that only the half over memory runs.

#[path = "kernel_rig/budget.rs"]
mod budget;
#[path = "../../datapath/abi/tests/common/mod.rs"]
mod common;
#[path = "kernel_rig/full.rs"]
mod full;
#[path = "../../datapath/abi/tests/specification/headers.rs"]
mod headers;
mod kernel_rig;
#[path = "../../datapath/abi/tests/specification/masquerade.rs"]
mod masquerade;
#[path = "../../datapath/abi/tests/specification/overlay.rs"]
mod overlay;
#[path = "../../datapath/abi/tests/specification/policy.rs"]
mod policy;
#[path = "../../datapath/abi/tests/specification/service.rs"]
mod service;
#[path = "../../datapath/abi/tests/specification/source.rs"]
mod source;
#[path = "../../datapath/abi/tests/specification/stack.rs"]
mod stack;
#[path = "../../datapath/abi/tests/specification/stream.rs"]
mod stream;

use common::{A, FAMILIES, Node, SYN, frame, ip, tcp};
use kernel_rig::{KernelTwin, kernel_tests};
use sluice_abi::config::Config;
use sluice_abi::context::Outcome;

/// How many cases a property is tried with: fewer than over memory alone, of several frames each.
const CASES: u32 = 1600;

/// The programs in the kernel.
fn twin() -> Option<Box<dyn common::Twin>> {
    kernel_tests().then(|| Box::new(KernelTwin::new()) as Box<dyn common::Twin>)
}

#[test]
fn what_leaves_the_node_takes_its_routes_one_hop_on() {
    for f in FAMILIES {
        let mut node = Node::new();
        node.memory.config.flags |= Config::FORWARD;
        for destination in [f.world(), f.remote()] {
            let sent = frame(A, &ip(f.a(), destination, 6, &tcp(40_000, 443, SYN)));
            assert_eq!(node.send(A, &sent), Ok(Outcome::Route));
        }
        let to_node = frame(A, &ip(f.a(), f.node(), 6, &tcp(40_000, 443, SYN)));
        assert_eq!(
            node.send(A, &to_node),
            Ok(Outcome::Stack),
            "not for its own addresses"
        );
    }
}
